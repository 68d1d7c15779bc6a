use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::state::{self, Folder};
use crate::store::MetricRow;

/// A row as a line of JSON.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Milliseconds since 1970.
    time: i64,
    host: String,
    os: String,
    metric_type: String,
    payload: serde_json::Value,
}

/// A row as a line, its newline included.
///
/// # Errors
/// When it is no JSON.
pub(super) fn line(folder: &Folder, row: &MetricRow) -> Result<Vec<u8>, state::Error> {
    let MetricRow { time, host, os, metric_type, payload } = row.clone();
    let line = Line { time: time.as_millisecond(), host, os, metric_type, payload };
    let mut bytes = serde_json::to_vec(&line).map_err(|error| content(folder, "a row", &error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The row of a line; none where it is damaged.
pub(super) fn row(line: &[u8]) -> Option<MetricRow> {
    let Line { time, host, os, metric_type, payload } = serde_json::from_slice(line).ok()?;
    let time = jiff::Timestamp::from_millisecond(time).ok()?;
    Some(MetricRow { time, host, os, metric_type, payload })
}

/// Where the last whole line of a file ends.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Appends to a file after its last whole line, durably, or leaves it as it was.
///
/// # Errors
/// When it cannot be written.
pub(super) fn append(folder: &Folder, name: &str, lines: &[u8]) -> Result<(), state::Error> {
    let failed = |error: std::io::Error| state::Error::io("write", &folder.path().join(name), error);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(folder.fd(), name, flags, Mode::from_raw_mode(0o640)).map_err(|error| failed(error.into()))?;
    let mut file = File::from(fd);
    let end = whole_lines(&mut file).map_err(failed)?;
    let written = file.set_len(end).and_then(|()| {
        file.seek(SeekFrom::Start(end))?;
        file.write_all(lines)?;
        file.sync_data()
    });
    written.map_err(|error| {
        // Half a line must not stay; where even that fails the next writer cuts it off.
        let _ = file.set_len(end);
        failed(error)
    })
}

/// An error about a file's content.
pub(super) fn content(folder: &Folder, name: &str, error: &serde_json::Error) -> state::Error {
    state::Error::Content { path: folder.path().join(name), reason: error.to_string() }
}
