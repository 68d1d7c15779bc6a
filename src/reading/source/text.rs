//! The text of a file in pieces: lines, values of a list, documents over several lines. What was looked at too far ahead
//! is read again.

use std::io::{BufRead, Read};

use super::scan::{Scan, Step};

/// A document of MongoDB has at most 16 MiB; as Extended JSON it may be a few times as long.
const LONGEST: usize = 64 << 20;

/// A line, without its end.
pub(super) enum Line {
    Read(Vec<u8>),
    TooLong,
    End,
}

/// A value of a list; the numbers are those of the lines that were passed over.
pub(super) enum Value {
    Read(Vec<u8>),
    TooLong(u64),
    Wrong(u64),
    End,
}

/// What is left of a file.
pub(super) struct Text {
    rest: Box<dyn BufRead + Send>,
    /// Lines that come before the rest, from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// What came of a line before the file could not be read on.
    partial: Vec<u8>,
}

impl Text {
    pub(super) fn new(rest: Box<dyn BufRead + Send>) -> Self {
        Self { rest, ahead: Vec::new(), at: 0, partial: Vec::new() }
    }

    /// What the rest begins with, as far as it is in memory; empty at the end.
    pub(super) fn beginning(&mut self) -> std::io::Result<&[u8]> {
        if self.at < self.ahead.len() { Ok(&self.ahead[self.at..]) } else { self.rest.fill_buf() }
    }

    pub(super) fn byte(&mut self) -> std::io::Result<Option<u8>> {
        Ok(self.beginning()?.first().copied())
    }

    pub(super) fn skip(&mut self, count: usize) {
        if self.at < self.ahead.len() {
            self.at += count;
        } else {
            self.rest.consume(count);
        }
    }

    /// Gives a line back that was read just now.
    pub(super) fn put_back(&mut self, line: Vec<u8>) {
        if self.ahead.is_empty() {
            self.ahead = line;
            self.ahead.push(b'\n');
        } else {
            self.at -= line.len() + 1;
        }
    }

    /// What was read of a line before the file could not be read on.
    pub(super) fn partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    pub(super) fn line(&mut self) -> std::io::Result<Line> {
        if self.at < self.ahead.len() {
            let line = self.line_ahead();
            return Ok(Line::Read(self.ahead[line].to_vec()));
        }
        (self.ahead, self.at) = (Vec::new(), 0);
        let mut line = Vec::new();
        let read = self.rest.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line);
        let count = match read {
            Ok(count) => count,
            Err(error) => {
                self.partial = line;
                return Err(error);
            }
        };
        if line.pop_if(|last| *last == b'\n').is_some() || count < LONGEST {
            // Its room has grown by doubling, and the batch keeps it.
            line.shrink_to_fit();
            return Ok(if count == 0 { Line::End } else { Line::Read(line) });
        }
        drop(line);
        self.rest.skip_until(b'\n')?;
        Ok(Line::TooLong)
    }

    /// Passes over the next of the lines ahead; where it is, without its end.
    fn line_ahead(&mut self) -> std::ops::Range<usize> {
        let from = self.at;
        let length = self.ahead[from..].iter().position(|byte| *byte == b'\n');
        let end = length.map_or(self.ahead.len(), |length| from + length);
        self.at = (end + 1).min(self.ahead.len());
        from..end
    }

    /// The document that begins with a line which was read just now, and how many further lines it takes. Where they make
    /// none, its lines are those that are indented or close something; none where it is too long.
    pub(super) fn document(&mut self, first: Vec<u8>) -> std::io::Result<(Option<Vec<u8>>, u64)> {
        let length = first.len() + 1;
        self.put_back(first);
        let start = self.at;
        self.at += length;
        let mut scan = Scan::new();
        let mut step = scan.feed(&self.ahead[start..self.at]);
        let mut lines = 0;
        while step == Step::More {
            let from = self.at;
            if from - start > LONGEST {
                return Ok((None, lines + self.pass_over(scan)?));
            }
            if from == self.ahead.len() && !self.look_ahead()? {
                break;
            }
            self.line_ahead();
            lines += 1;
            step = scan.feed(&self.ahead[from..self.at]);
            let Step::Ends(length) = step else { continue };
            let end = from + length;
            let after = self.ahead[end..self.at].trim_ascii();
            if after.is_empty() || after.starts_with(b"{") {
                if !after.is_empty() {
                    // The next document begins in the same line.
                    self.at = end;
                    lines -= 1;
                }
                return Ok((Some(self.ahead[start..end].to_vec()), lines));
            }
        }
        Ok((Some(self.broken(start)?), self.lines_since(start)))
    }

    /// Passes over the rest of a document that is too long to be kept; how many lines that takes.
    fn pass_over(&mut self, mut scan: Scan) -> std::io::Result<u64> {
        self.ahead.drain(..self.at);
        self.at = 0;
        // The one that begins here.
        let mut lines = 1;
        loop {
            let text = self.beginning()?;
            if text.is_empty() {
                return Ok(lines);
            }
            let step = scan.feed(text);
            let count = match step {
                Step::More => text.len(),
                Step::Ends(count) | Step::Wrong(count) => count,
            };
            lines += text[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.skip(count);
            match step {
                Step::More => {}
                Step::Wrong(_) => return self.line().map(|_| lines),
                Step::Ends(_) => {
                    return Ok(match self.line()? {
                        // The next document begins in the same line.
                        Line::Read(rest) if !rest.trim_ascii().is_empty() => {
                            self.put_back(rest);
                            lines - 1
                        }
                        _ => lines,
                    });
                }
            }
        }
    }

    /// Reads one more line ahead; false at the end, and before one that is too long.
    fn look_ahead(&mut self) -> std::io::Result<bool> {
        let before = self.ahead.len();
        let count = self.rest.by_ref().take(LONGEST as u64).read_until(b'\n', &mut self.ahead)?;
        if self.ahead.len() > before && self.ahead.last() != Some(&b'\n') {
            self.ahead.push(b'\n');
        }
        Ok(count > 0)
    }

    /// The lines of a document that does not end as one; everything after them is read again.
    fn broken(&mut self, start: usize) -> std::io::Result<Vec<u8>> {
        self.at = start;
        loop {
            self.line_ahead();
            let is_last = self.at == self.ahead.len() && (self.at - start > LONGEST || !self.look_ahead()?);
            if is_last || !matches!(self.ahead[self.at], b' ' | b'\t' | b'}' | b']' | b'\r') {
                return Ok(self.ahead[start..self.at].trim_ascii_end().to_vec());
            }
        }
    }

    fn lines_since(&self, start: usize) -> u64 {
        (self.ahead[start..self.at].iter().filter(|byte| **byte == b'\n').count() as u64).saturating_sub(1)
    }

    /// The value of a list that begins here.
    pub(super) fn value(&mut self) -> std::io::Result<Value> {
        let (mut scan, mut value) = (Scan::new(), Vec::new());
        let (mut is_long, mut lines) = (false, 0);
        loop {
            let text = self.beginning()?;
            if text.is_empty() {
                return Ok(Value::End);
            }
            let step = scan.feed(text);
            let count = match step {
                Step::More => text.len(),
                Step::Ends(count) | Step::Wrong(count) => count,
            };
            lines += text[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
            is_long |= value.len() + count > LONGEST;
            if is_long {
                value = Vec::new();
            } else {
                value.extend_from_slice(&text[..count]);
            }
            self.skip(count);
            match step {
                Step::More => {}
                Step::Wrong(_) => return Ok(Value::Wrong(lines)),
                Step::Ends(_) if is_long => return Ok(Value::TooLong(lines)),
                Step::Ends(_) => return Ok(Value::Read(value)),
            }
        }
    }
}
