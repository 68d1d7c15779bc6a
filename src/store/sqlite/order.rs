//! Rows of one kind side by side. A run brings a row of each kind, so that as they come a day of one kind is spread over every
//! page of that day, and each index that begins with the kind would be written to in as many places as there are kinds.
//! So new rows stay as they came, found by an index of their own, until they are about an hour's; then they are laid at the
//! end of the table again, kind by kind, and enter the index by kind and time.
//!
//! `sorted` says of a row what it is: 0 as it came, 1 laid beside its kind, NULL stored by an earlier version. While
//! `hub_unsorted` is there, rows of earlier versions are laid a few at a time. Whatever is killed, each row is in the table once.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::file::{self, has_table};
use super::hourly;
use super::views::{self, UNSORTED};
use crate::log;

/// Rows that lie as they came before they are laid in order, and that one transaction lays: an hour of a small host.
const ROWS: u32 = 1000;
/// For how long one run lays rows.
const TIME: Duration = Duration::from_millis(300);

/// What is made on the table, by name.
pub(super) const INDEXES: [(&str, &str); 2] = [
    (
        "system_metrics_sorted",
        "CREATE INDEX system_metrics_sorted ON system_metrics (metric_type, time / 1000) WHERE sorted = 1;",
    ),
    (
        "system_metrics_new",
        "CREATE INDEX system_metrics_new ON system_metrics (host, time, metric_type) WHERE sorted = 0;",
    ),
];

/// Rows of a host and a kind (the first parameter and the last) from one time up to another, of a file whose rows are all in
/// the indexes.
pub(super) fn of_kind() -> String {
    let part = |rest| {
        format!(
            "SELECT time, metric_type, payload FROM system_metrics INDEXED BY {rest} \
             AND host = ?1 AND time >= ?2 AND time < ?3 AND metric_type = ?4"
        )
    };
    let [sorted, new] = INDEXES.map(|(name, _)| name);
    format!(
        "{} UNION ALL {}",
        part(format!("{sorted} WHERE sorted = 1 AND time / 1000 >= ?2 / 1000 AND time / 1000 <= ?3 / 1000")),
        part(format!("{new} WHERE sorted = 0"))
    )
}

/// Lets a table of an earlier version have rows in order: as quick for a large one as for an empty one. No row of it is
/// in the indexes, so that they are made on a table without rows and given to it in the text of the schema.
pub(super) fn adopt(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let elsewhere = INDEXES.map(|(_, sql)| sql.replace("ON system_metrics", "ON hub_empty")).concat();
    let names = INDEXES.map(|(name, _)| format!("'{name}'")).join(", ");
    transaction.execute_batch(&format!(
        "ALTER TABLE system_metrics ADD COLUMN sorted INTEGER;
         CREATE TABLE hub_empty (time INTEGER NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, metric_type TEXT NOT NULL,
             payload TEXT NOT NULL, sorted INTEGER) STRICT;
         {elsewhere}"
    ))?;
    let version: i64 = transaction.pragma_query_value(None, "schema_version", |row| row.get(0))?;
    transaction.pragma_update(None, "writable_schema", true)?;
    let given = transaction
        .execute(
            &format!(
                "UPDATE sqlite_schema SET tbl_name = 'system_metrics',
                     sql = replace(sql, 'ON hub_empty', 'ON system_metrics') WHERE name IN ({names})"
            ),
            [],
        )
        .and_then(|_| transaction.pragma_update(None, "schema_version", version + 1));
    // It reads the schema anew, too.
    transaction.pragma_update(None, "writable_schema", "RESET")?;
    given?;
    transaction.execute_batch("DROP TABLE hub_empty")?;
    leave_unsorted(transaction)
}

/// Has all rows laid in order that are there now.
pub(super) fn leave_unsorted(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(&format!(
        "CREATE TABLE {UNSORTED} (last INTEGER NOT NULL) STRICT;
         INSERT INTO {UNSORTED} SELECT max(rowid) FROM system_metrics HAVING max(rowid) IS NOT NULL;"
    ))?;
    views::renew(transaction)
}

/// Whether an earlier version stored the newest row: the file was its own for a while.
pub(super) fn has_unmarked(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let newest = "SELECT sorted IS NULL FROM system_metrics ORDER BY rowid DESC LIMIT 1";
    let is_unmarked = connection.query_row(newest, [], |row| row.get(0)).optional()?.unwrap_or(false);
    Ok(is_unmarked && !has_table(connection, UNSORTED)?)
}

/// Lays rows in order, where there are enough. The rows of the run are safe already, and the next run tries again: what is
/// wrong is told, and no error.
pub(super) fn sort(connection: &mut Connection, log: &mut file::Log) {
    let until = Instant::now() + TIME;
    loop {
        match step(connection) {
            Ok(true) => log.write_back(connection, file::SHORT_LOG),
            Ok(false) => return,
            Err(error) => {
                let database = connection.path().unwrap_or_default();
                log::warn!("rows_not_sorted", database = database, error = error.to_string());
                return;
            }
        }
        if Instant::now() >= until {
            return;
        }
    }
}

/// Lays one part of the rows; false where nothing is to be done.
fn step(connection: &mut Connection) -> Result<bool, rusqlite::Error> {
    let new = "SELECT count(*) FROM system_metrics INDEXED BY system_metrics_new WHERE sorted = 0";
    if connection.query_row(new, [], |row| row.get::<_, u32>(0))? >= ROWS {
        let rows = "FROM system_metrics INDEXED BY system_metrics_new WHERE sorted = 0 ORDER BY host, time";
        return lay(connection, rows).map(|_| true);
    }
    if !has_table(connection, UNSORTED)? {
        return Ok(false);
    }
    let rows =
        format!("FROM system_metrics WHERE rowid <= (SELECT last FROM {UNSORTED}) AND sorted IS NULL ORDER BY rowid");
    if lay(connection, &rows)? == 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The version before may have stored rows meanwhile, which are neither laid nor counted.
        let late = "SELECT max(rowid) FROM system_metrics WHERE sorted IS NULL";
        if let Some(last) = transaction.query_row(late, [], |row| row.get::<_, Option<i64>>(0))? {
            transaction.execute_batch(&format!("DELETE FROM {UNSORTED}; INSERT INTO {UNSORTED} VALUES ({last})"))?;
            hourly::leave_unfilled(&transaction)?;
            transaction.commit()?;
            return Ok(true);
        }
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {UNSORTED}"))?;
        views::renew(&transaction)?;
        transaction.commit()?;
    }
    Ok(true)
}

/// Takes the first of some rows out of the table and puts them at its end, kind by kind; how many.
fn lay(connection: &mut Connection, rows: &str) -> Result<usize, rusqlite::Error> {
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS temp.hub_laid (place INTEGER PRIMARY KEY, time, host, os, metric_type, payload)",
    )?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let count = transaction.execute(
        &format!("INSERT INTO temp.hub_laid SELECT rowid, time, host, os, metric_type, payload {rows} LIMIT {ROWS}"),
        [],
    )?;
    transaction.execute_batch(
        "DELETE FROM system_metrics WHERE rowid IN (SELECT place FROM temp.hub_laid);
         INSERT INTO system_metrics (time, host, os, metric_type, payload, sorted)
             SELECT time, host, os, metric_type, payload, 1 FROM temp.hub_laid ORDER BY metric_type, host, time;
         DELETE FROM temp.hub_laid",
    )?;
    transaction.commit()?;
    Ok(count)
}
