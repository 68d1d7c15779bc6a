//! The pages of a file as SQLite lays them out, read without SQLite, so that damage costs no more than what it hit
//! (<https://sqlite.org/fileformat2.html>).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use rusqlite::types::Value;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// What the hub's files have.
const USUAL_PAGE: usize = 4096;

/// A file and its log.
pub(super) struct Pages {
    file: File,
    log: Option<File>,
    /// Where the newest form of a page is in the log.
    in_log: HashMap<u32, u64>,
    size: usize,
    /// Bytes of a page that SQLite uses.
    usable: usize,
    pub count: u32,
    /// Why the first page says nothing about the others, where that is so.
    pub header: Option<&'static str>,
}

/// What was read of one tree.
#[derive(Default)]
pub(super) struct Tree {
    /// Entries of its leaves; of an index, of all its pages.
    pub entries: u64,
    /// Pages that are no pages of it, though they ought to be.
    pub bad_pages: u64,
    /// Rows on good pages that could not be read.
    pub bad_rows: u64,
}

/// A row of a table.
pub(super) struct Row {
    pub id: i64,
    pub values: Vec<Value>,
}

impl Pages {
    pub(super) fn open(file: File, log: Option<File>) -> Result<Self, std::io::Error> {
        let length = file.metadata()?.len();
        let mut head = [0; 100];
        let is_there = file.read_exact_at(&mut head, 0).is_ok();
        let size = match usize::from(u16::from_be_bytes([head[16], head[17]])) {
            1 => 65_536,
            size => size,
        };
        let is_size = |size: usize| size.is_power_of_two() && (512..=65_536).contains(&size);
        let header = match () {
            () if !is_there => Some("it is shorter than the head of a database"),
            () if &head[..16] != MAGIC => Some("it does not begin as a database does"),
            () if !is_size(size) => Some("its head is damaged"),
            () => None,
        };
        let mut pages = Self { file, log, in_log: HashMap::new(), size, usable: 0, count: 0, header };
        if header.is_some() {
            pages.size = USUAL_PAGE;
        }
        pages.read_log()?;
        let reserved = if header.is_some() { 0 } else { usize::from(head[20]) };
        pages.usable = pages.size.saturating_sub(reserved).max(480);
        let in_file = u32::try_from(length / pages.size as u64).unwrap_or(u32::MAX);
        pages.count = pages.in_log.keys().max().copied().unwrap_or(0).max(in_file);
        Ok(pages)
    }

    /// Finds the pages of finished transactions in the log.
    fn read_log(&mut self) -> Result<(), std::io::Error> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut head = [0; 32];
        if log.read_exact_at(&mut head, 0).is_err() {
            return Ok(());
        }
        let big = match be32(&head, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return Ok(()),
        };
        let size = be32(&head, 8) as usize;
        if self.header.is_some() && size.is_power_of_two() && (512..=65_536).contains(&size) {
            self.size = size;
        }
        let mut sums = checksum(big, (0, 0), &head[..24]);
        if size != self.size || sums != (be32(&head, 24), be32(&head, 28)) {
            return Ok(());
        }
        let (mut unfinished, mut at) = (HashMap::new(), 32u64);
        let mut frame = vec![0; 24 + size];
        while log.read_exact_at(&mut frame, at).is_ok() {
            sums = checksum(big, checksum(big, sums, &frame[..8]), &frame[24..]);
            if frame[8..16] != head[16..24] || sums != (be32(&frame, 16), be32(&frame, 20)) {
                break;
            }
            unfinished.insert(be32(&frame, 0), at + 24);
            if be32(&frame, 4) != 0 {
                self.in_log.extend(unfinished.drain());
            }
            at += frame.len() as u64;
        }
        Ok(())
    }

    /// A page by its number, from 1; none where it is not there or cannot be read.
    fn page(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; self.size];
        let read = match (&self.log, self.in_log.get(&number)) {
            (Some(log), Some(at)) => log.read_exact_at(&mut page, *at),
            _ => self.file.read_exact_at(&mut page, u64::from(number.checked_sub(1)?) * self.size as u64),
        };
        read.is_ok().then_some(page)
    }

    /// Reads the table or index that begins at a page, and notes which pages are its.
    pub(super) fn tree(&self, root: u32, seen: &mut HashSet<u32>, mut row: impl FnMut(Row)) -> Tree {
        let (mut tree, mut waiting) = (Tree::default(), vec![root]);
        while let Some(number) = waiting.pop() {
            if !seen.insert(number) {
                tree.bad_pages += 1;
                continue;
            }
            let Some((page, leaf)) =
                self.page(number).and_then(|page| Leaf::of(&page, number).map(|leaf| (page, leaf)))
            else {
                tree.bad_pages += 1;
                continue;
            };
            // In its order: what is pushed last is read first.
            let mut below: Vec<u32> = Vec::new();
            for cell in leaf.cells(&page) {
                match (leaf.kind, cell) {
                    (Kind::Table, Some(cell)) => match self.row(&page, cell, seen) {
                        Some(found) => {
                            tree.entries += 1;
                            row(found);
                        }
                        None => tree.bad_rows += 1,
                    },
                    (Kind::Index, Some(_)) => tree.entries += 1,
                    (Kind::TableNode, Some(cell)) => below.push(be32(&page, cell)),
                    (Kind::IndexNode, Some(cell)) => {
                        tree.entries += 1;
                        below.push(be32(&page, cell));
                    }
                    (_, None) => tree.bad_rows += 1,
                }
            }
            below.extend(leaf.last);
            waiting.extend(below.iter().rev());
        }
        tree
    }

    /// The rows of the leaves that no tree led to, with the pages that are free by the head's own list left out.
    pub(super) fn strays(&self, seen: &mut HashSet<u32>, mut row: impl FnMut(Row)) {
        self.mark_free(seen);
        for number in 1..=self.count {
            if seen.contains(&number) {
                continue;
            }
            let Some(page) = self.page(number) else { continue };
            let Some(leaf) = Leaf::of(&page, number).filter(|leaf| leaf.kind == Kind::Table) else { continue };
            let mut overflow = HashSet::new();
            for cell in leaf.cells(&page).into_iter().flatten() {
                if let Some(found) = self.row(&page, cell, &mut overflow) {
                    row(found);
                }
            }
        }
    }

    fn mark_free(&self, seen: &mut HashSet<u32>) {
        let Some(first) = self.page(1).filter(|_| self.header.is_none()) else { return };
        let mut trunk = be32(&first, 32);
        while let Some(page) = (trunk != 0 && seen.insert(trunk)).then(|| self.page(trunk)).flatten() {
            let leaves = (be32(&page, 4) as usize).min(self.usable / 4 - 2);
            seen.extend((0..leaves).map(|leaf| be32(&page, 8 + 4 * leaf)));
            trunk = be32(&page, 0);
        }
    }

    /// Reads a row whose cell begins at `cell`.
    fn row(&self, page: &[u8], cell: usize, seen: &mut HashSet<u32>) -> Option<Row> {
        let (length, at) = varint(page, cell)?;
        let (id, at) = varint(page, at)?;
        let length =
            usize::try_from(length).ok().filter(|length| *length as u64 <= u64::from(self.count) * self.size as u64)?;
        let usable = self.usable;
        let local = if length <= usable - 35 {
            length
        } else {
            let least = (usable - 12) * 32 / 255 - 23;
            let fitting = least + (length - least) % (usable - 4);
            if fitting <= usable - 35 { fitting } else { least }
        };
        let mut payload = page.get(at..at + local)?.to_vec();
        let mut next = if local < length { be32(page.get(at + local..at + local + 4)?, 0) } else { 0 };
        let mut chain = HashSet::new();
        while payload.len() < length {
            // A chain that leads back to itself has no end.
            let more = chain.insert(next).then(|| self.page(next)).flatten()?;
            seen.insert(next);
            let take = (length - payload.len()).min(usable - 4);
            payload.extend(more.get(4..4 + take)?);
            next = be32(&more, 0);
        }
        Some(Row { id: id as i64, values: values(&payload)? })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    IndexNode,
    TableNode,
    Index,
    Table,
}

/// What the head of a page says.
struct Leaf {
    kind: Kind,
    cells: usize,
    /// Where the places of the cells are.
    places: usize,
    /// The last page below it.
    last: Option<u32>,
}

impl Leaf {
    fn of(page: &[u8], number: u32) -> Option<Self> {
        let head = if number == 1 { 100 } else { 0 };
        let (kind, is_node) = match page[head] {
            2 => (Kind::IndexNode, true),
            5 => (Kind::TableNode, true),
            10 => (Kind::Index, false),
            13 => (Kind::Table, false),
            _ => return None,
        };
        let places = head + if is_node { 12 } else { 8 };
        let cells = usize::from(u16::from_be_bytes([page[head + 3], page[head + 4]]));
        (places + 2 * cells <= page.len()).then(|| Self {
            kind,
            cells,
            places,
            last: is_node.then(|| be32(page, head + 8)),
        })
    }

    /// Where each cell begins; none for one that lies elsewhere than cells do.
    fn cells(&self, page: &[u8]) -> Vec<Option<usize>> {
        let place = |cell: usize| {
            let at = self.places + 2 * cell;
            let begin = usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
            (begin >= self.places + 2 * self.cells && begin + 4 <= page.len()).then_some(begin)
        };
        (0..self.cells).map(place).collect()
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for index in 0..9 {
        let byte = *bytes.get(at + index)?;
        if index == 8 {
            return Some((value << 8 | u64::from(byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + index + 1));
        }
    }
    None
}

fn checksum(big: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for word in bytes.chunks_exact(8) {
        let read = |at: usize| {
            let word = [word[at], word[at + 1], word[at + 2], word[at + 3]];
            if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        first = first.wrapping_add(read(0)).wrapping_add(second);
        second = second.wrapping_add(read(4)).wrapping_add(first);
    }
    (first, second)
}

/// The values of a record; none where its head and its body do not fit, or a text is none.
fn values(record: &[u8]) -> Option<Vec<Value>> {
    let (head, mut at) = varint(record, 0)?;
    let head = usize::try_from(head).ok().filter(|head| *head <= record.len())?;
    let (mut values, mut body) = (Vec::new(), head);
    while at < head {
        let (kind, next) = varint(record, at)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            kind => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = record.get(body..body.checked_add(length)?)?;
        body += length;
        let integer = || {
            let start = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
            bytes.iter().fold(start, |value: i64, byte| value << 8 | i64::from(*byte))
        };
        values.push(match kind {
            0 => Value::Null,
            1..=6 => Value::Integer(integer()),
            7 => Value::Real(f64::from_bits(integer() as u64)),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            kind if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
        });
    }
    (body == record.len()).then_some(values)
}
