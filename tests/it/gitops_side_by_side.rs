//! A remote that does not answer holds up nobody else, and a commit that a forge shows late is waited for.

use crate::support;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::gitops::{is_root, ran, skip, user_name};
use crate::support::{Host, Origin, Service, eventually, git};

/// A server that takes connections and says nothing.
struct Silent {
    port: u16,
    connections: Receiver<TcpStream>,
}

impl Silent {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, connections) = channel();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if sender.send(connection).is_err() {
                    return;
                }
            }
        });
        Self { port, connections }
    }

    /// The connections, once there are so many.
    fn wait(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.connections.recv_timeout(Duration::from_secs(20)).unwrap()).collect()
    }
}

/// A host with the repository `acme/b`, which is well, and others on a server that never answers.
struct Hanging {
    host: Host,
    origin: Origin,
    silent: Silent,
}

impl Hanging {
    /// `url` makes a remote of a port and a name.
    fn new(names: &[&str], url: impl Fn(u16, &str) -> String) -> Self {
        let host = Host::new();
        let origin = Origin::new(&host);
        origin.push(&[("README", "one\n")]);
        let silent = Silent::start();
        std::fs::create_dir_all(host.state().join("proxy/queue")).unwrap();
        let me = user_name();
        let repository = |name: &str, url: &str| {
            let path = host.path(name).display().to_string();
            format!("[[repository]]\nname = \"acme/{name}\"\nurl = \"{url}\"\npath = \"{path}\"\nuser = \"{me}\"\n")
        };
        let mut text: Vec<String> = names.iter().map(|name| repository(name, &url(silent.port, name))).collect();
        text.insert(1.min(text.len()), repository("b", origin.url()));
        host.configure(&text.concat());
        let ran = ran(hanging_command(&host, &["--json", "acme/b"]));
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        Self { host, origin, silent }
    }

    fn request(&self, name: &str, after: Option<&str>) {
        let queue = self.host.state().join("proxy/queue");
        std::fs::create_dir_all(&queue).unwrap();
        let mut body = serde_json::json!({"repository": format!("acme/{name}"), "deliveries": ["d-1"]});
        if let Some(after) = after {
            body["after"] = after.into();
        }
        std::fs::write(queue.join(".unfinished"), body.to_string()).unwrap();
        std::fs::rename(queue.join(".unfinished"), queue.join(format!("acme__{name}.json"))).unwrap();
    }

    fn start(&self) -> Service {
        self.host.start("gitops-sync", &[])
    }

    /// Queues a push to `acme/b` and returns how long a run, started now or at work, takes to have it applied.
    fn deliver(&self, number: u32, run: &Service) -> Duration {
        let commit = self.origin.push(&[("README", &format!("{number}\n"))]);
        self.request("b", None);
        let began = Instant::now();
        run.line_where("deployed", |line| line["msg"] == "deployed" && line["to"] == commit.as_str());
        let took = began.elapsed();
        assert_eq!(git(&self.host.path("b"), &["rev-parse", "HEAD"]), commit);
        took
    }

    fn head(&self) -> String {
        git(&self.host.path("b"), &["rev-parse", "HEAD"])
    }
}

fn hanging_command(host: &Host, arguments: &[&str]) -> std::process::Command {
    let mut command = host.command("gitops-sync");
    command.args(arguments);
    command
}

fn http(port: u16, name: &str) -> String {
    format!("http://127.0.0.1:{port}/{name}.git")
}

fn ssh(port: u16, name: &str) -> String {
    format!("ssh://git@127.0.0.1:{port}/{name}.git")
}

#[test]
fn a_delivery_is_applied_while_other_remotes_hang() {
    for (url, queued) in [(http as fn(u16, &str) -> String, false), (http, true), (ssh, false), (ssh, true)] {
        let site = Hanging::new(&["a", "c", "d", "e"], url);
        if queued {
            ["a", "c", "d", "e"].into_iter().for_each(|name| site.request(name, None));
        }
        // As path unit or timer start it; three of those that are only due have a place.
        let run = site.start();
        let _held = site.silent.wait(if queued { 4 } else { 3 });
        // It waits for none of them: they hang for much longer, and contrib/bench has how long it takes.
        let meanwhile = (0..5).map(|number| site.deliver(number, &run)).min().unwrap();
        assert!(meanwhile < Duration::from_secs(5), "{meanwhile:?} while others hang ({queued})");
        // By hand too, and a hung one says that it is at work.
        let commit = site.origin.push(&[("README", "by hand\n")]);
        let by_hand = ran(hanging_command(&site.host, &["--json", "acme/b"]));
        assert_eq!((by_hand.code, site.head()), (Some(0), commit), "{by_hand:#?}");
        let busy = ran(hanging_command(&site.host, &["--json", "acme/a"]));
        assert_eq!(busy.code, Some(75), "{busy:#?}");
        assert_eq!(busy.report["repositories"][0]["status"], "busy", "{busy:#?}");
        assert!(busy.took < Duration::from_secs(5), "{busy:#?}");
    }
}

#[test]
fn one_users_repositories_do_not_fill_all_places() {
    if !is_root() {
        return skip("places of one user", "root");
    }
    let names: Vec<String> = (10..30).map(|number| format!("of{number}")).collect();
    let site = Hanging::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), http);
    let file = site.host.path("hub.toml");
    let mut tables: Vec<String> =
        std::fs::read_to_string(&file).unwrap().split_inclusive("user = ").map(str::to_owned).collect();
    // All of one user's but the second, `b`.
    for (_, table) in tables.iter_mut().enumerate().filter(|(number, _)| ![0, 2].contains(number)) {
        *table = table.replacen("\"root\"", "\"daemon\"", 1);
    }
    site.host.configure(&tables.concat());
    names.iter().for_each(|name| site.request(name, None));
    let run = site.start();
    // More than there are places in all are asked for, one a second.
    let _held = site.silent.wait(12);
    assert!(site.silent.connections.recv_timeout(Duration::from_secs(4)).is_err(), "places are kept for others");
    let took = site.deliver(1, &run);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn those_that_are_due_are_fetched_side_by_side_and_leave_a_place() {
    let names = ["a", "c", "d", "e", "f"];
    let site = Hanging::new(&names, http);
    std::fs::remove_dir_all(site.host.state().join("gitops/checked")).unwrap();
    let run = site.start();
    let first = site.silent.wait(3);
    assert!(site.silent.connections.recv_timeout(Duration::from_millis(500)).is_err(), "a place is kept");
    // Who ends makes room for the next one, and `b`, which is well, had its turn.
    drop(first);
    let _second = site.silent.wait(2);
    run.line_where("b", |line| line["msg"] == "unchanged" && line["repo"] == "acme/b");
}

#[test]
fn a_commit_that_shows_late_is_waited_for_and_holds_up_nobody() {
    let site = Hanging::new(&[], http);
    for number in 0..2 {
        let before = site.head();
        // One commit, and two of which the delivery names the first.
        let told = site.origin.commit(&[("README", &format!("late {number}\n"))]);
        let tip = if number == 0 { told.clone() } else { site.origin.commit(&[("more", "x")]) };
        site.request("b", Some(&told));
        let mut run = site.start();
        let again = run.line("looked_at_again");
        assert_eq!((&again["lacks"], &again["repo"]), (&told.into(), &"acme/b".into()), "{again}");
        assert_eq!(site.head(), before);
        git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:main"]);
        run.line("deployed");
        assert_eq!(run.wait(), Some(0));
        assert_eq!(site.head(), tip);
        // Nothing of it is left for the next run.
        assert_eq!(support::gitops::names(&site.host.state().join("gitops/active")), [] as [String; 0]);
    }
}

#[test]
fn a_commit_that_does_not_show_is_given_up_by_a_newer_delivery() {
    let site = Hanging::new(&[], http);
    // No hint, what is no hint, and one that the branch has long.
    for after in [None, Some("main"), Some(site.head().as_str())] {
        site.request("b", Some(&"1".repeat(40)));
        let mut run = site.start();
        run.line("looked_at_again");
        let commit = site.origin.push(&[("README", &format!("{after:?}"))]);
        site.request("b", after);
        eventually("it is deployed", || site.head() == commit);
        assert_eq!(run.wait(), Some(0));
    }
}

#[test]
fn what_was_refused_and_is_deployed_later_in_the_same_run_does_not_count() {
    let site = Hanging::new(&["slow"], http);
    let config = site.host.path("hub.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    site.host.configure(&format!("[gitops]\nfetch_timeout_seconds = 10\n{text}"));
    // The other remote keeps the run at work meanwhile, and fails in the end.
    std::fs::write(site.host.path("b").join("README"), "mine\n").unwrap();
    let commit = site.origin.push(&[("README", "two\n")]);
    site.request("slow", None);
    site.request("b", None);
    let mut run = site.start();
    run.line("refused");
    git(&site.host.path("b"), &["restore", "README"]);
    site.request("b", None);
    run.line("deployed");
    assert_eq!(site.head(), commit);
    assert_eq!(run.wait(), Some(1));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(site.host.state().join("gitops/run.json")).unwrap()).unwrap();
    assert!(record.to_string().contains("cannot fetch from"), "{record:#}");
}
