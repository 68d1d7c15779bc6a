//! The gateway's routes, its configuration, its start and its end.

use crate::support::gateway;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use crate::support::gateway::{Gateway, SECRET, WEBHOOK, host};
use crate::support::{Host, PATIENCE, Service, eventually, push_body, send, send_raw, signature};
use serde_json::json;

#[test]
fn public_routes() {
    let gateway = Gateway::new();
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.json()), (200, json!({"message": "Welcome to the Observability Hub."})));
    let answer = gateway.get("/healthz?probe=1");
    let health = answer.json();
    assert_eq!((answer.status, &health["status"]), (200, &json!("ok")));
    assert_eq!(health["instance"].as_str().unwrap().len(), 32);
    assert_eq!(health.as_object().unwrap().len(), 2, "no versions, no names: {health}");
    for path in ["/", "/healthz"] {
        let answer = send(gateway.public, "HEAD", path, &[], b"");
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        let answer = send(gateway.public, "POST", path, &[], b"");
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")));
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = send(gateway.public, method, WEBHOOK, &[], b"");
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST")), "{method}");
    }
    for path in ["/metrics", "/api/status", "/api/webhook", "/api/webhook/gitops/", "//", "/../healthz", "/api/sync/x"]
    {
        for method in ["GET", "POST"] {
            let answer = send(gateway.public, method, path, &[], b"");
            assert_eq!((answer.status, &answer.json()["status"]), (404, &json!("error")), "{method} {path}");
        }
    }
}

#[test]
fn checks_come_in_the_order_of_the_contract() {
    let gateway = Gateway::on(host("max_body = \"64 KiB\""));
    let head = |fields: &str| format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let json = "Content-Type: application/json\r\n";
    let status = |request: String| {
        let answer = send_raw(gateway.public, request.as_bytes()).unwrap();
        (answer.status, answer.json()["reason"].as_str().unwrap().to_owned())
    };
    let unsigned = head(&format!("{json}Content-Length: 2\r\n")) + "{}";
    assert_eq!(status(head("")).0, 411);
    assert_eq!(status(head(&format!("{json}Transfer-Encoding: chunked\r\n"))).0, 411);
    assert_eq!(status(head("Content-Length: 65537\r\n")).0, 413);
    let (code, reason) = status(head("Content-Length: 2\r\n") + "{}");
    assert!(code == 415 && reason.contains("application/json"), "{code} {reason}");
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n";
    assert_eq!(status(head(form) + "{}").0, 415);
    assert_eq!(status(head(&format!("{json}{json}Content-Length: 2\r\n")) + "{}").0, 415);
    assert_eq!(status(unsigned).0, 401);
    // Whoever waits for 100 Continue is refused without it, before a byte of the body.
    let waiting = head(&format!("{json}Expect: 100-continue\r\nContent-Length: 60000\r\n"));
    assert_eq!(status(waiting).0, 401);
    let body = vec![b'['; 64 << 10];
    let fields =
        [("Content-Type", "Application/JSON; charset=utf-8"), ("X-Hub-Signature-256", &signature(SECRET, &body))];
    let answer = send(gateway.public, "POST", WEBHOOK, &fields, &body);
    assert_eq!(answer.status, 400, "the largest body is read: {answer:?}");
}

#[test]
fn without_a_secret_nothing_is_taken_until_there_is_one() {
    let host = host("");
    std::fs::remove_dir_all(host.state().join("credentials")).unwrap();
    let gateway = Gateway::on(host);
    assert_eq!(gateway.service.line("secret_missing")["level"], "WARN");
    let answer = gateway.push("1");
    assert!(answer.status == 503 && answer.header("Retry-After").is_some(), "{answer:?}");
    gateway.host.credential("webhook-secret", "short");
    let answer = gateway.push("2");
    assert!(answer.status == 503 && answer.json()["reason"].as_str().unwrap().contains("--check"), "{answer:?}");
    gateway.host.credential("webhook-secret", SECRET);
    assert_eq!(gateway.push("3").status, 202);
    assert_eq!(gateway.request("acme__infra")["deliveries"], json!(["3"]));
}

#[test]
fn a_delivery_is_queued_with_its_id() {
    let gateway = Gateway::new();
    let answer = gateway.push("72d3162e-cc78-11e3-81ab-4c9367dc0958");
    let body = answer.json();
    assert_eq!((answer.status, &body["status"], &body["repo"]), (202, &json!("queued"), &json!("acme/infra")));
    assert_eq!(body["delivery"], "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    let request = gateway.request("acme__infra");
    assert_eq!((&request["repository"], &request["count"]), (&json!("acme/infra"), &json!(1)));
    let line = gateway.service.line("delivery_queued");
    assert_eq!(
        (&line["repo"], &line["event"], &line["service"]),
        (&json!("acme/infra"), &json!("push"), &json!("proxy"))
    );
    let answer = gateway.push("../../etc/passwd");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["delivery"].as_str().unwrap().len(), 32);
    let queue = gateway.host.state().join("proxy/queue");
    assert_eq!(std::fs::metadata(&queue).unwrap().mode() & 0o777, 0o750);
    assert_eq!(std::fs::metadata(queue.join("acme__infra.json")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(gateway.queued(), ["acme__infra.json"]);
}

#[test]
fn help_and_usage() {
    let host = Host::new();
    let help = host.run("proxy", &["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--check"));
    let wrong = host.run("proxy", &["--nonsense"]);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0));
}

#[test]
fn check_says_what_is_wrong() {
    let host = host("");
    let check = |arguments: &[&str]| {
        let output = host.run("proxy", arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check(&["--check"]);
    assert!(code == Some(0) && said.trim_end().ends_with("hub.toml is valid"), "{said}");
    host.credential("webhook-secret", "only 15 bytes..");
    for arguments in [&["--check"][..], &[]] {
        let (code, said) = check(arguments);
        assert!(code == Some(78) && said.contains("webhook-secret") && said.contains("16"), "{said}");
    }
    assert_eq!(host.json("state/proxy/run.json")["status"], "failed");
    host.credential("webhook-secret", SECRET);
    for (address, code) in [("0.0.0.0:0", 78), ("[::]:0", 78), ("[::1]:0", 0)] {
        host.configure(&format!("[proxy]\nadmin_listen = \"{address}\"\n"));
        let (actual, said) = check(&["--check"]);
        assert_eq!(actual, Some(code), "{address}: {said}");
        assert!(code == 0 || said.contains("admin-token"), "{said}");
    }
    host.credential("admin-token", "\n");
    assert_eq!(check(&["--check"]).0, Some(78), "an empty token guards nothing");
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nmax_bodi = 5\n");
    let (code, said) = check(&[]);
    assert!(code == Some(78) && said.contains("hub.toml:3") && said.contains("max_bodi"), "{said}");
    let (code, said) = check(&["--config", "/nonexistent/hub.toml"]);
    assert!(code == Some(78) && said.contains("/nonexistent/hub.toml"), "{said}");
}

#[test]
fn no_configuration_is_needed() {
    let host = Host::new();
    let output = host.run("proxy", &["--check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("is valid"), "{said}");
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let host = host("");
    let output = host.command("proxy").env("PORT", &port).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("proxy.listen") && said.contains(&port), "{said}");
    assert_eq!(host.json("state/proxy/run.json")["status"], "failed");
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut gateway = Gateway::new();
    let in_flight = gateway.begin_push(SECRET, &push_body("acme/infra", "main"));
    assert_eq!(gateway.host.json("state/proxy/run.json")["status"], "running");
    gateway.service.signal("TERM");
    gateway.service.line("stopping");
    eventually("nobody new is taken", || TcpStream::connect(gateway.public).is_err());
    let answer = in_flight.end();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(gateway.service.wait(), Some(0));
    gateway.service.line("stopped");
    let record = gateway.host.json("state/proxy/run.json");
    assert_eq!((&record["status"], &record["counts"]["queued"]), (&json!("stopped"), &json!(1)));
    assert_eq!(record["history"], json!([]), "one run, one entry");
    assert!(!gateway.host.state().join("alive.sock").exists());
}

#[test]
fn alive_sock_says_the_instance_and_stays_silent() {
    let mut gateway = Gateway::new();
    let path = gateway.host.state().join("alive.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut holders: Vec<_> = (0..300).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut line = String::new();
    BufReader::new(&holders[0]).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), gateway.get("/healthz").json()["instance"].as_str().unwrap());
    eventually("all are kept", || gateway.get_admin("/api/status").json()["proxy"]["alive_holders"] == 300);
    holders.truncate(1);
    eventually("those that left are let go", || gateway.get_admin("/api/status").json()["proxy"]["alive_holders"] == 1);
    holders[0].set_nonblocking(true).unwrap();
    let mut byte = [0];
    assert_eq!(holders[0].read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    holders[0].set_nonblocking(false).unwrap();
    holders[0].set_read_timeout(Some(PATIENCE)).unwrap();
    gateway.service.signal("KILL");
    assert_eq!(holders[0].read(&mut byte).unwrap(), 0, "the end of the process is the end of file");
    gateway.service.wait();
    let gateway = Gateway::on(gateway.host);
    let mut second = gateway.host.command("proxy").stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    second.stdout.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("alive.sock") && said.contains("another proxy"), "{said}");
    assert!(UnixStream::connect(&path).is_ok(), "the living one keeps its socket");
}

/// Connects as another user in the group of the socket.
fn connect_as(uid: u32, path: &std::path::Path, count: usize) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let program = "import socket, sys\n\
        held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]\n\
        for one in held: one.connect(sys.argv[1])\n\
        print(sum(1 for one in held if one.recv(64)), flush=True)\n\
        sys.stdin.read()";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", program]).arg(path).arg(count.to_string()).uid(uid);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap()
}

#[test]
fn nobody_fills_alive_sock_against_the_gate() {
    if !rustix::process::geteuid().is_root() {
        return gateway::skip(
            "nobody_fills_alive_sock_against_the_gate",
            "sudo contrib/test: it takes the part of other users",
        );
    }
    let gateway = Gateway::new();
    let (state, path) = (gateway.host.state(), gateway.host.state().join("alive.sock"));
    let open = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(state.parent().unwrap(), 0o755);
    open(&state, 0o755);
    open(&path, 0o666);
    let greeted = |child: &mut std::process::Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    let mut one = connect_as(4_001, &path, 1_000);
    assert_eq!(greeted(&mut one), 16, "what one user may hold");
    let refused = gateway.service.line("alive_connections_refused");
    assert!(refused["count"].as_u64().unwrap() > 0, "{refused}");
    let mut others: Vec<_> = (4_002..4_008).map(|uid| connect_as(uid, &path, 100)).collect();
    assert_eq!(others.iter_mut().map(greeted).sum::<usize>(), 48, "what all of them together may hold");
    let mut late = connect_as(4_010, &path, 1);
    assert_eq!(greeted(&mut late), 0);
    // Root, and the account that owns the gate's folder.
    let mut line = String::new();
    BufReader::new(UnixStream::connect(&path).unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), gateway.get("/healthz").json()["instance"].as_str().unwrap());
    let gate = state.join("gate");
    std::fs::create_dir_all(&gate).unwrap();
    std::os::unix::fs::chown(&gate, Some(4_020), None).unwrap();
    let mut account = connect_as(4_020, &path, 40);
    assert_eq!(greeted(&mut account), 40, "the gate's account is never kept out");
    for mut child in others.into_iter().chain([one, late, account]) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    eventually("their places are free again", || {
        let mut one = connect_as(4_001, &path, 16);
        let count = greeted(&mut one);
        drop(one.stdin.take());
        one.wait().unwrap();
        count == 16
    });
}

#[test]
fn alive_sock_works_in_a_folder_with_a_long_name() {
    let host = host("");
    let folder = host.path(&"r".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let mut command = host.command("proxy");
    command.env("RUNTIME_DIRECTORY", format!("{}:/run/other", folder.display()));
    let gateway = Gateway::with(host, command);
    let inside = std::fs::File::open(&folder).unwrap();
    let short = format!("/proc/self/fd/{}/alive.sock", std::os::fd::AsRawFd::as_raw_fd(&inside));
    let mut line = String::new();
    BufReader::new(UnixStream::connect(short).unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), gateway.get("/healthz").json()["instance"].as_str().unwrap());
    assert!(!gateway.host.state().join("alive.sock").exists());
}

#[test]
fn the_hubs_own_questions_are_counted_apart() {
    let gateway = Gateway::new();
    let counts = || gateway.get_admin("/api/status").json()["proxy"]["public"].clone();
    let own = [("User-Agent", "observability-hub")];
    assert_eq!(send(gateway.public, "GET", "/healthz", &own, b"").status, 200);
    assert_eq!(send(gateway.public, "POST", WEBHOOK, &own, b"").status, 415);
    let (own_only, none) = (counts(), json!([0, 0, 0, 0]));
    assert_eq!((&own_only["own"], &own_only["accepted"], &own_only["answered"]), (&json!(2), &json!(0), &none));
    // What is no question of the hub's counts, whoever it says that it is.
    assert_eq!(send(gateway.public, "GET", "/nowhere", &own, b"").status, 404);
    assert_eq!(send(gateway.public, "POST", WEBHOOK, &own, b"{}").status, 415);
    assert_eq!(gateway.get("/healthz").status, 200);
    let all = counts();
    assert_eq!((&all["own"], &all["accepted"], &all["answered"]), (&json!(2), &json!(3), &json!([1, 0, 2, 0])));
}

#[test]
fn a_webhook_without_a_secret_on_the_forge_is_told_so() {
    let gateway = Gateway::new();
    for header in ["X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature"] {
        let value = if header == "X-Hub-Signature-256" { "sha256=" } else { "" };
        let headers = [("Content-Type", "application/json"), (header, value)];
        let answer = send(gateway.public, "POST", WEBHOOK, &headers, b"{}");
        let reason = answer.json()["reason"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 401);
        assert!(reason.contains("no secret on the forge") && reason.contains(header), "{reason}");
    }
}

#[test]
fn systemd_hears_ready_watchdog_and_stopping() {
    let host = host("");
    let socket = std::os::unix::net::UnixDatagram::bind(host.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = host.command("proxy");
    command.env("NOTIFY_SOCKET", host.path("notify")).env("WATCHDOG_USEC", "400000");
    let mut service = Service::start(command);
    let hear = |wanted: &str| loop {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        if String::from_utf8_lossy(&bytes[..count]).lines().any(|line| line == wanted) {
            return;
        }
    };
    hear("READY=1");
    service.line("listening");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    service.signal("INT");
    hear("STOPPING=1");
    assert_eq!(service.wait(), Some(0));
}

#[test]
fn refusals_cannot_fill_the_disk() {
    let gateway = Gateway::new();
    let secret_text = "attacker-text-4711";
    for _ in 0..200 {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", secret_text),
            ("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64))),
        ];
        assert_eq!(send(gateway.public, "POST", WEBHOOK, &headers, secret_text.as_bytes()).status, 401);
    }
    let suppressed = gateway.service.line("delivery_refusals_suppressed")["count"].as_u64().unwrap();
    eventually("all refusals are told", || {
        let told: u64 = gateway
            .service
            .lines()
            .iter()
            .filter_map(|line| match line["msg"].as_str() {
                Some("delivery_refused") => Some(1),
                Some("delivery_refusals_suppressed") => line["count"].as_u64(),
                _ => None,
            })
            .sum();
        told == 200
    });
    assert!(suppressed > 0);
    assert!(gateway.service.lines().iter().all(|line| !line.to_string().contains(secret_text)));
    let metrics = String::from_utf8(gateway.get_admin("/metrics").body).unwrap();
    assert!(metrics.contains("hub_deliveries_total{outcome=\"refused\"} 200\n") && !metrics.contains(secret_text));
}

#[test]
fn nor_can_signed_deliveries_of_a_forge() {
    let gateway = Gateway::new();
    for number in 0..200 {
        let delivery = format!("delivery-{number}");
        // Pings, pushes to another branch, and pushes that are queued.
        let (event, body) = match number % 3 {
            0 => ("ping", push_body("acme/infra", "main")),
            1 => ("push", push_body("acme/infra", &number.to_string())),
            _ => ("push", push_body("acme/infra", "main")),
        };
        let signature = signature(SECRET, &body);
        let headers = [
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", &delivery),
            ("X-Hub-Signature-256", &signature),
        ];
        assert!(send(gateway.public, "POST", WEBHOOK, &headers, &body).status < 300);
    }
    eventually("all deliveries are told", || {
        let told = gateway
            .service
            .lines()
            .iter()
            .filter_map(|line| match line["msg"].as_str() {
                Some("delivery_queued" | "delivery_ignored" | "ping_answered") => Some(1),
                Some("signed_deliveries_suppressed") => line["count"].as_u64(),
                _ => None,
            })
            .sum::<u64>();
        told == 200
    });
    gateway.service.line("signed_deliveries_suppressed");
}

#[test]
fn the_environment_brings_a_secret_too() {
    let host = host("");
    std::fs::remove_dir_all(host.state().join("credentials")).unwrap();
    let short = host.command("proxy").env("GITHUB_WEBHOOK_SECRET", "123456789012345").output().unwrap();
    let said = String::from_utf8(short.stdout).unwrap();
    assert!(short.status.code() == Some(78) && said.contains("GITHUB_WEBHOOK_SECRET"), "{said}");
    assert!(!said.contains("123456789012345"), "a secret is never shown: {said}");
    let mut command = host.command("proxy");
    command.env("GITHUB_WEBHOOK_SECRET", SECRET);
    assert_eq!(Gateway::with(host, command).push("1").status, 202);
}

#[test]
fn what_has_the_name_of_the_socket_is_kept() {
    let host = host("");
    let path = host.state().join("alive.sock");
    std::fs::write(&path, "precious").unwrap();
    let output = host.run("proxy", &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("is not a socket"), "{said}");
    assert_eq!(std::fs::read(path).unwrap(), b"precious");
}
