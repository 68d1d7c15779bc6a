use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, Service, units};
use crate::command::Command;
use crate::config::{CREDSTORE, Config, Credentials};
use crate::program::Exit;
use crate::systemd::{OWN, Own};
use crate::{log, systemd};

/// Restart the proxy and the gate where they were started with other credentials than the disk has now.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "credentials",
    note = "systemd copies the files of /etc/credstore when a service starts. hub-credentials.path runs this when one of them \
            changes. Credentials that the service would not start with are refused, and it goes on with those it has.",
    example = "sudo hub credentials"
)]
pub(super) struct Arguments {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// What runs for long. Everything else reads its credentials at its next run.
fn lasting() -> impl Iterator<Item = &'static Own> {
    OWN.iter().filter(|own| own.lasts())
}

/// Where a unit's copies are (systemd.exec(5), `$CREDENTIALS_DIRECTORY`).
const COPIES: &str = "/run/credentials";
/// How long the files must not have changed: a file that is written is empty first.
const REST: Duration = Duration::from_secs(2);
/// Then they are looked at as they are.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Until a service has stopped and its next process is ready.
const RESTART: Duration = Duration::from_secs(90);

/// What the files say, by unit and name; none where there is none.
type Found = BTreeMap<(&'static str, String), Option<Vec<u8>>>;

/// Says what comes of it as log lines: it is hub-credentials.service that runs it.
pub(super) fn main(arguments: &Arguments, services: &[Service]) -> Exit {
    match renew(arguments.config.as_deref(), services) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Config,
        Err(error) => {
            log::error!("credentials_not_renewed", error = error.to_string());
            error.exit()
        }
    }
}

/// Restarts what has to be; false where something was refused.
fn renew(flag: Option<&Path>, services: &[Service]) -> Result<bool, Error> {
    if !systemd::is_running() || !rustix::process::geteuid().is_root() {
        let reason = "it restarts the services of this host: run it as root, on a host that systemd runs";
        return Err(Error::Usage(reason.to_owned()));
    }
    let known = units::look(&[]).map_err(Error::Units)?.own;
    let mut names = Vec::new();
    for own in lasting().filter(|own| known.get(own.unit).is_some_and(units::Unit::is_active)) {
        let bare = units::bare_credentials(own.unit).map_err(Error::Units)?;
        names.extend(bare.into_iter().map(|name| (own.name, name)));
    }
    let mut is_right = true;
    let mut before = None;
    loop {
        let stored = settled(&names)?;
        // What changes while this runs wakes nobody: the path unit watches again when it has ended.
        if before.as_ref() == Some(&stored) {
            return Ok(is_right);
        }
        is_right = true;
        let mut is_new = false;
        for service in lasting().map(|own| own.name) {
            let changed = changed(service, &stored)?;
            if !changed.is_empty() {
                is_new = true;
                is_right &= replace(service, &changed, check(flag, services, service, &stored, &changed))?;
            }
        }
        if !is_new {
            log::info!("credentials_unchanged");
            return Ok(true);
        }
        before = Some(stored);
    }
}

/// Restarts a service that would start with what is there now; false where it would not.
fn replace(service: &str, changed: &[String], checked: Result<(), String>) -> Result<bool, Error> {
    if let Err(reason) = checked {
        let note = "it goes on with the credentials that it has";
        log::error!("credentials_refused", unit = service, error = reason, note = note);
        return Ok(false);
    }
    log::info!("credentials_changed", unit = service, credentials = changed);
    let unit = format!("{service}.service");
    let restart = Command::new("systemctl", RESTART).args(["try-restart", "--", &unit]);
    restart.name("systemctl try-restart").succeed().map_err(Error::Units)?;
    Ok(true)
}

/// What the stores say, once it has not changed for two seconds.
fn settled(names: &[(&'static str, String)]) -> Result<Found, Error> {
    let begin = Instant::now();
    let mut before = stored(names)?;
    loop {
        std::thread::sleep(REST);
        let now = stored(names)?;
        if now == before || begin.elapsed() >= LONGEST_WAIT {
            return Ok(now);
        }
        before = now;
    }
}

fn stored(names: &[(&'static str, String)]) -> Result<Found, Error> {
    let store = Credentials::in_folder(Path::new(CREDSTORE));
    names.iter().map(|(service, name)| Ok(((*service, name.clone()), read(&store, name)?))).collect()
}

fn read(folder: &Credentials, name: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(folder.read(name)?.map(|secret| secret.bytes().to_vec()))
}

/// That a service's copies can be seen from here: its unit has something for each credential that is not there, so that a
/// folder that is empty or missing is one that this process is kept from, and no change.
fn are_seen(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let why = match std::fs::read_dir(folder).map(|mut entries| entries.next()) {
        Ok(Some(Ok(_))) => return Ok(()),
        Ok(None) => format!("{shown} is empty"),
        Ok(Some(Err(error))) | Err(error) => format!("{shown} cannot be read: {error}"),
    };
    Err(format!("nobody knows which credentials it was started with, and nothing was restarted: {why}"))
}

/// The credentials of which a service has another copy.
fn changed(service: &'static str, stored: &Found) -> Result<Vec<String>, Error> {
    let folder = Path::new(COPIES).join(format!("{service}.service"));
    if stored.keys().any(|(of, _)| *of == service) {
        are_seen(&folder).map_err(Error::Usage)?;
    }
    let copies = Credentials::in_folder(&folder);
    let mut changed = Vec::new();
    for ((_, name), content) in stored.iter().filter(|((of, _), _)| *of == service) {
        if read(&copies, name)? != *content {
            changed.push(name.clone());
        }
    }
    Ok(changed)
}

/// Whether a service would start with what is there now.
fn check(
    flag: Option<&Path>,
    services: &[Service],
    service: &'static str,
    stored: &Found,
    changed: &[String],
) -> Result<(), String> {
    let is_empty = |name: &&String| {
        let content = stored.get(&(service, (*name).clone())).and_then(Option::as_ref);
        content.is_some_and(|content| content.trim_ascii().is_empty())
    };
    if let Some(name) = changed.iter().find(is_empty) {
        let path = Credentials::in_folder(Path::new(CREDSTORE)).path(name);
        return Err(format!("the credential {name} is empty (see {}); fill it, or remove it", path.display()));
    }
    let config = Config::load(flag).map_err(|error| error.to_string())?.with_credentials(Path::new(CREDSTORE));
    // The gate asks the proxy whether it has a secret; both refuse one that is too short.
    let mut checks = services.iter().filter(|known| known.name == service || known.name == "proxy");
    checks.try_for_each(|known| (known.check)(&config)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_cannot_be_seen_are_no_change() {
        let folder = tempfile::tempdir().unwrap();
        assert!(are_seen(&folder.path().join("proxy.service")).unwrap_err().contains("cannot be read: No such file"));
        assert!(are_seen(folder.path()).unwrap_err().contains("is empty"));
        std::fs::write(folder.path().join("admin-token"), "(none)").unwrap();
        assert_eq!(are_seen(folder.path()), Ok(()));
    }
}
