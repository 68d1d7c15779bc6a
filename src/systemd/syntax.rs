//! Unit files as systemd reads them: systemd.syntax(7), and where it is silent `config_parse()` in systemd's
//! src/shared/conf-parser.c and `extract_first_word()` in src/basic/extract-word.c (v252 to v257).
//!
//! Whoever decides by a unit file what systemd may do with it must see in it what systemd sees, no more and no less.

use thiserror::Error;

/// What ends lines: any of these, or several different ones together (`read_line()` in systemd's src/basic/fileio.c).
const LINE_ENDS: [u8; 3] = *b"\n\r\0";
/// What is cut off around lines, keys and values, and parts words.
const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One `key = value` of a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Where its last line is, from 1.
    pub line: usize,
    /// The section that it stands in.
    pub section: String,
    /// The key, white space around it cut off.
    pub key: String,
    /// The value, white space around it cut off and continued lines joined.
    pub value: String,
}

/// Why systemd takes nothing from a file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line} {reason}")]
pub struct SyntaxError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong, as the end of a sentence.
    pub reason: &'static str,
}

/// The assignments of a unit file or drop-in, in its order. What systemd passes over is left out: comments, lines before
/// the first section, lines without a key.
///
/// # Errors
/// Where systemd gives up the whole file: a section header that is not closed or has quotes, backslashes or control
/// characters in its name, or a line that is not UTF-8.
pub fn assignments(content: &[u8]) -> Result<Vec<Assignment>, SyntaxError> {
    let mut reader = Reader::default();
    let mut continued: Option<Vec<u8>> = None;
    let mut marked = false;
    let mut number = 0;
    for line in Lines(content) {
        number += 1;
        // A comment is one wherever it stands, also between continued lines, and whatever it ends in.
        let visible = line.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        if matches!(visible, Some(b'#' | b';')) {
            continue;
        }
        // The first line that has one, not the first line.
        let line = match line.strip_prefix(BYTE_ORDER_MARK).filter(|_| !marked) {
            Some(rest) => {
                marked = true;
                rest
            }
            None => line,
        };
        let mut whole = continued.take().unwrap_or_default();
        whole.extend_from_slice(line);
        if ends_in_escape(&whole) {
            whole.pop();
            whole.push(b' ');
            continued = Some(whole);
        } else {
            reader.line(number, &whole)?;
        }
    }
    if let Some(whole) = continued {
        reader.line(number, &whole)?;
    }
    Ok(reader.found)
}

/// The words of a list such as `WantedBy=`: white space parts them, quotes keep it and go, backslashes are letters.
///
/// # Errors
/// When a quote is not closed.
pub fn words(value: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut letters = value.chars().peekable();
    loop {
        while letters.next_if(|letter| WHITE.contains(letter)).is_some() {}
        if letters.peek().is_none() {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        for letter in letters.by_ref() {
            match (letter, quote) {
                ('\'' | '"', None) => quote = Some(letter),
                (_, Some(open)) if letter == open => quote = None,
                (_, None) if WHITE.contains(&letter) => break,
                _ => word.push(letter),
            }
        }
        if quote.is_some() {
            return Err("has a quote that is not closed");
        }
        words.push(word);
    }
}

/// The lines of a file, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let length = self.0.iter().position(|byte| LINE_ENDS.contains(byte)).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(length);
        // Each kind of end once, and nothing after a NUL: "\r\n" is one end, "\n\n" are two.
        let mut ends = 0;
        for (index, byte) in rest.iter().enumerate() {
            if !LINE_ENDS.contains(byte) || rest[..index].contains(byte) || rest[..index].contains(&0) {
                break;
            }
            ends += 1;
        }
        self.0 = &rest[ends..];
        Some(line)
    }
}

/// True where the last backslash of a line escapes what is not there.
fn ends_in_escape(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[derive(Default)]
struct Reader {
    section: Option<String>,
    found: Vec<Assignment>,
}

impl Reader {
    fn line(&mut self, line: usize, whole: &[u8]) -> Result<(), SyntaxError> {
        let failed = |reason| SyntaxError { line, reason };
        // Bytes first: systemd passes over an empty line before it looks at the rest.
        let whole = std::str::from_utf8(whole).map_err(|_| failed("is not UTF-8 text"))?.trim_matches(WHITE);
        if let Some(header) = whole.strip_prefix('[') {
            let name = header.strip_suffix(']').ok_or_else(|| failed("has a section header without its ]"))?;
            if name.chars().any(|letter| letter.is_ascii_control() || "\"'\\".contains(letter)) {
                return Err(failed("has a section header with a quote, a backslash or a control character in it"));
            }
            self.section = Some(name.to_owned());
        } else if let (Some(section), Some((key, value))) = (&self.section, whole.split_once('='))
            && !key.is_empty()
        {
            let (key, value) = (key.trim_matches(WHITE).to_owned(), value.trim_matches(WHITE).to_owned());
            self.found.push(Assignment { line, section: section.clone(), key, value });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Vec<String> {
        let found = assignments(content.as_bytes()).unwrap();
        found.iter().map(|one| format!("{}.{}={}", one.section, one.key, one.value)).collect()
    }

    #[test]
    fn files_are_read_as_systemd_reads_them() {
        for (content, expected) in [
            ("[A]\nk=v\n", &["A.k=v"][..]),
            ("[A]\r\nk=v\r\n", &["A.k=v"]),
            ("[A]\rk=v\r", &["A.k=v"]),
            ("\u{feff}[A]\nk=v", &["A.k=v"]),
            ("#x\n\u{feff}[A]\nk=v", &["A.k=v"]),
            ("\u{feff}\u{feff}[A]\nk=v", &[]),
            ("[B]\nk=v\n\u{a0}[A]\nk=w", &["B.k=v", "B.k=w"]),
            ("[A]\nk=a \\\n  b\\\nc\n", &["A.k=a    b c"]),
            ("[A]\nk=a \\\n# no \\\n;no\n  b\n", &["A.k=a    b"]),
            ("[A]\nk=a\\\n\nj=b\n", &["A.k=a", "A.j=b"]),
            ("[A]\nk=a\\\r\nj=b\n", &["A.k=a j=b"]),
            ("[A]\nk=a\\\r\rj=b\n", &["A.k=a", "A.j=b"]),
            ("[A]\nk=a\\\\\nj=b\n", &["A.k=a\\\\", "A.j=b"]),
            ("[A]\nk=a\\", &["A.k=a"]),
            ("\\\n[A]\nk=a", &["A.k=a"]),
            ("[A\\\nB]\nk=a", &["A B.k=a"]),
            ("[A]\nk=a\0j=b", &["A.k=a", "A.j=b"]),
            ("k=v\n[A]\n=v\nv\n k = v \n[A]\nk=\n", &["A.k=v", "A.k="]),
            ("[A] \n\tk=v=w\t\n", &["A.k=v=w"]),
            ("", &[]),
        ] {
            assert_eq!(read(content), expected, "{content:?}");
        }
    }

    #[test]
    fn what_ends_a_file_for_systemd_is_an_error_with_its_line() {
        for (content, line) in
            [(&b"[A]\n[B\n"[..], 2), (b"[A\"]\n", 1), (b"[A]\nk=\\\n\xff\n", 3), (b"#\n\n[\x01]", 3), (b"[", 1)]
        {
            assert_eq!(assignments(content).unwrap_err().line, line, "{content:?}");
        }
        assert!(assignments(b"[A]\n#\xff\n").is_ok());
    }

    #[test]
    fn lists_are_parted_as_systemd_parts_them() {
        for (value, expected) in [
            ("", &[][..]),
            ("a  b\tc", &["a", "b", "c"]),
            ("\"a b\" 'c'd", &["a b", "cd"]),
            ("a\\x2db \\", &["a\\x2db", "\\"]),
            ("\"\" x", &["", "x"]),
            ("a\u{a0}b", &["a\u{a0}b"]),
        ] {
            assert_eq!(words(value).unwrap(), expected, "{value:?}");
        }
        assert!(words("a \"b").is_err());
        assert!(words("it's").is_err());
    }
}
