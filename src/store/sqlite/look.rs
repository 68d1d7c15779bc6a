use std::path::Path;

use rusqlite::{Connection, params_from_iter, types::Value};

use super::file;
use crate::config::Config;
use crate::store::Error;
use crate::store::engine::{self, HOSTS, Stored};

/// A file that is only read.
pub(in crate::store) struct Reader {
    connection: Connection,
    target: String,
}

impl Reader {
    /// Opens `path`, relative to `<state>/data`, as it is.
    pub(in crate::store) fn open(config: &Config, path: &str) -> Result<Self, Error> {
        let shown = config.state_dir.join("data").join(path);
        let target = shown.display().to_string();
        let real = real(&shown)
            .map_err(|source| Error::State(crate::state::Error::io("open the database", &shown, source)))?;
        let connection = file::connect_to_read(&real).map_err(|error| file::explain(&target, "open", &error))?;
        Ok(Self { connection, target })
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
            .prepare(HOSTS)
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>());
        hosts.map_err(|error| file::explain(&self.target, "read the hosts", &error))
    }

    fn samples(&mut self, host: &str, kinds: &[&str], (from, until): (i64, i64)) -> Result<Vec<Stored>, Error> {
        let marks = vec!["?"; kinds.len()].join(", ");
        let sql = format!(
            "SELECT time, metric_type, payload FROM system_metrics \
             WHERE host = ? AND time >= ? AND time < ? AND metric_type IN ({marks}) ORDER BY time"
        );
        let text = |text: &str| Value::Text(text.to_owned());
        let parameters = [text(host), Value::Integer(from), Value::Integer(until)].into_iter();
        let parameters = parameters.chain(kinds.iter().map(|kind| text(kind)));
        let rows = self.connection.prepare(&sql).and_then(|mut statement| {
            statement
                .query_map(params_from_iter(parameters), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<Vec<Stored>, _>>()
        });
        rows.map_err(|error| file::explain(&self.target, "read metrics", &error))
    }
}
