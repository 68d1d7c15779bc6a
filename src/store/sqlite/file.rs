use std::path::{Component, Path};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::command::Backoff;
use crate::config::Config;
use crate::log;
use crate::state::{self, Folder};
use crate::store::Error;

/// How long to wait for a lock that another program holds.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How long the log may get before the program that runs every minute writes it back. The log outlives the program (see
/// `open`), and the next one reads it whole, so it stays short.
pub(super) const SHORT_LOG: u64 = 512 * 1024;
/// The same for a load of many batches, which would else write and sync the file for each of them. As SQLite itself has
/// it: 1,000 pages.
pub(super) const LONG_LOG: u64 = 4 << 20;
/// How long to wait for readers when the log is written back; there is always a next time.
const READER_WAIT: Duration = Duration::from_millis(100);

/// Opens the file, made where missing, ready for use but for its tables; its path for messages.
pub(super) fn open(config: &Config, path: &str) -> Result<(Connection, String), Error> {
    let (folder, name) = place(config, path)?;
    let shown = folder.path().join(&name);
    let target = shown.display().to_string();
    create(&folder, &name)?;
    let failed = |error: rusqlite::Error| explain(&target, "open", &error);
    // SQLite follows no link anywhere in the path, so those that lead to the folder are resolved first.
    let real = folder
        .path()
        .canonicalize()
        .map_err(|source| Error::State(state::Error::io("resolve", folder.path(), source)))?;
    let connection = connect(&real.join(&name)).map_err(failed)?;
    use_log(&connection).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // SQLite itself would forget between two programs how much it has written back, begin anew every time and never
    // shorten the log; `write_back` does it.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    Ok((connection, target))
}

/// Opens a file that is there, by a path without links, as it is.
pub(super) fn connect(real: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(real, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    // A program that runs every minute would otherwise write every page twice: to the log, and back from it when it
    // closes. The log also lets members of the group read the database, who may not make one.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Functions with side effects must not run for what somebody else wrote into the schema.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

/// Opens a file that is there to read it, by a path without links. The log is read too, which members of the group may.
pub(super) fn connect_to_read(real: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(real, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

/// The log of a file, as one program sees it.
pub(super) struct Log {
    path: Option<String>,
    /// Its length when the program came.
    at_first: u64,
    /// When it may be tried again to empty it.
    again: Instant,
    wait: Backoff,
    told: bool,
}

impl Log {
    pub(super) fn of(connection: &Connection) -> Self {
        let path = connection.path().filter(|path| !path.is_empty()).map(|path| format!("{path}-wal"));
        let at_first = length(path.as_deref());
        let wait = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        Self { path, at_first, again: Instant::now(), wait, told: false }
    }

    /// Writes the log back into the file and empties it, once it has as many bytes as `longest`. A reader that goes on
    /// reading what is old holds it: then it grows, is tried less often, and that is told once, by one of many short
    /// programs each time it has doubled. The rows are safe in the log already, and whatever is wrong is said by the next
    /// call too: it is told, and no error.
    pub(super) fn write_back(&mut self, connection: &Connection, longest: u64) {
        let long = length(self.path.as_deref());
        if long < longest || Instant::now() < self.again {
            return;
        }
        let database = connection.path().unwrap_or_default();
        match empty_log(connection) {
            Ok(true) => {
                self.wait = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
                self.at_first = 0;
                self.told = false;
            }
            Ok(false) => {
                self.again = Instant::now() + self.wait.next_wait();
                let doublings = |length: u64| (length / longest.max(1)).checked_ilog2();
                if !self.told && doublings(long) > doublings(self.at_first) {
                    self.told = true;
                    let note = "a program reads the database in one long transaction; the log grows until that ends, and \
                                everything gets slower";
                    log::warn!("log_held", database = database, bytes = long, note = note);
                }
            }
            Err(error) => log::warn!("log_not_written_back", database = database, error = error.to_string()),
        }
    }
}

fn length(path: Option<&str>) -> u64 {
    path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
}

/// Writes the log back into the file and empties it; false where a reader or a writer holds it.
pub(super) fn empty_log(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.busy_timeout(READER_WAIT)?;
    let held = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(LOCK_WAIT)?;
    match held {
        Ok(held) => Ok(held == 0),
        Err(error) if is_locked(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Switches to WAL mode, and an empty file to incremental vacuum, which must be chosen before its first page.
fn use_log(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    let until = Instant::now() + LOCK_WAIT;
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
    loop {
        let switched = connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").and_then(|()| {
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))
        });
        match switched {
            // Two first starts at once: SQLite refuses the second without its usual wait.
            Err(error) if is_locked(&error) && Instant::now() < until => std::thread::sleep(backoff.next_wait()),
            other => return other.map(|_| ()),
        }
    }
}

/// The folder and the name of the file.
fn place(config: &Config, path: &str) -> Result<(Folder, String), Error> {
    let wrong =
        || Error::Config(format!("database.url: {path:?} is not a file; write \"sqlite:hub.db\" or an absolute path"));
    let path = Path::new(path);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(wrong)?.to_owned();
    let fits = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.components().all(fits) || path.as_os_str().as_encoded_bytes().ends_with(b"/") || name.starts_with(':') {
        return Err(wrong());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    if path.is_absolute() {
        return Ok((Folder::open(parent)?, name));
    }
    let mut folder = Folder::open_or_make(&config.state_dir, 0o755)?.sub_or_make("data", 0o750)?;
    for part in parent.components() {
        folder = folder.sub_or_make(&part.as_os_str().to_string_lossy(), 0o750)?;
    }
    Ok((folder, name))
}

/// Makes an empty file where there is none, owned by the owner of its folder: a run by hand as root must not leave a
/// database that the services cannot write. SQLite gives its log and shared memory the owner and mode of the database.
fn create(folder: &Folder, name: &str) -> Result<(), Error> {
    let path = folder.path().join(name);
    let failed = |act, error: Errno| Error::State(state::Error::io(act, &path, error));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder.fd(), name, flags, Mode::from_raw_mode(0o640)) {
        Ok(file) => file,
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(failed("create", error)),
    };
    if rustix::process::geteuid().is_root() {
        let owner = rustix::fs::fstat(folder.fd()).map_err(|error| failed("inspect", error))?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.st_uid), rustix::fs::Gid::from_raw(owner.st_gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| failed("give away", error))?;
    }
    folder.sync()?;
    Ok(())
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The extended result code and the reason where SQLite refuses a row for what is in it; none where the error is of
/// another kind.
pub(super) fn refusal(error: &rusqlite::Error) -> Option<(String, String)> {
    let for_itself = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    );
    let code = error.sqlite_error().map(|error| error.extended_code.to_string());
    for_itself.then(|| (code.unwrap_or_default(), error.to_string()))
}

/// An error of SQLite in words that help.
pub(super) fn explain(target: &str, act: &str, error: &rusqlite::Error) -> Error {
    let target = target.to_owned();
    let unavailable = |reason: &str| Error::Unavailable { target: target.clone(), reason: reason.to_owned() };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable(&format!("another program holds its lock for more than {} s", LOCK_WAIT.as_secs()))
        }
        Some(ErrorCode::DiskFull) => unavailable("its file system is full"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Damaged { target, reason: error.to_string() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Error::Rights {
            target,
            reason: format!("cannot {act} as user {}: {error}", crate::command::current().name),
            remedy: "file and folder must belong to that user, on a file system that is mounted read-write, and no \
                     part of the path may be a link"
                .to_owned(),
        },
        _ => Error::Statement { target, act: act.to_owned(), reason: error.to_string() },
    }
}

/// Whether there is something of this name.
pub(super) fn has_table(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    let found = connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = ?1", [name], |_| Ok(())).optional()?;
    Ok(found.is_some())
}
