//! `hub status`: what it says of state folders that the services made, that are old, and that are damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

#[path = "support/status.rs"]
mod status;
mod support;
#[path = "support/tailnet.rs"]
mod tailnet;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};
use status::{ago, change, status, status_on_its_port, status_with};
use support::gitops::{FILE, REPO, Site, user_name};
use support::{Host, Origin, Service, eventually, free_address, skipped_without_root};

/// Writes a record as a service does, its last run begun so many seconds ago.
fn record(host: &Host, folder: &str, service: &str, age: i64, run: Value) {
    let path = host.state().join(folder);
    std::fs::create_dir_all(&path).unwrap();
    let mut record = json!({"service": service, "started": ago(age), "duration_ms": 12, "counts": {}, "error": null});
    for (name, value) in run.as_object().unwrap() {
        record[name] = value.clone();
    }
    std::fs::write(path.join("run.json"), record.to_string()).unwrap();
}

#[test]
fn a_fresh_host_is_not_failed() {
    let host = Host::new();
    let said = status(&host).ends(0, "healthy");
    let mut lines = said.text.lines();
    assert!(lines.next().unwrap().contains(": nothing has run here yet  ("), "{}", said.text);
    let rest: Vec<&str> = lines.collect();
    let expected = "
  SERVICE        STATE       LAST RUN   TOOK     RESULT
  proxy          not running never      -        -
  gitops-sync    not running never      -        -
  tailscale-gate not running never      -        -
  reading-sync   not running never      -        -
  system-metrics not running never      -        -

  repositories     none is configured

  queue            empty
  funnel           never opened
  configuration    /etc/observability-hub/hub.toml is not there; the defaults
                   are in force

hub doctor says what to set up; hub up runs everything here, in the foreground.";
    assert_eq!(rest.join("\n"), expected);
    assert_eq!(said.json["reasons"], json!([]));
    std::fs::remove_dir(host.state()).unwrap();
    status(&host).ends(0, "healthy");
    assert!(!host.state().exists(), "looking makes nothing");
}

const SECRET: &str = "0123456789abcdef-secret";

/// A host that `hub up` runs, with one repository.
struct Up {
    host: Host,
    service: Service,
    commit: String,
}

fn up() -> Up {
    let host = Host::new();
    let origin = Origin::new(&host);
    let commit = origin.push(&[("README", "one\n")]);
    host.configure(&format!(
        "[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n[[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}\"\n\
         units = \"\"\nuser = \"{}\"\n",
        free_address(),
        free_address(),
        origin.url(),
        host.path("checkout").display(),
        user_name(),
    ));
    host.credential("webhook-secret", SECRET);
    let service = host.start("hub", &["up"]);
    service.line("up");
    eventually("it has deployed and measured", || {
        let exists = |path: &str| host.path(path).exists();
        exists("state/gitops/run.json") && exists("state/data/metrics/run.json")
    });
    Up { host, service, commit }
}

#[test]
fn a_host_that_runs_is_healthy_and_one_that_hangs_or_is_stopped_is_not() {
    let mut up = up();
    let said = status_on_its_port(&up.host).ends(0, "healthy");
    for service in ["proxy", "gitops-sync", "reading-sync", "system-metrics"] {
        assert_eq!(said.service(service)["state"], "hub up", "{said:#?}");
    }
    assert_eq!(said.service("tailscale-gate")["state"], "not running");
    assert_eq!(said.service("gitops-sync")["last_run"]["status"], "deployed");
    assert_eq!(said.service("system-metrics")["last_run"]["status"], "stored");
    let repository = said.repository(REPO);
    assert_eq!(
        (&repository["deployed"]["commit"], &repository["checked"]["status"]),
        (&up.commit.as_str().into(), &"deployed".into())
    );
    assert_eq!((&said.json["queue"]["requests"], &said.json["queue"]["failed"]), (&json!(0), &json!(0)));
    assert!(said.text.contains("takes deliveries") && said.text.contains(&up.commit[..10]), "{}", said.text);
    assert!(!said.text.contains('\x1b') && said.text.lines().all(|line| line.chars().count() <= 80), "{}", said.text);

    let proxy =
        up.service.line_where("the proxy's start", |line| line["msg"] == "service_started" && line["child"] == "proxy");
    let pid = proxy["pid"].to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    status_on_its_port(&up.host).ends(2, "failed").says("failed", "proxy", "does not answer", "hub up");
    signal("-CONT");
    up.service.signal("TERM");
    up.service.wait();
    let said = status_on_its_port(&up.host).ends(1, "degraded");
    said.says("degraded", "services", "nothing of the hub runs here", "hub up").says_nothing_of("proxy");
}

#[test]
fn a_proxy_that_takes_nothing_is_failed() {
    let host = Host::new();
    host.configure(&format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address()));
    let proxy = host.start("proxy", &[]);
    proxy.line("listening");
    status_on_its_port(&host).ends(0, "healthy");
    let queue = host.path("state/proxy/queue");
    std::fs::remove_dir(&queue).unwrap();
    std::fs::write(&queue, "no folder").unwrap();
    let said = status_on_its_port(&host).ends(2, "failed");
    said.says("failed", "proxy", "it takes no deliveries", "").says(
        "degraded",
        "state",
        "proxy/queue is no folder",
        "hub doctor",
    );
}

#[test]
fn a_proxy_that_can_verify_no_delivery_is_degraded_until_there_is_a_secret() {
    let host = Host::new();
    let configuration = format!(
        "[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n\
         [[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}\"\n",
        free_address(),
        free_address(),
        host.path("origin.git").display(),
        host.path("checkout").display()
    );
    host.configure(&configuration);
    let proxy = host.start("proxy", &[]);
    let admin = proxy.line("listening")["admin_listen"].as_str().unwrap().parse().unwrap();
    let page = || support::send(admin, "GET", "/api/status", &[], b"").json();
    let said = status_on_its_port(&host).ends(1, "degraded");
    let said = said.says("degraded", "proxy", "it takes no deliveries: no webhook secret", "hub webhook-test");
    assert!(!said.text.contains("takes deliveries"), "{}", said.text);
    assert_eq!(page()["health"], "degraded");
    assert!(page()["reason"].as_str().unwrap().contains("takes no deliveries: no webhook secret"), "{}", page());
    assert_eq!(page()["proxy"]["deliveries"]["refused"], 0, "whoever looks is no delivery");

    let file = host.path("hub.toml").display().to_string();
    let with_flag = host.run("hub", &["status", "--json", "--config", &file]);
    let json: Value = serde_json::from_slice(&with_flag.stdout).unwrap();
    assert!(
        json["reasons"][0]["mend"].as_str().unwrap().ends_with(&format!("webhook-test --config {file}")),
        "{json:#}"
    );

    host.credential("webhook-secret", SECRET);
    status_on_its_port(&host).ends(0, "healthy").says_nothing_of("proxy");
    assert_eq!(page()["health"], "healthy");

    // A host where nothing is configured needs none.
    let bare = Host::new();
    bare.configure(&format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address()));
    let proxy = bare.start("proxy", &[]);
    proxy.line("listening");
    status_on_its_port(&bare).ends(0, "healthy");
}

#[test]
fn a_strangers_proxy_on_the_port_is_not_this_hosts() {
    let (stranger, host) = (Host::new(), Host::new());
    let configuration = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"127.0.0.1:0\"\n", free_address());
    stranger.configure(&configuration);
    host.configure(&configuration);
    let proxy = stranger.start("proxy", &[]);
    proxy.line("listening");
    assert_eq!(status_on_its_port(&stranger).service("proxy")["state"], "running");
    let said = status_on_its_port(&host);
    assert_eq!(said.service("proxy")["state"], "not running", "{said:#?}");
    assert!(!said.text.contains("takes deliveries"), "{}", said.text);
}

#[test]
fn a_proxy_that_was_refused_is_failed_until_it_runs() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
    host.credential("webhook-secret", "short");
    assert_eq!(host.run("proxy", &[]).status.code(), Some(78));
    status(&host).ends(2, "failed").says("failed", "proxy", "at least 16 are needed", "");
}

#[test]
fn a_held_repository_is_shown_and_is_no_fault() {
    let up = up();
    let command = ["hold", REPO, "--reason", "moving \u{1b}[31mthe database"];
    assert!(up.host.run("hub", &command).status.success());
    let said = status_on_its_port(&up.host).ends(0, "healthy");
    assert!(said.text.contains(&format!("held by {}", user_name())), "{}", said.text);
    assert!(said.text.contains("moving [31mthe database; hub release acme/infra"), "{:?}", said.text);
}

#[test]
fn a_commit_that_was_rolled_back_is_named_and_what_runs_is_the_good_one() {
    let site = Site::with("", "units = \"\"\nafter = [\"/usr/bin/test\", \"!\", \"-e\", \"poison\"]\n");
    let good = site.head_after_sync();
    let bad = site.origin.push(&[("poison", "x")]);
    site.sync().expect(3, "rolled_back");
    let said = status(&site.host).ends(1, "degraded");
    let said = said.says("degraded", REPO, &bad[..10], "hub retry acme/infra");
    let said = said.says("degraded", "gitops-sync", "acme/infra rolled back", "");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], good.as_str());
    assert_eq!(said.repository(REPO)["bad"]["commit"], bad.as_str());
}

#[test]
fn what_was_refused_is_told_with_the_command_to_run_afterwards() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    std::fs::write(site.checkout.join("README"), "changed here\n").unwrap();
    site.origin.push(&[("README", "changed there\n")]);
    site.sync().expect(5, "refused");
    let said = status(&site.host).ends(1, "degraded");
    let said = said.says("degraded", REPO, "has local changes to README", "hub deploy acme/infra");
    let said = said.says("degraded", "gitops-sync", "acme/infra refused", "hub doctor");
    assert!(!said.json["reasons"].to_string().contains("the output of hub up"), "{said:#?}");
}

#[test]
fn units_that_are_not_deployed_are_told() {
    let site = Site::new();
    let unit = "[Service]\nExecStart=/bin/true\n";
    site.origin.push(&[("systemd/acme.service", unit)]);
    // Where systemd runs the tests' host, this one has no way to it.
    let mut sync = site.host.command("gitops-sync");
    sync.args([REPO, "--json"]).env("PATH", without_systemctl(&site.host));
    support::gitops::ran(sync).expect(0, "deployed");
    let said = status(&site.host).says_nothing_of(REPO);
    assert!(said.text.contains("\n    its units are not deployed: "), "{}", said.text);
    assert!(said.repository(REPO)["checked"]["not_deployed"].is_string(), "{said:#?}");
}

/// A `PATH` with git and what it needs, and without systemctl.
fn without_systemctl(host: &Host) -> std::path::PathBuf {
    let folder = host.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    for folder_of in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in std::fs::read_dir(folder_of).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_name() != "systemctl" {
                // The first of a name wins, as in PATH.
                let _ = symlink(entry.path(), folder.join(entry.file_name()));
            }
        }
    }
    folder
}

#[test]
fn a_rollback_that_failed_is_failed() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    change(&site.state("checked").join(FILE), |checked| {
        checked["status"] = "rollback_failed".into();
        checked["reason"] = "the old file is gone".into();
    });
    status(&site.host).ends(2, "failed").says("failed", REPO, "rollback failed: the old file is gone", "hub doctor");
}

trait HeadAfterSync {
    fn head_after_sync(&self) -> String;
}

impl HeadAfterSync for Site {
    fn head_after_sync(&self) -> String {
        self.sync().expect(0, "deployed");
        self.head()
    }
}

#[test]
fn a_repository_that_cannot_be_fetched_is_told_once_with_its_reason() {
    let site = Site::new();
    std::fs::remove_dir_all(&site.origin.bare).unwrap();
    site.request(REPO);
    site.queued().expect(1, "failed");
    let said = status(&site.host).ends(2, "failed").says("degraded", REPO, "cannot fetch from", "hub doctor");
    let said = said.says("failed", "gitops-sync", "acme/infra failed", "").says_nothing_of("queue");
    assert_eq!(said.json["queue"]["retry"], json!([REPO]));
    assert!(said.text.contains("1 to retry"), "{}", said.text);
    assert_eq!(said.repository(REPO)["deployed"], Value::Null);
}

#[test]
fn an_old_request_and_one_that_was_refused_are_degraded() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    site.request(REPO);
    let said = status(&site.host).ends(1, "degraded").says_nothing_of("queue");
    assert_eq!(said.json["queue"]["requests"], 1);
    let request = site.queue().join(FILE);
    let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&request).unwrap().set_modified(hour).unwrap();
    let said = status(&site.host).says("degraded", "queue", "a request waits for 60 min", "hub up");
    assert!(said.text.contains("1 waiting, the oldest for 60 min"), "{}", said.text);

    std::fs::write(&request, "no JSON").unwrap();
    site.run(&[]);
    let said = status(&site.host).says(
        "degraded",
        "queue",
        "1 refused and kept; the newest: acme__infra.json",
        "gitops/failed",
    );
    assert_eq!((&said.json["queue"]["requests"], &said.json["queue"]["failed"]), (&json!(0), &json!(1)));
}

#[test]
fn a_repository_that_nobody_looks_at_is_degraded() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    change(&site.state("checked").join(FILE), |checked| checked["at"] = ago(3 * 3600).into());
    status(&site.host).ends(1, "degraded").says("degraded", REPO, "not looked at for 3 h", "hub up");
}

#[test]
fn a_sample_that_is_old_spooled_or_lost_is_told() {
    let host = Host::new();
    let metrics = || host.command("system-metrics");
    assert!(metrics().output().unwrap().status.success());
    status(&host).says_nothing_of("system-metrics");
    let file = host.path("state/data/metrics/run.json");
    change(&file, |record| record["started"] = ago(420).into());
    status(&host).ends(1, "degraded").says("degraded", "system-metrics", "the last sample is 7 min old", "hub up");

    let dead = format!("postgres://hub@{}/hub", free_address());
    assert!(metrics().env("DATABASE_URL", dead).output().unwrap().status.success());
    let said = status(&host).ends(1, "degraded").says(
        "degraded",
        "system-metrics",
        "rows wait, the database does not",
        "hub doctor",
    );
    let rows = said.service("system-metrics")["last_run"]["counts"]["spooled"].as_u64().unwrap();
    assert!(rows > 3 && said.text.contains(&format!("{rows} rows wait")), "{}", said.text);

    change(&file, |record| {
        record["status"] = "lost".into();
        record["error"] = "the disk is full".into();
    });
    status(&host).ends(2, "failed").says("failed", "system-metrics", "samples were lost: the disk is full", "");
}

#[test]
fn the_funnel_is_shown_and_a_gate_that_died_is_not_believed() {
    let (tailnet, proxy, mut gate) = tailnet::open();
    tailnet.recorded("open");
    let said = status_on_its_port(&tailnet.host).ends(0, "healthy");
    let funnel = &said.json["funnel"];
    assert_eq!((&funnel["state"], &funnel["current"]), (&json!("open"), &json!(true)), "{said:#?}");
    assert!(said.text.contains("https://foo.test.ts.net:8443/"), "{}", said.text);
    assert_eq!(said.service("tailscale-gate")["state"], "running");

    let file = tailnet.host.path("state/gate/run.json");
    change(&file, |record| record["details"]["written"] = ago(3600).into());
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    let said = said.says("degraded", "funnel", "its record is 60 min old", "tailscale-gate status");
    assert!(said.text.contains("(by an old record)"), "{}", said.text);

    gate.signal("KILL");
    gate.wait();
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    said.says("degraded", "funnel", "the record says open, and no gate runs", "tailscale-gate close");

    drop(proxy);
    let gate = tailnet.gate();
    tailnet.recorded("closed");
    let said = status_on_its_port(&tailnet.host).ends(1, "degraded");
    said.says("degraded", "funnel", "closed: ", "hub doctor");
    drop(gate);
    // Closed by the gate's last word: there is nothing to be afraid of.
    status_on_its_port(&tailnet.host).says_nothing_of("funnel");
}

#[test]
fn a_door_that_is_open_against_the_gates_will_is_failed_and_an_unknown_one_degraded() {
    let host = Host::new();
    let details = |state: &str| json!({"state": state, "reason": "somebody else holds it", "written": ago(1)});
    record(&host, "gate", "tailscale-gate", 1, json!({"status": "open", "error": "x", "details": details("open")}));
    status(&host).ends(2, "failed").says("failed", "funnel", "somebody else holds it", "tailscale-gate close");
    record(
        &host,
        "gate",
        "tailscale-gate",
        1,
        json!({"status": "unknown", "error": "x", "details": details("unknown")}),
    );
    status(&host).ends(1, "degraded").says(
        "degraded",
        "funnel",
        "nobody knows what is public",
        "tailscale-gate status",
    );
}

#[test]
fn a_broken_configuration_is_failed_and_what_left_traces_is_shown() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    site.host.configure("[proxy]\nlistem = \"x\"\n");
    let said =
        status(&site.host).ends(2, "failed").says("failed", "configuration", "hub.toml:2: proxy.listem", "hub doctor");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], site.head().as_str());
    assert!(said.json["configuration"]["error"].as_str().unwrap().contains("unknown field"));
}

#[test]
fn whatever_is_damaged_becomes_a_line_and_stops_nothing() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    record(&site.host, "data/metrics", "system-metrics", 5, json!({"status": "stored"}));
    let files = [
        "gitops/run.json".to_owned(),
        format!("gitops/deployed/{FILE}"),
        format!("gitops/checked/{FILE}"),
        format!("gitops/bad/{FILE}"),
        format!("gitops/hold/{FILE}"),
        "proxy/run.json".to_owned(),
        "gate/run.json".to_owned(),
        "reading/run.json".to_owned(),
    ];
    for file in &files {
        let path = site.host.state().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = std::fs::read(&path).ok();
        for (damage, part) in
            [(&b"{\"torn"[..], "is damaged"), (&b""[..], "is damaged"), (&[0xff; 2 << 20][..], "is longer than")]
        {
            std::fs::write(&path, damage).unwrap();
            let said = status(&site.host).ends(1, "degraded").says("degraded", "state", part, "hub doctor");
            assert!(said.json["unreadable"][0].as_str().unwrap().contains(file), "{said:#?}");
            assert_eq!(said.service("system-metrics")["last_run"]["status"], "stored", "the rest is shown");
        }
        std::fs::remove_file(&path).unwrap();
        symlink("/etc/hostname", &path).unwrap();
        status(&site.host).ends(1, "degraded").says("degraded", "state", "is not a regular file", "");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        status(&site.host).ends(1, "degraded").says("degraded", "state", file, "");
        std::fs::remove_dir(&path).unwrap();
        before.map(|content| std::fs::write(&path, content));
    }
    let gitops = site.host.state().join("gitops");
    std::fs::rename(&gitops, site.host.path("elsewhere")).unwrap();
    symlink(site.host.path("elsewhere"), &gitops).unwrap();
    status(&site.host).ends(1, "degraded").says("degraded", "state", "a link is not followed", "");
}

#[test]
fn a_state_folder_that_is_a_file_is_told() {
    let host = Host::new();
    std::fs::remove_dir(host.state()).unwrap();
    std::fs::write(host.state(), "x").unwrap();
    status(&host).ends(1, "degraded").says("degraded", "state", "cannot open", "hub doctor");
}

#[test]
fn who_may_not_read_is_told_how_to() {
    if skipped_without_root() {
        return;
    }
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let binary = site.host.path("hub");
    std::fs::copy(env!("CARGO_BIN_EXE_hub"), &binary).unwrap();
    std::fs::set_permissions(site.host.state(), PermissionsExt::from_mode(0o755)).unwrap();
    let as_group = |group: &str| {
        status_with(|| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--groups", group, "--"]).arg(&binary);
            for (name, value) in site.host.command("hub").get_envs() {
                value.map(|value| command.env(name, value));
            }
            command
        })
    };
    std::os::unix::fs::chown(site.state(""), None, Some(4242)).unwrap();
    for folder in ["deployed", "checked", "bad", "hold", "active", "retry", "failed"] {
        std::os::unix::fs::chown(site.state(folder), None, Some(4242)).unwrap();
    }
    for file in ["run.json".to_owned(), format!("deployed/{FILE}"), format!("checked/{FILE}")] {
        std::os::unix::fs::chown(site.state(&file), None, Some(4242)).unwrap();
    }
    let said = as_group("65534").ends(1, "degraded").says("degraded", "state", "Permission denied", "usermod -aG hub");
    assert!(!said.text.contains(&site.head()[..10]), "{}", said.text);
    let said = as_group("4242").says_nothing_of("state");
    assert_eq!(said.repository(REPO)["deployed"]["commit"], site.head().as_str(), "a member of the group reads all");
}

#[test]
fn colours_are_for_terminals_only() {
    let host = Host::new();
    let on_terminal = |variable: &str| {
        let command = format!("stty cols 60; {} status", env!("CARGO_BIN_EXE_hub"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("HUB_STATE_DIR", host.state());
        script.env("TERM", "xterm").env_remove("NO_COLOR").env(variable, "1").stdin(std::process::Stdio::null());
        String::from_utf8(script.output().expect("script is a part of util-linux").stdout).unwrap()
    };
    let coloured = on_terminal("NOTHING");
    assert!(coloured.contains("\x1b[32mnothing has run here yet\x1b[0m"), "{coloured:?}");
    let plain = on_terminal("NO_COLOR");
    assert!(!plain.contains('\x1b') && plain.lines().all(|line| line.trim_end().chars().count() <= 60), "{plain}");
}
