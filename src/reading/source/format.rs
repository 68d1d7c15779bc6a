//! What a file of an inbox is: by its name, and by its first bytes, where it is no text that can be read.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What names of files to read end with; each also with `.gz` behind it.
const ENDINGS: [&[u8]; 3] = [b".jsonl", b".ndjson", b".json"];
const BUFFER: usize = 256 << 10;

/// U+FEFF in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Beginnings of files of other kinds, and what to do with them.
const KINDS: [(&[u8], &str); 8] = [
    (b"\xff\xfe\0\0", "it is UTF-32; write UTF-8: iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"\x1f\x8b", "it is compressed with gzip, and its name does not end in .gz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it: zstd -d"),
    (b"BZh", "it is compressed with bzip2; unpack it: bunzip2"),
    (b"\xfd7zXZ\0", "it is compressed with xz; unpack it: unxz"),
    (b"PK\x03\x04", "it is a ZIP archive; unpack it: unzip"),
];

const UTF_16: &str = "it is UTF-16; write UTF-8: iconv -f UTF-16 -t UTF-8";

/// How much of the beginning is looked at.
const LOOKED_AT: usize = 4096;

/// Whether a name in the inbox is one of a file to read. A name that begins with a dot is unfinished.
pub fn is_input(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let name = name.strip_suffix(b".gz").unwrap_or(name);
    !name.starts_with(b".") && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The text of a file, unpacked where its name says that it is compressed.
pub(super) fn text(name: &OsStr, file: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    let plain = BufReader::with_capacity(BUFFER, file);
    if name.as_encoded_bytes().ends_with(b".gz") {
        return Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain)));
    }
    Box::new(plain)
}

/// Why nothing of a file that begins like this can be read; none where it may be.
pub(super) fn unreadable(beginning: &[u8]) -> Option<&'static str> {
    if let Some((_, reason)) = KINDS.iter().find(|(bytes, _)| beginning.starts_with(bytes)) {
        return Some(reason);
    }
    let beginning = &beginning[..beginning.len().min(LOOKED_AT)];
    // JSON has no NUL; without a mark, every second byte of UTF-16 is one where the text is English.
    let zero = beginning.iter().position(|byte| *byte == 0)?;
    let is_wide = beginning.iter().skip(zero).step_by(2).take(8).all(|byte| *byte == 0) && beginning.len() > zero + 2;
    let text = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning);
    match text.trim_ascii_start().first() {
        _ if zero < 2 && is_wide => Some(UTF_16),
        // Zeros that a crash of the host left in a text. Of BSON one of the first four bytes is zero, whatever it begins with.
        Some(b'{' | b'[') if zero > 3 => None,
        _ => Some("it is no text: a zero byte is among its first"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_files_are_told_by_their_beginning() {
        let wide = |order: fn(u16) -> [u8; 2]| "{\"a\":1}\n".encode_utf16().flat_map(order).collect::<Vec<u8>>();
        for bytes in
            [wide(u16::to_le_bytes), wide(u16::to_be_bytes), [&b"\xff\xfe"[..], &wide(u16::to_le_bytes)].concat()]
        {
            assert_eq!(unreadable(&bytes), Some(UTF_16));
        }
        assert!(unreadable(b"\x16\0\0\0\x02hello\0").unwrap().contains("zero byte"));
        assert!(unreadable(b"\x28\xb5\x2f\xfd\x04").unwrap().contains("zstd"));
        for text in [&b"{\"a\":1}"[..], b"", b"[", b"\xef\xbb\xbf{}", "ž".as_bytes(), b"\n{\"a\":1}\n\0\0\0\0\0\0"] {
            assert_eq!(unreadable(text), None);
        }
        // BSON whose length looks like a brace.
        for text in [&b"{\0\0\0\x02a\0"[..], b"{\n\0\0\x02a\0", b"{{{\0\x02a\0", b"a.json\0\0\0{}"] {
            assert!(unreadable(text).unwrap().contains("zero byte"));
        }
    }
}
