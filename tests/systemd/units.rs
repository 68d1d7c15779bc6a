//! What the services are made of, each once under this systemd: journal priorities, path units, timers, transient
//! units, verification, user managers.

use std::time::Duration;

use crate::machine::{Machine, describe};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn journal_takes_the_priority_from_the_line() {
    let Some(machine) = Machine::boot() else { return };
    machine.write(
        "/etc/systemd/system/speak.service",
        concat!(
            "[Service]\nType=oneshot\n",
            r#"ExecStart=/usr/bin/echo '<3>{"level":"ERROR","msg":"it_broke"}'"#,
            "\n",
            r#"ExecStart=/usr/bin/echo '{"level":"INFO","msg":"fine"}'"#,
            "\n",
        ),
    );
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "speak.service"]);
    let journal = machine.journal("speak.service");
    let priority =
        |message: &str| journal.iter().find(|entry| entry["MESSAGE"] == message).map(|entry| entry["PRIORITY"].clone());
    assert_eq!(priority(r#"{"level":"ERROR","msg":"it_broke"}"#), Some("3".into()), "{journal:?}");
    assert_eq!(priority(r#"{"level":"INFO","msg":"fine"}"#), Some("6".into()), "{journal:?}");
}

#[test]
fn a_path_unit_starts_its_service_for_each_file_and_ignores_dot_files() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["mkdir", "/srv/queue", "/srv/done"]);
    machine.write("/etc/systemd/system/take.path", "[Path]\nDirectoryNotEmpty=/srv/queue\n");
    machine.write(
        "/etc/systemd/system/take.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'mv /srv/queue/* /srv/done/'\n",
    );
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "take.path"]);
    machine.write("/srv/queue/.unfinished", "");
    for round in 0..3 {
        machine.write(&format!("/srv/queue/{round}"), "");
        machine.wait_for("the queued file to be taken", SOON, || machine.exists(&format!("/srv/done/{round}")));
    }
    assert!(machine.exists("/srv/queue/.unfinished"));
    machine.wait_for("the path unit to wait again", SOON, || {
        machine.ok(&["systemctl", "show", "-P", "SubState", "take.path"]).trim() == "waiting"
    });
}

#[test]
fn timers_fire() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/systemd/system/tick.timer", "[Timer]\nOnActiveSec=100ms\nAccuracySec=1ms\n");
    machine
        .write("/etc/systemd/system/tick.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /srv/ticked\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "tick.timer"]);
    machine.wait_for("the timer's service", SOON, || machine.exists("/srv/ticked"));
}

#[test]
fn transient_units_run_and_report_their_status() {
    let Some(machine) = Machine::boot() else { return };
    let run = |argv: &[&str]| machine.run(&[&["systemd-run", "--wait", "--pipe", "--quiet"], argv].concat());
    let output = run(&["--uid=hub", "id", "-un"]);
    assert_eq!(&*output.stdout, b"hub\n", "{}", describe(&output));
    assert_eq!(run(&["sh", "-c", "exit 9"]).status.code(), Some(9));
}

#[test]
fn systemd_analyze_verifies() {
    let Some(machine) = Machine::boot() else { return };
    let verify = |content: &str| {
        machine.write("/srv/stage/some.service", content);
        machine.run(&["systemd-analyze", "verify", "--recursive-errors=no", "/srv/stage/some.service"])
    };
    let good = verify("[Service]\nExecStart=/usr/bin/true\n");
    assert!(good.status.success() && good.stderr.is_empty(), "{}", describe(&good));
    let bad = verify("[Service]\nExecStart=/usr/bin/no-such-program\n");
    assert!(describe(&bad).contains("no-such-program"), "{}", describe(&bad));
    assert!(!bad.status.success(), "{}", describe(&bad));
}

#[test]
fn a_user_manager_runs() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "--create-home", "alice"]);
    // logind 257 asks of which unit the caller is, and the tests' commands are of none.
    machine.ok(&["systemd-run", "--wait", "--quiet", "loginctl", "enable-linger", "alice"]);
    let uid = machine.ok(&["id", "-u", "alice"]);
    machine.wait_for("alice's systemd", SOON, || {
        machine.run(&["systemctl", "is-active", "--quiet", &format!("user@{}.service", uid.trim())]).status.success()
    });
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", uid.trim());
    let argv = ["runuser", "-u", "alice", "--", "env", &runtime, "systemctl", "--user", "is-system-running", "--wait"];
    assert_eq!(machine.ok(&argv).trim(), "running");
}
