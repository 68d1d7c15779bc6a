//! Values with a form of their own: each says what would be right when it is wrong.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A value written as a string whose form `parse` checks.
macro_rules! text_value {
    ($name:ident, $parse:expr) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use text_value;

/// IP address and port.
#[derive(Clone, Copy)]
pub(super) struct Address(pub SocketAddr);

text_value!(Address, |text| text.parse().map(Address).map_err(|_| {
    format!("{text:?} is not an address; write an IP address and a port, such as \"127.0.0.1:8085\" or \"[::1]:8085\"")
}));

/// True for an absolute URL over HTTP.
pub(super) fn is_web_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let fits = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    fits && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The longest body that GitHub sends (docs.github.com, "Webhook events and payloads": 25 MB).
const LARGEST_BODY: u64 = 25 << 20;

/// The longest accepted body.
#[derive(Clone, Copy)]
pub(super) struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        size(deserializer, 1024..=LARGEST_BODY, "from 1 KiB to 25 MiB").map(Self)
    }
}

/// The most that one fetch may bring.
#[derive(Clone, Copy)]
pub(super) struct FetchMax(pub u64);

impl<'de> Deserialize<'de> for FetchMax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        size(deserializer, 1 << 20..=1 << 50, "from 1 MiB to 1024 TiB").map(Self)
    }
}

/// A size written `"3 MiB"`, `"512 KiB"` or a number of bytes.
fn size<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: std::ops::RangeInclusive<u64>,
    shown_range: &str,
) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size such as \"3 MiB\" or a number of bytes")]
    enum Form {
        Bytes(u64),
        Text(String),
    }
    let (bytes, shown) = match Form::deserialize(deserializer)? {
        Form::Bytes(bytes) => (Some(bytes), bytes.to_string()),
        Form::Text(text) => (bytes_of(&text), text),
    };
    let bytes = bytes.ok_or_else(|| D::Error::custom(format!("{shown:?} is not a size; write it like \"3 MiB\"")))?;
    if !range.contains(&bytes) {
        return Err(D::Error::custom(format!("{shown:?} is out of range; write a size {shown_range}")));
    }
    Ok(bytes)
}

/// How often something is looked at, in minutes: from one to 30 days.
#[derive(Clone, Copy)]
pub(super) struct Minutes(pub u32);

impl<'de> Deserialize<'de> for Minutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 43_200, "minutes").map(Self)
    }
}

/// How long something is left alone, in hours: from one to 30 days.
#[derive(Clone, Copy)]
pub(super) struct Hours(pub u32);

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 720, "hours").map(Self)
    }
}

/// A whole number of a unit, from one to `most`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D, most: u32, unit: &str) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format!("{number} is out of range; write from 1 to {most} {unit}"));
    (1..=most).contains(&number).then_some(number).ok_or_else(wrong)
}

fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The funnel's port.
#[derive(Clone, Copy)]
pub(super) struct Port(pub u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            port @ (443 | 8443 | 10000) => Ok(Self(port)),
            port => Err(D::Error::custom(format!("{port} cannot be a funnel's port; write 443, 8443 or 10000"))),
        }
    }
}

/// An absolute path.
#[derive(Clone, Debug)]
pub struct AbsolutePath(pub PathBuf);

text_value!(AbsolutePath, |text| absolute_path(text).map(AbsolutePath));

/// The path of a socket; empty for the usual one.
#[derive(Clone)]
pub(super) struct Socket(pub Option<PathBuf>);

text_value!(Socket, |text| if text.is_empty() {
    Ok(Socket(None))
} else {
    absolute_path(text).map(|p| Socket(Some(p)))
});

/// A path that starts at the root and does not climb.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let wrong = if text.starts_with(['~', '$']) {
        let sign = if text.starts_with('~') { "~ is" } else { "variables are" };
        format!(
            "begins with {}, and {sign} not replaced here; write the whole path, such as \"/home/alice/infra\"",
            &text[..1]
        )
    } else if !path.is_absolute() {
        "is not an absolute path; write one such as \"/srv/infra\"".to_owned()
    } else if path.components().any(|part| part == std::path::Component::ParentDir) {
        "has \"..\" in it; write the path without".to_owned()
    } else if text.chars().any(char::is_control) {
        "has a control character in it; write a path without".to_owned()
    } else {
        return Ok(path.components().collect());
    };
    Err(format!("{text:?} {wrong}"))
}

/// A name in URLs: lower-case letters, digits, `-` and `_`.
pub(super) struct Name(pub String);

text_value!(Name, |text| {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    fits.then(|| Name(text.to_owned()))
        .ok_or_else(|| format!("{text:?} is not a name; write at most 64 of a-z, 0-9, - and _"))
});

/// An SQL table name, optionally with its schema.
pub(super) struct Table(pub String);

text_value!(Table, |text| {
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let fits = text.split('.').count() <= 2 && text.split('.').all(part);
    fits.then(|| Table(text.to_owned())).ok_or_else(|| {
        format!("{text:?} is not a table; write a-z, 0-9 and _, such as \"reading_analytics\" or \"schema.table\"")
    })
});

/// Where a pipeline's documents come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A MongoDB collection.
    #[default]
    MongoDb,
    /// A folder of Extended JSON lines.
    Folder(PathBuf),
}

impl Source {
    /// The folder that files are read from, where it is one.
    pub fn inbox(&self) -> Option<&Path> {
        match self {
            Self::MongoDb => None,
            Self::Folder(path) => Some(path),
        }
    }
}

text_value!(Source, |text| {
    if text == "mongodb" {
        return Ok(Source::MongoDb);
    }
    let folder = text.strip_prefix("file:").map(absolute_path);
    match folder {
        Some(folder) => folder.map(Source::Folder),
        None => Err(format!("{text:?} is not a source; write \"mongodb\" or \"file:/absolute/path\"")),
    }
});

/// How documents become JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Json {
    /// The shape that rows of the Go version have.
    #[default]
    Plain,
    /// Relaxed Extended JSON v2, lossless.
    Extended,
}

text_value!(Json, |text| match text {
    "plain" => Ok(Json::Plain),
    "extended" => Ok(Json::Extended),
    _ => Err(format!("{text:?} is not known; write \"plain\" or \"extended\"")),
});
