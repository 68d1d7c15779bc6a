use rusqlite::{Error, Transaction, params};

use super::file::refusal;
use crate::store::events::{EVENTS_TABLE, Events, Shipped};

/// Times are INTEGER milliseconds since 1970; JSON is TEXT.
pub(super) const MAKE: &str = "
    CREATE TABLE hub_events (
        time INTEGER NOT NULL,
        host TEXT NOT NULL,
        service TEXT NOT NULL,
        kind TEXT NOT NULL,
        about TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        payload TEXT NOT NULL CHECK (json_valid(payload)),
        UNIQUE (host, service, time, kind, about)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS hub_events_time ON hub_events (time);
";

/// Stores events within the transaction of the metrics. What is wrong with the table, or with an event, is told in what is
/// returned.
///
/// # Errors
/// When the file cannot be used.
pub(super) fn insert(transaction: &Transaction<'_>, events: &Events) -> Result<Shipped, Error> {
    let mut shipped = Shipped::default();
    if events.times.is_empty() {
        return Ok(shipped);
    }
    let sql = format!(
        "INSERT INTO {EVENTS_TABLE} (time, host, service, kind, about, status, reason, payload) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (host, service, time, kind, about) DO NOTHING"
    );
    let unusable = |error: &Error| {
        let what = format!("{EVENTS_TABLE} is not as the hub makes it: {error}; rename it, and the hub makes its own");
        Some(what)
    };
    let mut statement = match transaction.prepare(&sql) {
        Ok(statement) => statement,
        // No such table, column or key.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => {
            shipped.unusable = unusable(&error);
            return Ok(shipped);
        }
        Err(error) => return Err(error),
    };
    for at in 0..events.times.len() {
        let row = params![
            events.times[at],
            events.hosts[at],
            events.services[at],
            events.kinds[at],
            events.abouts[at],
            events.statuses[at],
            events.reasons[at],
            events.payloads[at]
        ];
        match statement.execute(row) {
            Ok(0) => {}
            Ok(_) => shipped.new.push(at),
            Err(error) if refusal(&error).is_some() => {
                shipped.unusable = unusable(&error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(shipped)
}
