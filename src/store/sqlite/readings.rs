use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{Sqlite, file};
use crate::store::Error;
use crate::store::engine::ReadingStore;
use crate::store::readings::{DeadLetter, Keys, MOST_DAYS, POSITIONS, Position, Readings, TABLE};
use crate::store::schema::{KEYS_OF_VALUES, SCHEMA_TABLE};

const COLUMNS: &str = "id, pipeline, source_id, reason, attempts, first_failed, last_failed, length(document), place";
/// Now, as every time in this database.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
/// Rows that one transaction of `delete_old_readings` deletes.
const DELETE_ROWS: u16 = 5000;

impl ReadingStore for Sqlite {
    fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error> {
        let target = self.target.clone();
        let failed = |error: rusqlite::Error| match file::refusal(&error) {
            Some((code, reason)) => Error::Row { index: 0, code, reason },
            None => file::explain(&target, "store readings", &error),
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let stored = insert(&transaction, batch).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.log.write_back(&self.connection, file::LONG_LOG);
        Ok(stored)
    }

    fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLE} WHERE pipeline = COALESCE(?1, pipeline) ORDER BY id");
        let letters = self.connection.prepare(&sql).and_then(|mut statement| {
            let rows = statement.query_map([pipeline], dead_letter)?;
            rows.collect::<Result<Vec<_>, _>>()
        });
        letters.map_err(|error| self.failed("read dead letters", &error))
    }

    fn count_dead_letters(&mut self) -> Result<BTreeMap<String, u64>, Error> {
        let sql = format!("SELECT pipeline, count(*) FROM {TABLE} GROUP BY pipeline");
        let counts = self.connection.prepare(&sql).and_then(|mut statement| {
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
            rows.collect::<Result<BTreeMap<_, _>, _>>()
        });
        counts.map_err(|error| self.failed("count dead letters", &error))
    }

    fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error> {
        let sql = format!("SELECT {COLUMNS}, document FROM {TABLE} WHERE id = ?1");
        let letter = self.connection.query_row(&sql, [id], |row| Ok((dead_letter(row)?, row.get(9)?))).optional();
        letter.map_err(|error| self.failed("read a dead letter", &error))
    }

    fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        let count = self.connection.execute(&format!("DELETE FROM {TABLE} WHERE id = ?1"), [id]);
        count.map(|count| count > 0).map_err(|error| self.failed("drop a dead letter", &error))
    }

    fn move_dead_letter(&mut self, id: i64, pipeline: &str) -> Result<bool, Error> {
        let sql = format!("UPDATE OR IGNORE {TABLE} SET pipeline = ?2 WHERE id = ?1");
        let count = self.connection.execute(&sql, params![id, pipeline]);
        count.map(|count| count > 0).map_err(|error| self.failed("move a dead letter", &error))
    }

    fn keys(&mut self, table: &str) -> Result<Keys, Error> {
        let sql = format!("SELECT oldest FROM {SCHEMA_TABLE} WHERE object = ?1");
        let oldest: Result<Option<i64>, _> = self.connection.query_row(&sql, [table], |row| row.get(0)).optional();
        let oldest = oldest.map_err(|error| self.failed("read the schema of", &error))?;
        Ok(if oldest >= Some(KEYS_OF_VALUES) { Keys::Values } else { Keys::Types })
    }

    fn position(&mut self, pipeline: &str) -> Result<Option<Position>, Error> {
        let sql = format!("SELECT source, field, value, passed FROM {POSITIONS} WHERE pipeline = ?1");
        let read = |row: &Row<'_>| {
            Ok(Position { source: row.get(0)?, field: row.get(1)?, value: row.get(2)?, passed: row.get(3)? })
        };
        let position = self.connection.query_row(&sql, [pipeline], read).optional();
        position.map_err(|error| self.failed("read the position in", &error))
    }

    fn take_back(&mut self, pipeline: &str, ids: &[String], position: Option<&Position>) -> Result<(), Error> {
        let target = self.target.clone();
        let failed = |error: rusqlite::Error| file::explain(&target, "take dead letters back", &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        {
            let sql = format!("DELETE FROM {TABLE} WHERE pipeline = ?1 AND source_id = ?2 AND attempts = 1");
            let mut delete = transaction.prepare(&sql).map_err(failed)?;
            for id in ids {
                delete.execute([pipeline, id]).map_err(failed)?;
            }
        }
        if let Some(position) = position {
            keep_position(&transaction, pipeline, position).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    fn delete_old_readings(&mut self, table: &str, days: u32, until: Instant) -> Result<u64, Error> {
        let before = jiff::Timestamp::now().as_millisecond() - i64::from(days.min(MOST_DAYS)) * 24 * 3600 * 1000;
        let failed = |error| self.failed("delete old readings", &error);
        let sql = format!(
            "DELETE FROM \"{table}\" WHERE id IN (SELECT id FROM \"{table}\" WHERE event_timestamp < ?1 \
             OR event_timestamp IS NULL AND created_at < ?1 LIMIT ?2)"
        );
        let mut deleted = 0;
        loop {
            let batch = self.connection.execute(&sql, params![before, DELETE_ROWS]).map_err(failed)?;
            deleted += batch as u64;
            if batch < usize::from(DELETE_ROWS) || Instant::now() >= until {
                break;
            }
        }
        if deleted > 0 {
            self.give_space_back(until).map_err(failed)?;
        }
        Ok(deleted)
    }
}

fn keep_position(connection: &Connection, pipeline: &str, position: &Position) -> Result<(), rusqlite::Error> {
    let Position { source, field, value, passed } = position;
    let sql = format!(
        "INSERT OR REPLACE INTO {POSITIONS} (pipeline, source, field, value, passed) VALUES (?1, ?2, ?3, ?4, ?5)"
    );
    connection.execute(&sql, params![pipeline, source, field, value, passed]).map(|_| ())
}

fn dead_letter(row: &Row<'_>) -> Result<DeadLetter, rusqlite::Error> {
    Ok(DeadLetter {
        id: row.get(0)?,
        pipeline: row.get(1)?,
        source_id: row.get(2)?,
        reason: row.get(3)?,
        attempts: row.get(4)?,
        first_failed: row.get(5)?,
        last_failed: row.get(6)?,
        size: row.get(7)?,
        place: row.get(8)?,
    })
}

fn insert(transaction: &Transaction<'_>, batch: &Readings) -> Result<u64, rusqlite::Error> {
    let table = format!("\"{}\"", batch.table);
    let mut stored = 0;
    let mut insert = transaction.prepare(&format!(
        "INSERT INTO {table} (mongo_id, event_timestamp, source, event_type, payload, meta, source_id, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, {NOW})
         ON CONFLICT (mongo_id) DO UPDATE SET event_timestamp = excluded.event_timestamp, source = excluded.source,
         event_type = excluded.event_type, payload = excluded.payload, meta = excluded.meta,
         source_id = excluded.source_id, updated_at = excluded.updated_at
         WHERE (event_timestamp, source, event_type, payload, meta, source_id) IS NOT (excluded.event_timestamp,
         excluded.source, excluded.event_type, excluded.payload, excluded.meta, excluded.source_id)"
    ))?;
    for row in &batch.rows {
        let changed = insert.execute(params![
            row.mongo_id,
            row.event_timestamp,
            row.source,
            row.event_type,
            row.payload,
            row.meta,
            row.source_id
        ])?;
        stored += changed as u64;
    }
    let mut reject = transaction.prepare(&format!(
        "INSERT INTO {TABLE} (pipeline, source_id, reason, document, place) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (pipeline, source_id) DO UPDATE SET reason = excluded.reason, document = excluded.document,
         place = excluded.place, attempts = attempts + 1, last_failed = excluded.last_failed"
    ))?;
    for rejected in &batch.rejected {
        let (id, reason) = (&rejected.source_id, &rejected.reason);
        reject.execute(params![batch.pipeline, id, reason, rejected.document, rejected.place])?;
    }
    let mut settle = transaction.prepare(&format!("DELETE FROM {TABLE} WHERE pipeline = ?1 AND source_id = ?2"))?;
    for id in &batch.settled {
        settle.execute([&batch.pipeline, id])?;
    }
    if let Some(position) = &batch.position {
        keep_position(transaction, &batch.pipeline, position)?;
    }
    Ok(stored)
}
