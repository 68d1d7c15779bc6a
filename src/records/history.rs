//! What happened: one line of JSON for each thing, in `history.jsonl` of the folder of the service that did it. Runs that found
//! nothing do not happen, and what goes on happens once.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::SERVICES;
use crate::state::{Error, Folder, Lock};
use crate::text;
use crate::{log, random};

/// The file that is written to, and the one before it.
pub const FILE: &str = "history.jsonl";
/// The file before it.
pub const OLDER: &str = "history.1.jsonl";
/// How long each of the two may become, in bytes.
const LONGEST_FILE: usize = 1 << 20;
/// The longest line, in bytes: what is longer loses its own fields.
const LONGEST_LINE: usize = 32 << 10;
/// Several programs write to one file: a run of gitops-sync and `hub hold`.
const LOCK: &str = "history.lock";

/// The words for what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Another commit is live.
    Deployed,
    /// A commit failed, and what was live before is live again.
    RolledBack,
    /// A commit failed, and what was live before could not be restored whole.
    RollbackFailed,
    /// A rule forbids a commit.
    Refused,
    /// It could not be done.
    Failed,
    /// Deployments of a repository are suspended.
    Held,
    /// They are not any more.
    Released,
    /// A repository, its units and what was kept of it are gone.
    Removed,
    /// The gateway is public.
    Opened,
    /// It is not.
    Closed,
    /// It is, and nobody gets there.
    Unreachable,
    /// Documents came from a source to their table.
    Moved,
    /// Rows of samples are nowhere.
    SamplesLost,
    /// Something is wrong with the host, or worse.
    Raised,
    /// It is not any more.
    Cleared,
    /// A service that runs for long began.
    Started,
    /// The host began.
    Booted,
    /// A unit of systemd failed, maybe more often than once.
    UnitFailed,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339, UTC.
    pub at: String,
    /// What, one of the words of `Kind`; a later version may know more.
    pub kind: String,
    /// To what: a repository, a pipeline; empty for the service itself.
    #[serde(default)]
    pub about: String,
    /// The service's own word for how it is now, as in its run record.
    #[serde(default)]
    pub status: String,
    /// Why, for the person who reads it.
    #[serde(default)]
    pub reason: Option<String>,
    /// The kind's own fields.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Event {
    /// Something that happens now.
    pub fn new(kind: Kind, about: &str, status: &str) -> Self {
        let kind = match serde_json::json!(kind) {
            Value::String(word) => word,
            other => other.to_string(),
        };
        let (at, reason) = (log::now(), None);
        Self { at, kind, about: about.to_owned(), status: status.to_owned(), reason, more: Map::new() }
    }

    /// The same with a reason.
    pub fn because(self, reason: Option<impl Into<String>>) -> Self {
        let reason = reason.map(|reason| text::cut(&reason.into(), text::LONGEST_REASON).into_owned());
        Self { reason, ..self }
    }

    /// The same with a field of its kind. What is nothing is left out.
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        let value = serde_json::json!(value);
        if !value.is_null() {
            self.more.insert(key.to_owned(), value);
        }
        self
    }

    /// When it happened; none where that is no instant.
    pub fn time(&self) -> Option<Timestamp> {
        self.at.parse().ok()
    }

    /// Appends it to the history in a service's folder, durably. Where that fails it is told in the log, and the service goes on.
    pub fn append(&self, folder: &Folder) {
        if let Err(error) = self.write(folder) {
            log::warn!("history_not_written", kind = self.kind, about = self.about, error = error.to_string());
        }
    }

    fn write(&self, folder: &Folder) -> Result<(), Error> {
        let line = self.line();
        let _lock = Lock::wait(folder, LOCK)?;
        let failed = |source| Error::io("write", &folder.path().join(FILE), source);
        let mut file = folder.append(FILE, 0o640)?;
        let mut length = file.metadata().map_err(failed)?.len();
        if length + line.len() as u64 > LONGEST_FILE as u64 {
            folder.move_to(FILE.as_ref(), folder, OLDER.as_ref())?;
            (file, length) = (folder.append(FILE, 0o640)?, 0);
        }
        // What a power cut or a full disk cut off becomes a line of its own, which readers read over.
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1).map_err(failed)?;
        }
        let start = if last == [b'\n'] { "" } else { "\n" };
        if let Err(error) = file.write_all(format!("{start}{line}").as_bytes()).and_then(|()| file.sync_all()) {
            // Half a line is worth nothing; where it stays, the next one begins anew.
            let _ = file.set_len(length);
            return Err(failed(error));
        }
        if length == 0 { folder.sync() } else { Ok(()) }
    }

    fn line(&self) -> String {
        let line = serde_json::json!(self).to_string();
        if line.len() < LONGEST_LINE {
            return line + "\n";
        }
        let mut short = Self { more: Map::new(), ..self.clone() };
        // Those that are short say most.
        short.more.extend(self.more.iter().filter(|(_, value)| value.to_string().len() < 1000).map(own));
        short.more.insert("left_out".to_owned(), "longer than a line may be".into());
        serde_json::json!(short).to_string() + "\n"
    }
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// The folder of a service below the state, by its path there.
///
/// # Errors
/// When it is missing, or not accessible.
pub fn folder(state_dir: &Path, path: &str) -> Result<Folder, Error> {
    let root = Folder::open(state_dir)?;
    path.split('/').try_fold(root, |above, part| above.sub(part))
}

/// What a service has told, by the path of its folder below the state, oldest first; nothing where it has left none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn of(state_dir: &Path, path: &str) -> Result<Vec<Event>, Error> {
    match folder(state_dir, path).and_then(|folder| read(&folder)) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        other => other,
    }
}

/// The two files, the older one first.
fn files(folder: &Folder) -> Result<[Vec<u8>; 2], Error> {
    let content = |name| folder.read(name, 2 * LONGEST_FILE).map(Option::unwrap_or_default);
    let newer = content(FILE)?;
    let older = content(OLDER)?;
    // Where the file was moved between the two looks, both are the same.
    let newer = if older.starts_with(&newer) { Vec::new() } else { newer };
    Ok([older, newer])
}

/// A line of a history, by its place in the file and its text: found again when the file has another name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    start: u64,
    digest: String,
}

impl Mark {
    fn new(start: usize, line: &[u8]) -> Self {
        Self { start: start as u64, digest: random::hex(&Sha256::digest(line)[..8]) }
    }

    /// Whether a text that begins at its place has it first.
    fn begins(&self, text: &[u8]) -> bool {
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        line.len() < text.len() && Self::new(0, line).digest == self.digest
    }
}

/// The lines from a mark on.
#[derive(Debug, Default)]
pub struct Tail {
    /// Whether the mark was found; its own line is the first one then. Else they begin with the oldest one.
    pub is_known: bool,
    /// What they tell, in the order in which they were written; none for a line that tells nothing.
    pub events: Vec<Option<Event>>,
    /// The last one.
    pub last: Option<Mark>,
    /// How many lines and how many bytes there are beyond the mark's.
    pub taken: (usize, usize),
}

/// The lines from a mark on, as many as there is room for, and at least one. A last line that was not written whole is left for
/// later.
///
/// # Errors
/// When one of the files is there and cannot be read.
pub fn tail(folder: &Folder, mark: Option<&Mark>, lines: usize, bytes: usize) -> Result<Tail, Error> {
    let mut tail = Tail::default();
    let take = |tail: &mut Tail, content: &[u8], mut start: usize| {
        let Some(end) = content.iter().rposition(|byte| *byte == b'\n') else { return };
        for line in content[..end].split(|byte| *byte == b'\n') {
            let is_mark_s = tail.is_known && tail.events.is_empty();
            let is_full = tail.taken.0 >= lines.max(1) || tail.taken.0 > 0 && tail.taken.1 + line.len() > bytes;
            if !line.is_empty() && (is_mark_s || !is_full) {
                if !is_mark_s {
                    tail.taken = (tail.taken.0 + 1, tail.taken.1 + line.len());
                }
                let can_be_one = line.len() <= 2 * LONGEST_LINE;
                tail.events.push(can_be_one.then(|| serde_json::from_slice(line).ok()).flatten());
                tail.last = Some(Mark::new(start, line));
            } else if is_full {
                return;
            }
            start += line.len() + 1;
        }
    };
    if let Some(mark) = mark {
        let rest = folder.read_from(FILE, mark.start, 2 * LONGEST_FILE)?.unwrap_or_default();
        if mark.begins(&rest) {
            tail.is_known = true;
            take(&mut tail, &rest, mark.start as usize);
            return Ok(tail);
        }
    }
    let [older, newer] = files(folder)?;
    let known = mark.and_then(|mark| {
        let start = usize::try_from(mark.start).ok()?;
        mark.begins(older.get(start..)?).then_some(start)
    });
    tail.is_known = known.is_some();
    let start = known.unwrap_or(0);
    take(&mut tail, &older[start..], start);
    take(&mut tail, &newer, 0);
    Ok(tail)
}

/// What happened in a service's folder, in the order in which it was written. What is no line of a history is read over.
///
/// # Errors
/// When one of the files is there and cannot be read.
pub fn read(folder: &Folder) -> Result<Vec<Event>, Error> {
    let [older, newer] = files(folder)?;
    let lines = older.split(|byte| *byte == b'\n').chain(newer.split(|byte| *byte == b'\n'));
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Something that happened, and whose history has it.
#[derive(Debug)]
pub struct Told {
    /// The service.
    pub service: &'static str,
    /// What happened.
    pub event: Event,
}

/// What all services tell, oldest first, and why one of them cannot be read.
pub fn all(state_dir: &Path) -> (Vec<Told>, Option<Error>) {
    let (mut all, mut unseen) = (Vec::new(), None);
    for (service, path) in SERVICES {
        match of(state_dir, path) {
            Ok(events) => all.extend(events.into_iter().map(|event| Told { service, event })),
            Err(error) => unseen = Some(error),
        }
    }
    all.sort_by(|a, b| a.event.at.cmp(&b.event.at));
    (all, unseen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    fn abouts(folder: &Folder) -> Vec<String> {
        read(folder).unwrap().into_iter().map(|event| event.about).collect()
    }

    #[test]
    fn a_torn_line_costs_itself() {
        let (dir, folder) = folder();
        assert_eq!(read(&folder).unwrap(), []);
        let event = Event::new(Kind::RolledBack, "acme/a", "rolled_back").because(Some("no")).with("to", "1");
        event.append(&folder);
        assert_eq!(read(&folder).unwrap(), std::slice::from_ref(&event));
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["kind"], &value["to"], &value["reason"]),
            (&"rolled_back".into(), &"1".into(), &"no".into())
        );
        for torn in [&text.as_bytes()[..text.len() / 2], b"\xff\0", b"null", b"{\"at\":1}\n\n"] {
            std::fs::write(dir.path().join(FILE), [text.as_bytes(), torn].concat()).unwrap();
            assert_eq!(abouts(&folder), ["acme/a"]);
            Event::new(Kind::Held, "acme/b", "held").append(&folder);
            assert_eq!(abouts(&folder), ["acme/a", "acme/b"]);
        }
    }

    #[test]
    fn two_files_of_a_mebibyte_are_kept_and_the_newest_lines_are_in_them() {
        let (dir, folder) = folder();
        for number in 0..90 {
            let event = Event::new(Kind::Refused, &number.to_string(), "refused").with("list", "x".repeat(30_000));
            event.append(&folder);
        }
        let sizes = [FILE, OLDER].map(|name| std::fs::metadata(dir.path().join(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
        let all = abouts(&folder);
        let newest: Vec<String> = (90 - all.len()..90).map(|number| number.to_string()).collect();
        assert!(all.len() > 34);
        assert_eq!(all, newest);
        // A reader that came while the file was moved.
        std::fs::copy(dir.path().join(OLDER), dir.path().join(FILE)).unwrap();
        let once = abouts(&folder);
        assert!(once.len() < all.len() && all.starts_with(&once), "{once:?}");
    }

    /// What comes after a mark, by what it is about, and the next mark.
    fn after(folder: &Folder, mark: &Option<Mark>, lines: usize) -> (Vec<String>, Option<Mark>) {
        let tail = tail(folder, mark.as_ref(), lines, LONGEST_FILE).unwrap();
        let abouts = tail.events.into_iter().skip(usize::from(tail.is_known));
        (abouts.flatten().map(|event| event.about).collect(), tail.last.or_else(|| mark.clone()))
    }

    #[test]
    fn a_mark_is_found_again_when_the_files_were_moved() {
        let (dir, folder) = folder();
        assert_eq!(after(&folder, &None, 9), (Vec::new(), None));
        let (mut mark, mut seen, mut number) = (None, Vec::new(), 0);
        for many in [1, 0, 3, 40, 2, 31, 0, 30] {
            for _ in 0..many {
                let about = number.to_string();
                Event::new(Kind::Refused, &about, "refused").with("list", "x".repeat(30_000)).append(&folder);
                number += 1;
            }
            while let (abouts, next) = after(&folder, &mark, 7)
                && !abouts.is_empty()
            {
                assert!(abouts.len() <= 7);
                seen.extend(abouts);
                mark = next;
            }
        }
        let all: Vec<String> = (0..number).map(|number| number.to_string()).collect();
        assert_eq!(seen, all);
        // What is not whole yet is no line, and what tells nothing is one.
        let path = dir.path().join(FILE);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&text[..], b"\n{}\n\n\xff\n{\"at\":\"2026"].concat()).unwrap();
        let tail_now = tail(&folder, mark.as_ref(), 9, 1).unwrap();
        assert!(tail_now.is_known && tail_now.events.len() == 2, "a byte is room for one");
        let (abouts, next) = after(&folder, &mark, 9);
        assert!(abouts.is_empty() && next != mark);
        Event::new(Kind::Held, "end", "held").append(&folder);
        let (abouts, next) = after(&folder, &next, 9);
        assert_eq!((abouts, after(&folder, &next, 9).0), (vec!["end".to_owned()], Vec::new()));
        // A file that somebody wrote anew, a shorter one, none.
        std::fs::remove_file(dir.path().join(OLDER)).unwrap();
        std::fs::write(&path, [b"\n", &text[text.len() / 2..]].concat()).unwrap();
        assert!(!tail(&folder, next.as_ref(), 9, 1).unwrap().is_known);
        std::fs::write(&path, b"{").unwrap();
        assert!(tail(&folder, next.as_ref(), 9, 1).unwrap().events.is_empty());
        std::fs::remove_file(&path).unwrap();
        assert!(tail(&folder, next.as_ref(), 9, 1).unwrap().last.is_none());
    }

    #[test]
    fn a_line_that_is_too_long_keeps_what_is_short() {
        let (_dir, folder) = folder();
        let long = Event::new(Kind::Deployed, "a", "deployed").with("restarts", vec!["x"; 20_000]).with("to", "1");
        long.append(&folder);
        let found = read(&folder).unwrap();
        assert_eq!((found[0].more.get("to"), found[0].more.get("restarts")), (Some(&"1".into()), None));
    }

    #[test]
    fn what_cannot_be_written_stops_nobody() {
        let (dir, folder) = folder();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(FILE)).unwrap();
        Event::new(Kind::Held, "a", "held").append(&folder);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        Event::new(Kind::Held, "a", "held").append(&folder);
        assert!(read(&folder).is_err());
    }
}
