use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::copy::{as_owner, regular};
use super::file;
use crate::config::Config;
use crate::kinds::Hour;
use crate::store::Error;
use crate::store::engine::{self, Stored, list_hosts};
use crate::store::hourly::{HOURLY, UNFILLED};

/// A file that is only read.
pub(in crate::store) struct Reader {
    connection: Connection,
    target: String,
}

impl Reader {
    /// Opens `path`, relative to `<state>/data`, as it is.
    pub(in crate::store) fn open(config: &Config, path: &str) -> Result<Self, Error> {
        let file = regular(config, path)?;
        let target = file.display().to_string();
        for end in ["-journal", "-wal", "-shm"] {
            match regular(config, &format!("{path}{end}")) {
                Err(Error::State(error)) if error.is_missing() => {}
                other => drop(other?),
            }
        }
        let connection = as_owner(&file, || {
            let real = real(&file).map_err(|source| crate::state::Error::io("resolve", &file, source))?;
            // The first question opens the log.
            let opened = file::connect_to_read(&real).and_then(|opened| {
                opened.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map(|()| opened)
            });
            opened.map_err(|error| file::explain(&target, "open", &error))
        })?;
        Ok(Self { connection, target })
    }

    /// Reads what a statement finds that ends before the list of kinds, in the order of its first column.
    fn read<T>(
        &self,
        sql: &str,
        (host, from, until): (&str, i64, i64),
        kinds: &[&str],
        row: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Vec<T>, Error> {
        let sql = format!("{sql} ({}) ORDER BY 1", vec!["?"; kinds.len()].join(", "));
        let text = |text: &str| Value::Text(text.to_owned());
        let parameters = [text(host), Value::Integer(from), Value::Integer(until)].into_iter();
        let parameters = parameters.chain(kinds.iter().map(|kind| text(kind)));
        let rows = self
            .connection
            .prepare(&sql)
            .and_then(|mut statement| statement.query_map(params_from_iter(parameters), row)?.collect());
        rows.map_err(|error| file::explain(&self.target, "read metrics", &error))
    }
}

/// SQLite follows no link anywhere in the path; those that lead to the folder are resolved first.
fn real(path: &Path) -> std::io::Result<std::path::PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
    let real = folder.join(path.file_name().unwrap_or_default());
    // SQLite says of a file that is not there only that it cannot be opened.
    real.symlink_metadata().map(|_| real)
}

impl engine::Reader for Reader {
    fn hosts(&mut self) -> Result<Vec<String>, Error> {
        let hosts = self
            .connection
            .prepare(&list_hosts())
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>());
        hosts.map_err(|error| file::explain(&self.target, "read the hosts", &error))
    }

    fn samples(&mut self, host: &str, kinds: &[&str], (from, until): (i64, i64)) -> Result<Vec<Stored>, Error> {
        let sql = "SELECT time, metric_type, payload FROM system_metrics WHERE host = ? AND time >= ? AND time < ? \
                   AND metric_type IN";
        self.read(sql, (host, from, until), kinds, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    fn counted_from(&mut self, host: &str) -> Result<Option<i64>, Error> {
        let is_there = "SELECT count(*) = 2 FROM sqlite_master WHERE name IN (?1, ?2)";
        let before = format!("SELECT before FROM {UNFILLED} WHERE host = ?1");
        let known = self.connection.query_row(is_there, [HOURLY, UNFILLED], |row| row.get(0)).and_then(|is_there| {
            let from = |host| self.connection.query_row(&before, [host], |row| row.get(0)).optional();
            if is_there { Ok(Some(from(host)?.unwrap_or(i64::MIN))) } else { Ok(None) }
        });
        known.map_err(|error| file::explain(&self.target, "read which hours are counted", &error))
    }

    fn hours(&mut self, host: &str, kinds: &[&str], (from, until): (i64, i64)) -> Result<Vec<Hour>, Error> {
        let sql = format!(
            "SELECT hour, kind, label, key, min, avg, max, samples FROM {HOURLY} WHERE host = ? AND hour >= ? AND hour < ? \
             AND kind IN"
        );
        // Hours are in seconds; the one that began before the window is not of it.
        let seconds = |millis: i64| millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) > 0);
        self.read(&sql, (host, seconds(from), seconds(until)), kinds, |row| {
            Ok(Hour {
                time: row.get::<_, i64>(0)?.saturating_mul(1000),
                kind: row.get(1)?,
                label: row.get(2)?,
                key: row.get(3)?,
                min: row.get(4)?,
                mean: row.get(5)?,
                max: row.get(6)?,
                samples: row.get::<_, i64>(7)?.unsigned_abs(),
            })
        })
    }
}
