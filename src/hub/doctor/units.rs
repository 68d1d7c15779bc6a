use super::findings::{Finding, Findings};
use super::patient::Patient;
use crate::command;
use crate::config::Config;
use crate::gate;
use crate::hub::units::Unit;
use crate::systemd::OWN;
use crate::watch;

/// Whether the units are installed, enabled and active.
pub(super) fn units(patient: &Patient<'_>, error: Option<&command::Error>) -> Vec<Finding> {
    let mut findings = Findings::new("units");
    let Some(units) = &patient.units else {
        match error {
            Some(error) => findings.problem(error.to_string(), "systemctl status"),
            None => findings.ok("systemd does not run this host; hub up runs the services"),
        }
        return findings.all;
    };
    if !units.values().any(Unit::is_installed) {
        findings.ok(
            "the units are not installed; hub up runs the services, and contrib/install or the package installs them",
        );
        return findings.all;
    }
    for (own, &(name, purpose)) in OWN.iter().flat_map(|own| own.enabled.iter().map(move |unit| (own, unit))) {
        let unit = units.get(name).cloned().unwrap_or_default();
        if !is_needed(patient, own.name) && !unit.is_enabled() && !unit.is_active() {
            findings.ok(format!("{name} is not enabled, and needs not be"));
            continue;
        }
        judge(name, purpose, &unit, &mut findings);
    }
    let is_active = |name: &&str| units.get(*name).is_some_and(Unit::is_active);
    let lasting = OWN.iter().filter(|own| own.lasts()).map(|own| own.unit).find(is_active);
    for renews in OWN.iter().filter_map(|own| own.along).filter(|unit| !is_active(unit)) {
        if let Some(name) = lasting {
            let finding = format!("{renews} does not run: {name} does not get credentials that change");
            findings.warning(finding, format!("systemctl start {renews}"));
        }
    }
    for name in OWN.iter().filter(|own| !own.lasts()).map(|own| own.unit) {
        let unit = units.get(name).cloned().unwrap_or_default();
        if unit.active == "failed" {
            let finding = format!("the last run of {name} failed ({}, exit status {})", unit.result, unit.exit_status);
            findings.problem(finding, format!("journalctl -u {name} -n 20"));
        } else if !unit.is_installed() {
            findings.problem(format!("{name} is not installed"), "install the package again");
        }
    }
    let stale: Vec<&str> = units.iter().filter(|(_, unit)| unit.needs_reload).map(|(name, _)| name.as_str()).collect();
    if !stale.is_empty() {
        let finding =
            format!("systemd knows older versions of {} than are on the disk", crate::text::listed(&stale, ", "));
        findings.warning(finding, "systemctl daemon-reload");
    }
    findings.all
}

/// Whether a host without a service lacks something.
fn is_needed(patient: &Patient<'_>, service: &str) -> bool {
    let Some(config) = &patient.config else { return service != "tailscale-gate" };
    match service {
        "tailscale-gate" => false,
        "hub-watch" => watch::is_wanted(config),
        "reading-sync" => !config.pipelines.is_empty(),
        "gitops-sync" => !config.repositories.is_empty(),
        _ => true,
    }
}

fn judge(name: &str, purpose: &str, unit: &Unit, findings: &mut Findings) {
    let enable = format!("systemctl enable --now {name}");
    if !unit.is_installed() {
        findings.problem(format!("{name}, which {purpose}, is not installed"), "install the package again");
    } else if unit.load == "masked" {
        findings.warning(format!("{name}, which {purpose}, is masked"), format!("systemctl unmask {name}"));
    } else if unit.load != "loaded" {
        let finding = format!("systemd does not load {name}: {} {}", unit.load, unit.load_error);
        findings.problem(finding, format!("systemd-analyze verify {name}"));
    } else if unit.active == "failed" || unit.is_restarting() {
        let word = if unit.is_restarting() { "is restarted again and again" } else { "has failed" };
        let finding = format!("{name} {word} ({}, exit status {})", unit.result, unit.exit_status);
        let stem = name.trim_end_matches(".service");
        findings.problem(finding, format!("journalctl -u {stem} -n 20, then: systemctl restart {name}"));
    } else if !unit.is_enabled() {
        let now = if unit.is_active() {
            "runs, and is not enabled: it will be gone after a reboot"
        } else {
            "is not enabled"
        };
        findings.warning(format!("{name}, which {purpose}, {now}"), enable);
    } else if !unit.is_active() {
        findings.problem(
            format!("{name}, which {purpose}, is enabled and does not run"),
            format!("systemctl start {name}"),
        );
    } else {
        findings.ok(format!("{name} is enabled and active"));
    }
}

/// Whether the public door could be opened, where somebody wants it to be.
pub(super) fn gate(patient: &Patient<'_>, config: &Config) -> Vec<Finding> {
    let mut findings = Findings::new("tailscale");
    let unit = patient.units.as_ref().and_then(|units| units.get("tailscale-gate.service"));
    let wanted = unit.is_some_and(|unit| unit.is_enabled() || unit.is_active());
    match gate::check(config) {
        Ok(sentence) if wanted => findings.ok(sentence),
        Ok(sentence) => {
            findings.ok(format!("{sentence}; nothing does (systemctl enable --now tailscale-gate, or hub up --gate)"))
        }
        Err(gate::Error::NotInstalled) if !wanted => {
            findings.ok("tailscale is not installed, and no tailscale-gate is enabled: there is no funnel");
        }
        // The gate's own mistake in hub.toml would be refused by it in any case.
        Err(error @ gate::Error::Config(_)) => {
            findings.problem(error.to_string(), format!("editor {}", patient.path.display()))
        }
        Err(error) => {
            let mend = mend(&error, config.gate.port);
            let finding = error.to_string();
            if wanted {
                findings.problem(finding, mend)
            } else {
                findings.warning(format!("{finding} (no gate is enabled)"), mend)
            }
        }
    }
    findings.all
}

fn mend(error: &gate::Error, port: u16) -> String {
    match error {
        gate::Error::NotInstalled => "curl -fsSL https://tailscale.com/install.sh | sh".to_owned(),
        gate::Error::TooOld(_) => "tailscale update".to_owned(),
        gate::Error::NotRunning => "systemctl enable --now tailscaled".to_owned(),
        gate::Error::NoAnswer(_) => "systemctl status tailscaled".to_owned(),
        gate::Error::Expired => "tailscale up --force-reauth".to_owned(),
        gate::Error::OtherTailnet { .. } | gate::Error::State(_) => "tailscale-gate allow".to_owned(),
        gate::Error::OldClient { .. } => "tailscale version --daemon".to_owned(),
        gate::Error::NotConnected(_) => "tailscale up".to_owned(),
        gate::Error::Occupied { .. } => format!("tailscale serve --https={port} off"),
        gate::Error::NoHttps | gate::Error::NoFunnel | gate::Error::Port { .. } => {
            format!(
                "tailscale funnel --https={port} 1   # names the page of the admin console to open; end it with Ctrl-C"
            )
        }
        gate::Error::Denied(_) => "tailscale set --operator=NAME".to_owned(),
        _ => "tailscale status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::Level;
    use super::*;

    #[test]
    fn every_state_of_a_unit_has_its_finding() {
        for (words, level, part, mend) in [
            ("loaded active running enabled", Level::Ok, "is enabled and active", ""),
            (
                "loaded active running disabled",
                Level::Warning,
                "it will be gone after a reboot",
                "systemctl enable --now",
            ),
            ("loaded inactive dead disabled", Level::Warning, "is not enabled", "systemctl enable --now proxy.service"),
            ("loaded inactive dead enabled", Level::Problem, "does not run", "systemctl start proxy.service"),
            ("loaded failed failed enabled", Level::Problem, "has failed", "journalctl -u proxy -n 20"),
            (
                "loaded activating auto-restart enabled",
                Level::Problem,
                "again and again",
                "systemctl restart proxy.service",
            ),
            ("masked inactive dead masked", Level::Warning, "is masked", "systemctl unmask proxy.service"),
            ("bad-setting inactive dead enabled", Level::Problem, "does not load", "systemd-analyze verify"),
            ("not-found inactive dead -", Level::Problem, "is not installed", "install the package"),
        ] {
            let [load, active, sub, file] = words.split(' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
            let [load, active, sub, file] = [load, active, sub, file].map(str::to_owned);
            let unit = Unit { load, active, sub, file, ..Unit::default() };
            let mut findings = Findings::new("units");
            judge("proxy.service", "takes webhooks", &unit, &mut findings);
            let [found] = &findings.all[..] else { panic!("{words}: {findings:?}") };
            assert_eq!(found.level, level, "{words}: {found:?}");
            assert!(found.finding.contains(part), "{words}: {found:?}");
            assert!(found.mend.as_deref().unwrap_or_default().contains(mend), "{words}: {found:?}");
        }
    }
}
