//! The package and `contrib/install`: installed, upgraded, removed and purged, with nothing configured and at work.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::gitops::{SOON, dangling, show};
use crate::machine::{Machine, PACKAGE, describe};

/// What a person may enable, by the program it runs.
const STARTABLE: &[(&str, &str)] = &[
    ("proxy.service", "proxy"),
    ("gitops-sync.path", "gitops-sync"),
    ("gitops-sync.timer", "gitops-sync"),
    ("tailscale-gate.service", "tailscale-gate"),
    ("reading-sync.timer", "reading-sync"),
    ("system-metrics.timer", "system-metrics"),
    ("hub-watch.timer", "hub"),
];

/// The design's section 10: path below the state root, owner, mode.
const FOLDERS: &str = "\
/ root:root 755
/data hub:hub 750
/gate root:hub 750
/gitops root:hub 751
/gitops/mirror hub-git:hub-git 750
/proxy hub:hub 750
/proxy/queue hub:hub 750
/reading hub:hub 750
/watch hub-watch:hub 750
";

/// What can be enabled of what is installed.
pub fn startable(machine: &Machine) -> Vec<&'static str> {
    let is_there = |program: &str| machine.exists(&format!("/usr/bin/{program}"));
    STARTABLE.iter().filter(|(_, program)| is_there(program)).map(|(unit, _)| *unit).collect()
}

/// Owners and modes of the folders that the package makes.
fn folders(machine: &Machine) -> String {
    let names: Vec<&str> = FOLDERS.lines().filter_map(|line| line.split(' ').next()).collect();
    let all = machine.ok(&["find", "/var/lib/observability-hub", "-type", "d", "-printf", "/%P %u:%g %m\n"]);
    let mut listed: Vec<&str> =
        all.lines().filter(|line| line.split(' ').next().is_some_and(|name| names.contains(&name))).collect();
    listed.sort_unstable();
    listed.iter().map(|line| format!("{line}\n")).collect()
}

/// Enables and starts units.
pub fn enable(machine: &Machine, units: &[&str]) {
    for unit in units {
        let output = machine.run(&["systemctl", "enable", "--now", "--quiet", unit]);
        let journal = machine.run(&["journalctl", "--no-pager", "-o", "cat", "-n", "20", "-u", unit]);
        assert!(output.status.success(), "{unit}: {} {}", describe(&output), describe(&journal));
    }
}

/// The units that have failed, one a line.
pub fn failed_units(machine: &Machine) -> String {
    machine.ok(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
}

/// Installs a package file, as `apt-get install ./FILE` does in the end.
pub fn install(machine: &Machine, package: &str) {
    machine.ok(&["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--install", package]);
}

#[test]
fn with_nothing_configured_all_units_load_and_none_fails_over_two_reboots() {
    let Some(mut machine) = Machine::boot() else { return };
    let files = machine.ok(&["dpkg", "--listfiles", "observability-hub"]);
    let units: Vec<&str> = files.lines().filter_map(|path| path.strip_prefix("/usr/lib/systemd/system/")).collect();
    assert_eq!(units.len(), 13, "{units:?}");
    for unit in &units {
        assert_eq!(show(&machine, unit, "LoadState"), "loaded", "{unit}");
        assert_eq!(show(&machine, unit, "ActiveState"), "inactive", "{unit}");
        let state = show(&machine, unit, "UnitFileState");
        assert!(["disabled", "static", "indirect"].contains(&&*state), "{unit} is {state}");
    }
    assert_eq!(folders(&machine), FOLDERS);
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", "/etc/credstore"]), "root:root 700\n");
    let startable = startable(&machine);
    enable(&machine, &startable);
    for _ in 0..2 {
        machine.reboot();
        for unit in &startable {
            assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
        }
        assert_eq!(failed_units(&machine), "");
        assert_eq!(folders(&machine), FOLDERS);
    }
    let journal = machine.ok(&["journalctl", "--no-pager", "-p", "warning", "-u", "proxy.service", "-o", "cat"]);
    assert!(journal.contains("secret_missing"), "it starts without a secret and says so: {journal}");
}

#[test]
fn removing_keeps_what_is_the_admins_and_purging_removes_the_state() {
    let Some(machine) = Machine::boot_bare() else { return };
    install(&machine, PACKAGE);
    let startable = startable(&machine);
    enable(&machine, &startable);
    machine.write("/var/lib/observability-hub/data/kept", "state");
    machine.write("/etc/observability-hub/allowed_signers", "a key\n");
    machine.ok(&["sh", "-c", "echo '# mine' >>/etc/observability-hub/hub.toml"]);

    machine.ok(&["dpkg", "--remove", "observability-hub"]);
    assert!(!machine.run(&["pgrep", "-x", "proxy|tailscale-gate|gitops-sync"]).status.success());
    assert!(!machine.exists("/usr/bin/proxy") && !machine.exists("/usr/lib/systemd/system/proxy.service"));
    assert_eq!(machine.read("/var/lib/observability-hub/data/kept"), "state");
    assert_eq!(failed_units(&machine), "");

    install(&machine, PACKAGE);
    assert!(machine.read("/etc/observability-hub/hub.toml").ends_with("# mine\n"));
    assert_eq!(show(&machine, "proxy.service", "UnitFileState"), "enabled", "what was enabled is so again");

    machine.ok(&["systemctl", "start", "proxy.service"]);
    machine.ok(&["dpkg", "--purge", "observability-hub"]);
    for gone in ["/var/lib/observability-hub", "/run/observability-hub", "/etc/observability-hub/hub.toml"] {
        assert!(!machine.exists(gone), "{gone}");
    }
    assert!(machine.exists("/etc/observability-hub/allowed_signers"), "what the admin made is not dpkg's to remove");
    assert_eq!(dangling(&machine), "");
    assert_eq!(machine.ok(&["find", "/var/lib/systemd/timers", "-name", "stamp-*-sync.*"]), "");
    assert_eq!(failed_units(&machine), "");
    machine.ok(&["id", "hub"]);
}

/// The part of the checkout that `contrib/install` installs from, in /srv/checkout, and built programs in /srv/built.
fn put_checkout(machine: &Machine) {
    let tar = tempfile::NamedTempFile::new().expect("the test can prepare its files");
    let packed = Command::new("tar")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "-cf", "-", "systemd", "contrib", "README.md", "Cargo.toml"])
        .stdin(Stdio::null())
        .stdout(tar.reopen().expect("the test can prepare its files"))
        .status();
    assert!(packed.expect("the test can prepare its files").success());
    machine.ok(&["mkdir", "/srv/checkout"]);
    let input = File::open(Path::new(tar.path())).expect("the test can prepare its files");
    let unpacked = machine.run_for(&["tar", "-C", "/srv/checkout", "-x"], Some(input), SOON);
    assert!(unpacked.status.success(), "{}", describe(&unpacked));
    machine.ok(&["dpkg-deb", "--extract", PACKAGE, "/srv/built"]);
    machine.ok(&["mkdir", "/srv/built/usr/bin/examples"]);
    machine.copy_in(&crate::support::example::example("manual"), "/srv/built/usr/bin/examples/manual");
}

#[test]
fn contrib_install_is_idempotent_takes_another_user_and_leaves_data_behind() {
    let Some(mut machine) = Machine::boot_bare() else { return };
    put_checkout(&machine);
    let run =
        |machine: &Machine, arguments: &[&str]| machine.ok(&[&["/srv/checkout/contrib/install"], arguments].concat());
    let built = ["--binaries", "/srv/built/usr/bin"];
    let files = |machine: &Machine| {
        machine.ok(&[
            "find",
            "/etc",
            "/usr/bin",
            "/var/lib/observability-hub",
            "-newer",
            "/srv/mark",
            "!",
            "-type",
            "d",
        ])
    };

    machine.write("/srv/mark", "");
    let planned = run(&machine, &[&built[..], &["--dry-run"]].concat());
    assert!(planned.contains("/usr/bin/proxy") && !machine.exists("/usr/bin/proxy"), "{planned}");
    run(&machine, &built);
    assert_eq!(folders(&machine), FOLDERS);
    let made = ["/usr/share/man/man1/hub-status.1", "/usr/share/bash-completion/completions/hub"];
    assert!(made.iter().all(|path| machine.exists(path)));
    machine.ok(&["systemctl", "enable", "--now", "--quiet", "proxy.service", "gitops-sync.path"]);
    machine.write("/etc/observability-hub/hub.toml", "[proxy]\nmax_body = \"1 MiB\"\n");

    machine.ok(&["touch", "/srv/mark"]);
    let pid = show(&machine, "proxy.service", "MainPID");
    let said = run(&machine, &built);
    assert!(said.contains("in place already"), "{said}");
    assert_eq!((files(&machine).as_str(), show(&machine, "proxy.service", "MainPID")), ("", pid.clone()));

    machine.ok(&["useradd", "--system", "watcher"]);
    run(&machine, &[&built[..], &["--user", "watcher"]].concat());
    let now = show(&machine, "proxy.service", "MainPID");
    assert_ne!(now, pid, "what runs is restarted as the other user");
    assert_eq!(
        machine.ok(&["ps", "-o", "user:20=,group:20=", "-p", &now]).split_whitespace().collect::<Vec<_>>(),
        ["watcher", "hub"]
    );
    machine.reboot();
    assert_eq!(folders(&machine), FOLDERS.replace("hub:hub", "watcher:hub"));
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");
    assert_eq!(failed_units(&machine), "");

    run(&machine, &["--uninstall"]);
    assert!(!machine.exists("/usr/bin/proxy") && !machine.exists("/etc/systemd/system/proxy.service"));
    assert!(!made.iter().any(|path| machine.exists(path)), "pages and completions go with it");
    assert_eq!(dangling(&machine), "");
    assert!(machine.read("/etc/observability-hub/hub.toml").contains("1 MiB"));
    assert!(machine.exists("/var/lib/observability-hub/proxy/queue"));
    run(&machine, &["--uninstall", "--purge"]);
    assert!(!machine.exists("/var/lib/observability-hub") && !machine.exists("/etc/observability-hub"));
    assert_eq!(failed_units(&machine), "");
}

#[test]
fn contrib_install_does_not_mix_with_the_package() {
    let Some(machine) = Machine::boot_bare() else { return };
    put_checkout(&machine);
    install(&machine, PACKAGE);
    let refused = machine.run(&["/srv/checkout/contrib/install", "--binaries", "/srv/built/usr/bin"]);
    assert_eq!(refused.status.code(), Some(1), "{}", describe(&refused));
    assert!(describe(&refused).contains("apt-get remove observability-hub"), "{}", describe(&refused));
    let unknown = machine.run(&["/srv/checkout/contrib/install", "--purge"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", describe(&unknown));
}
