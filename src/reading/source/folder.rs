//! A folder of Extended JSON lines, as mongoexport writes them: `*.jsonl`, `*.ndjson`, `*.json`, each also as `.gz`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};

use super::{Acknowledge, Batch, Finished, Limits, Opened, Read, Total};
use crate::config::Json;
use crate::log;
use crate::reading::Error;
use crate::reading::transform::Form;
use crate::state::{self, Folder, Kind};

/// A document of MongoDB has at most 16 MiB; as Extended JSON it may be a few times as long.
const LONGEST_LINE: u64 = 64 << 20;
/// A file whose last line is cut off, or whose compressed data ends early, is taken to be in the making for so long
/// after its last change.
const IN_THE_MAKING: u64 = 10;
const MOST_FILES: usize = 100_000;
const ENDINGS: [&str; 6] = [".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"];

/// Whether a name in the inbox is one of a file to read. A name that begins with a dot is unfinished.
pub fn is_input(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b".") && ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

pub(super) fn open(path: &Path, json: Json) -> Result<Opened, Error> {
    let reader = Inbox { folder: inbox(path)?, json, seen: HashSet::new(), waiting: None, current: None };
    // Before anything is read: without these nothing could be finished.
    let receipts = Receipts { folder: inbox(path)? };
    receipts.target("processed")?;
    Ok((Box::new(reader), Box::new(receipts)))
}

fn inbox(path: &Path) -> Result<Folder, Error> {
    Folder::open(path).map_err(|error| {
        let advice = "make the folder, let the user of the proxy read and write it, or set pipeline.source";
        Error::SourceRefused(format!("inbox: {error}; {advice}"))
    })
}

fn failed(error: &state::Error) -> Error {
    Error::SourceRefused(format!("inbox: {error}"))
}

struct Inbox {
    folder: Folder,
    json: Json,
    /// Files of this run: one that stays, because it is written on, waits for the next.
    seen: HashSet<(OsString, [i64; 4])>,
    /// What is left of this pass, the next one last.
    waiting: Option<Vec<OsString>>,
    current: Option<Input>,
}

/// A file that is being read.
struct Input {
    name: OsString,
    identity: [i64; 4],
    modified: SystemTime,
    lines: Box<dyn BufRead + Send>,
    number: u64,
    size: u64,
}

/// What a line's end was.
enum Line {
    Whole(Vec<u8>),
    /// The file ends within it.
    Cut(Vec<u8>),
    End,
}

impl Read for Inbox {
    fn total(&mut self) -> Result<Total, Error> {
        let mut amount = 0;
        for name in self.names()? {
            let stat = rustix::fs::statat(self.folder.fd(), &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
            amount += stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        }
        Ok(Total { amount, unit: "bytes" })
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn next(&mut self, limits: Limits) -> Result<Option<Batch>, Error> {
        if self.waiting.is_none() {
            let mut names = self.names()?;
            names.reverse();
            self.waiting = Some(names);
        }
        let mut batch = Batch::default();
        while !batch.is_full(limits) {
            let Some(mut input) = self.current.take().map_or_else(|| self.open_next(), |input| Ok(Some(input)))? else {
                break;
            };
            if input.read(&mut batch, self.json, limits) {
                self.current = Some(input);
            }
        }
        if batch.documents.is_empty() && batch.finished.is_empty() {
            self.waiting = None;
            return Ok(None);
        }
        Ok(Some(batch))
    }
}

impl Inbox {
    fn names(&self) -> Result<Vec<OsString>, Error> {
        let entries = self.folder.entries(MOST_FILES).map_err(|error| failed(&error))?;
        let inputs = entries.into_iter().filter(|entry| entry.kind == Kind::File && is_input(&entry.name));
        Ok(inputs.map(|entry| entry.name).collect())
    }

    /// Opens the next file that this run has not seen.
    fn open_next(&mut self) -> Result<Option<Input>, Error> {
        while let Some(name) = self.waiting.as_mut().and_then(Vec::pop) {
            let path = self.folder.path().join(&name);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(self.folder.fd(), &name, flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => {
                    let advice = "let the user of the proxy read it, or take it away";
                    return Err(Error::SourceRefused(format!(
                        "inbox: cannot read {}: {error}; {advice}",
                        path.display()
                    )));
                }
            };
            let metadata = file.metadata().map_err(|error| io(&path, &error))?;
            let identity = identity(&metadata);
            if !metadata.is_file() || !self.seen.insert((name.clone(), identity)) {
                continue;
            }
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let plain = BufReader::with_capacity(256 << 10, file);
            let lines: Box<dyn BufRead + Send> = if name.as_encoded_bytes().ends_with(b".gz") {
                Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(plain)))
            } else {
                Box::new(plain)
            };
            return Ok(Some(Input { name, identity, modified, lines, number: 0, size: metadata.len() }));
        }
        Ok(None)
    }
}

impl Input {
    /// Reads lines until the batch is full; false at the end of the file.
    fn read(&mut self, batch: &mut Batch, json: Json, limits: Limits) -> bool {
        while !batch.is_full(limits) {
            self.number += 1;
            let damage = match self.line() {
                Ok(Line::Whole(line)) => {
                    self.push(batch, line, json);
                    continue;
                }
                Ok(Line::End) => None,
                Ok(Line::Cut(line)) => {
                    // Some programs end the last line without a newline; whether it is whole its JSON tells.
                    if serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_err() && self.is_in_the_making() {
                        self.say_unfinished("its last line is cut off");
                        return false;
                    }
                    self.push(batch, line, json);
                    None
                }
                Err(_) if self.is_in_the_making() => {
                    self.say_unfinished("its rest cannot be read");
                    return false;
                }
                Err(error) => Some(format!("line {}: {error}", self.number)),
            };
            batch.advanced += self.size;
            batch.finished.push(Finished { name: self.name.clone(), identity: self.identity, damage });
            return false;
        }
        true
    }

    fn push(&self, batch: &mut Batch, line: Vec<u8>, json: Json) {
        if !line.trim_ascii().is_empty() {
            let place = format!("{}:{}", self.name.display(), self.number);
            batch.push(line, Form::Line, &place, json);
        }
    }

    fn line(&mut self) -> std::io::Result<Line> {
        let mut line = Vec::new();
        self.lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_some() {
            return Ok(Line::Whole(line));
        }
        if line.is_empty() {
            return Ok(Line::End);
        }
        if line.len() as u64 >= LONGEST_LINE {
            return Err(std::io::Error::other("it is longer than 64 MiB"));
        }
        Ok(Line::Cut(line))
    }

    fn is_in_the_making(&self) -> bool {
        // A time in the future is a clock that was set; the file would never be finished.
        SystemTime::now().duration_since(self.modified).is_ok_and(|age| age.as_secs() < IN_THE_MAKING)
    }

    fn say_unfinished(&self, reason: &str) {
        let file = self.name.display().to_string();
        log::info!("file_unfinished", file = file, reason = reason, note = "it stays in the inbox for the next run");
    }
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::SourceRefused(format!("inbox: cannot read {}: {error}", path.display()))
}

fn identity(metadata: &std::fs::Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [metadata.ino().cast_signed(), metadata.size().cast_signed(), metadata.mtime(), metadata.mtime_nsec()]
}

/// Moves files whose rows are committed.
struct Receipts {
    folder: Folder,
}

impl Acknowledge for Receipts {
    fn acknowledge(&mut self, batch: &Batch) -> Result<u64, Error> {
        for finished in &batch.finished {
            self.put_away(finished)?;
        }
        Ok(batch.documents.len() as u64)
    }
}

impl Receipts {
    fn target(&self, name: &str) -> Result<Folder, Error> {
        self.folder.sub_or_make(name, 0o750).map_err(|error| failed(&error))
    }

    fn put_away(&self, finished: &Finished) -> Result<(), Error> {
        let path: PathBuf = self.folder.path().join(&finished.name);
        let now = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => identity(&metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io(&path, &error)),
        };
        let file = finished.name.display().to_string();
        if now != finished.identity {
            log::info!(
                "file_changed",
                file = file,
                note = "it was written while it was read; the next run reads it again"
            );
            return Ok(());
        }
        let folder = if finished.damage.is_some() { "failed" } else { "processed" };
        if let Some(error) = &finished.damage {
            log::warn!("file_damaged", file = file, error = error, moved_to = folder);
        }
        let target = self.target(folder)?;
        let mut name = finished.name.clone();
        for number in 1.. {
            if !target.path().join(&name).exists() {
                break;
            }
            name = finished.name.clone();
            name.push(format!(".{number}"));
        }
        self.folder.move_to(&finished.name, &target, &name).map_err(|error| failed(&error))
    }
}
