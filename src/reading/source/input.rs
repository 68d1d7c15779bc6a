//! One file of an inbox, read line by line.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::bufread::MultiGzDecoder;

use super::{Batch, Finished, Identity, Limits, identity};
use crate::config::Json;
use crate::reading::transform::Form;

/// A document of MongoDB has at most 16 MiB; as Extended JSON it may be a few times as long.
const LONGEST_LINE: u64 = 64 << 20;
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const BUFFER: usize = 256 << 10;

/// A file that is being read.
pub(super) struct Input {
    name: OsString,
    identity: Identity,
    lines: Box<dyn BufRead + Send>,
    number: u64,
    /// Bytes that were read of the file, compressed ones where it is compressed.
    taken: Arc<AtomicU64>,
    /// Those of them that batches have told of.
    told: u64,
    /// Why it cannot be put away as if all of it had been read.
    damage: Option<String>,
}

/// Counts what is read.
struct Counted {
    file: File,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.taken.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

enum Line {
    Read(Vec<u8>),
    TooLong,
    End,
}

impl Input {
    pub(super) fn new(name: OsString, file: File, metadata: &Metadata) -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let plain = BufReader::with_capacity(BUFFER, Counted { file, taken: Arc::clone(&taken) });
        let lines: Box<dyn BufRead + Send> = if name.as_encoded_bytes().ends_with(b".gz") {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        Self { name, identity: identity(metadata), lines, number: 0, taken, told: 0, damage: None }
    }

    /// Reads lines until the batch is full; false at the end of the file.
    pub(super) fn read(&mut self, batch: &mut Batch, json: Json, limits: Limits) -> bool {
        let more = self.read_lines(batch, json, limits);
        let taken = self.taken.load(Relaxed);
        batch.advanced += taken - self.told;
        self.told = taken;
        if !more {
            let damage = self.damage.take();
            batch.finished.push(Finished { name: self.name.clone(), identity: self.identity, damage });
        }
        more
    }

    fn read_lines(&mut self, batch: &mut Batch, json: Json, limits: Limits) -> bool {
        while !batch.is_full(limits) {
            self.number += 1;
            match self.line() {
                Ok(Line::Read(line)) if line.trim_ascii().is_empty() => {}
                Ok(Line::Read(line)) => {
                    let place = format!("{}:{}", self.name.display(), self.number);
                    batch.push(line, Form::Line, &place, json);
                }
                Ok(Line::TooLong) => self.damaged("it is longer than 64 MiB"),
                Ok(Line::End) => return false,
                Err(error) => {
                    self.damaged(&error.to_string());
                    return false;
                }
            }
        }
        true
    }

    fn damaged(&mut self, reason: &str) {
        let number = self.number;
        self.damage.get_or_insert_with(|| format!("line {number}: {reason}"));
    }

    /// Editors on Windows begin a file with a byte order mark (RFC 8259, section 8.1: a parser may ignore it).
    fn skip_mark(&mut self) -> std::io::Result<()> {
        if self.lines.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.lines.consume(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    fn line(&mut self) -> std::io::Result<Line> {
        if self.number == 1 {
            self.skip_mark()?;
        }
        let mut line = Vec::new();
        let count = self.lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_some() || (count as u64) < LONGEST_LINE {
            // Its room has grown by doubling, and the batch keeps it.
            line.shrink_to_fit();
            return Ok(if count == 0 { Line::End } else { Line::Read(line) });
        }
        drop(line);
        self.lines.skip_until(b'\n')?;
        Ok(Line::TooLong)
    }
}
