//! BSON as it lies in memory (bsonspec.org, version 1.1): read without copying, without recursion, without a driver.

use super::Rejection;

/// How many documents and arrays may lie in one another, the document itself included. Extended JSON asks parsers for
/// at least 200; SQLite's JSON ends at 1000 levels, and a deeper document would use up the stack of whoever recurses.
pub(super) const DEPTH: usize = 200;

/// A value; what has a length is borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Double(f64),
    String(&'a str),
    Document(&'a [u8]),
    Array(&'a [u8]),
    Binary {
        subtype: u8,
        bytes: &'a [u8],
    },
    Undefined,
    ObjectId([u8; 12]),
    Bool(bool),
    /// Milliseconds since 1970.
    DateTime(i64),
    Null,
    Regex {
        pattern: &'a str,
        options: &'a str,
    },
    DbPointer {
        name: &'a str,
        id: [u8; 12],
    },
    Code(&'a str),
    Symbol(&'a str),
    CodeWithScope {
        code: &'a str,
        scope: &'a [u8],
    },
    Int32(i32),
    Timestamp {
        seconds: u32,
        increment: u32,
    },
    Int64(i64),
    Decimal128([u8; 16]),
    MinKey,
    MaxKey,
}

/// The elements of a document or array, in order. After an error there are no more.
#[derive(Clone)]
pub(super) struct Elements<'a> {
    rest: &'a [u8],
}

fn bad(reason: &str) -> Rejection {
    Rejection::Bson(reason.to_owned())
}

/// The elements of a document, whose bytes begin with its length and end with NUL.
pub(super) fn elements(document: &[u8]) -> Result<Elements<'_>, Rejection> {
    let (length, rest) = document.split_first_chunk().ok_or_else(|| bad("a document is shorter than its length"))?;
    if usize::try_from(i32::from_le_bytes(*length)) != Ok(document.len()) {
        return Err(bad("a document's length is not that of its bytes"));
    }
    match rest.split_last() {
        Some((0, rest)) => Ok(Elements { rest }),
        _ => Err(bad("a document does not end with a zero byte")),
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(&'a str, Raw<'a>), Rejection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.element();
        if element.is_err() {
            self.rest = &[];
        }
        Some(element)
    }
}

impl<'a> Elements<'a> {
    /// The bytes that are not read yet.
    #[cfg(feature = "mongodb")]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn element(&mut self) -> Result<(&'a str, Raw<'a>), Rejection> {
        let kind = self.chunk::<1>()?[0];
        let key = self.cstring()?;
        let value = match kind {
            0x01 => Raw::Double(f64::from_le_bytes(self.chunk()?)),
            0x02 => Raw::String(self.string()?),
            0x03 => Raw::Document(self.document()?),
            0x04 => Raw::Array(self.document()?),
            0x05 => self.binary()?,
            0x06 => Raw::Undefined,
            0x07 => Raw::ObjectId(self.chunk()?),
            0x08 => match self.chunk::<1>()? {
                [0] => Raw::Bool(false),
                [1] => Raw::Bool(true),
                _ => return Err(bad("a boolean is neither 0 nor 1")),
            },
            0x09 => Raw::DateTime(i64::from_le_bytes(self.chunk()?)),
            0x0a => Raw::Null,
            0x0b => Raw::Regex { pattern: self.cstring()?, options: self.cstring()? },
            0x0c => Raw::DbPointer { name: self.string()?, id: self.chunk()? },
            0x0d => Raw::Code(self.string()?),
            0x0e => Raw::Symbol(self.string()?),
            0x0f => self.code_with_scope()?,
            0x10 => Raw::Int32(i32::from_le_bytes(self.chunk()?)),
            0x11 => Raw::Timestamp {
                increment: u32::from_le_bytes(self.chunk()?),
                seconds: u32::from_le_bytes(self.chunk()?),
            },
            0x12 => Raw::Int64(i64::from_le_bytes(self.chunk()?)),
            0x13 => Raw::Decimal128(self.chunk()?),
            0x7f => Raw::MaxKey,
            0xff => Raw::MinKey,
            other => return Err(Rejection::Bson(format!("an element has the unknown type 0x{other:02x}"))),
        };
        Ok((key, value))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Rejection> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| bad("a value is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| bad("a value is cut off"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<usize, Rejection> {
        usize::try_from(i32::from_le_bytes(self.chunk()?)).map_err(|_| bad("a length is negative"))
    }

    fn cstring(&mut self) -> Result<&'a str, Rejection> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| bad("a name does not end"))?;
        let text = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| bad("a name is not UTF-8"))
    }

    fn string(&mut self) -> Result<&'a str, Rejection> {
        let length = self.length()?;
        match self.take(length)?.split_last() {
            Some((0, text)) => std::str::from_utf8(text).map_err(|_| bad("a text is not UTF-8")),
            _ => Err(bad("a text does not end with a zero byte")),
        }
    }

    fn document(&mut self) -> Result<&'a [u8], Rejection> {
        let length = self.rest.first_chunk().map(|length| i32::from_le_bytes(*length));
        let length = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length >= 5);
        let document = self.take(length.ok_or_else(|| bad("a document's length is impossible"))?)?;
        elements(document)?;
        Ok(document)
    }

    fn binary(&mut self) -> Result<Raw<'a>, Rejection> {
        let length = self.length()?;
        let subtype = self.chunk::<1>()?[0];
        let bytes = self.take(length)?;
        if subtype != 2 {
            return Ok(Raw::Binary { subtype, bytes });
        }
        // The old form has the length a second time inside.
        let (inner, bytes) = bytes.split_first_chunk().ok_or_else(|| bad("a binary value is cut off"))?;
        if usize::try_from(i32::from_le_bytes(*inner)) != Ok(bytes.len()) {
            return Err(bad("a binary value's inner length is wrong"));
        }
        Ok(Raw::Binary { subtype, bytes })
    }

    fn code_with_scope(&mut self) -> Result<Raw<'a>, Rejection> {
        let length = self.length()?.checked_sub(4).ok_or_else(|| bad("code with scope has an impossible length"))?;
        let mut inside = Elements { rest: self.take(length)? };
        let (code, scope) = (inside.string()?, inside.document()?);
        if !inside.rest.is_empty() {
            return Err(bad("code with scope is longer than its parts"));
        }
        Ok(Raw::CodeWithScope { code, scope })
    }
}

/// Reads a whole document once: every value, and how deep it is.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(document: &[u8]) -> Result<(), Rejection> {
    let mut open = vec![elements(document)?];
    while let Some(innermost) = open.last_mut() {
        let nested = match innermost.next().transpose()? {
            None => {
                open.pop();
                continue;
            }
            Some((_, Raw::Document(inner) | Raw::Array(inner) | Raw::CodeWithScope { scope: inner, .. })) => inner,
            Some(_) => continue,
        };
        if open.len() >= DEPTH {
            return Err(Rejection::TooDeep);
        }
        open.push(elements(nested)?);
    }
    Ok(())
}

/// The value of a key: the last, where the key is there more than once.
pub(super) fn find<'a>(document: &'a [u8], key: &str) -> Result<Option<Raw<'a>>, Rejection> {
    let mut found = None;
    for element in elements(document)? {
        let (name, value) = element?;
        if name == key {
            found = Some(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        let mut document = vec![5, 0, 0, 0, 0];
        for _ in 1..depth {
            let length = i32::try_from(document.len() + 8).unwrap();
            document = [&length.to_le_bytes()[..], b"\x03a\0", &document, b"\0"].concat();
        }
        document
    }

    #[test]
    fn depth_is_bounded_without_using_the_stack() {
        assert_eq!(check(&nested(DEPTH)), Ok(()));
        assert_eq!(check(&nested(DEPTH + 1)), Err(Rejection::TooDeep));
        assert_eq!(check(&nested(20_000)), Err(Rejection::TooDeep));
    }

    #[test]
    fn no_piece_of_a_document_is_taken_for_one() {
        let document = b"\x1b\0\0\0\x02a\0\x02\0\0\0b\0\x10c\0\x01\0\0\0\x08d\0\x01\0\0";
        let whole = [&(document.len() as i32).to_le_bytes()[..], &document[4..]].concat();
        assert!(check(&whole[..whole.len() - 1]).is_err());
        for end in 0..whole.len() {
            assert!(check(&whole[..end]).is_err(), "{end}");
        }
    }
}
