//! What an installation leaves, as piuparts looks: every path of the machine before it and after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::gitops::{Text, configure, push, repository, start_hub, sync};
use crate::host::base;
use crate::machine::{Machine, PACKAGE};
use crate::package::{enable, failed_units, install, startable};
use crate::support::skip::skip;

/// What the machine itself changes while it runs, and what dpkg keeps of every package.
const ELSEWHERE: &str = "-path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv -o -path /root \
     -o -path /var/log -o -path /var/tmp -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd/catalog";

/// Every path with its kind, mode and owner, and every file of /etc with its hash.
fn paths(machine: &Machine) -> BTreeSet<String> {
    let script = format!(
        "find / -xdev \\( {ELSEWHERE} \\) -prune -o -printf '%p %M %u:%g\\n'
         find /etc -type f -exec sha256sum {{}} + | awk '{{ print $2, $1 }}'"
    );
    machine.ok(&["sh", "-ec", &script]).lines().map(str::to_owned).collect()
}

/// What is here and was not, or is not as it was, without the accounts, which stay by intention.
fn left(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let accounts = ["passwd", "group", "shadow", "gshadow", ".pwd.lock", "passwd-", "group-", "shadow-", "gshadow-"];
    let is_account = |line: &str| accounts.iter().any(|name| line.starts_with(&format!("/etc/{name} ")));
    // systemd's own, of any boot.
    let is_systemd_s = |line: &str| line.starts_with("/var/lib/systemd/") && !line.contains("/stamp-");
    now.difference(before).filter(|line| !is_account(line) && !is_systemd_s(line)).cloned().collect()
}

fn names(lines: &[String]) -> Vec<&str> {
    let names: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    names.into_iter().collect()
}

/// From `HUB_TEST_PREVIOUS_DEB` where that names an older package, else from this one.
#[test]
fn installed_upgraded_removed_purged_and_installed_again_it_leaves_what_the_manual_names() {
    let Some(machine) = Machine::boot_bare() else { return };
    let before = paths(&machine);
    match std::env::var_os("HUB_TEST_PREVIOUS_DEB") {
        Some(previous) => {
            machine.copy_in(Path::new(&previous), "/srv/previous.deb");
            install(&machine, "/srv/previous.deb");
        }
        None => install(&machine, PACKAGE),
    }
    configure(&machine, &[repository("infra", "units = \"\"")]);
    push(&machine, "infra", &[Text("file", "1")]);
    enable(&machine, &startable(&machine));
    start_hub(&machine);
    sync(&machine, "infra").expect(0);

    machine.ok(&["dpkg-deb", "--raw-extract", PACKAGE, "/srv/next"]);
    machine.ok(&["sed", "-i", "s/^Version: .*/Version: 99/", "/srv/next/DEBIAN/control"]);
    machine.ok(&["dpkg-deb", "--build", "-Znone", "/srv/next", "/srv/next.deb"]);
    machine.ok(&["dpkg", "--force-confdef", "--force-confold", "--install", "/srv/next.deb"]);
    // Once more over itself, as `apt-get install --reinstall` does.
    machine.ok(&["dpkg", "--force-confdef", "--force-confold", "--install", "/srv/next.deb"]);
    sync(&machine, "infra").expect(0);
    for file in ["man1/hub-status.1", "man5/hub.toml.5", "man7/observability-hub.7", "man8/gitops-sync.8"] {
        assert!(machine.exists(&format!("/usr/share/man/{file}.gz")), "{file}");
    }
    for file in ["bash-completion/completions/hub", "zsh/vendor-completions/_hub", "fish/vendor_completions.d/hub.fish"]
    {
        assert!(machine.exists(&format!("/usr/share/{file}")), "{file}");
    }

    machine.ok(&["dpkg", "--remove", "observability-hub"]);
    let removed = left(&before, &paths(&machine));
    let kept = ["/etc/observability-hub", "/var/lib/observability-hub", "/etc/credstore", "/etc/systemd/system/"];
    let stray = removed.iter().filter(|line| !kept.iter().any(|place| line.starts_with(place)));
    let stray: Vec<&String> = stray.filter(|line| !line.starts_with("/var/lib/systemd/timers/stamp-")).collect();
    assert!(stray.is_empty(), "removed, and there: {stray:#?}");

    machine.ok(&["dpkg", "--purge", "observability-hub"]);
    let purged = left(&before, &paths(&machine));
    // observability-hub(7), "Removing": secrets, checkouts (here below /srv) and accounts.
    let documented = ["/etc/credstore", "/etc/credstore/webhook-secret"];
    let stray: Vec<&str> = names(&purged).into_iter().filter(|name| !documented.contains(name)).collect();
    assert!(stray.is_empty(), "purged, and there: {stray:#?}");
    assert_eq!(failed_units(&machine), "");

    // Nothing of the first installation is in the way of another, and that leaves nothing more.
    install(&machine, PACKAGE);
    configure(&machine, &[repository("infra", "units = \"\"")]);
    start_hub(&machine);
    sync(&machine, "infra").expect(0);
    assert_eq!(failed_units(&machine), "");
    machine.ok(&["dpkg", "--purge", "observability-hub"]);
    assert_eq!(names(&left(&before, &paths(&machine))), names(&purged));
}

#[test]
fn lintian_finds_no_fault_in_the_package() {
    let base = match base() {
        Ok(base) => base,
        Err(reason) => return skip("lintian", reason),
    };
    if Command::new("lintian").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return skip("lintian", "there is no lintian");
    }
    // The programs of tests are not stripped; contrib/package strips them.
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--suppress-tags", "unstripped-binary-or-object"]);
    let output = lintian.arg(&base.package).stdin(Stdio::null()).output().expect("lintian starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("\nE: ") && !said.contains("\nW: "), "{said}");
}
