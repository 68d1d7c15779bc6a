use std::sync::Arc;
use std::time::Duration;

use postgres::types::Type;
use postgres::{Client, Row, Transaction};

use super::Postgres;
use super::explain::{explain, quoted, refusal, said, table_name};
use crate::store::readings::{DeadLetter, Reading, Readings, TABLE};
use crate::store::{Error, ReadingStore};

/// One batch; its bytes are bounded by the pipeline, but a slow disk may take them slowly.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

const COLUMNS: &str = "id, pipeline, source_id, reason, attempts::bigint, \
    (extract(epoch FROM first_failed) * 1000)::bigint, (extract(epoch FROM last_failed) * 1000)::bigint, \
    octet_length(document)::bigint";

/// Whether a row is there with the same content.
const SAME: &str = "(same.event_timestamp, same.source, same.event_type, same.payload, same.meta) IS NOT DISTINCT FROM \
    (new.event_timestamp, new.source, new.event_type, new.payload, new.meta)";

impl ReadingStore for Postgres {
    fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error> {
        let batch = Arc::clone(batch);
        let table = batch.table.clone();
        let stored = self.session.call(BATCH_LIMIT, move |client| insert(client, &batch))?;
        stored.map_err(|error| match refusal(&error) {
            Some(reason) => Error::Row { index: 0, reason },
            None => self.readings_failed(&table, &error),
        })
    }

    fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        let pipeline = pipeline.map(str::to_owned);
        self.call("read dead letters", move |client| {
            let sql = format!("SELECT {COLUMNS} FROM {TABLE} WHERE pipeline = COALESCE($1, pipeline) ORDER BY id");
            client.query_typed(&sql, &[(&pipeline, Type::TEXT)])?.iter().map(dead_letter).collect()
        })
    }

    fn count_dead_letters(&mut self, pipeline: &str) -> Result<u64, Error> {
        let pipeline = pipeline.to_owned();
        let count: i64 = self.call("count dead letters", move |client| {
            let sql = format!("SELECT count(*) FROM {TABLE} WHERE pipeline = $1");
            client.query_typed_one(&sql, &[(&pipeline, Type::TEXT)])?.try_get(0)
        })?;
        Ok(count.unsigned_abs())
    }

    fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error> {
        self.call("read a dead letter", move |client| {
            let sql = format!("SELECT {COLUMNS}, document FROM {TABLE} WHERE id = $1");
            let row = client.query_typed_opt(&sql, &[(&id, Type::INT8)])?;
            row.map(|row| Ok((dead_letter(&row)?, row.try_get(8)?))).transpose()
        })
    }

    fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        self.call("drop a dead letter", move |client| {
            client.execute_typed(&format!("DELETE FROM {TABLE} WHERE id = $1"), &[(&id, Type::INT8)])
        })
        .map(|count| count > 0)
    }
}

impl Postgres {
    fn readings_failed(&self, table: &str, error: &postgres::Error) -> Error {
        use postgres::error::SqlState;
        let target = self.address.target.clone();
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Error::Rights {
                target,
                reason: format!("cannot store readings: {error}", error = said(error)),
                remedy: format!(
                    "as the owner of the tables, run: GRANT SELECT, INSERT, UPDATE, DELETE ON {}, {TABLE} TO {};",
                    table_name(table),
                    quoted(&self.address.role)
                ),
            },
            Some(&SqlState::INVALID_COLUMN_REFERENCE) => Error::Rights {
                target,
                reason: format!("table {table} has no unique key on mongo_id"),
                remedy: format!("as its owner, run: ALTER TABLE {} ADD UNIQUE (mongo_id);", table_name(table)),
            },
            _ => explain(&self.address, "store readings", error),
        }
    }
}

fn dead_letter(row: &Row) -> Result<DeadLetter, postgres::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        pipeline: row.try_get(1)?,
        source_id: row.try_get(2)?,
        reason: row.try_get(3)?,
        attempts: row.try_get(4)?,
        first_failed: row.try_get(5)?,
        last_failed: row.try_get(6)?,
        size: row.try_get(7)?,
    })
}

fn insert(client: &mut Client, batch: &Readings) -> Result<u64, postgres::Error> {
    let mut transaction = client.transaction()?;
    // Documents are marked at their source after the commit, so it has to be a durable one.
    let prepared = transaction.query_typed_one(
        "SELECT set_config('synchronous_commit', 'on', true), EXISTS (SELECT FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attname = 'id' AND atttypid = 'int4'::regtype)",
        &[(&table_name(&batch.table), Type::TEXT)],
    )?;
    let stored = insert_rows(&mut transaction, batch, prepared.try_get(1)?)?;
    insert_rejected(&mut transaction, batch)?;
    if !batch.settled.is_empty() {
        transaction.execute_typed(
            &format!("DELETE FROM {TABLE} WHERE pipeline = $1 AND source_id = ANY ($2)"),
            &[(&batch.pipeline, Type::TEXT), (&batch.settled, Type::TEXT_ARRAY)],
        )?;
    }
    transaction.commit()?;
    Ok(stored)
}

fn insert_rows(transaction: &mut Transaction<'_>, batch: &Readings, narrow: bool) -> Result<u64, postgres::Error> {
    if batch.rows.is_empty() {
        return Ok(0);
    }
    // A row that conflicts uses up a number of its id. Tables of the Go version have 31 bits for it, so what is there
    // already, the same, is left out before; others are spared the look.
    let table = table_name(&batch.table);
    let left_out = if narrow {
        format!("WHERE NOT EXISTS (SELECT FROM {table} AS same WHERE same.mongo_id = new.mongo_id AND {SAME})")
    } else {
        String::new()
    };
    let changed = SAME.replace("same.", "old.").replace("new.", "excluded.");
    let sql = format!(
        "INSERT INTO {table} AS old (mongo_id, event_timestamp, source, event_type, payload, meta, created_at) \
         SELECT new.*, now() FROM (SELECT k, TIMESTAMPTZ 'epoch' + e * INTERVAL '1 millisecond', s, t, p::jsonb, m::jsonb \
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) AS u (k, e, s, t, p, m)) \
         AS new (mongo_id, event_timestamp, source, event_type, payload, meta) {left_out} \
         ON CONFLICT (mongo_id) DO UPDATE SET event_timestamp = excluded.event_timestamp, source = excluded.source, \
         event_type = excluded.event_type, payload = excluded.payload, meta = excluded.meta WHERE NOT ({changed})"
    );
    let text = |column: fn(&Reading) -> Option<&str>| batch.rows.iter().map(|row| column(row)).collect::<Vec<_>>();
    let ids: Vec<&str> = batch.rows.iter().map(|row| row.mongo_id.as_str()).collect();
    let times: Vec<Option<i64>> = batch.rows.iter().map(|row| row.event_timestamp).collect();
    transaction.execute_typed(
        &sql,
        &[
            (&ids, Type::TEXT_ARRAY),
            (&times, Type::INT8_ARRAY),
            (&text(|row| row.source.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.event_type.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.payload.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.meta.as_deref()), Type::TEXT_ARRAY),
        ],
    )
}

/// One statement for all of them: a batch of nothing else must not take a round trip each.
fn insert_rejected(transaction: &mut Transaction<'_>, batch: &Readings) -> Result<(), postgres::Error> {
    if batch.rejected.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {TABLE} AS old (pipeline, source_id, reason, document) \
         SELECT $1, u.* FROM unnest($2::text[], $3::text[], $4::bytea[]) AS u \
         ON CONFLICT (pipeline, source_id) DO UPDATE SET reason = excluded.reason, document = excluded.document, \
         attempts = old.attempts + 1, last_failed = now()"
    );
    let ids: Vec<&str> = batch.rejected.iter().map(|rejected| rejected.source_id.as_str()).collect();
    let reasons: Vec<&str> = batch.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    let documents: Vec<&[u8]> = batch.rejected.iter().map(|rejected| rejected.document.as_slice()).collect();
    transaction.execute_typed(
        &sql,
        &[
            (&batch.pipeline, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&documents, Type::BYTEA_ARRAY),
        ],
    )?;
    Ok(())
}
