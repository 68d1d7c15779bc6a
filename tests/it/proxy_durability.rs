//! No delivery that got its 202 is lost: not by `kill -9`, not by a reader at the same time, not by a full disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::gateway::{Gateway, SECRET, host, skip};
use crate::support::{Host, push_body, send_raw, signature};
use serde_json::Value;

const REPOSITORIES: usize = 30;
/// A queue file keeps so many ids: to stay below makes every assertion exact.
const IDS: usize = 50;
const KILLS: usize = 25;

fn many_repositories() -> Host {
    let host = host("");
    let mut text = "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n".to_owned();
    for number in 0..REPOSITORIES {
        let path = host.path(&format!("r{number}")).display().to_string();
        text += &format!("[[repository]]\nname = \"acme/r{number}\"\nurl = \"{path}.git\"\npath = \"{path}\"\n");
    }
    host.configure(&text);
    host
}

/// Sends a signed push; true when it was answered with 202, none when there was no answer.
fn push(address: SocketAddr, repository: &str, id: &str) -> Option<bool> {
    let body = push_body(repository, "main");
    let mut request = format!(
        "POST /api/webhook/gitops HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n\
         X-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        signature(SECRET, &body),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    send_raw(address, &request).ok().map(|answer| answer.status == 202)
}

/// Adds the ids of a queue file to those of its repository. A torn file fails the test.
fn collect(path: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let request: Value =
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{} is torn: {error}", path.display()));
    let ids = request["deliveries"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
    found.entry(request["repository"].as_str().unwrap().to_owned()).or_default().extend(ids);
    request["count"].as_u64().unwrap()
}

fn finished_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
}

/// Loads a gateway from eight threads until `end` has done its work; returns the acknowledged ids by repository.
fn load(gateway: &Gateway, round: usize, end: impl FnOnce()) -> BTreeMap<String, BTreeSet<String>> {
    let acknowledged = Mutex::new(BTreeMap::<String, BTreeSet<String>>::new());
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REPOSITORIES * IDS {
                        return;
                    }
                    let (repository, id) = (format!("acme/r{}", number % REPOSITORIES), format!("{round}-{number}"));
                    match push(gateway.public, &repository, &id) {
                        Some(true) => {
                            acknowledged.lock().unwrap().entry(repository).or_default().insert(id);
                        }
                        Some(false) => panic!("{id} was refused"),
                        None => return,
                    }
                }
            });
        }
        end();
        stop.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn a_kill_loses_no_acknowledged_delivery() {
    let mut gateway = Gateway::on(many_repositories());
    let mut total = 0;
    for round in 0..KILLS {
        let random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() % 150;
        let acknowledged = load(&gateway, round, || {
            // The moment of the kill is what is random here; nothing is waited for.
            std::thread::sleep(Duration::from_millis(u64::from(random)));
            gateway.service.signal("KILL");
        });
        gateway.service.wait();
        gateway = Gateway::on(gateway.host);
        let queue = gateway.host.state().join("proxy/queue");
        let mut found = BTreeMap::new();
        for file in finished_files(&queue) {
            collect(&file, &mut found);
            std::fs::remove_file(file).unwrap();
        }
        for (repository, ids) in &acknowledged {
            let lost: Vec<_> = ids.difference(found.get(repository).unwrap_or(&BTreeSet::new())).cloned().collect();
            assert!(lost.is_empty(), "killed after {random} ms, {repository} lost {lost:?}");
            total += ids.len();
        }
        assert!(gateway.queued().is_empty(), "an unfinished file was left: {:?}", gateway.queued());
    }
    assert!(total > KILLS, "{total} acknowledged deliveries say little");
}

#[test]
fn a_worker_that_takes_requests_meanwhile_misses_none() {
    let gateway = Gateway::on(many_repositories());
    let (queue, taken) = (gateway.host.state().join("proxy/queue"), gateway.host.path("taken"));
    std::fs::create_dir(&taken).unwrap();
    let mut number = 0;
    let mut take = || {
        for file in finished_files(&queue) {
            number += 1;
            std::fs::rename(file, taken.join(format!("{number}.json"))).unwrap();
        }
    };
    let acknowledged = load(&gateway, 0, || {
        while gateway.get_admin("/api/status").json()["proxy"]["deliveries"]["queued"].as_u64().unwrap() < 600 {
            take();
        }
    });
    take();
    let mut found = BTreeMap::new();
    let count: u64 = finished_files(&taken).iter().map(|file| collect(file, &mut found)).sum();
    for (repository, ids) in &acknowledged {
        assert!(ids.is_subset(&found[repository]), "{repository}");
    }
    assert!(count >= acknowledged.values().map(|ids| ids.len() as u64).sum());
    assert!(number > 0);
}

#[test]
fn a_queue_that_cannot_be_written_is_503_and_heals() {
    let gateway = Gateway::new();
    let queue = gateway.host.state().join("proxy/queue");
    std::fs::remove_dir(&queue).unwrap();
    std::fs::write(&queue, "in the way").unwrap();
    let answer = gateway.push("1");
    assert!(answer.status == 503 && answer.header("Retry-After").is_some(), "{answer:?}");
    let health = gateway.get("/healthz");
    assert_eq!(health.status, 503);
    let told = health.json();
    assert!(told["instance"].is_string() && !told.to_string().contains("queue/"), "{told}");
    let status = gateway.get_admin("/api/status").json();
    assert!(status["status"] == "degraded" && status["queue"]["error"].as_str().unwrap().contains("queue"), "{status}");
    assert_eq!(std::fs::read(&queue).unwrap(), b"in the way");
    std::fs::remove_file(&queue).unwrap();
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(gateway.push("2").status, 202);
}

#[test]
fn a_full_queue_is_503() {
    let gateway = Gateway::new();
    let queue = gateway.host.state().join("proxy/queue");
    for number in 0..=1000 {
        std::fs::write(queue.join(number.to_string()), "").unwrap();
    }
    assert_eq!((gateway.push("1").status, gateway.get("/healthz").status), (503, 503));
    assert!(!queue.join("acme__infra.json").exists());
}

/// A small file system, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_503_and_nothing_is_half_written() {
    let host = host("");
    let Some(_disk) = SmallDisk::mount(host.state().join("proxy")) else {
        skip("a_full_disk_is_503_and_nothing_is_half_written", "run it as root where mounts are allowed");
        return;
    };
    let gateway = Gateway::on(host);
    assert_eq!(gateway.push("before").status, 202);
    let before = gateway.request("acme__infra");
    let ballast = gateway.host.state().join("proxy/ballast");
    let filled = std::fs::write(&ballast, vec![0; 1 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(gateway.get("/healthz").status, 503);
    for number in 0..5 {
        let answer = gateway.push(&format!("full-{number}"));
        assert!(answer.status == 503 && answer.header("Retry-After").is_some(), "{answer:?}");
    }
    assert_eq!(gateway.queued(), ["acme__infra.json"]);
    assert_eq!(gateway.request("acme__infra"), before);
    std::fs::remove_file(ballast).unwrap();
    assert_eq!((gateway.get("/healthz").status, gateway.push("after").status), (200, 202));
    assert_eq!(gateway.request("acme__infra")["deliveries"], serde_json::json!(["before", "after"]));
}
