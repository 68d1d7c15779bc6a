use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::copy::{as_owner, regular};
use super::courses::Places;
use super::file::{self, has_table};
use super::views::UNSORTED;
use super::{hourly, order};
use crate::config::Config;
use crate::kinds::{Found, Wanted};
use crate::store::Error;
use crate::store::engine::{self, Take, list_hosts};
use crate::store::hourly::{Course, HOURLY, UNFILLED};
use crate::store::readings::{Noted, newest};

/// Rows of all kinds, by host and time; the last parameter says nothing.
const AS_THEY_CAME: &str =
    "SELECT time, metric_type, payload FROM system_metrics WHERE host = ?1 AND time >= ?2 AND time < ?3 AND ?4 <> ''";

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

    /// Hands every row that a statement finds to `take`.
    fn each(
        &self,
        sql: &str,
        parameters: &mut dyn Iterator<Item = [Value; 4]>,
        mut take: impl FnMut(usize, &Row<'_>) -> Result<(), rusqlite::Error>,
    ) -> Result<(), rusqlite::Error> {
        let mut statement = self.connection.prepare(sql)?;
        for (at, parameters) in parameters.enumerate() {
            let mut rows = statement.query(params_from_iter(parameters))?;
            while let Some(row) = rows.next()? {
                take(at, row)?;
            }
        }
        Ok(())
    }

    /// True where all rows are in the indexes by kind and time.
    fn is_sorted(&self) -> Result<bool, rusqlite::Error> {
        for (index, _) in order::INDEXES {
            if !has_table(&self.connection, index)? {
                return Ok(false);
            }
        }
        Ok(!has_table(&self.connection, UNSORTED)?)
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

    fn newest_dead_letters(&mut self, most: u32) -> Result<Vec<Noted>, Error> {
        let letters = self.connection.prepare(&newest("last_failed", most)).and_then(|mut statement| {
            let letter = |row: &Row<'_>| {
                let (id, pipeline, source_id) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Noted { id, pipeline, source_id, reason: row.get(3)?, last_failed: row.get(4)? })
            };
            statement.query_map([], letter)?.collect::<Result<Vec<_>, _>>()
        });
        letters.map_err(|error| file::explain(&self.target, "read dead letters", &error))
    }

    fn samples(&mut self, host: &str, wanted: &Wanted, (from, until): (i64, i64), take: Take<'_>) -> Result<(), Error> {
        let kinds = wanted.kinds();
        // Rows lie kind by kind; those of earlier versions as they came.
        let read = self.is_sorted().and_then(|is_sorted| {
            let (sql, calls) = if is_sorted { (order::of_kind(), kinds.len()) } else { (AS_THEY_CAME.to_owned(), 1) };
            let numbers = [from, until].map(Value::Integer);
            let mut parameters = kinds.iter().take(calls).map(|kind| {
                let [host, kind] = [host, kind].map(|text| Value::Text(text.to_owned()));
                let [from, until] = numbers.clone();
                [host, from, until, kind]
            });
            self.each(&sql, &mut parameters, |_, row| {
                let time = row.get(0)?;
                // What is no text any more, in a damaged file, has no numbers.
                let [kind, payload] = [row.get_ref(1)?, row.get_ref(2)?].map(|text| text.as_str().unwrap_or_default());
                wanted.find(kind, payload, &mut |place, label, value| take(Found::sample(time, place, label, value)));
                Ok(())
            })
        });
        read.map_err(|error| file::explain(&self.target, "read metrics", &error))
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

    fn hours(&mut self, host: &str, wanted: &Wanted, (from, until): (i64, i64), take: Take<'_>) -> Result<(), Error> {
        // Hours are in seconds; the one that began before the window is not of it.
        let [from, until] = [from, until]
            .map(|millis| Value::Integer(millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) > 0)));
        let kinds = wanted.kinds();
        let read = Places::of(&self.connection, wanted).and_then(|places| {
            let mut parameters = kinds.iter().map(|kind| {
                let [host, kind] = [host, kind].map(|text| Value::Text(text.to_owned()));
                [host, from.clone(), until.clone(), kind]
            });
            self.each(hourly::OF_KIND, &mut parameters, |at, row| {
                let time = row.get::<_, i64>(0)?.saturating_mul(1000);
                places.each(kinds[at], row.get_ref(1)?.as_str().unwrap_or_default(), &mut |place, label, course| {
                    let Course { samples, min, max, .. } = course;
                    take(Found { time, place, label, min, mean: course.mean(), max, samples: samples.unsigned_abs() });
                });
                Ok(())
            })
        });
        read.map_err(|error| file::explain(&self.target, "read hours", &error))
    }
}
