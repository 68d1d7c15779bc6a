use std::collections::BTreeMap;

use super::show::Block;

/// A unit as systemd sees it; the words are those of systemctl(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Whether its file could be read: `loaded`, `not-found`, `masked` …
    pub load: String,
    /// Why it could not.
    pub load_error: String,
    /// `active`, `inactive`, `failed` …
    pub active: String,
    /// The same in the words of its type.
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `masked` …; empty where there is no file.
    pub file: String,
    /// Why it ended, where it failed.
    pub result: String,
    /// The exit status of its main process.
    pub exit_status: String,
    /// Since when it is active.
    pub since: Option<jiff::Timestamp>,
    /// True where its file is another one than was read.
    pub needs_reload: bool,
    /// Whose it runs as; empty for root.
    pub user: String,
    /// Its process; 0 where none runs.
    pub main_pid: u32,
    /// Since when it is as it is.
    pub changed: Option<jiff::Timestamp>,
    /// How often systemd restarted it by itself; none of what is no service.
    pub restarts: Option<u32>,
}

/// Units by name.
pub type Units = BTreeMap<String, Unit>;

impl Unit {
    /// The properties that are asked for.
    pub(super) const PROPERTIES: [&str; 14] = [
        "Id",
        "LoadState",
        "LoadError",
        "ActiveState",
        "SubState",
        "UnitFileState",
        "Result",
        "ExecMainStatus",
        "ActiveEnterTimestamp",
        "StateChangeTimestamp",
        "NeedDaemonReload",
        "User",
        "MainPID",
        "NRestarts",
    ];

    /// Reads what is shown of a unit, with its name; none where it has none.
    pub(super) fn read(block: Block<'_>) -> Option<(String, Self)> {
        let text = |name| block.get(name).to_owned();
        let unit = Self {
            load: text("LoadState"),
            load_error: text("LoadError"),
            active: text("ActiveState"),
            sub: text("SubState"),
            file: text("UnitFileState"),
            result: text("Result"),
            exit_status: text("ExecMainStatus"),
            since: unix(block.get("ActiveEnterTimestamp")),
            needs_reload: block.get("NeedDaemonReload") == "yes",
            user: text("User"),
            main_pid: block.get("MainPID").parse().unwrap_or(0),
            changed: unix(block.get("StateChangeTimestamp")),
            restarts: block.get("NRestarts").parse().ok(),
        };
        Some(text("Id")).filter(|id| !id.is_empty()).map(|id| (id, unit))
    }

    /// True where systemd knows the unit.
    pub fn is_installed(&self) -> bool {
        !self.load.is_empty() && self.load != "not-found"
    }

    /// True where it starts by itself.
    pub fn is_enabled(&self) -> bool {
        matches!(
            self.file.as_str(),
            "enabled" | "enabled-runtime" | "linked" | "linked-runtime" | "alias" | "generated"
        )
    }

    /// True where it runs, or is on the way.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    /// True where systemd tries again and again to start it.
    pub fn is_restarting(&self) -> bool {
        self.sub.starts_with("auto-restart")
    }

    /// systemd's words for it: `active (running), enabled`.
    pub fn words(&self) -> String {
        let file = if self.file.is_empty() { String::new() } else { format!(", {}", self.file) };
        format!("{} ({}){file}", self.active, self.sub)
    }
}

/// `@SECONDS`, as `--timestamp=unix` writes it; nothing where it never was.
fn unix(value: &str) -> Option<jiff::Timestamp> {
    value.strip_prefix('@')?.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::super::show::Shown;
    use super::*;

    #[test]
    fn units_are_read_from_what_systemctl_prints() {
        let shown = Shown::of(
            "Id=proxy.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
             ActiveEnterTimestamp=@1700000000\nNeedDaemonReload=yes\nUser=hub\n\n\
             Id=gitops-sync.path\nLoadState=not-found\nLoadError=org.freedesktop.systemd1.NoSuchUnit \"Unit not found.\"\n\
             ActiveState=inactive\nSubState=dead\nUnitFileState=\nActiveEnterTimestamp=\n",
        );
        let units: Units = shown.blocks().filter_map(Unit::read).collect();
        let proxy = &units["proxy.service"];
        assert!(proxy.is_installed() && proxy.is_enabled() && proxy.is_active() && proxy.needs_reload);
        assert_eq!(proxy.since.unwrap().as_second(), 1_700_000_000);
        assert_eq!(proxy.user, "hub");
        let path = &units["gitops-sync.path"];
        assert!(!path.is_installed() && !path.is_enabled() && !path.is_active() && path.since.is_none());
        assert!(Unit::read(Block::of("")).is_none());
    }
}
