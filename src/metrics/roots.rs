use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::Error;

/// The longest file of the kernel that is read; `/proc/stat` of a host with thousands of interrupts stays below.
const LONGEST: u64 = 8 << 20;

/// Where the kernel's file systems and the host's root are looked for.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys`
    pub sys: PathBuf,
    /// `/`
    pub root: PathBuf,
}

impl Roots {
    /// The three folders as absolute paths.
    ///
    /// # Errors
    /// When a path is empty or the current folder is gone.
    pub fn new(proc: &Path, sys: &Path, root: &Path) -> Result<Self, Error> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|source| Error::read(path, source));
        Ok(Self { proc: absolute(proc)?, sys: absolute(sys)?, root: absolute(root)? })
    }

    /// Looks for a procfs once: each collector would say for itself what it misses.
    ///
    /// # Errors
    /// When there is no folder, or an empty one.
    pub fn has_procfs(&self) -> Result<(), Error> {
        let wrong = |reason: String| Error::Procfs(self.proc.clone(), reason);
        let mut entries = std::fs::read_dir(&self.proc).map_err(|error| wrong(error.to_string()))?;
        if entries.next().is_none() { Err(wrong("the folder is empty".to_owned())) } else { Ok(()) }
    }

    /// True where all three are this host's own, so that what is asked of the running kernel and systemd fits.
    pub fn is_live(&self) -> bool {
        self.proc == Path::new("/proc") && self.sys == Path::new("/sys") && self.root == Path::new("/")
    }

    pub fn proc(&self, name: &str) -> Result<Vec<u8>, Error> {
        read(&self.proc.join(name))
    }

    /// A path below the host's root.
    pub fn host(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }
}

/// Reads a whole file without waiting for one that has nothing to say yet: a sensor's driver may answer EAGAIN, and a
/// pipe in a file's place must not stop the run.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).map_err(|error| Error::read(path, error))?;
    let mut content = Vec::new();
    File::from(fd).take(LONGEST).read_to_end(&mut content).map_err(|source| Error::read(path, source))?;
    Ok(content)
}

/// The text of a file of one value, as sysfs has them; none where it cannot be read.
pub(super) fn value(path: &Path) -> Option<String> {
    let content = read(path).ok()?;
    Some(String::from_utf8_lossy(&content).trim().to_owned())
}

/// The number in a file of one value; none where it cannot be read or is none.
pub(super) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    value(path)?.parse().ok()
}

/// The names in a folder, sorted by their digits as numbers (`hwmon2` before `hwmon10`); empty where there is none.
pub(super) fn names(folder: &Path) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort_by_cached_key(|name| natural(name));
    names
}

fn natural(name: &OsStr) -> (String, u64, OsString) {
    let text = name.to_string_lossy();
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    (text[..text.len() - digits.len()].to_owned(), digits[..end].parse().unwrap_or(0), name.to_owned())
}

/// True where there is a file, folder or link of this name, wherever the link leads: of a recorded sysfs often only a
/// part is kept.
pub(super) fn is_present(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The text of a kernel file's bytes. Bytes that are not UTF-8 are replaced, so that one odd name does not cost the
/// lines around it.
pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A folder with files in it, for tests: of each its path and what is in it.
#[cfg(test)]
pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}
