use serde::{Deserialize, Serialize};

use super::jsonl;
use crate::log;
use crate::state::{self, EntryKind, Folder};
use crate::store::MetricRow;

/// What all segments may take together, in bytes, and how old a row may become, in seconds.
pub(super) const LIMIT: u64 = 8 << 20;
pub(super) const OLDEST: i64 = 7 * 24 * 3600;
/// A segment is one transaction when it is replayed, and what is dropped at once when there is no room.
const SEGMENT: u64 = 128 << 10;
/// How many segments are looked at; the limits above allow far fewer.
const SEGMENTS: usize = 10_000;
/// Rows that the database refused, for a person to look at.
const REFUSED: &str = "refused.jsonl";
const REFUSED_LIMIT: u64 = 256 << 10;
/// What was lost since the folder was made.
const LOSSES: &str = "losses.json";

/// Rows that wait for the database: segments of JSON lines, named in the order in which they were written. A segment
/// is removed when all of its rows are stored, so a crash in between stores them again, which the table's unique key
/// makes harmless. A line is written whole, newline included, or does not count.
#[derive(Debug)]
pub(super) struct Spool {
    folder: Folder,
    limit: u64,
}

/// Rows of one segment.
#[derive(Debug)]
pub(super) struct Segment {
    name: String,
    /// The rows, in the order in which they were measured.
    pub rows: Vec<MetricRow>,
    /// Rows that are not handed out: older than allowed, or damaged.
    pub lost: u64,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// Lines in all segments.
    pub rows: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

/// What was lost since the folder was made, in rows.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Losses {
    /// Dropped because the spool was full, too old, or damaged.
    pub dropped: u64,
    /// Refused by the database and set aside.
    pub refused: u64,
}

impl Spool {
    /// Opens the folder `spool` of the service's own folder, made where missing.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(metrics: &Folder, limit: u64) -> Result<Self, state::Error> {
        Ok(Self { folder: metrics.sub_or_make("spool", 0o750)?, limit })
    }

    /// How much waits; reads every segment.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn depth(&self) -> Result<Depth, state::Error> {
        let mut depth = Depth::default();
        for name in self.segments()? {
            let content = self.read(&name)?;
            depth.bytes += content.len() as u64;
            depth.rows += content.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Ok(depth)
    }

    /// What was lost so far; nothing, said in the log, where the record of it cannot be read.
    pub fn losses(&self) -> Losses {
        let losses = self.folder.read_json(LOSSES).unwrap_or_else(|error| {
            log::warn!("losses_unreadable", error = error.to_string());
            None
        });
        losses.unwrap_or_default()
    }

    /// Adds to what was lost.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn lose(&self, more: Losses) -> Result<(), state::Error> {
        if more == Losses::default() {
            return Ok(());
        }
        let before = self.losses();
        let sum = Losses { dropped: before.dropped + more.dropped, refused: before.refused + more.refused };
        self.folder.publish_json(LOSSES, &sum)
    }

    /// The oldest segment, without rows older than allowed; none where nothing waits.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn oldest(&self, now: jiff::Timestamp) -> Result<Option<Segment>, state::Error> {
        let Some(name) = self.segments()?.into_iter().next() else { return Ok(None) };
        let content = self.read(&name)?;
        // What follows the last newline was never written whole; whoever wrote it did not count on it.
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (mut rows, mut lost) = (Vec::new(), 0);
        for line in content[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match jsonl::row(line) {
                Some(row) if now.as_second() - row.time.as_second() <= OLDEST => rows.push(row),
                _ => lost += 1,
            }
        }
        Ok(Some(Segment { name, rows, lost }))
    }

    /// Removes a segment whose rows are stored or given up.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, segment: &Segment) -> Result<(), state::Error> {
        self.folder.remove(segment.name.as_ref()).map(drop)
    }

    /// Appends rows, durably. Where there is no room the oldest segments go first.
    ///
    /// Returns how many rows had to go.
    ///
    /// # Errors
    /// When the rows cannot be written; nothing of them is left then.
    pub fn append(&self, rows: &[MetricRow], now: jiff::Timestamp) -> Result<u64, state::Error> {
        let mut lines = Vec::new();
        for row in rows {
            lines.extend(jsonl::line(&self.folder, row)?);
        }
        let dropped = self.make_room(lines.len() as u64, now)?;
        let names = self.segments()?;
        let last = match names.last() {
            Some(name) if self.size(name)? + lines.len() as u64 <= SEGMENT => name.clone(),
            Some(name) => segment_name(number(name).unwrap_or(0) + 1),
            None => segment_name(1),
        };
        let is_new = names.last() != Some(&last);
        jsonl::append(&self.folder, &last, &lines)?;
        if is_new {
            self.folder.sync()?;
        }
        Ok(dropped)
    }

    /// Sets a row aside that the database refuses for itself, with the reason; where there is no room the ones before
    /// go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn refuse(&self, row: &MetricRow, reason: &str) -> Result<(), state::Error> {
        let row: serde_json::Value = serde_json::from_slice(&jsonl::line(&self.folder, row)?)
            .map_err(|error| jsonl::content(&self.folder, REFUSED, &error))?;
        let mut line = serde_json::json!({"reason": reason, "row": row}).to_string().into_bytes();
        line.push(b'\n');
        if self.size(REFUSED)? + line.len() as u64 > REFUSED_LIMIT {
            self.folder.remove(REFUSED.as_ref())?;
        }
        jsonl::append(&self.folder, REFUSED, &line)
    }

    /// Removes the oldest segments until `needed` bytes fit, and those of which every row is too old.
    fn make_room(&self, needed: u64, now: jiff::Timestamp) -> Result<u64, state::Error> {
        let mut dropped = 0;
        loop {
            let mut bytes = needed;
            for name in self.segments()? {
                bytes += self.size(&name)?;
            }
            let Some(segment) = self.oldest(now)? else { return Ok(dropped) };
            if bytes <= self.limit && !segment.rows.is_empty() {
                return Ok(dropped);
            }
            self.remove(&segment)?;
            dropped += segment.rows.len() as u64 + segment.lost;
        }
    }

    fn segments(&self) -> Result<Vec<String>, state::Error> {
        let entries = self.folder.entries(SEGMENTS)?;
        let names = entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| entry.name.into_string().ok());
        Ok(names.filter(|name| number(name).is_some()).collect())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, state::Error> {
        // A segment may have been written by hand or by a version with another limit.
        Ok(self.folder.read(name, (LIMIT * 2) as usize)?.unwrap_or_default())
    }

    fn size(&self, name: &str) -> Result<u64, state::Error> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statat(self.folder.fd(), name, flags) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(rustix::io::Errno::NOENT) => Ok(0),
            Err(error) => Err(state::Error::io("inspect", &self.folder.path().join(name), error)),
        }
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:012}.jsonl")
}

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".jsonl").filter(|digits| digits.len() == 12).and_then(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn spool(limit: u64) -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&Folder::open(dir.path()).unwrap(), limit).unwrap();
        (dir, spool)
    }

    fn row(second: i64, payload: &str) -> MetricRow {
        MetricRow {
            time: jiff::Timestamp::from_second(second).unwrap(),
            host: "host".into(),
            os: "Debian".into(),
            metric_type: "cpu".into(),
            payload: serde_json::json!({ "text": payload }),
        }
    }

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    fn drain(spool: &Spool, now: jiff::Timestamp) -> (Vec<i64>, u64) {
        let (mut seconds, mut lost) = (Vec::new(), 0);
        while let Some(segment) = spool.oldest(now).unwrap() {
            seconds.extend(segment.rows.iter().map(|row| row.time.as_second()));
            lost += segment.lost;
            spool.remove(&segment).unwrap();
        }
        (seconds, lost)
    }

    #[test]
    fn rows_come_back_in_order_and_once() {
        let (_dir, spool) = spool(LIMIT);
        let long = "x".repeat(40_000);
        for second in 0..10 {
            assert_eq!(spool.append(&[row(second, &long)], at(10)).unwrap(), 0);
        }
        assert_eq!(spool.depth().unwrap().rows, 10);
        assert!(spool.segments().unwrap().len() > 1);
        assert_eq!(drain(&spool, at(10)), ((0..10).collect(), 0));
        assert_eq!(spool.depth().unwrap(), Depth::default());
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_costs_nothing_else() {
        let (dir, spool) = spool(LIMIT);
        spool.append(&[row(1, "a")], at(1)).unwrap();
        let path = dir.path().join("spool").join(segment_name(1));
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"time":2000,"ho"#).unwrap();
        assert_eq!(spool.oldest(at(2)).unwrap().unwrap().rows.len(), 1);
        spool.append(&[row(3, "b")], at(3)).unwrap();
        assert_eq!(drain(&spool, at(3)), (vec![1, 3], 0));
    }

    #[test]
    fn a_damaged_line_is_counted_and_skipped() {
        let (dir, spool) = spool(LIMIT);
        spool.append(&[row(1, "a")], at(1)).unwrap();
        let path = dir.path().join("spool").join(segment_name(1));
        let mut content = std::fs::read(&path).unwrap();
        content.splice(0..0, *b"\xff\x00garbage\n");
        std::fs::write(&path, content).unwrap();
        assert_eq!(drain(&spool, at(1)), (vec![1], 1));
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let (_dir, spool) = spool(500_000);
        let long = "x".repeat(50_000);
        let dropped: u64 = (0..30).map(|second| spool.append(&[row(second, &long)], at(30)).unwrap()).sum();
        assert!(spool.depth().unwrap().bytes <= 500_000);
        let (seconds, _) = drain(&spool, at(30));
        assert_eq!(seconds.len() as u64 + dropped, 30);
        assert_eq!(*seconds.last().unwrap(), 29);
        assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "only the oldest went");
    }

    #[test]
    fn rows_older_than_a_week_go() {
        let (_dir, spool) = spool(LIMIT);
        spool.append(&[row(1, "old"), row(OLDEST, "young")], at(OLDEST)).unwrap();
        assert_eq!(drain(&spool, at(OLDEST + 100)), (vec![OLDEST], 1));
        spool.append(&[row(1, "old")], at(1)).unwrap();
        assert_eq!(spool.append(&[row(OLDEST, "new")], at(OLDEST + 100)).unwrap(), 1);
    }

    #[test]
    fn refused_rows_are_kept_within_bounds() {
        let (dir, spool) = spool(LIMIT);
        for second in 0..20 {
            spool.refuse(&row(second, &"x".repeat(30_000)), "because").unwrap();
        }
        let content = std::fs::read_to_string(dir.path().join("spool").join(REFUSED)).unwrap();
        assert!(content.len() as u64 <= REFUSED_LIMIT && content.contains(r#""reason":"because""#));
        assert!(spool.oldest(at(0)).unwrap().is_none(), "it is no segment");
        spool.lose(Losses { dropped: 1, refused: 2 }).unwrap();
        spool.lose(Losses { dropped: 1, refused: 0 }).unwrap();
        assert_eq!(spool.losses(), Losses { dropped: 2, refused: 2 });
    }

    #[test]
    fn a_link_in_a_segment_s_place_is_not_written_through() {
        let (dir, spool) = spool(LIMIT);
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("spool").join(segment_name(1))).unwrap();
        // A link is no segment, so the first segment's name is taken.
        assert!(spool.append(&[row(1, "a")], at(1)).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"");
    }
}
