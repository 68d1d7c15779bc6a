//! contrib/doc/recovering.md, part by part, with its commands as they stand: what is lost comes back, and what runs goes on.

use crate::gitops::{
    SOON, Text, configure, deliver, deployed, push, repository, service, show, start_hub, sync, wait_deployed,
};
use crate::machine::{Machine, describe};

const PAGE: &str = include_str!("../../contrib/doc/recovering.md");

/// Types the commands of a part.
fn follow(machine: &Machine, part: &str) {
    let text = PAGE.split_once(&format!("\n## {part}\n")).expect("the page has the part").1;
    let block = text.split("```\n").nth(1).expect("the part has commands");
    let output = machine.run_for(&["sh", "-exc", block], None, 4 * SOON);
    assert!(output.status.success(), "{part}: {}", describe(&output));
}

/// Pushes a version of the one service, and returns the commit.
fn version(machine: &Machine, number: &str) -> String {
    push(machine, "infra", &[Text("systemd/app.service", &service("app", number)), Text("v", number)])
}

/// A host with one deployed service and the gateway.
fn site(machine: &Machine) -> String {
    configure(machine, &[repository("infra", "")]);
    let commit = version(machine, "1");
    sync(machine, "infra").expect(0);
    start_hub(machine);
    commit
}

fn invocation(machine: &Machine) -> String {
    show(machine, "app.service", "InvocationID")
}

#[test]
fn a_lost_webhook_secret_is_made_anew_and_deliveries_arrive() {
    let Some(machine) = Machine::boot() else { return };
    site(&machine);
    let before = machine.read("/etc/credstore/webhook-secret");
    follow(&machine, "A lost or leaked webhook secret");
    assert_ne!(machine.read("/etc/credstore/webhook-secret"), before);
    machine.wait_for("the proxy to take the new secret", SOON, || {
        machine.run(&["hub", "webhook-test", "acme/infra"]).status.success()
    });
    let commit = version(&machine, "2");
    deliver(&machine, "infra");
    wait_deployed(&machine, "infra", &commit);
}

#[test]
fn after_a_loss_of_the_state_everything_is_adopted_and_nothing_restarts() {
    let Some(machine) = Machine::boot() else { return };
    let commit = site(&machine);
    let (before, owner) = (invocation(&machine), machine.ok(&["stat", "-c", "%U", "/srv/infra"]));
    machine.ok(&["rm", "-rf", "/var/lib/observability-hub"]);
    follow(&machine, "Lost state");
    assert_eq!((deployed(&machine, "infra"), invocation(&machine)), (commit, before));
    assert_eq!(machine.ok(&["stat", "-c", "%U", "/srv/infra"]), owner);
    // It goes on from there.
    let commit = version(&machine, "2");
    deliver(&machine, "infra");
    wait_deployed(&machine, "infra", &commit);
    assert_eq!(show(&machine, "app.service", "Description"), "app 2");
}

#[test]
fn a_restored_state_goes_forward_from_what_it_remembers() {
    let Some(machine) = Machine::boot() else { return };
    site(&machine);
    machine.ok(&["tar", "-cpf", "/root/state.tar", "-C", "/", "var/lib/observability-hub"]);
    version(&machine, "2");
    sync(&machine, "infra").expect(0);
    let tip = version(&machine, "3");
    follow(&machine, "State from a backup");
    assert_eq!((deployed(&machine, "infra"), machine.read("/srv/infra/v")), (tip, "3".to_owned()));
    assert_eq!(show(&machine, "app.service", "Description"), "app 3");
    let saved = machine.ok(&["grep", "-rl", "Description=app 2", "/var/lib/observability-hub/gitops/saved"]);
    assert!(saved.contains("app.service"), "{saved}");
}
