//! Text of strangers (names, subjects, reasons, documents) on its way to people, and lists on their way into a line.
//!
//! A control character moves a terminal's cursor, a bidi mark turns the order of what is read around, a character without
//! width hides: none of them reaches a reader as itself.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{Display, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

/// How many items of a list a record or a log line names; the others are counted.
pub const FIRST: usize = 20;
/// The longest reason that goes into a record, in bytes.
pub const LONGEST_REASON: usize = 4096;

/// True for what a reader cannot see, or what changes what else he sees: control characters (Unicode's Cc), the formats,
/// fillers and separators that are drawn as nothing, and the tags (Unicode's Default_Ignorable_Code_Point; UAX #9, UTR #36).
///
/// The two variation selectors of emoji stay: commit subjects are full of them, and they hide nothing.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text as one line in which everything hidden is written out, as `\u{202e}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |kept, c| {
        let _ = write!(kept, "{}", c.escape_unicode());
    })
}

/// As `shown`, for texts of several lines: line breaks and tabs stay.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| is_hidden(c) && !matches!(c, '\n' | '\t'),
        |kept, c| {
            let _ = write!(kept, "{}", c.escape_unicode());
        },
    )
}

/// As `shown_lines`, with the colours that the hub itself sets (ECMA-48, SGR); what strangers wrote was made harmless before.
pub fn screen(text: &str) -> String {
    const COLOUR: &str = "\u{1b}[";
    let mut parts = text.split(COLOUR);
    let mut kept = shown_lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let code = part.find(|c: char| !c.is_ascii_digit() && c != ';').filter(|end| part[*end..].starts_with('m'));
        let (code, rest) = part.split_at(code.unwrap_or(0));
        kept += if rest.starts_with('m') { COLOUR } else { "\\u{1b}[" };
        kept += code;
        kept += &shown_lines(rest);
    }
    kept
}

/// Text of a child process or a peer as a field of a log line: UTF-8, without control bytes (a remote could otherwise
/// drive the reader's terminal), what else is hidden written out, lines joined by ` | `.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let kept: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).collect();
    sentence(&kept)
}

/// A text for people as one line: its lines joined by ` | `, everything hidden written out.
pub fn sentence(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    shown(&lines.collect::<Vec<_>>().join(" | ").replace('\t', " ")).into_owned()
}

/// A name as text; bytes that are not UTF-8 are written `\xNN`, so that two such names stay two.
pub fn exact(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// A path as the kernel's tables of mounts have it (proc_pid_mountinfo(5)): space, tab, newline and backslash are written as
/// three octal digits.
pub fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// A name as shown text: bytes that are not UTF-8 become U+FFFD.
pub fn name(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes)).into_owned()
}

/// A value as JSON for a terminal: the same value to a parser, and everything hidden written as JSON's own `\u202e`.
///
/// `indented` spreads it over several lines.
pub fn json(value: &impl Serialize, indented: bool) -> String {
    let value = serde_json::json!(value);
    let text = if indented { format!("{value:#}") } else { value.to_string() };
    json_shown(&text).into_owned()
}

/// The same for JSON that is text already. Outside of its strings JSON has no such characters but line breaks.
pub(crate) fn json_shown(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| is_hidden(c) && !matches!(c, '\n' | '\t' | '\r'),
        |kept, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(kept, "\\u{unit:04x}");
            }
        },
    )
}

/// A value of a label in Prometheus' text format: everything hidden written out, but for line breaks, for which the format
/// has an escape of its own.
pub fn label(value: &str) -> String {
    let kept: Vec<_> = value.split('\n').map(|line| shown(line).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    kept.join("\\n")
}

// Writing to a string cannot fail.
fn escaped(text: &str, hidden: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { write(&mut kept, c) } else { kept.push(c) }
    }
    Cow::Owned(kept)
}

/// How long the named items of a list may become together, in bytes: the count behind them is to be seen in any reason.
const LONGEST_LIST: usize = LONGEST_REASON / 2;

/// The first items of a list, and how many more there are: `a, b and 3 more`. Of long items fewer are named.
pub fn listed<T: Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    let mut items = items.into_iter();
    let mut text = String::new();
    for number in 0..FIRST {
        let Some(item) = items.next() else { return text };
        let _ = write!(text, "{}{item}", if number == 0 { "" } else { separator });
        if text.len() > LONGEST_LIST {
            break;
        }
    }
    match items.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// The first items of a list for a record or a log line; where there are more, the last item counts them.
pub fn first<T: Serialize>(items: &[T]) -> Vec<Value> {
    let mut kept: Vec<Value> = items.iter().take(FIRST).map(|item| serde_json::json!(item)).collect();
    if items.len() > FIRST {
        kept.push(format!("and {} more", items.len() - FIRST).into());
    }
    kept
}

/// The same of lines.
pub fn first_lines(lines: &[String]) -> Vec<String> {
    let more = (lines.len() > FIRST).then(|| format!("and {} more", lines.len() - FIRST));
    lines.iter().take(FIRST).cloned().chain(more).collect()
}

/// A number of bytes as a person writes it.
pub fn size(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let power = units.iter().enumerate().rposition(|(power, _)| bytes >= 1000f64.powi(power as i32)).unwrap_or(0);
    let number = bytes / 1000f64.powi(power as i32);
    if power > 0 && number < 10.0 {
        format!("{number:.1} {}", units[power])
    } else {
        format!("{number:.0} {}", units[power])
    }
}

/// The beginning of a text, at most `limit` bytes of it; what was cut is counted.
pub fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let kept = &text[..text.floor_char_boundary(limit)];
    Cow::Owned(format!("{kept}… (cut, {} bytes)", text.len()))
}

/// RFC 3986, section 2.1: everything but unreserved characters.
pub fn percent_encoded(bytes: &[u8]) -> String {
    let encoded = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(encoded).collect()
}

/// A text without what its URLs have before the `@` and behind the `?`, where passwords and tokens stand. A URL counts to the
/// quotation mark behind it, else to the end: what is no URL may have spaces in its password.
pub fn without_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        shown.push_str(before);
        let (url, after) = url.split_at(url.find('"').unwrap_or(url.len()));
        let url = match url.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("…@");
                host
            }
            None => url,
        };
        match url.split_once('?') {
            Some((path, query)) => {
                shown.push_str(path);
                shown.push_str("?…");
                shown.push_str(&query[query.find(char::is_whitespace).unwrap_or(query.len())..]);
            }
            None => shown.push_str(url),
        }
        rest = after;
    }
    shown + rest
}

/// True for what the kernel (strerror(3)), SQLite, PostgreSQL and other programs say where a disk takes nothing more: the
/// one place where their words are known, for what comes as words only, as the output of a child or a log.
pub fn is_full_disk(said: &str) -> bool {
    const WORDS: [&str; 5] = ["no space left", "no space is left", "disk is full", "disk full", "quota exceeded"];
    let said = said.to_lowercase();
    WORDS.iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_not_shown() {
        for (text, shown) in [
            (
                "\"mongodb://admin:P/W?@db/x\" is not a source; write it",
                "\"mongodb://…@db/x\" is not a source; write it",
            ),
            ("https://u:P W@h/x y", "https://…@h/x y"),
            ("a https://h/x?token=1 b", "a https://h/x?… b"),
            ("no URL: a@b ?", "no URL: a@b ?"),
            ("\"a://b\" and \"c://d@e\"", "\"a://b\" and \"c://…@e\""),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }

    #[test]
    fn what_is_not_unreserved_is_encoded() {
        assert_eq!(percent_encoded("/var/run/post gres@é".as_bytes()), "%2Fvar%2Frun%2Fpost%20gres%40%C3%A9");
    }

    #[test]
    fn what_is_hidden_is_written_out() {
        assert_eq!(shown("fix \u{202e}gnp.exe\u{202c}"), "fix \\u{202e}gnp.exe\\u{202c}");
        assert_eq!(
            shown("a\u{200b}b\u{feff}\u{2066}c\u{ad}\u{e0041}"),
            "a\\u{200b}b\\u{feff}\\u{2066}c\\u{ad}\\u{e0041}"
        );
        assert_eq!(shown("\u{1b}]0;x\u{7}\n\u{9b}31m\u{7f}"), "\\u{1b}]0;x\\u{7}\\u{a}\\u{9b}31m\\u{7f}");
        assert_eq!(shown_lines("a\n\tb\r\u{1b}"), "a\n\tb\\u{d}\\u{1b}");
        assert_eq!(
            screen("\u{1b}[1;31mred\u{1b}[0m \u{1b}[2Jx\u{1b}[31"),
            "\u{1b}[1;31mred\u{1b}[0m \\u{1b}[2Jx\\u{1b}[31"
        );
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in
            ["Grüße, naïve café", "e\u{301}", "日本語 עברית العربية", "\u{2764}\u{fe0f} fix", "\u{fffd}", "a\\u{41}"]
        {
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn json_is_the_same_value_to_a_parser() {
        let value = serde_json::json!({"a\u{202e}": "\u{200b}\u{e0041}\u{9b}\u{7f}\n", "b": ["x", 1, null]});
        for indented in [false, true] {
            let text = json(&value, indented);
            assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{text:?}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn child_output_loses_control_bytes() {
        assert_eq!(printable(b"one\x1b[31m\r\n  two\xff\n\n"), "one[31m | two\u{fffd}");
        assert_eq!(printable("\u{202e}x\ty".as_bytes()), "\\u{202e}x y");
        assert_eq!(
            (sentence("a\u{1b}[1m\n b"), name(b"a\n\xff")),
            ("a\\u{1b}[1m | b".into(), "a\\u{a}\u{fffd}".into())
        );
    }

    #[test]
    fn labels_keep_their_line_breaks() {
        assert_eq!(label("/a \"b\"\n\\\u{202e}"), "/a \\\"b\\\"\\n\\\\\\\\u{202e}");
    }

    #[test]
    fn long_lists_are_counted() {
        assert_eq!(listed(["a", "b"], ", "), "a, b");
        let many: Vec<usize> = (0..50_000).collect();
        let text = listed(&many, "; ");
        assert!(text.starts_with("0; 1; ") && text.ends_with("; 19 and 49980 more"), "{text}");
        let kept = first(&many);
        assert_eq!((kept.len(), kept[20].as_str()), (21, Some("and 49980 more")));
        assert_eq!(first(&many[..20]).len(), 20);
        assert_eq!(cut("äöü", 3), "ä… (cut, 6 bytes)");
    }
}
