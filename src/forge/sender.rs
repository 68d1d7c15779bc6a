//! What every forge is asked.

use super::board::Board;
use super::event::{Error, Event, any, is_too_deep};

/// Header fields of a request, names in any letter case.
pub type Headers<'a> = [(&'a str, &'a str)];

/// How a delivery proves where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// HMAC-SHA256 of the body under the secret: `prefix` and 64 lower-case hex digits in `header`.
    Mac {
        /// The header's name.
        header: &'static str,
        /// What stands before the digits.
        prefix: &'static str,
    },
    /// The secret itself in `header`, so that whoever reads one delivery can make others.
    Token {
        /// The header's name.
        header: &'static str,
    },
}

impl Proof {
    /// The name of the header that proves it.
    pub fn header(&self) -> &'static str {
        match self {
            Self::Mac { header, .. } | Self::Token { header } => header,
        }
    }
}

/// A forge that sends deliveries.
pub trait Forge: Sync {
    /// How its deliveries prove themselves.
    fn proof(&self) -> Proof;

    /// Whether a delivery with its proof's header is this forge's: another one's header may have the same name.
    fn sends(&self, _: &Headers) -> bool {
        true
    }

    /// The headers of which the first that is there names the event.
    fn event_headers(&self) -> &'static [&'static str];

    /// The headers of which the first that is there is the delivery's id. It is not signed.
    fn id_headers(&self) -> &'static [&'static str];

    /// The name of a delivery's event.
    fn event<'a>(&self, headers: &Headers<'a>) -> Option<&'a str> {
        first(self.event_headers(), headers)
    }

    /// The id of a delivery.
    fn delivery<'a>(&self, headers: &Headers<'a>) -> Option<&'a str> {
        first(self.id_headers(), headers)
    }

    /// What the names of its hosts have in them.
    fn hosts(&self) -> &'static [&'static str];

    /// Whether names have more than two parts: it has groups in groups.
    fn has_groups(&self) -> bool {
        false
    }

    /// What stands between a repository's page and the name of a commit in the address of that commit's page.
    fn commit_path(&self) -> &'static str {
        "commit"
    }

    /// Where it keeps what is said of commits; none where the hub says nothing there.
    fn board(&self) -> Option<&'static dyn Board> {
        None
    }

    /// What the event `name` with the payload `text` asks for.
    ///
    /// # Errors
    /// When `text` is not JSON, or lacks a key that the event has.
    fn read(&self, name: &str, text: &str) -> Result<Event, Error>;
}

/// The value of the first of `names` that is there.
pub(super) fn first<'a>(names: &[&str], headers: &Headers<'a>) -> Option<&'a str> {
    let value = |wanted: &&str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    names.iter().find_map(value).map(|(_, value)| *value)
}

impl Event {
    /// Reads a verified body that `forge` sent. `name` is the event's name from its headers. JSON comes first, so that a
    /// body which is none is refused whatever the event.
    ///
    /// # Errors
    /// When the body is not JSON, lacks a key, or the event has no name.
    pub fn read(forge: &dyn Forge, name: Option<&str>, body: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|error| Error::NotUtf8 { at: error.valid_up_to() })?;
        if is_too_deep(text) {
            return Err(Error::TooDeep);
        }
        // serde takes an array for a struct too.
        if text.trim_ascii_start().starts_with('[') {
            return Err(Error::Json("it is an array, not an object".to_owned()));
        }
        match name {
            Some(name) => forge.read(name, text),
            None => any(text).and(Err(Error::NoEvent(forge.event_headers().first().unwrap_or(&"the event's header")))),
        }
    }
}
