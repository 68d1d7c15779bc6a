use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{self, Command};
use crate::systemd::{self, syntax};
pub(super) use crate::systemd::{Unit, Units, look};

/// How long systemd gets to say how its units are.
const LIMIT: Duration = Duration::from_secs(5);

/// Properties of a unit by name, as systemctl(1) shows them.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach systemd.
pub(super) fn properties(unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>, command::Error> {
    let shown = systemd::show(Command::new("systemctl", LIMIT), names, [unit])?;
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(shown.blocks().flat_map(systemd::Block::properties).map(owned).collect())
}

/// The names of the credentials that a unit loads (systemd.exec(5), LoadCredential=). `systemctl show` does not print
/// them, so its files are read.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach systemd.
pub(super) fn credentials(unit: &str) -> Result<Vec<String>, command::Error> {
    text(unit).map(|text| loaded(&text))
}

/// The names of the credentials that a unit loads by bare name, from one of systemd's own folders.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach systemd.
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

#[cfg(test)]
mod tests {
    use super::*;

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
