//! A whole file: looked at, copied, or read though it is damaged. Where root does it, the file of the services is opened
//! and looked at with the rights of its folder's owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::file::LOCK_WAIT;
use super::recover::Failed;
use super::{Sqlite, file};
use crate::config::Config;
use crate::state::{self, Folder, Way, become_owner};
use crate::store::Error;
use crate::store::care::{Checked, Recovered};

pub(in crate::store) fn check(config: &Config, path: &str) -> Result<Checked, Error> {
    let path = existing(config, path)?;
    as_owner(&path, || {
        let target = path.display().to_string();
        let mut checked = Checked { target: target.clone(), ..Checked::default() };
        match open(&path).and_then(|connection| {
            checked.faults = faults(&connection, "integrity_check(20)")?;
            checked.tables = counts(&connection)?;
            Ok(())
        }) {
            Ok(()) => Ok(checked),
            Err(error) => match file::explain(&target, "check", &error) {
                Error::Damaged { reason, .. } => {
                    checked.faults.push(reason);
                    Ok(checked)
                }
                error => Err(error),
            },
        }
    })
}

pub(in crate::store) fn backup(config: &Config, path: &str, to: &Path) -> Result<(), Error> {
    let path = existing(config, path)?;
    let target = path.display().to_string();
    let failed = |error: rusqlite::Error| file::explain(&target, "back up", &error);
    fill(&path, to, |new| {
        // In one transaction: what is copied is what was looked at, and whoever writes meanwhile does not disturb it.
        let source = as_owner(&path, || {
            let source = open(&path).map_err(failed)?;
            source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)?;
            match faults(&source, "quick_check(1)").map_err(failed)?.pop() {
                Some(reason) => Err(Error::Damaged { target: target.clone(), reason }),
                None => Ok(source),
            }
        })?;
        let until = Instant::now() + LOCK_WAIT;
        let backup = Backup::new(&source, new).map_err(failed)?;
        while backup.step(-1).map_err(failed)? != StepResult::Done {
            if Instant::now() >= until {
                let reason = format!("another program holds its lock for more than {} s", LOCK_WAIT.as_secs());
                return Err(Error::Unavailable { target: target.clone(), reason });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
}

pub(in crate::store) fn recover(config: &Config, path: &str, to: &Path) -> Result<Recovered, Error> {
    let path = existing(config, path)?;
    let shown = to.display().to_string();
    fill(&path, to, |new| {
        let (file, log) = as_owner(&path, || {
            let log = match read(&PathBuf::from(format!("{}-wal", path.display()))) {
                Err(Error::State(error)) if error.is_missing() => None,
                log => Some(log?),
            };
            Ok((read(&path)?, log))
        })?;
        let empty = Connection::open_in_memory().map_err(|error| file::explain(&shown, "make", &error))?;
        let mut sqlite = Sqlite::of(std::mem::replace(new, empty), shown.clone());
        let made = sqlite.migrate(config);
        *new = sqlite.connection;
        made?;
        super::recover::recover(file, log, new).map_err(|error| match error {
            Failed::Read(source) => Error::State(state::Error::io("read", &path, source)),
            Failed::Write(error) => file::explain(&shown, "fill", &error),
        })
    })
}

/// The path of the file, which must be there.
fn existing(config: &Config, path: &str) -> Result<PathBuf, Error> {
    regular(config, path).map_err(|error| match error {
        Error::State(error) if error.is_missing() => Error::Config(format!(
            "{}: is not there yet; the first run of system-metrics makes it",
            config.state_dir.join("data").join(path).display()
        )),
        other => other,
    })
}

/// The path of the file.
///
/// # Errors
/// When it is not there, or no regular file: opening something else may wait for ever.
pub(super) fn regular(config: &Config, path: &str) -> Result<PathBuf, Error> {
    let path = config.state_dir.join("data").join(path);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(Error::Config(format!("{}: is no regular file", path.display()))),
        Err(source) => Err(Error::State(state::Error::io("look at", &path, source))),
    }
}

/// Does something with the rights of the owner of a file's folder, where root is not that already.
pub(super) fn as_owner<T: Send>(path: &Path, job: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let body = || {
        become_owner(path.parent().unwrap_or(path))?;
        job()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("owner".to_owned()).spawn_scoped(scope, body);
        let thread = thread.map_err(|source| state::Error::io("start a thread for", path, source))?;
        thread.join().unwrap_or_else(|_| Err(Error::Config("the work itself failed; please report this".to_owned())))
    })
}

/// Makes a file and has it filled: as root where root alone decides what lies in its folder, else with the rights of the
/// database's owner. Nothing is left of it where that fails.
fn fill<T: Send>(
    database: &Path,
    to: &Path,
    job: impl FnOnce(&mut Connection) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let to = std::path::absolute(to).map_err(|source| state::Error::io("resolve", to, source))?;
    let (Some(parent), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::Config(format!("{}: is no name for a file", to.display())));
    };
    let finish = |folder: &Folder, mut new: Connection| {
        let failed = |error: rusqlite::Error| file::explain(&to.display().to_string(), "write", &error);
        let done = job(&mut new).and_then(|done| {
            // One file, without a log, until the hub opens it.
            new.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
            new.close().map_err(|(_, error)| failed(error))?;
            folder.sync()?;
            Ok(done)
        });
        if done.is_err() {
            for suffix in ["", "-wal", "-shm"] {
                // The error that matters is the one above.
                let _ = rustix::fs::unlinkat(folder.fd(), format!("{name}{suffix}"), AtFlags::empty());
            }
        }
        done
    };
    if rustix::process::geteuid().is_root() {
        let way = Way::to_folder(parent)?;
        if way.is_kept_by(None).is_ok() && way.owner() == 0 {
            let folder = way.into_folder();
            let new = make(&folder, name)?;
            return finish(&folder, new);
        }
    }
    as_owner(database, || {
        let folder = Folder::open(parent)?;
        let new = make(&folder, name)?;
        finish(&folder, new)
    })
}

/// Makes an empty file and opens it as a database.
fn make(folder: &Folder, name: &str) -> Result<Connection, Error> {
    let path = folder.path().join(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder.fd(), name, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) => {}
        Err(Errno::EXIST) => {
            return Err(Error::Config(format!("{}: is there already; name a file that is not", path.display())));
        }
        Err(Errno::ACCESS) => {
            let user = crate::command::current().name;
            let reason =
                format!("{}: user {user} may not make it; name a file in a folder of that user's", path.display());
            return Err(Error::Config(reason));
        }
        Err(error) => return Err(Error::State(state::Error::io("make", &path, error))),
    }
    let failed = |error: rusqlite::Error| file::explain(&path.display().to_string(), "make", &error);
    let real = folder.path().canonicalize().map_err(|source| state::Error::io("resolve", folder.path(), source))?;
    let new = file::connect(&real.join(name)).map_err(failed)?;
    new.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    // What is not finished is removed.
    new.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
    Ok(new)
}

/// Opens the file of the services as it is.
fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let real = folder.zip(path.file_name()).map_or_else(|| path.to_owned(), |(folder, name)| folder.join(name));
    file::connect(&real)
}

/// What a check of SQLite's finds.
fn faults(connection: &Connection, check: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(&format!("PRAGMA {check}"))?;
    let found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(if found == ["ok"] { Vec::new() } else { found })
}

fn counts(connection: &Connection) -> Result<std::collections::BTreeMap<String, Option<u64>>, rusqlite::Error> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut statement = connection.prepare(sql)?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let count = |name: String| {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        // On damaged pages; the faults say it.
        let count = connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok();
        (name, count.map(i64::unsigned_abs))
    };
    Ok(names.into_iter().map(count).collect())
}

fn read(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty());
    Ok(File::from(fd.map_err(|error| state::Error::io("open", path, error))?))
}
