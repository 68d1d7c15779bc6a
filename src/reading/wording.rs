//! What is wrong with a JSON text, in words for whoever wrote it.

use super::Rejection;

/// Characters of the text that are shown.
const SHOWN: usize = 24;

/// What serde_json says at the beginning of a message, and what it means.
const MEANINGS: [(&str, &str); 13] = [
    ("expected ident", "no value of JSON begins like this"),
    ("expected value", "a value was expected"),
    ("expected `,` or `}`", "a comma or the closing brace of an object is missing"),
    ("expected `,` or `]`", "a comma or the closing bracket of a list is missing"),
    ("expected `:`", "the colon after a name is missing"),
    ("key must be a string", "a name in an object is not in double quotes"),
    ("trailing comma", "there is a comma before the end of an object or list"),
    ("control character", "a text has a raw line break, tab or other control character; it takes \\n, \\t or \\u…"),
    ("invalid escape", "a backslash in a text is followed by what is no escape"),
    ("invalid unicode code point", "it is not UTF-8"),
    ("invalid number", "a number is not written as JSON writes one"),
    ("number out of range", "a number is out of range"),
    ("lone leading surrogate", "a text has one half of a pair of surrogates (\\ud800 to \\udfff)"),
];

/// Why a text is no JSON.
pub(super) fn rejection(error: &serde_json::Error, text: &[u8]) -> Rejection {
    let said = error.to_string();
    // A deeper error ends with its place, which is said anew.
    let said = said.split(" at line ").next().unwrap_or_default();
    if said == "trailing characters" {
        return Rejection::More;
    }
    let meaning = MEANINGS.iter().find(|(begin, _)| said.starts_with(begin)).map(|(_, meaning)| *meaning);
    let surrogate = said.contains("surrogate") || said.contains("hex escape");
    let meaning = meaning.unwrap_or(if surrogate { MEANINGS[12].1 } else { said });
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = error.column().saturating_sub(1);
    // Where a word is none, its beginning tells more than the letter that showed it.
    let back = line[..at.min(line.len())].iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let from = if said == "expected ident" { at - back.min(at) } else { at };
    let shown = String::from_utf8_lossy(line.get(from..).unwrap_or_default());
    let shown: String = shown.chars().take(SHOWN).collect();
    let lines = if error.line() > 1 { format!("line {} of it, ", error.line()) } else { String::new() };
    Rejection::NotJson(format!("{meaning}: {shown:?} ({lines}column {})", from + 1))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (line, expected) in [
            ("not JSON", "no value of JSON begins like this: \"not JSON\" (column 1)"),
            ("{\"a\":nope}", "no value of JSON begins like this: \"nope}\" (column 6)"),
            ("{a:1}", "a name in an object is not in double quotes: \"a:1}\" (column 2)"),
            ("{\"a\":1 \"b\":2}", "a comma or the closing brace of an object is missing: \"\\\"b\\\":2}\" (column 8)"),
            ("{\"a\":1,}", "there is a comma before the end of an object or list: \"}\" (column 8)"),
            (
                "{\"a\":\n[1 2]}",
                "a comma or the closing bracket of a list is missing: \"2]}\" (line 2 of it, column 4)",
            ),
            ("{\"a\":\"\\ud800\"}", "a text has one half of a pair of surrogates"),
            ("{\"a\":01}", "a number is not written as JSON writes one"),
        ] {
            let said = super::super::json_text::parse(line.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(expected), "{line}\n  gave     {said}\n  expected {expected}");
        }
    }
}
