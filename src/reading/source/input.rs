//! One file of an inbox, read document by document: lines, documents over several lines or several in one, a list.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::batch::{Batch, BatchLimits, Finished, Identity, identity};
use super::format::{self, BYTE_ORDER_MARK, unreadable};
use super::scan::{Scan, Step};
use super::text::{Line, Text, Value};
use crate::reading::Rejection;
use crate::reading::columns::Rules;
use crate::reading::transform::{Form, Oddities, Outcome, transform};
use crate::text::exact;

/// What a document of a JSON text sequence begins with (RFC 7464), as those of `journalctl -o json-seq`.
const RECORD_SEPARATOR: &[u8] = b"\x1e";

/// So many lines at the beginning of a file that are no JSON make it another kind of file.
const UNREAD: usize = 100;
/// Lines that are longer than this together are not held back for that.
const UNREAD_BYTES: usize = 1 << 20;

/// A file that is being read.
pub(super) struct Input {
    name: OsString,
    identity: Identity,
    text: Text,
    place: Place,
    part: Part,
    /// The lines so far, where none of them is JSON.
    unread: Option<Vec<(Vec<u8>, String, Outcome)>>,
    /// Bytes that were read of the file, compressed ones where it is compressed.
    taken: Arc<AtomicU64>,
    /// Those of them that batches have told of.
    told: u64,
    /// Why it cannot be put away as if all of it had been read.
    damage: Option<String>,
}

/// What of a file is being read.
enum Part {
    Beginning,
    Lines,
    /// A line of several documents.
    Several {
        line: Vec<u8>,
        at: usize,
    },
    /// A list of documents.
    List {
        is_first: bool,
    },
    /// The rest is not read.
    End,
}

/// Where in a file a document begins.
#[derive(Default)]
struct Place {
    file: String,
    /// The line, from 1.
    number: u64,
    /// How many documents began in it before.
    nth: u64,
}

impl Place {
    fn next_line(&mut self) {
        self.advance(1);
    }

    fn advance(&mut self, lines: u64) {
        if lines > 0 {
            self.number += lines;
            self.nth = 0;
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.number)?;
        if self.nth > 0 { write!(f, "#{}", self.nth + 1) } else { Ok(()) }
    }
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

impl Input {
    pub(super) fn new(name: OsString, file: File, metadata: &Metadata) -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let text = format::text(&name, Counted { file, taken: Arc::clone(&taken) });
        Self {
            identity: identity(metadata),
            text: Text::new(text),
            place: Place { file: exact(name.as_encoded_bytes()), ..Place::default() },
            name,
            part: Part::Beginning,
            unread: Some(Vec::new()),
            taken,
            told: 0,
            damage: None,
        }
    }

    /// Reads documents until the batch is full; false at the end of the file.
    pub(super) fn read(&mut self, batch: &mut Batch, rules: &Rules, limits: BatchLimits) -> bool {
        let more = loop {
            if batch.is_full(limits) {
                break true;
            }
            match self.step(batch, rules) {
                Ok(true) => {}
                Ok(false) => break false,
                Err(error) => {
                    self.damaged(&error.to_string());
                    let partial = self.text.partial();
                    let ends = Scan::new().feed(&partial) == Step::Ends(partial.trim_ascii_end().len());
                    if begins_object(&partial) && ends {
                        self.push(batch, partial, rules);
                    }
                    break false;
                }
            }
        };
        if !more {
            self.end(batch);
        }
        let taken = self.taken.load(Relaxed);
        batch.advanced += taken - self.told;
        self.told = taken;
        if !more {
            let damage = self.damage.take();
            batch.finished.push(Finished { name: self.name.clone(), identity: self.identity, damage });
        }
        more
    }

    /// Reads one document, or what there is instead; false at the end.
    fn step(&mut self, batch: &mut Batch, rules: &Rules) -> std::io::Result<bool> {
        match &mut self.part {
            Part::Beginning => self.begin(),
            Part::Lines => {
                self.place.next_line();
                match self.text.line()? {
                    Line::Read(line) if line.trim_ascii().is_empty() => {}
                    Line::Read(line) if begins_list(&line) => {
                        self.text.put_back(line);
                        self.begin_list()?;
                    }
                    Line::Read(line) => self.line(batch, without_mark(line), rules)?,
                    Line::TooLong => self.damaged("it is longer than 64 MiB"),
                    Line::End => return Ok(false),
                }
                Ok(true)
            }
            Part::Several { line, at } => {
                let rest = &line[*at..];
                match Scan::new().feed(rest) {
                    Step::Ends(length) if begins_object(&rest[length..]) => {
                        let document = rest[..length].to_vec();
                        *at += length;
                        self.push(batch, document, rules);
                    }
                    _ => {
                        let rest = rest.to_vec();
                        self.part = Part::Lines;
                        self.line(batch, rest, rules)?;
                    }
                }
                Ok(true)
            }
            Part::End => Ok(false),
            Part::List { is_first } => {
                let is_first = std::mem::replace(is_first, false);
                self.item(is_first, batch, rules)
            }
        }
    }

    /// Looks at the first bytes: editors on Windows begin a file with a byte order mark (RFC 8259, section 8.1: a parser
    /// may ignore it), and mongoexport --jsonArray makes the whole file one list.
    fn begin(&mut self) -> std::io::Result<bool> {
        if let Some(reason) = unreadable(self.text.beginning()?) {
            self.damage = Some(reason.to_owned());
            return Ok(false);
        }
        if self.text.beginning()?.starts_with(BYTE_ORDER_MARK) {
            self.text.skip(BYTE_ORDER_MARK.len());
        }
        self.part = Part::Lines;
        loop {
            let beginning = self.text.beginning()?;
            let (length, spaces) =
                (beginning.len(), beginning.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
            let lines = beginning[..spaces].iter().filter(|byte| **byte == b'\n').count();
            if spaces < length && begins_list(&beginning[spaces..]) {
                self.place.advance(1 + lines as u64);
                self.begin_list()?;
            }
            if spaces < length || length == 0 {
                return Ok(true);
            }
            self.place.advance(lines as u64);
            self.text.skip(spaces);
        }
    }

    /// Goes on with the items of a list that begins here, behind white space.
    fn begin_list(&mut self) -> std::io::Result<()> {
        while self.text.byte()?.is_some_and(|byte| byte != b'[') {
            self.text.skip(1);
        }
        self.text.skip(1);
        self.part = Part::List { is_first: true };
        Ok(())
    }

    /// Reads the next item of the list that the file is.
    fn item(&mut self, is_first: bool, batch: &mut Batch, rules: &Rules) -> std::io::Result<bool> {
        let mut comma = is_first;
        loop {
            let Some(byte) = self.text.byte()? else {
                self.damaged("the list ends before it is complete");
                return Ok(false);
            };
            match byte {
                b'\n' => self.place.advance(1),
                byte if byte.is_ascii_whitespace() => {}
                b',' if !comma => comma = true,
                b']' if is_first || !comma => {
                    self.text.skip(1);
                    // What follows in this line is read as one.
                    self.place.number -= 1;
                    self.part = Part::Lines;
                    return Ok(true);
                }
                _ if comma => break,
                _ => {
                    self.damaged("in a list, this is no comma and no closing bracket");
                    return Ok(false);
                }
            }
            self.text.skip(1);
        }
        let begun = self.place.number;
        let value = self.text.value()?;
        match value {
            Value::Read(value) => {
                let lines = value.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.push(batch, value, rules);
                self.place.advance(lines);
            }
            Value::TooLong(lines) => {
                self.damaged("it is longer than 64 MiB");
                self.place.number = begun + lines;
            }
            Value::Wrong(lines) => {
                self.place.number = begun + lines;
                self.damaged("from here on the list is no JSON");
                return Ok(false);
            }
            Value::End => {
                self.damaged("the list ends before it is complete");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A line: one document, several, or the beginning of one that goes on in the next.
    fn line(&mut self, batch: &mut Batch, line: Vec<u8>, rules: &Rules) -> std::io::Result<()> {
        let mut oddities = Oddities::default();
        let place = self.place.to_string();
        let outcome = transform(&line, Form::Line, &place, rules, &mut oddities);
        match &outcome {
            Err((_, Rejection::Unfinished)) if begins_object(&line) => {
                let (document, lines) = self.text.document(line)?;
                match document {
                    Some(document) => self.push(batch, document, rules),
                    None => self.damaged("a document is longer than 64 MiB"),
                }
                self.place.advance(lines);
            }
            Err((_, Rejection::More)) if self.begins_with_document(&line) => {
                self.part = Part::Several { line, at: 0 };
            }
            _ => {
                batch.oddities += oddities;
                self.add(batch, line, place, outcome);
            }
        }
        Ok(())
    }

    /// Whether a line begins with a document that another follows.
    fn begins_with_document(&self, line: &[u8]) -> bool {
        begins_object(line) && matches!(Scan::new().feed(line), Step::Ends(length) if begins_object(&line[length..]))
    }

    fn push(&mut self, batch: &mut Batch, document: Vec<u8>, rules: &Rules) {
        let place = self.place.to_string();
        let outcome = transform(&document, Form::Line, &place, rules, &mut batch.oddities);
        self.add(batch, document, place, outcome);
    }

    /// Puts what became of a document into the batch. As long as nothing of the file is JSON, it is held back.
    fn add(&mut self, batch: &mut Batch, document: Vec<u8>, place: String, outcome: Outcome) {
        let is_json = !matches!(outcome, Err((_, Rejection::NotJson(_) | Rejection::Unfinished | Rejection::More)));
        self.place.nth += 1;
        if is_json {
            self.settle(batch);
            batch.add(document, Some(place), outcome);
        } else if let Some(unread) = &mut self.unread {
            let reason = outcome.as_ref().err().map(|(_, rejection)| rejection.to_string());
            unread.push((document, place, outcome));
            let bytes: usize = unread.iter().map(|(document, ..)| document.len()).sum();
            if unread.len() >= UNREAD && bytes < UNREAD_BYTES {
                unread.clear();
                self.damage = reason
                    .map(|reason| format!("none of its first {UNREAD} lines is JSON; the last of them: {reason}"));
                self.part = Part::End;
            } else if bytes >= UNREAD_BYTES {
                self.settle(batch);
            }
        } else {
            batch.add(document, Some(place), outcome);
        }
    }

    /// What was held back, at the end of the file: a file of several lines, none of them meant as a document, is another
    /// kind of file, however short.
    fn end(&mut self, batch: &mut Batch) {
        if let Some(unread) = self.unread.as_mut().filter(|unread| unread.len() > 1)
            && let Some((.., Err((_, first)))) = unread.first()
            && !unread.iter().any(|(line, ..)| begins_object(line))
        {
            self.damage.get_or_insert_with(|| {
                format!("none of its {} lines is JSON; the first of them: {first}", unread.len())
            });
            unread.clear();
        }
        self.settle(batch);
    }

    /// Lets go of what was held back: the file is no other kind of file.
    fn settle(&mut self, batch: &mut Batch) {
        for (document, place, outcome) in self.unread.take().into_iter().flatten() {
            batch.add(document, Some(place), outcome);
        }
    }

    fn damaged(&mut self, reason: &str) {
        let number = self.place.number;
        self.damage.get_or_insert_with(|| format!("line {number}: {reason}"));
    }
}

fn begins_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

/// Whether a text begins as a list of documents does; a line of a log may begin with a bracket too.
fn begins_list(text: &[u8]) -> bool {
    let inside = text.trim_ascii_start().strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| matches!(inside.first(), None | Some(b'{' | b']')))
}

/// A line without what may stand before a document in it.
fn without_mark(mut line: Vec<u8>) -> Vec<u8> {
    if line.starts_with(RECORD_SEPARATOR) {
        line.drain(..RECORD_SEPARATOR.len());
    }
    line
}
