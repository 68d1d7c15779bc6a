use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credentials::LONGEST_CREDENTIAL;
use super::{Config, Error, file};
use crate::state::Folder;
use crate::{log, random};

/// How often a loop asks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the files must not have changed before they are taken: an editor empties a file and fills it again, and half a
/// file can be valid TOML.
const REST: Duration = Duration::from_secs(2);
/// How often what was refused is judged again: the cause may lie elsewhere, such as an address that another program has.
const AGAIN: Duration = Duration::from_secs(10);
/// More files than this are no folder of credentials.
const MOST_CREDENTIALS: usize = 1000;

/// hub.toml and the credentials of a service that runs for long: what is in force, what is on the disk, and whether that is
/// to be taken. The service's loop asks once a second; no watch can be lost, and no clock is compared.
#[derive(Debug)]
pub struct Renewal {
    flag: Option<PathBuf>,
    file: PathBuf,
    config: Config,
    used: BTreeMap<PathBuf, Content>,
    seen: Stamps,
    /// Since when the files have been as `seen` says.
    since: Instant,
    /// Whether `seen` is still to be judged.
    open: bool,
    asked: bool,
    judged: Option<Instant>,
    refused: Option<Refused>,
}

/// What a service goes by, for whoever compares it with the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// hub.toml's path.
    pub path: PathBuf,
    /// The SHA-256 of what it said, in hex; none where there was no such file, or it was blank.
    pub sha256: Option<String>,
}

impl InForce {
    /// What the disk says at a path now; none where it cannot be read.
    pub fn on_disk(path: &Path) -> Option<Self> {
        Self::new(path, content(path).as_ref())
    }

    fn new(path: &Path, content: Option<&Content>) -> Option<Self> {
        let sha256 = match content {
            None | Some(Content::Blank) => None,
            Some(Content::Text(digest)) => Some(random::hex(digest)),
            Some(Content::Unreadable) => return None,
        };
        Some(Self { path: path.to_owned(), sha256 })
    }
}

/// Why what is on the disk is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// A sentence with file, line and key.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl Refused {
    /// What `systemctl status` says of it behind a service's own sentence.
    pub fn suffix(refused: Option<&Self>) -> String {
        refused.map_or_else(String::new, |refused| format!("; configuration refused: {}", refused.reason))
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is nothing new.
    Nothing,
    /// It was refused, or what was refused is right again: `Renewal::refused` says which.
    Judged,
    /// `Renewal::config` is in force from now on.
    Taken,
}

/// A service that goes on with another configuration.
pub trait Renew {
    /// What it prepares. It may be dropped.
    type Prepared;

    /// Says whether it can go on with a configuration, and prepares for it; nothing changes yet.
    ///
    /// # Errors
    /// Why not, as a sentence.
    fn prepare(&self, config: &Config) -> Result<Self::Prepared, String>;

    /// Goes on with it.
    ///
    /// # Errors
    /// Why not, as a sentence; it then goes on as before.
    fn renew(&mut self, config: &Config, prepared: Self::Prepared) -> Result<(), String>;
}

/// How files looked at a moment: each that exists with what changes when it is written, replaced or given to another.
type Stamps = BTreeMap<PathBuf, [i64; 9]>;

/// What a file says, so far as two moments are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Blank,
    Text([u8; 32]),
    /// It is there and cannot be read; a judge that needs it says why.
    Unreadable,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() { Self::Blank } else { Self::Text(Sha256::digest(bytes).into()) }
    }
}

impl Renewal {
    /// Loads the configuration as `Config::load` does, and remembers what it was made of.
    ///
    /// # Errors
    /// As `Config::load`.
    pub fn load(flag: Option<&Path>) -> Result<Self, Error> {
        let path = Config::file_path(flag);
        if path.as_os_str().is_empty() {
            return Err(Error::Missing(path));
        }
        let file = std::path::absolute(&path).map_err(|source| Error::Read { path, source })?;
        // The look comes before the reading: what changes between the two is judged once more.
        let before = stamp(&file);
        let text = content(&file);
        let config = Config::load(flag)?;
        let mut seen = stamps(&file, &config);
        seen.remove(&file);
        seen.extend(before.map(|stamp| (file.clone(), stamp)));
        let mut used = contents(&seen, &file);
        used.remove(&file);
        used.extend(text.map(|text| (file.clone(), text)));
        let flag = flag.map(Path::to_owned);
        let (since, open, asked) = (Instant::now(), false, false);
        Ok(Self { flag, file, config, used, seen, since, open, asked, judged: None, refused: None })
    }

    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What hub.toml said when it was taken.
    pub fn in_force(&self) -> Option<InForce> {
        InForce::new(&self.file, self.used.get(&self.file))
    }

    /// Why what is on the disk is not in force; none where it is.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// The next look does not wait until the files rest: somebody has asked for it.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// When to look next.
    pub fn due(&self, last: Instant) -> Instant {
        let asked = self.asked.then(|| self.judged.map_or(last, |at| at + LOOK_EVERY));
        asked.unwrap_or(last + LOOK_EVERY).min(last + LOOK_EVERY)
    }

    /// Looks, and says in the log what comes of it.
    pub fn look(&mut self, now: Instant, service: &mut impl Renew) -> Look {
        // Where there was no file, the first one in any of its places counts.
        if !self.used.contains_key(&self.file)
            && let Ok(file) = std::path::absolute(Config::file_path(self.flag.as_deref()))
        {
            self.file = file;
        }
        let seen = stamps(&self.file, &self.config);
        if seen != self.seen {
            (self.seen, self.since, self.open) = (seen, now, true);
        }
        let rests = now.duration_since(self.since) >= REST;
        let again = self.refused.is_some() && self.judged.is_none_or(|at| now.duration_since(at) >= AGAIN);
        // However often somebody asks, it is read once a second.
        let asked = self.asked && self.judged.is_none_or(|at| now.duration_since(at) >= LOOK_EVERY);
        if !asked && !(rests && (self.open || again)) {
            return Look::Nothing;
        }
        (self.open, self.judged) = (false, Some(now));
        self.asked &= !asked;
        let contents = contents(&self.seen, &self.file);
        let loaded = self.load_anew(&contents).and_then(|config| {
            let prepared = service.prepare(&config)?;
            Ok((config, prepared))
        });
        let after = stamps(&self.file, &self.config);
        if after != self.seen {
            // It was written while it was read.
            (self.seen, self.since, self.open) = (after, now, true);
            return Look::Nothing;
        }
        match loaded {
            Err(reason) => self.refuse(reason, asked),
            Ok(_) if contents == self.used => self.stay(asked),
            Ok((config, prepared)) => match service.renew(&config, prepared) {
                Err(reason) => self.refuse(reason, asked),
                Ok(()) => {
                    self.tell(&contents, &config);
                    (self.used, self.config, self.refused) = (contents, config, None);
                    Look::Taken
                }
            },
        }
    }

    /// What is on the disk, unless it must not be taken whatever the service says.
    fn load_anew(&self, contents: &BTreeMap<PathBuf, Content>) -> Result<Config, String> {
        let had_text = |path: &PathBuf| !matches!(self.used.get(path), None | Some(Content::Blank));
        let blank = contents.iter().find(|(path, now)| **now == Content::Blank && had_text(path));
        if let Some((path, _)) = blank {
            return Err(format!("{}: is empty, and was not when it was taken", path.display()));
        }
        let file = self.file.display();
        if self.used.contains_key(&self.file) && !contents.contains_key(&self.file) {
            return Err(format!("{file}: is gone; put it back, or restart the service to go on without it"));
        }
        // Not another one that lies in another place by now.
        let found = contents.contains_key(&self.file).then_some(self.file.as_path());
        let config = Config::load(found.or(self.flag.as_deref())).map_err(|error| error.to_string())?;
        if config.state_dir != self.config.state_dir {
            let [new, old] = [&config, &self.config].map(|config| config.state_dir.display());
            let what = format!("state_dir is {new} now, and what runs has its state in {old}");
            return Err(format!("{file}: {what}; restart it to move"));
        }
        Ok(config)
    }

    /// Goes on with what is in force, which is what the disk says, too.
    fn stay(&mut self, asked: bool) -> Look {
        let config = self.file.display().to_string();
        if self.refused.take().is_some() {
            log::info!("configuration_right_again", config = config);
            return Look::Judged;
        }
        if asked {
            log::info!("configuration_unchanged", config = config);
        }
        Look::Nothing
    }

    fn refuse(&mut self, reason: String, asked: bool) -> Look {
        let is_known = self.refused.as_ref().is_some_and(|refused| refused.reason == reason);
        if !is_known || asked {
            let note = "what runs goes on as it was";
            log::warn!("configuration_refused", error = reason, note = note);
        }
        if is_known {
            return Look::Nothing;
        }
        let since = self.refused.as_ref().map(|refused| refused.since.clone());
        let since = since.unwrap_or_else(log::now);
        self.refused = Some(Refused { reason, since });
        Look::Judged
    }

    /// Says what is another than before.
    fn tell(&self, contents: &BTreeMap<PathBuf, Content>, config: &Config) {
        let paths: BTreeSet<&PathBuf> = self.used.keys().chain(contents.keys()).collect();
        let changed = paths.into_iter().filter(|path| self.used.get(*path) != contents.get(*path));
        let changed: Vec<String> = changed.map(|path| path.display().to_string()).collect();
        log::info!("configuration_changed", changed = changed);
        let repositories = |config: &Config| config.repositories.iter().map(|known| known.name.clone()).collect();
        let pipelines = |config: &Config| config.pipelines.iter().map(|known| known.name.clone()).collect();
        let compare = |names: &dyn Fn(&Config) -> BTreeSet<String>| {
            let (before, now) = (names(&self.config), names(config));
            let came: Vec<String> = now.difference(&before).cloned().collect();
            let gone: Vec<String> = before.difference(&now).cloned().collect();
            (!came.is_empty() || !gone.is_empty()).then_some((came, gone))
        };
        if let Some((came, gone)) = compare(&repositories) {
            log::info!("repositories_changed", came = came, gone = gone);
        }
        if let Some((came, gone)) = compare(&pipelines) {
            log::info!("pipelines_changed", came = came, gone = gone);
        }
    }
}

/// How hub.toml, through links, and the credentials look now.
fn stamps(file: &Path, config: &Config) -> Stamps {
    let credentials = config.credentials();
    let mut paths = vec![file.to_owned()];
    if let Ok(entries) = std::fs::read_dir(credentials.folder()) {
        let names = entries.take(MOST_CREDENTIALS).filter_map(Result::ok).map(|entry| entry.file_name());
        let finished = names.filter(|name| !name.as_bytes().starts_with(b"."));
        paths.extend(finished.map(|name| credentials.folder().join(name)));
    }
    paths.into_iter().filter_map(|path| stamp(&path).map(|stamp| (path, stamp))).collect()
}

/// The time of the last change to the inode (stat(2), ctime) cannot be set by anybody; a file that is put in place with an
/// older time of its own is seen by it, and so is another mode or owner.
fn stamp(path: &Path) -> Option<[i64; 9]> {
    let stat = std::fs::metadata(path).ok()?;
    let owner_and_mode = i64::from(stat.uid()) << 32 | i64::from(stat.mode());
    let [device, inode, size] = [stat.dev(), stat.ino(), stat.size()].map(u64::cast_signed);
    let (written, changed) = ((stat.mtime(), stat.mtime_nsec()), (stat.ctime(), stat.ctime_nsec()));
    Some([device, inode, size, written.0, written.1, changed.0, changed.1, owner_and_mode, i64::from(stat.gid())])
}

fn contents(stamps: &Stamps, file: &Path) -> BTreeMap<PathBuf, Content> {
    let look = |path: &PathBuf| {
        let content = if path == file { content(file)? } else { credential(path)? };
        Some((path.clone(), content))
    };
    stamps.keys().filter_map(look).collect()
}

/// What hub.toml says; none where there is none.
fn content(file: &Path) -> Option<Content> {
    match file::read(file) {
        Ok(text) => text.map(|text| Content::of(text.as_bytes())),
        Err(_) => Some(Content::Unreadable),
    }
}

/// What a credential says, read as the services read it; none where it has gone.
fn credential(path: &Path) -> Option<Content> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    match Folder::open(folder).and_then(|folder| folder.read(name, LONGEST_CREDENTIAL)) {
        Ok(bytes) => bytes.map(|bytes| Content::of(&bytes)),
        Err(_) => Some(Content::Unreadable),
    }
}

#[cfg(test)]
mod tests;
