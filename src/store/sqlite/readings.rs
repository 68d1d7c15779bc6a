use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{Sqlite, file};
use crate::store::readings::{DeadLetter, Readings, TABLE};
use crate::store::{Error, ReadingStore};

const COLUMNS: &str = "id, pipeline, source_id, reason, attempts, first_failed, last_failed, length(document)";

impl ReadingStore for Sqlite {
    fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error> {
        let target = self.target.clone();
        let failed = |error: rusqlite::Error| match file::refusal(&error) {
            Some(reason) => Error::Row { index: 0, reason },
            None => file::explain(&target, "store readings", &error),
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let stored = insert(&transaction, batch).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        file::write_back(&self.connection, file::LONG_LOG);
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

    fn count_dead_letters(&mut self, pipeline: &str) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) FROM {TABLE} WHERE pipeline = ?1");
        let count = self.connection.query_row(&sql, [pipeline], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(|error| self.failed("count dead letters", &error))
    }

    fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error> {
        let sql = format!("SELECT {COLUMNS}, document FROM {TABLE} WHERE id = ?1");
        let letter = self.connection.query_row(&sql, [id], |row| Ok((dead_letter(row)?, row.get(8)?))).optional();
        letter.map_err(|error| self.failed("read a dead letter", &error))
    }

    fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        let count = self.connection.execute(&format!("DELETE FROM {TABLE} WHERE id = ?1"), [id]);
        count.map(|count| count > 0).map_err(|error| self.failed("drop a dead letter", &error))
    }
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
    })
}

fn insert(transaction: &Transaction<'_>, batch: &Readings) -> Result<u64, rusqlite::Error> {
    let table = format!("\"{}\"", batch.table);
    let mut stored = 0;
    let mut insert = transaction.prepare(&format!(
        "INSERT INTO {table} (mongo_id, event_timestamp, source, event_type, payload, meta) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (mongo_id) DO UPDATE SET event_timestamp = excluded.event_timestamp, source = excluded.source,
         event_type = excluded.event_type, payload = excluded.payload, meta = excluded.meta
         WHERE (event_timestamp, source, event_type, payload, meta) IS NOT
         (excluded.event_timestamp, excluded.source, excluded.event_type, excluded.payload, excluded.meta)"
    ))?;
    for row in &batch.rows {
        let changed = insert.execute(params![
            row.mongo_id,
            row.event_timestamp,
            row.source,
            row.event_type,
            row.payload,
            row.meta
        ])?;
        stored += changed as u64;
    }
    let mut reject = transaction.prepare(&format!(
        "INSERT INTO {TABLE} (pipeline, source_id, reason, document) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (pipeline, source_id) DO UPDATE SET reason = excluded.reason, document = excluded.document,
         attempts = attempts + 1, last_failed = excluded.last_failed"
    ))?;
    for rejected in &batch.rejected {
        reject.execute(params![batch.pipeline, rejected.source_id, rejected.reason, rejected.document])?;
    }
    let mut settle = transaction.prepare(&format!("DELETE FROM {TABLE} WHERE pipeline = ?1 AND source_id = ?2"))?;
    for id in &batch.settled {
        settle.execute([&batch.pipeline, id])?;
    }
    Ok(stored)
}
