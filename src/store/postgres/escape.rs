//! Text for a database whose encoding has not every character: what is not ASCII is written out, and read back.

use std::borrow::Cow;

/// A text as it is stored: `\u{20ac}` for `€` where the database is not `utf8`. No two texts become one.
pub(super) fn escaped(text: &str, utf8: bool) -> Cow<'_, str> {
    if utf8 || text.is_ascii() && !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        if !char.is_ascii() || text[at..].starts_with(ESCAPE) {
            stored.push_str(&format!("\\u{{{:x}}}", u32::from(char)));
        } else {
            stored.push(char);
        }
    }
    Cow::Owned(stored)
}

const ESCAPE: &str = "\\u{";

/// The text that was stored by `escaped`.
pub(super) fn unescaped(stored: String, utf8: bool) -> String {
    if utf8 || !stored.contains(ESCAPE) {
        return stored;
    }
    let mut text = String::with_capacity(stored.len());
    let mut rest = stored.as_str();
    while let Some(at) = rest.find(ESCAPE) {
        text.push_str(&rest[..at]);
        let escape = &rest[at + ESCAPE.len()..];
        let char = escape.split_once('}').and_then(|(digits, after)| {
            let char = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
            Some((char, after))
        });
        rest = match char {
            Some((char, after)) => {
                text.push(char);
                after
            }
            // Somebody else wrote it.
            None => {
                text.push_str(ESCAPE);
                escape
            }
        };
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_no_two_become_one() {
        let texts = ["", "plain", "€", "\\u{20ac}", "\\\\u{20ac}", "a\\u{zz}é", "\\u{", "😀\\", "\\u{5c}u{20ac}"];
        let stored: Vec<String> = texts.iter().map(|text| escaped(text, false).into_owned()).collect();
        for (text, stored) in texts.iter().zip(&stored) {
            assert!(stored.is_ascii());
            assert_eq!(unescaped(stored.clone(), false), *text);
            assert_eq!(
                (escaped(text, true).as_ref(), unescaped((*text).to_owned(), true)),
                (*text, (*text).to_owned())
            );
        }
        let mut different = stored.clone();
        different.sort();
        different.dedup();
        assert_eq!((stored[2].as_str(), different.len()), ("\\u{20ac}", texts.len()));
    }
}
