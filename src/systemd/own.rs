/// A service of the hub, as `systemd/` has it.
#[derive(Debug)]
pub struct Own {
    /// Its name, in logs and records.
    pub name: &'static str,
    pub unit: &'static str,
    /// What is enabled so that it runs, and what for: itself, where it is always on, or what starts it.
    pub enabled: &'static [(&'static str, &'static str)],
    /// What starts it and is never enabled: it comes up with the services that are always on.
    pub along: Option<&'static str>,
    /// Where it leaves its record and its history, below the state; none where it leaves none.
    pub folder: Option<&'static str>,
    /// The account that it runs as; `contrib/install --user` may put another one in the place of `hub`.
    pub account: &'static str,
}

/// The service that deploys repositories.
pub const GITOPS_SYNC: &str = "gitops-sync";

/// All services of the hub, in the order in which they are shown.
pub const OWN: [Own; 7] = [
    Own {
        name: "proxy",
        unit: "proxy.service",
        enabled: &[("proxy.service", "takes webhooks and serves the status")],
        along: None,
        folder: Some("proxy"),
        account: "hub",
    },
    Own {
        name: GITOPS_SYNC,
        unit: "gitops-sync.service",
        enabled: &[
            ("gitops-sync.path", "starts a deployment when one is queued"),
            ("gitops-sync.timer", "looks at every repository in its turn (poll_minutes)"),
        ],
        along: None,
        folder: Some("gitops"),
        account: "root",
    },
    Own {
        name: "tailscale-gate",
        unit: "tailscale-gate.service",
        enabled: &[("tailscale-gate.service", "opens the funnel")],
        along: None,
        folder: Some("gate"),
        account: "root",
    },
    Own {
        name: "reading-sync",
        unit: "reading-sync.service",
        enabled: &[("reading-sync.timer", "runs the pipelines daily")],
        along: None,
        folder: Some("reading"),
        account: "hub",
    },
    Own {
        name: "system-metrics",
        unit: "system-metrics.service",
        enabled: &[("system-metrics.timer", "measures the host every minute")],
        along: None,
        folder: Some("data/metrics"),
        account: "hub",
    },
    Own {
        name: "hub-watch",
        unit: "hub-watch.service",
        enabled: &[("hub-watch.timer", "judges the host every minute and sends notices")],
        along: None,
        folder: Some("watch"),
        account: "hub-watch",
    },
    Own {
        name: "hub-credentials",
        unit: "hub-credentials.service",
        enabled: &[],
        along: Some("hub-credentials.path"),
        folder: None,
        account: "root",
    },
];

impl Own {
    /// The service of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        OWN.iter().find(|own| own.name == name)
    }

    /// True where it is always on.
    pub fn lasts(&self) -> bool {
        self.enabled.iter().any(|(unit, _)| *unit == self.unit)
    }

    /// The units that start it.
    pub fn starters(&self) -> impl Iterator<Item = &'static str> {
        let unit = self.unit;
        self.enabled.iter().map(|(unit, _)| *unit).filter(move |starter| *starter != unit).chain(self.along)
    }

    /// All of its units.
    pub fn units(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.unit).chain(self.starters())
    }
}

/// The units of all services.
pub fn own_units() -> impl Iterator<Item = &'static str> {
    OWN.iter().flat_map(Own::units)
}

/// True for the name of one of the hub's own units.
pub fn is_own(unit: &str) -> bool {
    own_units().any(|own| own == unit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn read(path: impl AsRef<Path>) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The words of a script that name a unit, or a service by itself.
    fn words(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && !"-.".contains(c)).collect()
    }

    /// The part of a text from one mark to the next.
    fn part<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        let rest = &text[text.find(from).unwrap_or_else(|| panic!("no {from:?}"))..];
        &rest[..rest.find(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}"))]
    }

    #[track_caller]
    fn names_all(text: &str, units: impl Iterator<Item = &'static str>) {
        let words = words(text);
        let left: Vec<&str> = units.filter(|unit| !words.contains(unit)).collect();
        assert!(left.is_empty(), "{left:?} not in {text}");
    }

    #[test]
    fn the_unit_files_are_those_of_the_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> =
            files.filter(|name| [".service", ".path", ".timer"].iter().any(|end| name.ends_with(end))).collect();
        assert_eq!(files, own_units().map(str::to_owned).collect());
        let (users, folders) = (read("systemd/observability-hub.sysusers"), read("systemd/observability-hub.tmpfiles"));
        for own in &OWN {
            let unit = read(format!("systemd/{}", own.unit));
            let has = |line: &str| unit.lines().any(|own| own == line);
            let is_root = own.account == "root";
            assert!(if is_root { !unit.contains("\nUser=") } else { has(&format!("User={}", own.account)) }, "{unit}");
            assert!(is_root || users.lines().any(|line| line.starts_with(&format!("u {} ", own.account))), "{users}");
            assert_eq!(has("Type=oneshot"), !own.lasts(), "{unit}");
            assert_eq!(unit.contains("\nWantedBy="), own.lasts(), "{unit}");
            for starter in own.starters() {
                let is_enabled = own.along != Some(starter);
                assert_eq!(read(format!("systemd/{starter}")).contains("\nWantedBy="), is_enabled, "{starter}");
                let also = unit.lines().filter(|line| line.starts_with("Also="));
                assert_eq!(also.flat_map(words).any(|word| word == starter), is_enabled, "{unit}");
            }
            if let Some(folder) = own.folder {
                // The first part is the folder that it owns.
                let path = format!("/var/lib/observability-hub/{} ", folder.split('/').next().unwrap());
                let line = folders.lines().find(|line| line.contains(&path)).unwrap_or_else(|| panic!("{path}"));
                let owner = line.split_whitespace().nth(3);
                assert_eq!((owner, line.split_whitespace().nth(4)), (Some(own.account), Some("hub")), "{line}");
            }
        }
        let pulled = format!("\nWants={}", Own::named("hub-credentials").unwrap().along.unwrap());
        for own in OWN.iter().filter(|own| own.lasts()) {
            assert!(read(format!("systemd/{}", own.unit)).contains(&pulled), "{}", own.unit);
        }
    }

    #[test]
    fn the_package_and_the_scripts_name_every_unit_that_they_start_stop_or_remove() {
        let cargo = read("Cargo.toml");
        assert!(
            ["service", "path", "timer"].iter().all(|end| cargo.contains(&format!("\"systemd/*.{end}\", \"usr/lib")))
        );
        // What an upgrade restarts: what is always on, and what starts the others.
        let running = || OWN.iter().flat_map(|own| own.starters().chain(own.lasts().then_some(own.unit)));
        let enabled = || OWN.iter().flat_map(|own| own.enabled.iter().map(|(unit, _)| *unit));
        let passing = || OWN.iter().filter(|own| !own.lasts()).map(|own| own.unit);
        names_all(part(&read("contrib/debian/postinst"), "try-restart", "||"), running());
        names_all(&read("contrib/debian/prerm"), own_units());
        let postrm = read("contrib/debian/postrm");
        names_all(part(&postrm, "for unit in", "; do"), enabled());
        names_all(part(&postrm, "proxy tailscale-gate", "; do"), OWN.iter().map(|own| own.name));
        let install = read("contrib/install");
        names_all(part(&install, "running=(", ")"), running());
        names_all(part(&install, "for unit in \"${running[@]}\"", "; do"), passing());
        let of_user: BTreeSet<&str> = OWN.iter().filter(|own| own.account == "hub").map(|own| own.name).collect();
        let named = part(&install, "services_of_user=(", ")").trim_start_matches("services_of_user=(");
        assert_eq!(named.split(' ').collect::<BTreeSet<_>>(), of_user);
        names_all(part(&read("contrib/check-units"), "limit_of=(", "\n\n"), OWN.iter().map(|own| own.name));
        let recorded = || OWN.iter().filter(|own| own.folder.is_some()).map(|own| own.name);
        names_all(
            part(&read("contrib/grafana/dashboards/postgresql/services.json"), "\"templating\"", "\"includeAll\""),
            recorded(),
        );
    }
}
