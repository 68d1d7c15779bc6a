//! Files whose content is JSON.

use super::Folder;
use crate::state::Error;

impl Folder {
    /// Publishes a value as JSON, readable by the group (0640).
    ///
    /// # Errors
    /// As `publish`.
    pub fn publish_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.publish(name, &self.json(name, value)?, 0o640)
    }

    /// As `publish_json`, without waiting for the disk: after a power cut the file may be the old one, the new one, or
    /// damaged. For what readers can do without.
    ///
    /// # Errors
    /// As `publish`.
    pub fn note_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.replace(name, &self.json(name, value)?, 0o640)
    }

    fn json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<Vec<u8>, Error> {
        let content =
            |reason: serde_json::Error| Error::Content { path: self.path.join(name), reason: reason.to_string() };
        let mut bytes = serde_json::to_vec_pretty(value).map_err(content)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a JSON file of at most 1 MiB; none where there is no such name.
    ///
    /// # Errors
    /// As `read`, and when the content does not have the expected form.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.read_json_within(name, 1 << 20)
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
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|reason| Error::Content { path: self.path.join(name), reason: reason.to_string() })
    }
}
