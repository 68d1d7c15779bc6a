//! What unit deployment costs, printed for the reader: a busy host is no judge of milliseconds.

use crate::gitops::{SOON, Text, configure, deliver, push, repository, service, show, start_hub, sync, wait_deployed};
use crate::machine::Machine;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn the_cost_of_units_and_the_way_from_202_to_a_live_unit() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("with", ""), repository("without", "units = \"\"")]);
    let unit = |version: u32| service("app", &version.to_string());
    for name in ["with", "without"] {
        push(&machine, name, &[Text("systemd/app.service", &unit(0))]);
        sync(&machine, name).expect(0);
    }
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..9 {
        for (name, took) in ["with", "without"].iter().zip(&mut took) {
            push(&machine, name, &[Text("README.md", &number.to_string())]);
            let run = sync(&machine, name).expect(0);
            took.push(run.first()["duration_ms"].as_f64().expect("a number"));
        }
    }
    let [with, without] = took.map(median);
    eprintln!(
        "a push that changes no unit: {with} ms; with units = \"\": {without} ms; difference {} ms",
        with - without
    );

    start_hub(&machine);
    let mut lives = Vec::new();
    for version in 1..=5 {
        let commit = push(&machine, "with", &[Text("systemd/app.service", &unit(version))]);
        deliver(&machine, "with");
        let uptime = machine.read("/proc/uptime");
        let accepted: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        machine.wait_for("the new version", SOON, || {
            show(&machine, "app.service", "Description") == format!("app {version}")
                && show(&machine, "app.service", "SubState") == "running"
        });
        wait_deployed(&machine, "with", &commit);
        let started: f64 =
            show(&machine, "app.service", "ExecMainStartTimestampMonotonic").parse().expect("microseconds");
        lives.push(started / 1000.0 - accepted * 1000.0);
    }
    eprintln!("a changed unit runs {:.0} ms after its 202 (median of {lives:.0?})", median(lives.clone()));
    assert!(median(lives) < 30_000.0);
}
