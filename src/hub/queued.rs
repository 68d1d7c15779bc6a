use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The names that wait in a queue's folder; those that begin with a dot are unfinished. Empty where there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn queued(folder: &Path) -> std::io::Result<BTreeSet<OsString>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let names = entries.take(10_000).map(|entry| Ok(entry?.file_name()));
    names.filter(|name| !name.as_ref().is_ok_and(|name| name.as_bytes().starts_with(b"."))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_requests_count() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("queue");
        assert!(queued(&queue).unwrap().is_empty());
        std::fs::create_dir(&queue).unwrap();
        std::fs::write(queue.join(".unfinished"), "").unwrap();
        assert!(queued(&queue).unwrap().is_empty());
        std::fs::write(queue.join("acme__infra.json"), "1").unwrap();
        assert_eq!(queued(&queue).unwrap().len(), 1);
        assert!(queued(&queue.join("acme__infra.json")).is_err());
    }
}
