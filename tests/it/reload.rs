//! hub.toml and credentials are taken anew by what runs: the proxy, the gate, hub up.

use crate::support::tailnet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, OLD_SECRET, SECRET, WEBHOOK, host};
use crate::support::{Host, deliver, eventually, free_address, push_body, send, signature};
use serde_json::{Value, json};

/// A configuration with this in `[proxy]`, and a repository acme/infra.
fn configuration(host: &Host, proxy: &str, more: &str) -> String {
    let path = |name: &str| host.path(name).display().to_string();
    format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{proxy}\n\
         [[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\n{more}\n",
        path("infra.git"),
        path("infra"),
    )
}

fn repository(host: &Host, name: &str) -> String {
    let path = host.path(&name.replace('/', "-")).display().to_string();
    format!("[[repository]]\nname = \"{name}\"\nurl = \"{path}.git\"\npath = \"{path}\"\n")
}

fn status(gateway: &Gateway, repository: &str) -> u16 {
    deliver(gateway.public, SECRET, "push", "1", &push_body(repository, "main")).status
}

/// How many lines there are with this `msg`.
fn count(gateway: &Gateway, msg: &str) -> usize {
    gateway.service.lines().iter().filter(|line| line["msg"] == msg).count()
}

fn reasons(gateway: &Gateway) -> Vec<String> {
    let status = gateway.get_admin("/api/status").json();
    status["reasons"].as_array().unwrap().iter().map(|reason| reason["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_second_repository_and_a_new_pipeline_are_known_without_a_restart() {
    let gateway = Gateway::new();
    let host = &gateway.host;
    let instance = gateway.get("/healthz").json()["instance"].clone();
    assert_eq!((status(&gateway, "acme/infra"), status(&gateway, "acme/shop")), (202, 404));
    assert_eq!(send(gateway.admin, "POST", "/api/sync/files", &[], b"").status, 404);
    let inbox = host.path("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let pipeline = format!("[[pipeline]]\nname = \"files\"\nsource = \"file:{}\"\n", inbox.display());
    host.configure(&configuration(host, "max_body = \"64 KiB\"", &(repository(host, "acme/shop") + &pipeline)));
    eventually("the second repository is known", || status(&gateway, "acme/shop") == 202);
    let line = gateway.service.line("repositories_changed");
    assert_eq!((&line["came"], &line["gone"]), (&json!(["acme/shop"]), &json!(["acme/app"])));
    let line = gateway.service.line("pipelines_changed");
    assert_eq!((&line["came"], &line["gone"]), (&json!(["files"]), &json!([])));
    let changed = gateway.service.line("configuration_changed");
    assert_eq!(changed["changed"], json!([host.path("hub.toml")]));
    assert_eq!((status(&gateway, "acme/infra"), status(&gateway, "acme/app")), (202, 404));
    let answer = send(gateway.admin, "POST", "/api/sync/files", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = gateway.get_admin("/api/status").json();
    let names: Vec<&Value> = page["repositories"].as_array().unwrap().iter().map(|one| &one["repository"]).collect();
    assert_eq!(names, ["acme/infra", "acme/shop"]);
    let large = vec![b'['; 65 << 10];
    let fields = [("Content-Type", "application/json"), ("X-Hub-Signature-256", &signature(SECRET, &large))];
    assert_eq!(send(gateway.public, "POST", WEBHOOK, &fields, &large).status, 413);
    assert_eq!(gateway.get("/healthz").json()["instance"], instance, "it is the same process");
}

#[test]
fn what_cannot_be_used_is_refused_and_told_and_the_old_one_stays_in_force() {
    let gateway = Gateway::new();
    let host = &gateway.host;
    let right = std::fs::read_to_string(host.path("hub.toml")).unwrap();
    for (number, (text, part)) in [
        ("", "hub.toml: is empty, and was not when it was taken"),
        ("nonsense", "hub.toml:1: not TOML"),
        ("[proxy]\nadmin_listen = \"0.0.0.0:0\"", "admin-token"),
        ("state_dir = \"/srv/x\"\n[gate]\nport = 1", "hub.toml:3: gate.port"),
    ]
    .into_iter()
    .enumerate()
    {
        host.configure(text);
        eventually(&format!("the page says why: {text:?}"), || reasons(&gateway).iter().any(|one| one.contains(part)));
        eventually("the log says so once", || count(&gateway, "configuration_refused") == number + 1);
        assert_eq!((status(&gateway, "acme/infra"), status(&gateway, "acme/app")), (202, 200));
        let output = host.run("hub", &["status", "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["reasons"].to_string().contains(part), "{text:?}: {told}");
        assert_ne!(output.status.code(), Some(0));
        let output = host.run("hub", &["doctor", "--json"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{text:?}");
        host.configure(&right);
        eventually("nothing is wrong any more", || reasons(&gateway).is_empty());
    }
    let record = host.json("state/proxy/run.json");
    assert_eq!(
        (&record["status"], &record["details"]["configuration_refused"]),
        (&json!("running"), &Value::Null),
        "{record}"
    );
    std::fs::rename(host.path("hub.toml"), host.path("away")).unwrap();
    eventually("it is told to be gone", || reasons(&gateway).iter().any(|one| one.contains("hub.toml: is gone")));
    assert_eq!(status(&gateway, "acme/infra"), 202);
    assert!(host.json("state/proxy/run.json")["details"]["configuration_refused"]["reason"].is_string());
}

#[test]
fn a_signal_takes_it_at_once_and_neither_a_wrong_file_nor_many_signals_end_the_process() {
    let mut gateway = Gateway::new();
    let host = &gateway.host;
    // Half a file, and one that is never left alone: nothing but the signal takes it.
    host.configure(&configuration(host, "", &repository(host, "acme/shop")));
    let asked = Instant::now();
    gateway.service.signal("HUP");
    eventually("it is taken", || status(&gateway, "acme/shop") == 202);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    host.configure("nonsense");
    gateway.service.signal("HUP");
    gateway.service.line("configuration_refused");
    for _ in 0..200 {
        gateway.service.signal("HUP");
    }
    assert_eq!(status(&gateway, "acme/shop"), 202);
    assert!(count(&gateway, "configuration_refused") < 20);
    host.configure(&configuration(host, "", ""));
    gateway.service.signal("HUP");
    eventually("the right one is taken", || status(&gateway, "acme/shop") == 404);
    gateway.service.signal("HUP");
    gateway.service.line("configuration_unchanged");
    gateway.service.signal("TERM");
    assert_eq!(gateway.service.wait(), Some(0));
}

#[test]
fn requests_in_flight_keep_what_they_began_with() {
    let gateway = Gateway::new();
    let host = &gateway.host;
    let in_flight = gateway.begin_push(OLD_SECRET, &push_body("acme/app", "release"));
    // Another address, a larger body than the memory of all, without that repository and with another secret.
    let other = free_address();
    host.configure(&configuration(host, "max_body = \"25 MiB\"", "").replacen("127.0.0.1:0", &other.to_string(), 1));
    host.credential("webhook-secret", SECRET);
    gateway.service.signal("HUP");
    eventually("the new address answers", || TcpStream::connect(other).is_ok());
    assert!(TcpStream::connect(gateway.public).is_err(), "the old address is gone");
    assert_eq!(deliver(other, OLD_SECRET, "push", "1", &push_body("acme/infra", "main")).status, 401);
    assert_eq!(deliver(other, SECRET, "push", "1", &push_body("acme/infra", "main")).status, 202);
    let answer = in_flight.end();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

/// `hub.toml` with these two addresses.
fn listen(host: &Host, listen: SocketAddr, admin: SocketAddr) {
    host.configure(&format!("[proxy]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n"));
}

#[test]
fn addresses_change_places_overlap_and_are_refused_where_another_has_them() {
    let host = host("");
    let (one, two) = (free_address(), free_address());
    listen(&host, one, two);
    let mut gateway = Gateway::on(host);
    let ask = |gateway: &Gateway| gateway.service.signal("HUP");
    let greets = |address: SocketAddr| {
        TcpStream::connect(address).is_ok() && send(address, "GET", "/healthz", &[], b"").status == 200
    };
    let shows = |address: SocketAddr| {
        TcpStream::connect(address).is_ok() && send(address, "GET", "/api/status", &[], b"").status == 200
    };
    assert!(greets(one) && shows(two));
    listen(&gateway.host, two, one);
    ask(&gateway);
    eventually("they have changed places", || greets(two) && shows(one));
    listen(&gateway.host, one, two);
    ask(&gateway);
    eventually("and back", || greets(one) && shows(two));

    // One that stands for all cannot be bound beside the old one.
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let next_door = SocketAddr::from(([127, 0, 0, 2], one.port()));
    listen(&gateway.host, all, two);
    ask(&gateway);
    eventually("all addresses answer", || greets(next_door) && greets(one) && shows(two));
    listen(&gateway.host, one, two);
    ask(&gateway);
    eventually("one answers", || greets(one) && TcpStream::connect(next_door).is_err());

    // Another program has the address: nothing changes, and it is taken when it has gone.
    let taken = TcpListener::bind(free_address()).unwrap();
    let wanted = taken.local_addr().unwrap();
    listen(&gateway.host, wanted, two);
    ask(&gateway);
    let refused = gateway.service.line("configuration_refused");
    assert!(refused["error"].as_str().unwrap().starts_with("proxy.listen: another process listens on"), "{refused}");
    assert!(greets(one) && shows(two));
    // The old one goes, the new one cannot come, and the old one comes back.
    listen(&gateway.host, one, two);
    ask(&gateway);
    gateway.service.line("configuration_right_again");
    let beside = TcpListener::bind(next_door).unwrap();
    listen(&gateway.host, all, two);
    ask(&gateway);
    eventually("it is refused", || count(&gateway, "configuration_refused") == 2);
    assert!(greets(one) && shows(two));
    drop(beside);
    eventually("it is taken when the other program has gone", || greets(next_door) && greets(one));
    gateway.service.signal("TERM");
    assert_eq!(gateway.service.wait(), Some(0));
}

#[test]
fn credentials_are_rotated_removed_and_refused() {
    let host = host("");
    host.credential("admin-token", "a-token-for-the-tests");
    let exposed = |host: &Host| {
        host.configure(
            &configuration(host, "", "").replace("admin_listen = \"127.0.0.1:0\"", "admin_listen = \"0.0.0.0:0\""),
        )
    };
    exposed(&host);
    let mut gateway = Gateway::on(host);
    gateway.admin.set_ip([127, 0, 0, 1].into());
    let host = &gateway.host;
    let with = |token: &str| {
        let header = format!("Bearer {token}");
        send(gateway.admin, "GET", "/api/status", &[("Authorization", &header)], b"").status
    };
    let signed = |secret| deliver(gateway.public, secret, "ping", "1", b"{}").status;
    assert_eq!((with("a-token-for-the-tests"), with("another-token"), signed(SECRET)), (200, 401, 200));
    host.credential("admin-token", "another-token");
    host.credential("webhook-secret", "another-secret-that-is-long");
    eventually("both are rotated", || with("another-token") == 200 && signed("another-secret-that-is-long") == 200);
    assert_eq!((with("a-token-for-the-tests"), signed(SECRET)), (401, 401));

    // Without its token the page would be open to the network: it stays in force.
    let token = host.state().join("credentials/admin-token");
    std::fs::remove_file(&token).unwrap();
    let refused = gateway.service.line("configuration_refused");
    assert!(refused["error"].as_str().unwrap().contains("admin-token: is missing"), "{refused}");
    assert_eq!((with("another-token"), with("")), (200, 401));
    host.credential("admin-token", "another-token");
    gateway.service.line("configuration_right_again");
    for wrong in ["short", ""] {
        host.credential("webhook-secret", wrong);
        eventually("it is refused", || {
            let refused = gateway.service.lines();
            let of_secret = |line: &&Value| {
                line["msg"] == "configuration_refused" && line["error"].to_string().contains("webhook-secret")
            };
            refused.iter().filter(of_secret).count() == if wrong.is_empty() { 2 } else { 1 }
        });
        assert_eq!(signed("another-secret-that-is-long"), 200);
    }
    // A secret that somebody takes away is to be used no more.
    std::fs::remove_file(host.state().join("credentials/webhook-secret")).unwrap();
    eventually("nothing is taken", || signed("another-secret-that-is-long") == 503);
    for line in gateway.service.lines() {
        let text = line.to_string();
        assert!(!text.contains("another-") && !text.contains("a-token"), "{text}");
    }
}

/// Whether anybody on the internet would reach something on a port of the node.
fn is_public(tailnet: &tailnet::Tailnet, port: u16) -> bool {
    let config = tailnet.config();
    let sessions = config["Foreground"].as_object().into_iter().flatten().map(|(_, part)| part);
    std::iter::once(&config).chain(sessions).any(|part| {
        let mut keys = part["AllowFunnel"].as_object().into_iter().flatten();
        keys.any(|(key, on)| key.ends_with(&format!(":{port}")) && on == true)
    })
}

#[test]
fn the_gate_follows_to_another_port_and_another_proxy_and_closes_what_it_leaves() {
    let (tailnet, proxy, mut gate) = tailnet::open();
    let host = &tailnet.host;
    let text = std::fs::read_to_string(host.path("hub.toml")).unwrap();
    for (wrong, part) in [("port = 80", "gate.port: 80 cannot be"), ("", "is empty")] {
        host.configure(&if wrong.is_empty() { String::new() } else { text.replace("port = 8443", wrong) });
        gate.line_where(part, |line| {
            line["msg"] == "configuration_refused" && line["error"].to_string().contains(part)
        });
        eventually("the record says why", || {
            tailnet.record()["details"]["configuration_refused"]["reason"].to_string().contains(part)
        });
        assert!(tailnet.is_public());
        assert_eq!(tailnet.record()["status"], "open");
    }
    let moved = text.replace("port = 8443", "port = 443");
    host.configure(&moved);
    gate.line("moving");
    eventually("the new port is open and the old one closed", || !tailnet.is_public() && is_public(&tailnet, 443));
    let record = tailnet.recorded("open");
    assert_eq!((&record["details"]["port"], &record["details"]["configuration_refused"]), (&json!(443), &Value::Null));

    // The proxy and the gate move to another address, each by itself.
    let other = free_address();
    host.configure(&moved.replace(&tailnet.public.to_string(), &other.to_string()));
    proxy.line("configuration_changed");
    eventually("the new address is published", || tailnet.record()["details"]["target"] == format!("http://{other}"));
    let record = tailnet.recorded("open");
    assert_eq!((&record["details"]["port"], is_public(&tailnet, 443)), (&json!(443), true));

    // Without a secret nobody's deliveries can be checked: it closes, and opens with the next one.
    let secret = host.state().join("credentials/webhook-secret");
    std::fs::remove_file(&secret).unwrap();
    eventually("it is closed", || !is_public(&tailnet, 443));
    host.credential("webhook-secret", SECRET);
    eventually("it is open", || is_public(&tailnet, 443));
    gate.signal("HUP");
    gate.line("configuration_unchanged");
    gate.signal("TERM");
    assert_eq!(gate.wait(), Some(0));
    assert!(!is_public(&tailnet, 443) && !tailnet.is_public());
    assert_eq!(gate.lines().iter().filter(|line| line["msg"] == "stopped_without_closing").count(), 0);
}
