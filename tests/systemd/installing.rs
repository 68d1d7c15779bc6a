//! The README's chapter "Installing", word by word: its commands in their order, each of which has to work on a machine
//! that has nothing of the hub's yet.

use crate::gate::Node;
use crate::gitops::{SOON, Text, deployed, push, repository, show, wait_deployed};
use crate::machine::{Machine, PACKAGE, describe};
use crate::package::failed_units;

const README: &str = include_str!("../../README.md");

/// The commands of a chapter's blocks, without their comments.
fn commands(chapter: &str) -> Vec<&str> {
    let begin = README.find(chapter).expect("the README has the chapter") + chapter.len();
    let text = README[begin..].split("\n##").next().unwrap_or_default();
    let blocks = text.split("\n```\n").skip(1).step_by(2);
    blocks.flat_map(str::lines).map(|line| line.split(" # ").next().unwrap_or(line).trim()).collect()
}

#[test]
fn every_command_of_the_chapter_works_in_its_order() {
    let Some(machine) = Machine::boot_bare() else { return };
    let commands = commands("\n### Debian 12 or newer\n");
    // The package is made with these on the host of the tests: there is no network here, and no compiler.
    let made = commands.iter().position(|command| *command == "cargo install cargo-deb --locked && contrib/package");
    let made = made.unwrap_or_else(|| panic!("the chapter does not make the package: {commands:#?}"));
    assert_eq!(commands[..made], ["apt-get install build-essential git"]);
    let built = format!("/root/target/debian/observability-hub_{}-1_amd64.deb", observability_hub::VERSION);
    machine.ok(&["install", "-D", PACKAGE, &built]);

    // What a person writes in the editor, and a node of tailscale's.
    let commit = push(&machine, "infra", &[Text("systemd/a.service", "[Service]\nExecStart=/usr/bin/sleep inf\n")]);
    machine.write("/root/mine.toml", repository("infra", ""));
    machine.write("/usr/local/bin/editor", "#!/bin/sh\nexec cat /root/mine.toml >>\"$1\"\n");
    machine.ok(&["chmod", "0755", "/usr/local/bin/editor"]);

    let rest = &commands[made + 1..];
    assert!(rest.len() >= 7, "{rest:#?}");
    for command in rest {
        if command.contains("tailscale-gate") {
            Node::install(&machine);
        }
        let output = machine.run(&["sh", "-c", &format!("cd /root && {command}")]);
        assert!(output.status.success(), "{command}\n{}\n{commands:#?}", describe(&output));
    }
    wait_deployed(&machine, "infra", &commit);
    for unit in ["proxy", "gitops-sync.path", "gitops-sync.timer", "system-metrics.timer", "reading-sync.timer"] {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
    }
    machine.wait_for("the gate to open", SOON, || {
        let status = machine.run(&["tailscale-gate", "status"]);
        String::from_utf8_lossy(&status.stdout).contains("open")
    });
    assert_eq!(failed_units(&machine), "");
    machine.ok(&["hub", "webhook-test", "acme/infra"]);
    assert_eq!(deployed(&machine, "infra"), commit);
    assert_eq!(machine.ok(&["stat", "-c", "%U %a", "/etc/credstore/webhook-secret"]), "root 600\n");
}
