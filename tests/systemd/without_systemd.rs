//! Where units cannot be deployed the rest works, and says why they were not.

use crate::gitops::{File, SOON, Text, log, push, service};
use crate::machine::{Machine, describe};

/// Pushes; git serves a folder to its owner only.
fn push_for_alice(machine: &Machine, files: &[File]) -> String {
    machine.run(&["chown", "-R", "root", "/srv/origin"]);
    let commit = push(machine, "infra", files);
    machine.ok(&["chown", "-R", "alice", "/srv/origin"]);
    commit
}

/// Runs gitops-sync inside; returns its exit code and the first repository's result.
fn run(machine: &Machine, argv: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = machine.run(argv);
    let said: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    (output.status.code(), said["repositories"][0].clone())
}

#[test]
fn without_root_systemctl_or_systemd_the_checkout_is_updated_and_the_reason_is_given() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "--create-home", "alice"]);
    let unit = service("app", "1");
    let folder_of = |who: &str| format!("/home/alice/{who}");
    let commit = push_for_alice(&machine, &[Text("file", "1"), Text("systemd/app.service", &unit)]);
    let cases: [(&str, &[&str], &str); 3] = [
        ("notroot", &["runuser", "-u", "alice", "--"], "not run as root"),
        ("nosystemctl", &["env", "PATH=/srv/few"], "systemctl is not installed"),
        // What a container has: no /run/systemd/system.
        (
            "nosystemd",
            &["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"],
            "systemd does not run",
        ),
    ];
    machine.ok(&["mkdir", "/srv/few"]);
    machine.ok(&["sh", "-c", "for p in /usr/bin/* /usr/sbin/*; do ln -sf $p /srv/few/; done; rm /srv/few/systemctl"]);
    for (who, before, reason) in cases {
        let folder = folder_of(who);
        machine.ok(&["runuser", "-u", "alice", "--", "mkdir", &folder]);
        // Root keeps no state where alice could put something else in its place.
        let state = if who == "notroot" { format!("{folder}/state") } else { format!("/srv/state-{who}") };
        let toml = format!(
            "state_dir = \"{state}\"\n[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/origin/infra.git\"\npath = \"{folder}/infra\"\nuser = \"alice\"\n\
             after = [\"sh\", \"-c\", \"echo $HUB_COMMIT >after\"]\nhealth = {{ grace_seconds = 0 }}\n"
        );
        let config = format!("/srv/{who}.toml");
        machine.write(&config, toml);
        let argv = [before, &["gitops-sync", "--json", "--config", &config, "acme/infra"]].concat();
        let (exit, result) = run(&machine, &argv);
        assert_eq!(exit, Some(0), "{who}: {result:#}");
        assert_eq!(result["status"], "deployed", "{who}");
        assert!(result["not_deployed"].as_str().is_some_and(|text| text.contains(reason)), "{who}: {result:#}");
        assert_eq!(machine.read(&format!("{folder}/infra/file")), "1", "{who}");
        assert_eq!(machine.read(&format!("{folder}/infra/after")).trim(), commit, "{who}");
        assert!(!machine.exists("/etc/systemd/system/app.service"), "{who}");
        let (exit, result) = run(&machine, &argv);
        assert_eq!((exit, &result["status"]), (Some(0), &"unchanged".into()), "{who}");
        assert!(result["not_deployed"].is_string(), "{who}: it is said every time");
    }
    assert_eq!(log(&machine), Vec::<String>::new());
}

#[test]
fn units_go_to_the_users_own_manager_where_asked() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "--create-home", "alice"]);
    // logind 257 asks of which unit the caller is, and the tests' commands are of none.
    machine.ok(&["systemd-run", "--wait", "--quiet", "loginctl", "enable-linger", "alice"]);
    let uid = machine.ok(&["id", "-u", "alice"]);
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", uid.trim());
    machine.wait_for("alice's systemd", SOON, || {
        machine.run(&["systemctl", "is-active", "--quiet", &format!("user@{}.service", uid.trim())]).status.success()
    });
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/log"]);
    let toml = "state_dir = \"/home/alice/state\"\n[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/origin/infra.git\"\npath = \"/home/alice/infra\"\n\
                build = [\"sh\", \"-c\", \"id -un >built\"]\nhealth = { grace_seconds = 1 }\n";
    machine.write("/srv/alice.toml", toml);
    let of = |version: &str| service("mine", version).replace("multi-user", "default");
    push_for_alice(
        &machine,
        &[Text("systemd/mine.service", &of("1")), Text("systemd/mine.service.d/a.conf", "[Service]\nNice=3\n")],
    );
    let argv = [
        "runuser",
        "-u",
        "alice",
        "--",
        "env",
        &runtime,
        "gitops-sync",
        "--json",
        "--user-units",
        "--config",
        "/srv/alice.toml",
        "acme/infra",
    ];
    let (exit, result) = run(&machine, &argv);
    assert_eq!(exit, Some(0), "{result:#}");
    assert!(result["not_deployed"].is_null(), "{result:#}");
    let systemctl = |arguments: &[&str]| {
        machine.run(&[&["runuser", "-u", "alice", "--", "env", &runtime, "systemctl", "--user"], arguments].concat())
    };
    assert!(systemctl(&["is-active", "mine.service"]).status.success());
    assert_eq!(systemctl(&["is-enabled", "mine.service"]).stdout, b"enabled\n");
    assert!(machine.exists("/home/alice/.config/systemd/user/mine.service.d/a.conf"));
    assert!(!machine.exists("/etc/systemd/system/mine.service"));
    assert_eq!(machine.read("/home/alice/infra/built"), "alice\n");
    push_for_alice(&machine, &[Text("systemd/mine.service", &of("2"))]);
    assert_eq!(run(&machine, &argv).0, Some(0));
    assert_eq!(machine.read("/srv/log"), "start mine 1\nstop mine 2\nstart mine 2\n");
    push_for_alice(
        &machine,
        &[Text("systemd/mine.service", "[Service]\nExecStart=/usr/bin/false\n[Install]\nWantedBy=default.target\n")],
    );
    assert_eq!(run(&machine, &argv).0, Some(3));
    assert!(systemctl(&["is-active", "mine.service"]).status.success());
    assert_eq!(systemctl(&["show", "--value", "-p", "Description", "mine.service"]).stdout, b"mine 2\n");
}
