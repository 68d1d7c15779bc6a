use super::*;
use crate::systemd::Unit;

fn failed(names: impl IntoIterator<Item = String>) -> Units {
    let unit = Unit {
        active: "failed".to_owned(),
        result: "exit-code".to_owned(),
        exit_status: "1".to_owned(),
        ..Unit::default()
    };
    names.into_iter().map(|name| (name, unit.clone())).collect()
}

#[test]
fn a_failed_unit_of_the_host_is_a_reason_of_its_own() {
    let mut host = Host::well();
    host.failed = Some(FailedUnits::of(&failed(["mnt-a\\x20b.mount".to_owned(), "app.service".to_owned()]), None));
    let reasons = host.reasons();
    assert_eq!(host.keys(), ["unit/app.service/failed", "unit/mnt-a\\x20b.mount/failed"]);
    assert_eq!((reasons[0].level, reasons[0].about.as_str()), (Level::Failed, "app.service"));
    assert_eq!(reasons[0].reason, "app.service has failed (exit-code, exit status 1)");
    assert_eq!(reasons[1].reason, "mnt-a\\x20b.mount has failed (exit-code)");
    assert!(
        reasons[1].mend.as_ref().unwrap().contains("systemctl status 'mnt-a\\x20b.mount'"),
        "{:?}",
        reasons[1].mend
    );
    // Where nobody knows, nothing is said; that nobody does is a reason by itself.
    host.failed = None;
    assert_eq!(host.keys(), [] as [&str; 0]);
}

#[test]
fn many_failed_units_are_one_reason_until_there_are_few() {
    let many = |count: usize| failed((0..count).map(|number| format!("u{number:03}.service")));
    let mut host = Host::well();
    let mut seen: Option<FailedUnits> = None;
    for (count, reasons) in [(20, 20), (21, 1), (300, 1), (11, 1), (10, 10), (20, 20)] {
        seen = Some(FailedUnits::of(&many(count), seen.as_ref()));
        host.failed = seen.clone();
        assert_eq!(host.keys().len(), reasons, "{count}");
    }
    host.failed = Some(FailedUnits::of(&many(300), None));
    let reason = host.reasons().remove(0);
    assert_eq!((reason.key.as_str(), reason.about.as_str()), ("units/failed", "units"));
    assert!(reason.reason.starts_with("300 units have failed: u000.service, u001.service,"), "{}", reason.reason);
    assert!(reason.reason.ends_with("u019.service and 280 more"), "{}", reason.reason);
}
