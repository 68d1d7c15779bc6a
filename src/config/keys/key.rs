/// A table of hub.toml.
#[derive(Debug)]
pub struct Section {
    /// Its name; empty for the keys before the first table.
    pub name: &'static str,
    /// Whether it may be there several times, as `[[name]]`.
    pub many: bool,
    /// What it is for.
    pub text: &'static str,
    /// Its keys, in the order of `contrib/hub.toml`.
    pub keys: &'static [Key],
}

/// A key of hub.toml.
#[derive(Debug)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// What it takes.
    pub value: Value,
    /// What is in force without it.
    pub usual: Usual,
    /// What it does, for the manual.
    pub text: &'static str,
}

pub(super) const fn key(name: &'static str, value: Value, usual: Usual, text: &'static str) -> Key {
    Key { name, value, usual, text }
}

/// What is in force where a key is left out. Each has a value as it is written in the file.
#[derive(Clone, Copy, Debug)]
pub enum Usual {
    /// This value.
    Is(&'static str),
    /// What these words say; then a value as an example.
    Else(&'static str, &'static str),
    /// Nothing: it must be written. A value as an example.
    Needed(&'static str),
}

impl Usual {
    /// The value, as it is written in the file.
    pub fn written(self) -> &'static str {
        match self {
            Self::Is(value) | Self::Else(_, value) | Self::Needed(value) => value,
        }
    }
}

/// What a key takes. The parser looks at more than this can say.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// Text; of this form (a regular expression), where it is not empty.
    Text(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these numbers.
    Number(&'static [u64]),
    /// A size such as `"3 MiB"`, or a number of bytes.
    Size,
    /// A whole number of a unit, from one value to another.
    Whole(&'static str, u64, u64),
    /// A number of a unit above 0 and below the other value, or `false`.
    Limit(&'static str, u64),
    /// `true` or `false`.
    Switch,
    /// A list of such values.
    List(&'static Self),
    /// A table with these keys.
    Table(&'static [Key]),
    /// One of these.
    Either(&'static [Self]),
}

/// Any text.
pub(super) const TEXT: Value = Value::Text("");
/// An absolute path.
pub(super) const PATH: Value = Value::Text("^/");
/// An address on the web.
pub(super) const URL: Value = Value::Text("^https?://[^/]");
/// Words of a command line.
pub(super) const WORDS: Value = Value::List(&TEXT);
