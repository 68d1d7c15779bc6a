use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{self, Command};
use crate::systemd::{OWN_UNITS, syntax};

/// How long systemd gets to say how its units are.
const LIMIT: Duration = Duration::from_secs(5);

const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,\
                          ActiveEnterTimestamp,NeedDaemonReload,User,MainPID";

/// A unit as systemd sees it; the words are those of systemctl(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub load: String,
    pub load_error: String,
    pub active: String,
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `masked` …; empty where there is no file.
    pub file: String,
    pub result: String,
    pub exit_status: String,
    pub since: Option<jiff::Timestamp>,
    pub needs_reload: bool,
    pub user: String,
    /// Its process; 0 where none runs.
    pub main_pid: u32,
}

/// The hub's units by name.
pub(super) type Units = BTreeMap<String, Unit>;

impl Unit {
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
}

/// Asks systemd about the hub's units. Any user may.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach systemd.
pub(super) fn look() -> Result<Units, command::Error> {
    let command = Command::new("systemctl", LIMIT).args(["show", "--timestamp=unix", PROPERTIES, "--"]).args(OWN_UNITS);
    Ok(parse(&command.name("systemctl show").succeed()?.text()))
}

/// Properties of a unit by name, as systemctl(1) shows them.
///
/// # Errors
/// As `look`.
pub(super) fn properties(unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>, command::Error> {
    let names = format!("--property={}", names.join(","));
    let output =
        Command::new("systemctl", LIMIT).args(["show", &names, "--", unit]).name("systemctl show").succeed()?;
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(output.text().lines().filter_map(pair).collect())
}

/// The names of the credentials that a unit loads (systemd.exec(5), LoadCredential=). `systemctl show` does not print
/// them, so its files are read.
///
/// # Errors
/// As `look`.
pub(super) fn credentials(unit: &str) -> Result<Vec<String>, command::Error> {
    text(unit).map(|text| loaded(&text))
}

/// The names of the credentials that a unit loads by bare name, from one of systemd's own folders.
///
/// # Errors
/// As `look`.
pub(super) fn bare_credentials(unit: &str) -> Result<Vec<String>, command::Error> {
    let bare = |(name, is_bare): (String, bool)| is_bare.then_some(name);
    text(unit).map(|text| sources(&text).into_iter().filter_map(bare).collect())
}

/// A unit's files.
fn text(unit: &str) -> Result<String, command::Error> {
    Ok(Command::new("systemctl", LIMIT).args(["cat", "--", unit]).succeed()?.text())
}

fn loaded(text: &str) -> Vec<String> {
    sources(text).into_iter().map(|(name, _)| name).collect()
}

/// The credentials that are loaded, and whether by bare name.
fn sources(text: &str) -> Vec<(String, bool)> {
    let mut loaded = Vec::new();
    // What cannot be read, systemd does not load either, and says so as the unit's state.
    for one in syntax::assignments(text.as_bytes()).unwrap_or_default() {
        match one.key.as_str() {
            "LoadCredential" | "LoadCredentialEncrypted" if one.section != "Service" => {}
            "LoadCredential" | "LoadCredentialEncrypted" if one.value.is_empty() => loaded.clear(),
            key @ ("LoadCredential" | "LoadCredentialEncrypted") => {
                let (name, path) =
                    one.value.split_once(':').map_or((&*one.value, None), |(name, path)| (name, Some(path)));
                loaded.push((name.to_owned(), path.is_none() && key == "LoadCredential"));
            }
            _ => {}
        }
    }
    loaded
}

/// Reads `systemctl show`: `NAME=VALUE` lines, an empty line between units.
fn parse(text: &str) -> Units {
    let mut units = Units::new();
    for block in text.split("\n\n") {
        let (mut id, mut unit) = (String::new(), Unit::default());
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            let text = || value.to_owned();
            match name {
                "Id" => id = text(),
                "LoadState" => unit.load = text(),
                "LoadError" => unit.load_error = text(),
                "ActiveState" => unit.active = text(),
                "SubState" => unit.sub = text(),
                "UnitFileState" => unit.file = text(),
                "Result" => unit.result = text(),
                "ExecMainStatus" => unit.exit_status = text(),
                "ActiveEnterTimestamp" => unit.since = unix(value),
                "NeedDaemonReload" => unit.needs_reload = value == "yes",
                "User" => unit.user = text(),
                "MainPID" => unit.main_pid = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        if !id.is_empty() {
            units.insert(id, unit);
        }
    }
    units
}

/// `@SECONDS`, as `--timestamp=unix` writes it; nothing where it never was.
fn unix(value: &str) -> Option<jiff::Timestamp> {
    value.strip_prefix('@')?.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_what_systemctl_prints() {
        let units = parse(
            "Id=proxy.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
             ActiveEnterTimestamp=@1700000000\nNeedDaemonReload=yes\nUser=hub\n\n\
             Id=gitops-sync.path\nLoadState=not-found\nLoadError=org.freedesktop.systemd1.NoSuchUnit \"Unit not found.\"\n\
             ActiveState=inactive\nSubState=dead\nUnitFileState=\nActiveEnterTimestamp=\n",
        );
        let proxy = &units["proxy.service"];
        assert!(proxy.is_installed() && proxy.is_enabled() && proxy.is_active() && proxy.needs_reload);
        assert_eq!(proxy.since.unwrap().as_second(), 1_700_000_000);
        assert_eq!(proxy.user, "hub");
        let path = &units["gitops-sync.path"];
        assert!(!path.is_installed() && !path.is_enabled() && !path.is_active() && path.since.is_none());
        assert!(parse("").is_empty());
    }

    #[test]
    fn credentials_are_read_from_the_files_of_a_unit() {
        let text = "# /usr/lib/systemd/system/gitops-sync.service\n[Service]\n# LoadCredential=infra-key\nUMask=0027\n\
                    LoadCredential=web-token\nLoadCredentialEncrypted = other:/etc/other\n\
                    LoadCredential=\\\n# a comment\n  late\n";
        assert_eq!(loaded(text), ["web-token", "other", "late"]);
        assert_eq!(
            loaded("[Service]\nLoadCredential=a\nLoadCredential=\n[Unit]\nLoadCredential=b\n"),
            [] as [String; 0]
        );
    }
}
