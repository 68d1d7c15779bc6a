//! The pages of deployments and units, by a proxy that may see neither mirror nor journal.

use crate::gitops::{Text, configure, push, repository, service, show, sync};
use crate::machine::Machine;

/// A page of the admin listener, by who may reach it.
fn page(machine: &Machine, path: &str) -> String {
    let ask = format!(
        "exec 3<>/dev/tcp/127.0.0.1/8086; printf 'GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; cat <&3"
    );
    machine.ok(&["runuser", "-u", "nobody", "--", "/bin/bash", "-c", &ask])
}

#[test]
fn deployments_and_units_are_shown_from_what_was_left_for_the_group() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    push(&machine, "infra", &[Text("systemd/app.service", &service("app", "1")), Text("app/main", "1")]);
    sync(&machine, "infra").expect(0);
    let text = service("app", "2").replace("[Service]\n", "[Service]\nEnvironment=KEY=secret\n");
    push(&machine, "infra", &[Text("systemd/app.service", &text)]);
    sync(&machine, "infra").expect(0);
    machine.ok(&["systemctl", "start", "proxy.service", "system-metrics.service", "hub-watch.service"]);
    let list = page(&machine, "/deployments");
    assert!(list.starts_with("HTTP/1.1 200") && list.matches(">deployed</b>").count() == 2, "{list}");
    assert!(list.contains("<b>live</b>") && list.contains("restarted"), "{list}");
    let path =
        list.split("href=\"").filter_map(|part| part.split('"').next()).find(|path| path.starts_with("/deployments/"));
    let detail = page(&machine, path.unwrap());
    assert!(detail.contains("<h3>change app.service</h3>") && detail.contains("+Environment=***"), "{detail}");
    assert!(!detail.contains("secret") && !detail.contains("cannot be read"), "{detail}");
    assert!(!detail.contains("Failures are not known") && !detail.contains("What units used is not known"), "{detail}");
    let units = page(&machine, "/units");
    assert_eq!(show(&machine, "app.service", "ActiveState"), "active");
    assert!(units.contains("app.service") && units.contains(">active</b> (running)"), "{units}");
    machine.ok(&["systemctl", "stop", "app.service"]);
    machine.ok(&["systemctl", "start", "hub-watch.service"]);
    assert!(page(&machine, "/units").contains(">inactive</b> (dead)"), "{units}");
}
