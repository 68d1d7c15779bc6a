//! Files whose content is JSON.

use super::Folder;
use crate::state::Error;

/// Longer files are not read, in bytes, where nobody says how long they may be.
const LONGEST: usize = 1 << 20;

/// What is to be written over when the disk is full takes so many bytes, or a multiple of them.
const BLOCK: usize = 32 << 10;
const SMALL_BLOCK: usize = 8 << 10;

/// JSON with so many spaces behind it that a somewhat longer one has room in its place.
pub fn roomy(mut json: Vec<u8>) -> Vec<u8> {
    json.resize(json.len().next_multiple_of(BLOCK), b' ');
    json
}

impl Folder {
    /// Publishes a value as JSON, readable by the group (0640).
    ///
    /// # Errors
    /// As `publish`.
    pub fn publish_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.publish(name, &self.json(name, value)?, 0o640)
    }

    /// As `publish_json`, without waiting for the disk: after a power cut the file may be the old one, the new one, or
    /// damaged. For what readers can do without, and what is written every minute: in one line, which is half as long.
    ///
    /// # Errors
    /// As `publish`.
    pub fn note_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(value).map_err(|reason| self.unfit(name, &reason))?;
        bytes.push(b'\n');
        self.replace(name, &bytes, 0o640)
    }

    /// As `note_json`, for what a full disk must not keep from its readers: it takes more room than it needs, and is written
    /// over where there is none for a second one. A reader may meet it half written.
    ///
    /// # Errors
    /// As `publish`.
    pub fn renew_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(value).map_err(|reason| self.unfit(name, &reason))?;
        bytes.resize(bytes.len().next_multiple_of(SMALL_BLOCK), b' ');
        self.replace(name, &bytes, 0o640).or_else(|error| match self.overwrite(name, &bytes) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(error),
        })
    }

    fn unfit(&self, name: &str, reason: &serde_json::Error) -> Error {
        Error::Content { path: self.path.join(name), reason: reason.to_string() }
    }

    fn json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|reason| self.unfit(name, &reason))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a JSON file of at most 1 MiB; none where there is no such name.
    ///
    /// # Errors
    /// As `read`, and when the content does not have the expected form.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.read_json_within(name, LONGEST)
    }

    /// As `read_json`, for files of at most `limit` bytes.
    ///
    /// # Errors
    /// As `read_json`.
    pub fn read_json_within<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read(name, limit)? else { return Ok(None) };
        // serde takes a list for the values of a type's fields, and an empty one for any type whose fields may be missing.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Error::Content {
                path: self.path.join(name),
                reason: "it is a list where an object belongs".to_owned(),
            });
        }
        self.parsed(name, &bytes)
    }

    /// As `read_json`, for a list.
    ///
    /// # Errors
    /// As `read_json`.
    pub fn read_json_list<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<Vec<T>>, Error> {
        let Some(bytes) = self.read(name, LONGEST)? else { return Ok(None) };
        self.parsed(name, &bytes)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<Option<T>, Error> {
        serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|reason| Error::Content { path: self.path.join(name), reason: reason.to_string() })
    }
}
