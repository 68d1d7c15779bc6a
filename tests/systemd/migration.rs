//! contrib/migrate-from-go.md, step by step, on a copy of an installation of the Go version.

use std::path::Path;

use crate::gitops::show;
use crate::machine::{Machine, PACKAGE};
use crate::package::{failed_units, install};

/// The commands of contrib/migrate-from-go.md that need neither a database nor tailscale, around the installation.
fn migration() -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/migrate-from-go.md");
    let text = std::fs::read_to_string(path).expect("the page has its parts");
    let steps = |text: &str| -> String {
        text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect::<Vec<_>>().concat()
    };
    let (before, after) = text.split_once("## 3. Install").expect("the page has its parts");
    let first = before
        .split("```sh\n")
        .nth(1)
        .expect("the page has its parts")
        .split("```")
        .next()
        .expect("the page has its parts");
    (format!("set -eu\n{}", steps(before)), format!("set -eu\n{first}{}", steps(after)))
}

#[test]
fn an_installation_of_the_go_version_moves_over_by_the_documented_steps() {
    let Some(machine) = Machine::boot_bare() else { return };
    let old = "/home/server/software/observability-hub";
    machine.ok(&["useradd", "--create-home", "server"]);
    machine.ok(&["git", "init", "--quiet", "--initial-branch=main", old]);
    let env = "GITHUB_WEBHOOK_SECRET='a secret with spaces, long enough'\nMONGO_URI=\"mongodb://h/?a=b&c=d\"\n\
               DATABASE_URL=postgres://u:p%40@127.0.0.1/homelab\n# a comment\nDB_PORT=5432\n";
    machine.write(&format!("{old}/.env"), env);
    // As its units are: a user of their own, the .env, programs in the checkout, linked by `systemctl enable PATH`.
    let unit = |program: &str| {
        format!(
            "[Service]\nUser=server\nWorkingDirectory={old}\nEnvironmentFile={old}/.env\nExecStart={program}\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    };
    machine.write(&format!("{old}/systemd/proxy.service"), unit("/usr/bin/sleep infinity"));
    machine.write(&format!("{old}/systemd/volume-backup.service"), unit("/usr/bin/sleep infinity"));
    machine.write(&format!("{old}/systemd/system-metrics.service"), unit("/usr/bin/true"));
    machine.write(
        &format!("{old}/systemd/system-metrics.timer"),
        "[Timer]\nOnCalendar=*:0/1\n[Install]\nWantedBy=timers.target\n",
    );
    machine.ok(&["chown", "-R", "server:server", "/home/server"]);
    machine.ok(&["systemctl", "link", "--quiet", &format!("{old}/systemd/system-metrics.service")]);
    for name in ["proxy.service", "volume-backup.service", "system-metrics.timer"] {
        machine.ok(&["systemctl", "enable", "--now", "--quiet", &format!("{old}/systemd/{name}")]);
    }
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");

    let (before, after) = migration();
    machine.ok(&["sh", "-c", &before]);
    assert_eq!(show(&machine, "volume-backup.service", "ActiveState"), "active", "not ours to stop");
    assert!(machine.exists("/etc/systemd/system/volume-backup.service"));
    for name in ["proxy.service", "system-metrics.service", "system-metrics.timer"] {
        assert!(!machine.exists(&format!("/etc/systemd/system/{name}")), "{name}");
    }
    install(&machine, PACKAGE);
    machine.ok(&["sh", "-c", &after]);

    assert_eq!(machine.read("/etc/credstore/webhook-secret"), "a secret with spaces, long enough\n");
    assert_eq!(machine.read("/etc/credstore/mongo-uri"), "mongodb://h/?a=b&c=d\n");
    assert_eq!(machine.read("/etc/credstore/database-url"), "postgres://u:p%40@127.0.0.1/homelab\n");
    assert_eq!(machine.ok(&["stat", "-c", "%a", "/etc/credstore/webhook-secret"]), "600\n");
    let file = show(&machine, "proxy.service", "FragmentPath");
    assert!(file.ends_with("/lib/systemd/system/proxy.service"), "the package's unit is hidden by {file}");
    for unit in ["proxy.service", "gitops-sync.path", "gitops-sync.timer"] {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
    }
    // The old secret is the one that deliveries are checked with.
    machine.ok(&["hub", "webhook-test", "victoriacheng15/observability-hub"]);
    assert_eq!(failed_before_network(&machine), "");
}

/// Failed units, but for the worker: the origin of this repository is on the internet, which a machine has not got.
fn failed_before_network(machine: &Machine) -> String {
    let failed = failed_units(machine);
    failed.lines().filter(|line| !line.starts_with("gitops-sync.service")).collect()
}
