//! Follows JSON text to where a value ends, without keeping it: for values that are not alone in their line.

/// How deep a value may be; what is deeper is refused later, and must not be looked for without end.
const LEVELS: usize = 1000;

/// What the text may go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value; the end of a list where it has just begun.
    Value {
        or_end: bool,
    },
    /// A name; the end of an object where it has just begun.
    Name {
        or_end: bool,
    },
    Colon,
    /// A comma or the end of what is open.
    After,
    /// The rest of a text, which is a name or a value.
    Text {
        escaped: bool,
        is_name: bool,
    },
    /// The rest of a number, `true`, `false` or `null`.
    Word,
}

/// Where a piece of text leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value is not complete.
    More,
    /// It ends before this byte.
    Ends(usize),
    /// From this byte on it is no JSON.
    Wrong(usize),
}

/// One value.
pub(super) struct Scan {
    open: Vec<u8>,
    state: State,
}

impl Scan {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), state: State::Value { or_end: false } }
    }

    /// Follows the next piece of the text.
    pub(super) fn feed(&mut self, text: &[u8]) -> Step {
        for (at, byte) in text.iter().enumerate() {
            let Some(state) = self.next(*byte) else { return Step::Wrong(at) };
            // A word ends before the byte that shows it, everything else with its last byte.
            let was_word = self.state == State::Word && state != State::Word;
            self.state = state;
            if self.open.is_empty() && state == State::After {
                return Step::Ends(if was_word { at } else { at + 1 });
            }
        }
        Step::More
    }

    fn next(&mut self, byte: u8) -> Option<State> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Text { escaped: true, is_name } => Some(State::Text { escaped: false, is_name }),
            State::Text { is_name, .. } => match byte {
                b'\\' => Some(State::Text { escaped: true, is_name }),
                b'"' => Some(if is_name { State::Colon } else { State::After }),
                0..=0x1f => None,
                _ => Some(self.state),
            },
            State::Word if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => Some(State::Word),
            State::Word if self.open.is_empty() => Some(State::After),
            State::Word => {
                self.state = State::After;
                self.next(byte)
            }
            _ if is_space => Some(self.state),
            State::Value { or_end } => self.value(byte, or_end),
            State::Name { or_end } => match byte {
                b'"' => Some(State::Text { escaped: false, is_name: true }),
                b'}' if or_end => self.close(byte),
                _ => None,
            },
            State::Colon => (byte == b':').then_some(State::Value { or_end: false }),
            State::After => match (byte, self.open.last()) {
                (b',', Some(b'}')) => Some(State::Name { or_end: false }),
                (b',', Some(_)) => Some(State::Value { or_end: false }),
                _ => self.close(byte),
            },
        }
    }

    fn value(&mut self, byte: u8, or_end: bool) -> Option<State> {
        match byte {
            b'{' | b'[' if self.open.len() >= LEVELS => None,
            b'{' => {
                self.open.push(b'}');
                Some(State::Name { or_end: true })
            }
            b'[' => {
                self.open.push(b']');
                Some(State::Value { or_end: true })
            }
            b'"' => Some(State::Text { escaped: false, is_name: false }),
            b']' if or_end => self.close(byte),
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Some(State::Word),
            _ => None,
        }
    }

    fn close(&mut self, byte: u8) -> Option<State> {
        self.open.pop_if(|last| *last == byte).map(|_| State::After)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_ends() {
        for (text, length) in [
            (r#"{"a":1}"#, 7),
            (r#" {"a":[1,{"b":"}]\""}],"c":null} x"#, 32),
            ("[] ,", 2),
            ("{}{}", 2),
            ("12,", 2),
            ("true]", 4),
            (r#""a\\" "#, 5),
        ] {
            assert_eq!(Scan::new().feed(text.as_bytes()), Step::Ends(length), "{text}");
            let mut scan = Scan::new();
            let steps: Vec<Step> = text.bytes().map(|byte| scan.feed(&[byte])).take(length).collect();
            assert!(steps[..length - 1].iter().all(|step| *step == Step::More), "{text}: {steps:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_seen_where_it_begins() {
        for (text, at) in [
            ("{\"a\":1,\n{", 8),
            ("{\"a\":\"x\n", 7),
            ("{\"a\" 1", 5),
            ("{a", 1),
            ("[1 2", 3),
            ("}", 0),
            ("[1}", 2),
            ("{\"a\":{\"b\":1}\n{", 13),
        ] {
            assert_eq!(Scan::new().feed(text.as_bytes()), Step::Wrong(at), "{text}");
        }
        assert_eq!(Scan::new().feed("[".repeat(LEVELS + 1).as_bytes()), Step::Wrong(LEVELS));
        assert_eq!(Scan::new().feed(b"{\"a\":[1,"), Step::More);
    }
}
