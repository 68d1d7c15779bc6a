//! A folder of Extended JSON, as mongoexport writes it: `*.jsonl`, `*.ndjson`, `*.json`, each also as `.gz`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use super::batch::{Acknowledge, Batch, BatchLimits, Documents, Finished, Identity, Opened, Total, identity};
use super::format::is_input;
use super::input::Input;
use crate::command::Account;
use crate::log;
use crate::reading::Error;
use crate::reading::columns::Rules;
use crate::records::{counted, not_read};
use crate::state::{self, Entry, EntryKind, Folder, Way};

/// A file that was written to within this time is taken to be in the making.
const REST: Duration = Duration::from_secs(10);
/// How long one run waits for files in the making.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const MOST_FILES: usize = 100_000;

pub(super) fn open(path: &Path, rules: &Rules) -> Result<Opened, Error> {
    let reader = Inbox {
        folder: inbox(path)?,
        rules: rules.clone(),
        seen: HashSet::new(),
        passed_over: HashSet::new(),
        waiting: None,
        current: None,
        told: false,
        made_at: None,
        until: Instant::now() + LONGEST_WAIT,
        problem: None,
    };
    // Before anything is read: without these nothing could be finished.
    let receipts = Receipts { folder: inbox(path)?, put_away: Vec::new() };
    receipts.target("processed")?;
    Ok((Box::new(reader), Box::new(receipts)))
}

/// Looks whether the inbox can be used; says what is in it.
pub(super) fn check(path: &Path) -> Result<String, Error> {
    let folder = inbox(path)?;
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(folder.fd(), ".", access, AtFlags::empty()).map_err(|error| {
        let advice = "files are moved to its folder processed/, so the user of the proxy must be able to write there";
        Error::SourceRefused(format!("inbox: {} cannot be written: {error}; {advice}", path.display()))
    })?;
    let entries = folder.entries(MOST_FILES).map_err(|error| failed(&error))?;
    let is_file = |entry: &&Entry| entry.kind == EntryKind::File && is_input(&entry.name);
    let mut waiting = 0;
    for entry in entries.iter().filter(is_file) {
        match rustix::fs::accessat(folder.fd(), &entry.name, Access::READ_OK, AtFlags::empty()) {
            // Another run has moved it meanwhile.
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(cannot_read(&path.join(&entry.name), &error)),
            Ok(()) => waiting += 1,
        }
    }
    let verb = if waiting == 1 { "waits" } else { "wait" };
    let unread: Vec<String> = entries.iter().filter(|entry| is_unread(entry)).map(name_of).collect();
    let unread = if unread.is_empty() { String::new() } else { format!("; {}", not_read(&unread)) };
    Ok(format!("inbox {}: {} {verb}{unread}", path.display(), counted(waiting, "file")))
}

/// A file that somebody put there, and whose name is none of one to read.
fn is_unread(entry: &Entry) -> bool {
    entry.kind == EntryKind::File && !is_input(&entry.name) && !entry.name.as_encoded_bytes().starts_with(b".")
}

fn name_of(entry: &Entry) -> String {
    entry.name.display().to_string()
}

/// The names of files that are not read, sorted.
pub(super) fn unread_files(path: &Path) -> Result<Vec<String>, Error> {
    let entries = inbox(path)?.entries(MOST_FILES).map_err(|error| failed(&error))?;
    let mut names: Vec<String> = entries.iter().filter(|entry| is_unread(entry)).map(name_of).collect();
    names.sort();
    Ok(names)
}

/// How many files were put into `failed/`.
pub(super) fn failed_files(path: &Path) -> Result<u64, Error> {
    let entries = inbox(path)?.sub("failed").and_then(|folder| folder.entries(MOST_FILES));
    match entries {
        Ok(entries) => Ok(entries.len() as u64),
        Err(error) if error.is_missing() => Ok(0),
        Err(error) => Err(failed(&error)),
    }
}

fn inbox(path: &Path) -> Result<Folder, Error> {
    let opened = Way::to_folder(path).and_then(|way| {
        way.is_kept_by(Account::by_uid(way.owner()).as_ref())?;
        Ok(way.into_folder())
    });
    opened.map_err(|error| {
        let advice = "make the folder, let the user of the proxy read and write it, or set pipeline.source";
        Error::SourceRefused(format!("inbox: {error}; {advice}"))
    })
}

fn failed(error: &state::Error) -> Error {
    Error::SourceRefused(format!("inbox: {error}"))
}

fn cannot_read(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let advice = "let the user of the proxy read it, or take it away; the other files are moved";
    Error::SourceRefused(format!("inbox: cannot read {}: {error}; {advice}", path.display()))
}

/// How long a file still has to rest before it is taken; none where it is finished.
///
/// Whatever is written to a file sets both of its times (inode(7)). Where the inode has changed after the content, it was
/// renamed, or its writer set mode or times as the last thing: then nothing is missing, unless nothing is in it.
fn in_the_making(metadata: &Metadata, now: SystemTime) -> Option<Duration> {
    let content = (metadata.mtime(), metadata.mtime_nsec());
    if (metadata.ctime(), metadata.ctime_nsec()) != content && metadata.len() > 0 {
        return None;
    }
    let age = now.duration_since(metadata.modified().ok()?).ok()?;
    REST.checked_sub(age)
}

struct Inbox {
    folder: Folder,
    rules: Rules,
    /// Files of this run, whatever their names: one that stays, because it is written on, waits for the next.
    seen: HashSet<Identity>,
    /// What is no file, told of once.
    passed_over: HashSet<OsString>,
    /// What is left of this pass, the next one last.
    waiting: Option<Vec<OsString>>,
    current: Option<Input>,
    /// Whether the log says already that files in the making are waited for.
    told: bool,
    /// When the first of this pass's files in the making will have rested.
    made_at: Option<Instant>,
    /// When to stop waiting for such files.
    until: Instant,
    /// The first file that cannot be read: told of when all others are moved.
    problem: Option<Error>,
}

impl Documents for Inbox {
    fn total(&mut self) -> Result<Total, Error> {
        let mut amount = 0;
        for name in self.names()? {
            let stat = rustix::fs::statat(self.folder.fd(), &name, AtFlags::SYMLINK_NOFOLLOW);
            amount += stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        }
        Ok(Total { amount, unit: "bytes" })
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn next(&mut self, limits: BatchLimits) -> Result<Option<Batch>, Error> {
        loop {
            if self.waiting.is_none() {
                let mut names = self.names()?;
                names.reverse();
                (self.waiting, self.made_at) = (Some(names), None);
            }
            let batch = self.fill(limits)?;
            if !batch.documents.is_empty() || !batch.finished.is_empty() {
                return Ok(Some(batch));
            }
            self.waiting = None;
            match self.made_at {
                Some(made_at) if made_at <= self.until => {
                    std::thread::sleep(made_at.saturating_duration_since(Instant::now()));
                }
                _ => return self.problem.take().map_or(Ok(None), Err),
            }
        }
    }
}

impl Inbox {
    fn names(&mut self) -> Result<Vec<OsString>, Error> {
        let entries = self.folder.entries(MOST_FILES).map_err(|error| failed(&error))?;
        let mut names = Vec::new();
        for entry in entries.into_iter().filter(|entry| is_input(&entry.name)) {
            if entry.kind == EntryKind::File {
                names.push(entry.name);
            } else if self.passed_over.insert(entry.name.clone()) {
                let file = self.folder.path().join(&entry.name).display().to_string();
                log::warn!(
                    "inbox_entry_passed_over",
                    file = file,
                    reason = "it is no regular file; links are not followed"
                );
            }
        }
        Ok(names)
    }

    fn fill(&mut self, limits: BatchLimits) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        while !batch.is_full(limits) {
            let Some(mut input) = self.current.take().map_or_else(|| self.open_next(), |input| Ok(Some(input)))? else {
                break;
            };
            if input.read(&mut batch, &self.rules, limits) {
                self.current = Some(input);
            }
        }
        Ok(batch)
    }

    /// Opens the next finished file that this run has not seen.
    fn open_next(&mut self) -> Result<Option<Input>, Error> {
        while let Some(name) = self.waiting.as_mut().and_then(Vec::pop) {
            let path = self.folder.path().join(&name);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(self.folder.fd(), &name, flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => {
                    self.problem.get_or_insert_with(|| cannot_read(&path, &error));
                    continue;
                }
            };
            let metadata = file.metadata().map_err(|error| cannot_read(&path, &error))?;
            if !metadata.is_file() || self.seen.contains(&identity(&metadata)) {
                continue;
            }
            if let Some(rest) = in_the_making(&metadata, SystemTime::now()) {
                let made_at = Instant::now() + rest;
                let file = name.display().to_string();
                if made_at > self.until {
                    log::info!("file_unfinished", file = file, note = "it is written to; it stays for the next run");
                } else if !self.told {
                    self.told = true;
                    let note = "it was written to just now; it is taken when nothing was for ten seconds";
                    log::info!(
                        "waiting_for_file",
                        file = file,
                        seconds = rest.as_secs_f64().ceil() as u64,
                        note = note
                    );
                }
                self.made_at = Some(self.made_at.map_or(made_at, |earlier| earlier.min(made_at)));
                continue;
            }
            self.seen.insert(identity(&metadata));
            return Ok(Some(Input::new(name, file, &metadata)));
        }
        Ok(None)
    }
}

/// Moves files whose rows are committed.
struct Receipts {
    folder: Folder,
    /// The names that files had, and where they are, since the last `settle`.
    put_away: Vec<(OsString, Folder, OsString)>,
}

impl Acknowledge for Receipts {
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error> {
        for finished in &batch.finished {
            self.put_away(finished)?;
        }
        Ok(batch.documents.len() as u64)
    }

    fn settle(&mut self) {
        self.put_away.clear();
    }

    fn take_back(&mut self) -> Result<(), Error> {
        for (name, folder, moved) in self.put_away.drain(..) {
            if self.folder.path().join(&name).exists() {
                let file = folder.path().join(&moved).display().to_string();
                log::warn!("file_not_taken_back", file = file, note = "there is another of its name; it stays");
            } else {
                folder.move_to(&moved, &self.folder, &name).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }
}

impl Receipts {
    fn target(&self, name: &str) -> Result<Folder, Error> {
        self.folder.sub_or_make(name, 0o750).map_err(|error| match &error {
            state::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                // What the packaged proxy's sandbox makes of a folder that nobody has opened to it.
                let path = self.folder.path().display();
                let advice = format!("in a unit the proxy needs ReadWritePaths={path} (systemctl edit proxy)");
                Error::SourceRefused(format!("inbox: {error}; {advice}"))
            }
            _ => failed(&error),
        })
    }

    fn put_away(&mut self, finished: &Finished) -> Result<(), Error> {
        let file = finished.name.display().to_string();
        let name = match self.identity(&finished.name)? {
            Some(now) if now == finished.identity => finished.name.clone(),
            Some(_) => {
                let note = "it was written while it was read, and is read again";
                log::info!("file_changed", file = file, note = note);
                return Ok(());
            }
            // Somebody renamed it, or took it away.
            None => match self.name_of(finished.identity)? {
                Some(name) => name,
                None => return Ok(()),
            },
        };
        let folder = if finished.damage.is_some() { "failed" } else { "processed" };
        if let Some(error) = &finished.damage {
            log::warn!("file_damaged", file = file, error = error, moved_to = folder);
        }
        let target = self.target(folder)?;
        let mut moved = name.clone();
        for number in 1.. {
            if !target.path().join(&moved).exists() {
                break;
            }
            moved = name.clone();
            moved.push(format!(".{number}"));
        }
        self.folder.move_to(&name, &target, &moved).map_err(|error| failed(&error))?;
        self.put_away.push((name, target, moved));
        Ok(())
    }

    /// What lies in the inbox under a name; none where nothing does.
    fn identity(&self, name: &OsStr) -> Result<Option<Identity>, Error> {
        let path: PathBuf = self.folder.path().join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(identity(&metadata))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&path, &error)),
        }
    }

    /// The name that a file to read has now; none where it is no more in the inbox, or not to be read.
    fn name_of(&self, sought: Identity) -> Result<Option<OsString>, Error> {
        let entries = self.folder.entries(MOST_FILES).map_err(|error| failed(&error))?;
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File && is_input(&entry.name)) {
            if self.identity(&entry.name)? == Some(sought) {
                return Ok(Some(entry.name));
            }
        }
        Ok(None)
    }
}
