//! What a person asks of the installation: deploy, hold, release, retry, webhook-test.

use crate::support;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Host, Origin, Service, eventually, free_address, send_raw};
use serde_json::Value;

const REPOSITORIES: &str = r#"
[[repository]]
name = "acme/infra"
url = "/srv/git/infra.git"
path = "/srv/infra"
[[repository]]
name = "acme/web"
url = "/srv/git/web.git"
path = "/srv/web"
branch = "live"
"#;

fn configured() -> Host {
    let host = Host::new();
    host.configure(REPOSITORIES);
    host
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn ends_with(output: &Output, code: i32, part: &str) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "{said}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn user() -> String {
    text(&Command::new("id").arg("-un").output().unwrap().stdout).trim().to_owned()
}

#[test]
fn deploy_queues_a_request() {
    let host = configured();
    ends_with(&host.run("hub", &["deploy", "acme/infra"]), 0, "queued a deployment of acme/infra (manual-");
    // Nothing runs here that would take it.
    ends_with(&host.run("hub", &["deploy", "acme/infra"]), 0, "it waits: neither hub up nor gitops-sync.path runs");
    let request = host.json("state/proxy/queue/acme__infra.json");
    assert_eq!(request["repository"], "acme/infra");
    let id = request["deliveries"][0].as_str().unwrap();
    assert!(id.strip_prefix("manual-").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())), "{id}");
}

#[test]
fn hold_says_who_and_why_and_release_queues_what_was_missed() {
    let host = configured();
    ends_with(
        &host.run("hub", &["hold", "acme/infra", "--reason", "moving the \"database\""]),
        0,
        "hub release acme/infra",
    );
    let file = host.path("state/gitops/hold/acme__infra.json");
    let hold = host.json("state/gitops/hold/acme__infra.json");
    assert_eq!((&hold["by"], &hold["reason"]), (&user().into(), &"moving the \"database\"".into()));
    assert!(hold["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(mode(&host.path("state/gitops")), 0o751);
    let queued = host.path("state/proxy/queue/acme__infra.json");
    assert!(!queued.exists());

    ends_with(&host.run("hub", &["release", "acme/infra"]), 0, "acme/infra is released");
    assert!(!file.exists() && queued.exists());
    std::fs::remove_file(&queued).unwrap();
    ends_with(&host.run("hub", &["release", "acme/infra"]), 0, "acme/infra was not on hold");
    assert!(queued.exists(), "an interrupted release can be repeated");

    host.run("hub", &["hold", "acme/web"]);
    assert_eq!(host.json("state/gitops/hold/acme__web.json")["reason"], Value::Null);
}

#[test]
fn retry_forgets_the_failed_commit() {
    let host = configured();
    std::fs::create_dir_all(host.path("state/gitops/bad")).unwrap();
    let bad = host.path("state/gitops/bad/acme__infra.json");
    let other = host.path("state/gitops/bad/acme__web.json");
    std::fs::write(&bad, "{}").unwrap();
    std::fs::write(&other, "{}").unwrap();
    ends_with(&host.run("hub", &["retry", "acme/infra"]), 0, "the failed commit may be tried again");
    assert!(!bad.exists() && other.exists());
    assert!(host.path("state/proxy/queue/acme__infra.json").exists());

    let deployed = host.path("state/gitops/deployed/acme__infra.json");
    std::fs::create_dir_all(deployed.parent().unwrap()).unwrap();
    std::fs::write(&deployed, "{}").unwrap();
    ends_with(&host.run("hub", &["retry", "acme/infra"]), 0, "no commit is marked as failed");
    assert!(deployed.exists(), "what guards against an older commit goes on the operator's word only");
    ends_with(&host.run("hub", &["retry", "acme/infra", "--rewritten"]), 0, "the deployed commit is forgotten");
    assert!(!deployed.exists());
}

#[test]
fn a_held_repository_is_deployed_after_its_release_only() {
    let host = Host::new();
    let origin = Origin::new(&host);
    origin.push(&[("file", "one")]);
    host.configure(&format!(
        "[[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\nunits = \"\"\nuser = \"{}\"\n",
        origin.url(),
        host.path("checkout").display(),
        user()
    ));
    ends_with(&host.run("hub", &["hold", "acme/infra", "--reason", "disk swap"]), 0, "acme/infra");
    for command in ["deploy", "retry"] {
        let asked = host.run("hub", &[command, "acme/infra"]);
        ends_with(&asked, 1, &format!("acme/infra is on hold by {} since 2", user()));
        ends_with(&asked, 1, ", \"disk swap\", and nothing is deployed until: ");
        ends_with(&asked, 1, "hub release acme/infra");
        assert!(!text(&asked.stdout).contains("queued"), "{asked:?}");
    }
    let queue = host.path("state/proxy/queue");
    assert!(!queue.exists(), "what is not deployed is not queued");
    assert_eq!(host.run("gitops-sync", &[]).status.code(), Some(0));
    assert!(!host.path("checkout/file").exists());

    // Whether it is held is gitops-sync's to say where this command cannot.
    let hold = host.path("state/gitops/hold/acme__infra.json");
    let held = std::fs::read(&hold).unwrap();
    std::fs::write(&hold, "{").unwrap();
    ends_with(&host.run("hub", &["deploy", "acme/infra"]), 0, "whether it is on hold cannot be seen: ");
    std::fs::remove_file(queue.join("acme__infra.json")).unwrap();
    std::fs::write(&hold, held).unwrap();
    ends_with(&host.run("hub", &["release", "acme/infra"]), 0, "released");
    assert_eq!(host.run("gitops-sync", &[]).status.code(), Some(0));
    assert!(host.path("checkout/file").exists());
}

#[test]
fn an_unknown_repository_is_a_usage_error_that_lists_the_known_ones() {
    let host = configured();
    for command in ["deploy", "hold", "release", "retry", "webhook-test"] {
        ends_with(
            &host.run("hub", &[command, "acme/other"]),
            2,
            "acme/other is not configured; hub.toml has acme/infra, acme/web",
        );
    }
    let host = Host::new();
    host.configure("");
    ends_with(&host.run("hub", &["deploy", "acme/infra"]), 2, "hub.toml has no [[repository]] yet");
    assert_eq!(std::fs::read_dir(host.state()).unwrap().count(), 0);
}

#[test]
fn a_state_folder_of_somebody_else_is_named_with_what_to_do() {
    let host = configured();
    let queue = host.path("state/proxy/queue");
    std::fs::create_dir_all(&queue).unwrap();
    for folder in [&queue, &host.path("state")] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let hub = host.path("hub");
    support::copy_program(env!("CARGO_BIN_EXE_hub"), &hub);
    let is_root = user() == "root";
    if is_root {
        // Modes do not stop root, so the command runs as nobody, who has to reach the files.
        std::fs::set_permissions(host.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for command in ["deploy", "hold", "release", "retry"] {
        let mut line = if is_root { Command::new("setpriv") } else { Command::new(&hub) };
        if is_root {
            line.args(["--reuid", "nobody", "--clear-groups", "--"]).arg(&hub);
        }
        line.args([command, "acme/infra"]).env("HUB_STATE_DIR", host.state()).env("HUB_CONFIG", host.path("hub.toml"));
        let output = line.output().unwrap();
        ends_with(&output, 1, "Permission denied");
        ends_with(&output, 1, &format!("run it as root: sudo hub {command} acme/infra;"));
        if command == "deploy" {
            ends_with(&output, 1, "cannot create ");
            ends_with(&output, 1, "/state/proxy/queue/acme__infra.json: Permission denied");
        }
    }
}

/// A host with `hub up` running in it.
struct Running {
    host: Host,
    listen: SocketAddr,
    service: Service,
}

impl Running {
    fn start(repositories: &str) -> Self {
        let (host, listen) = (Host::new(), free_address());
        let text = format!("[proxy]\nlisten = \"{listen}\"\nadmin_listen = \"{}\"\n{repositories}", free_address());
        host.configure(&text);
        let service = host.start("hub", &["up"]);
        let request = format!("GET / HTTP/1.1\r\nHost: {listen}\r\n\r\n");
        eventually("the proxy answers", || {
            send_raw(listen, request.as_bytes()).is_ok_and(|answer| answer.status == 200)
        });
        Self { host, listen, service }
    }
}

#[test]
fn webhook_test_makes_a_secret_once_and_never_shows_it() {
    let running = Running::start("");
    let folder = running.host.path("state/credentials");
    let file = folder.join("webhook-secret");
    let first = running.host.run("hub", &["webhook-test"]);
    ends_with(&first, 0, "200: pong");
    for part in [
        &format!("http://{}/api/webhook/gitops", running.listen),
        "application/json",
        "push and pull_request",
        "funnel",
        &format!("the content of {} (made just now, mode 0600)", file.display()),
    ] {
        ends_with(&first, 0, part);
    }
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
    let secret = std::fs::read_to_string(&file).unwrap();
    let digits = secret.trim();
    assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));

    let second = running.host.run("hub", &["webhook-test"]);
    ends_with(&second, 0, &format!("the first line of {}", file.display()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
    for output in [first, second] {
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(digits));
    }
    // The proxy took it up as it was, with its counters.
    let of_proxy = |line: &Value, msg: &str| line["msg"] == msg && line["service"] == "proxy";
    running.service.line_where("secret_found", |line| of_proxy(line, "secret_found"));
    let changed = running.service.line_where("configuration_changed", |line| of_proxy(line, "configuration_changed"));
    assert_eq!(changed["changed"], serde_json::json!([file.to_str().unwrap()]));
    let lines = running.service.lines();
    let starts = lines.iter().filter(|line| line["msg"] == "service_started" && line["child"] == "proxy").count();
    assert_eq!(starts, 1, "{lines:#?}");
    assert!(lines.iter().all(|line| !line.to_string().contains(digits)));
}

#[test]
fn webhook_test_before_the_first_start_makes_the_secret_and_says_how_to_start() {
    let host = Host::new();
    let listen = free_address();
    host.configure(&format!("[proxy]\nlisten = \"{listen}\"\n"));
    let first = host.run("hub", &["webhook-test"]);
    ends_with(&first, 0, "(made just now, mode 0600)");
    ends_with(&first, 0, "Content type  application/json");
    ends_with(&first, 0, &format!("Nothing was sent: no proxy runs on {listen} yet; start it with: "));
    ends_with(&first, 0, "hub up\nThen try the secret with: ");
    assert!(!text(&first.stdout).contains("Sending"), "{first:?}");
    // The secret is there now: what is asked for is a delivery, and there is none.
    ends_with(&host.run("hub", &["webhook-test"]), 1, "does not answer");
}

#[test]
fn webhook_test_delivers_a_push_that_is_applied() {
    let host = Host::new();
    let origin = Origin::new(&host);
    origin.push(&[("file", "one")]);
    let checkout = host.path("checkout");
    let running = Running::start(&format!(
        "[[repository]]\nname = \"acme/infra\"\nurl = \"{}\"\npath = \"{}\"\nunits = \"\"\nuser = \"{}\"\n",
        origin.url(),
        checkout.display(),
        user()
    ));
    let applied = |text: &'static str| {
        let file = checkout.join("file");
        eventually(text, || std::fs::read_to_string(&file).is_ok_and(|content| content == text));
    };
    applied("one");
    origin.push(&[("file", "two")]);
    ends_with(&running.host.run("hub", &["webhook-test", "acme/infra"]), 0, "; gitops-sync looks at it now\n");
    applied("two");
    running.host.run("hub", &["hold", "acme/infra"]);
    let held = running.host.run("hub", &["webhook-test", "acme/infra"]);
    ends_with(&held, 0, "202: accepted");
    ends_with(&held, 0, "; acme/infra is on hold by ");
    ends_with(&held, 0, "hub release acme/infra\n");
    assert!(!text(&held.stdout).contains("looks at it now"), "{held:?}");
}

#[test]
fn webhook_test_says_what_to_do_where_the_delivery_is_not_taken() {
    let running = Running::start(REPOSITORIES);
    let config = running.host.path("hub.toml");
    running.host.credential("webhook-secret", "0123456789abcdef-first");
    ends_with(&running.host.run("hub", &["webhook-test"]), 0, "202");

    let with = |secret: &str, config: &Path| {
        let mut command = running.host.command("hub");
        command.args(["webhook-test", "--config"]).arg(config).env("GITHUB_WEBHOOK_SECRET", secret);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let wrong = with("fedcba9876543210-other", &config);
    ends_with(&wrong, 1, "401: ");
    ends_with(&wrong, 1, "the running proxy has another secret");
    ends_with(&wrong, 1, "the value of GITHUB_WEBHOOK_SECRET");
    ends_with(&with("short", &config), 78, "at least 16 are needed");

    let other = running.host.path("other.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&other, text.replacen("acme/infra", "acme/unheard", 1)).unwrap();
    ends_with(&with("0123456789abcdef-first", &other), 1, "404: ");
    ends_with(&with("0123456789abcdef-first", &other), 1, "another configuration");

    let nobody = running.host.path("nobody.toml");
    let free = free_address();
    std::fs::write(&nobody, text.replacen(&running.listen.to_string(), &free.to_string(), 1)).unwrap();
    let unanswered = with("0123456789abcdef-first", &nobody);
    ends_with(&unanswered, 1, &format!("http://{free}/api/webhook/gitops does not answer"));
    ends_with(&unanswered, 1, &format!("up --config {}", nobody.display()));
}

#[test]
fn the_page_is_found_from_a_headless_host_and_a_token_closes_it() {
    let host = configured();
    let admin = free_address();
    host.configure(&format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"{admin}\"\n{REPOSITORIES}", free_address()));
    ends_with(&host.run("hub", &["page"]), 1, "does not answer");
    let proxy = Service::start(host.command("proxy"));
    proxy.line("listening");
    let page = |variables: &[(&str, &str)]| {
        let mut command = host.command("hub");
        command.arg("page").env_remove("SUDO_USER").env("USER", "ada").envs(variables.iter().copied());
        command.output().unwrap()
    };
    let port = admin.port();
    let over_ssh = page(&[("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22"), ("DISPLAY", "localhost:10.0")]);
    ends_with(&over_ssh, 0, &format!("ssh -N -L {port}:{admin} ada@192.0.2.1"));
    ends_with(&over_ssh, 0, &format!("http://localhost:{port}/"));
    assert!(!text(&over_ssh.stdout).contains("password"), "{over_ssh:?}");

    ends_with(&host.run("hub", &["admin-token"]), 0, "mode 0600");
    let file = host.state().join("credentials/admin-token");
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!((mode(&file), token.trim().len()), (0o600, 64));
    let again = host.run("hub", &["admin-token"]);
    ends_with(&again, 0, "there already");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    drop(proxy);
    let proxy = Service::start(host.command("proxy"));
    proxy.line("listening");
    assert_eq!(support::send(admin, "GET", "/", &[], b"").status, 401);
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(support::send(admin, "GET", "/", &[("Authorization", &bearer)], b"").status, 200);
    let asks = page(&[]);
    ends_with(&asks, 0, &format!("It asks for a password: the content of {}", file.display()));
    for output in [&again, &asks] {
        assert!(!text(&output.stdout).contains(token.trim()), "the token is never shown");
    }
    let replaced = host.run("hub", &["admin-token", "--new"]);
    ends_with(&replaced, 0, &format!("Wrote {}", file.display()));
    assert_ne!(std::fs::read_to_string(&file).unwrap(), token);
}

/// A host without a configuration, a remote with one commit, and the words that name both.
fn fresh() -> (Host, Vec<String>) {
    let host = Host::new();
    let origin = Origin::new(&host);
    origin.push(&[("file", "one")]);
    let words = ["init", "--repository", origin.url(), "--name", "acme/infra", "--units", "", "--path"];
    let words = words.map(str::to_owned).into_iter().chain([host.path("checkout").display().to_string()]);
    let words = words.chain(["--config".to_owned(), host.path("new/hub.toml").display().to_string()]).collect();
    (host, words)
}

fn init(host: &Host, words: &[String], more: &[&str]) -> Output {
    host.command("hub").args(words).args(more).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn init_writes_what_is_no_default_looks_at_the_branch_and_makes_the_secret() {
    let (host, words) = fresh();
    let file = host.path("new/hub.toml");
    // Nothing is written where the branch is not there, or a secret would be.
    ends_with(&init(&host, &words, &["--branch", "live"]), 1, "live");
    ends_with(&init(&host, &words, &["--database", "postgres://hub:geheim@db/m"]), 2, "has a password");
    ends_with(&init(&host, &words, &["--user"]), 2, "leave one of them out");
    // No line of a file that is not there.
    for (flag, answer, said) in [
        ("--units-dir", "units", "hub: gitops.units_dir: \"units\" is not an absolute path"),
        ("--branch", "a b", "hub: branch: "),
        ("--database", "mysql://db", "hub: database.url: "),
    ] {
        ends_with(&init(&host, &words, &[flag, answer]), 2, said);
        ends_with(&init(&host, &words, &[flag, answer]), 2, "; nothing was written");
    }
    assert!(!file.exists() && !host.path("state/credentials").exists());

    let output = init(&host, &words, &["--database", "postgres://hub@db/m"]);
    ends_with(&output, 0, &format!("Wrote {}", file.display()));
    ends_with(&output, 0, &format!("hub up --config {}\n", file.display()));
    let written = std::fs::read_to_string(&file).unwrap();
    let keys: toml::Table = toml::from_str(&written).unwrap();
    let keys: Vec<String> = keys["repository"][0].as_table().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["name", "path", "units", "url"], "{written}");
    assert!(
        written.contains("url = \"postgres://hub@db/m\"") && written.starts_with("# Written by hub init."),
        "{written}"
    );
    assert_eq!(mode(&host.path("state/credentials/webhook-secret")), 0o600);
    let secret = std::fs::read_to_string(host.path("state/credentials/webhook-secret")).unwrap();
    assert!(!text(&output.stdout).contains(secret.trim()));
    ends_with(&host.run("hub", &["up", "--check", "--config", file.to_str().unwrap()]), 0, "is valid");
    ends_with(&init(&host, &words, &[]), 1, "is there already and is not changed");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    // One that is all comments, such as the package's, is kept and continued.
    let comments = std::fs::read_to_string("contrib/debian/hub.toml").unwrap();
    std::fs::write(&file, &comments).unwrap();
    ends_with(&init(&host, &words, &[]), 0, "Wrote ");
    let continued = std::fs::read_to_string(&file).unwrap();
    assert!(continued.starts_with(comments.trim_end()) && continued.contains("\n[[repository]]\n"), "{continued}");
    ends_with(&host.run("hub", &["init"]), 2, "--repository is needed");
}

#[test]
fn init_asks_on_a_terminal_for_what_it_was_not_told() {
    let (host, words) = fresh();
    let (url, checkout, file) = (&words[2], &words[8], host.path("new/hub.toml"));
    let hub = host.command("hub");
    let line = format!("{} init --config {}", hub.get_program().to_str().unwrap(), file.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).envs(hub.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // An empty answer takes what stands in brackets.
    let answers = format!("{url}\nacme/infra\n\n{checkout}\n-\n\n\n");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), answers.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    ends_with(&output, 0, "Branch [main]: ");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains(&format!("path = \"{checkout}\"")) && written.contains("units = \"\""), "{written}");
    assert!(!written.contains("branch =") && !written.contains("[gitops]"), "{written}");
}

#[test]
fn hub_up_of_an_ordinary_user_reads_what_init_user_writes() {
    let (host, words) = fresh();
    let home = host.path("home");
    std::fs::create_dir(&home).unwrap();
    let hub = host.path("hub");
    support::copy_program(env!("CARGO_BIN_EXE_hub"), &hub);
    let is_root = user() == "root";
    if is_root {
        ends_with(&init(&host, &words[..words.len() - 2], &["--user"]), 2, "root's configuration is /etc/");
        std::fs::set_permissions(host.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
        let nobody = Command::new("chown")
            .arg("-R")
            .arg("nobody:nogroup")
            .arg(&home)
            .arg(host.path("state"))
            .arg(&words[2])
            .status();
        assert!(nobody.unwrap().success());
    }
    let run_with = |words: &[&str], config: Option<&str>| {
        let mut line = if is_root { Command::new("setpriv") } else { Command::new(&hub) };
        if is_root {
            line.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]).arg(&hub);
        }
        for name in ["HUB_CONFIG", "XDG_CONFIG_HOME"] {
            line.env_remove(name);
        }
        line.envs(config.map(|path| ("HUB_CONFIG", path)));
        line.args(words).env("HOME", &home).env("HUB_STATE_DIR", host.state()).stdin(Stdio::null()).output().unwrap()
    };
    let run = |words: &[&str]| run_with(words, None);
    let file = home.join(".config/observability-hub/hub.toml");
    ends_with(&run(&["init", "--repository", &words[2]]), 2, "hub init --user");
    let words = ["init", "--user", "--repository", &words[2], "--name", "acme/infra"];
    ends_with(&run(&words), 0, &format!("Wrote {}", file.display()));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains(&format!("path = \"{}/infra\"", home.display())), "{written}");
    ends_with(&run(&["up", "--check"]), 0, &format!("{} is valid", file.display()));
    // What comes next is about the file that was written, not about the one that the environment names.
    std::fs::remove_file(&file).unwrap();
    ends_with(&run_with(&words, Some("/srv/other.toml")), 0, &format!("hub up --config {}\n", file.display()));
}
