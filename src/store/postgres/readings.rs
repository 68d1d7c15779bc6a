use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, Row, Transaction};

use super::Postgres;
use super::explain::{explain, quoted, refusal, said, table_name};
use crate::store::readings::{DeadLetter, Keys, MOST_DAYS, POSITIONS, Position, Reading, Readings, TABLE};
use crate::store::schema::{KEYS_OF_VALUES, SCHEMA_TABLE};
use crate::store::{Error, ReadingStore};

/// One batch; its bytes are bounded by the pipeline, but a slow disk may take them slowly.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

/// Rows that one transaction of `delete_old_readings` deletes.
const DELETE_ROWS: u64 = 5000;

/// Where the owner of the table has not added `place` yet, the name is that of `FROM`'s second part, which is null.
const COLUMNS: &str = "id, pipeline, source_id, reason, attempts::bigint, \
    (extract(epoch FROM first_failed) * 1000)::bigint, (extract(epoch FROM last_failed) * 1000)::bigint, \
    octet_length(document)::bigint, (SELECT place FROM dead_letters AS same WHERE same.id = letter.id)";
const FROM: &str = "dead_letters AS letter CROSS JOIN (SELECT NULL::text AS place) AS no_place";

/// The columns of a row's content, beside its key.
const CONTENT: [&str; 6] = ["event_timestamp", "source", "event_type", "payload", "meta", "source_id"];

/// What the tables have beyond what they had at first; a table that is somebody else's gets it from its owner, later.
#[derive(Clone, Copy)]
struct Has {
    /// Ids of 31 bits, as the Go version made them.
    narrow_ids: bool,
    source_id: bool,
    updated_at: bool,
    /// Of dead letters.
    place: bool,
}

impl ReadingStore for Postgres {
    fn insert_readings(&mut self, batch: &Arc<Readings>) -> Result<u64, Error> {
        let batch = Arc::clone(batch);
        let table = batch.table.clone();
        let stored = self.session.call(BATCH_LIMIT, move |client| insert(client, &batch))?;
        stored.map_err(|error| match refusal(&error) {
            Some((code, reason)) => Error::Row { index: 0, code, reason },
            None => self.readings_failed(&table, &error),
        })
    }

    fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        let pipeline = pipeline.map(str::to_owned);
        self.call("read dead letters", move |client| {
            let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE pipeline = COALESCE($1, pipeline) ORDER BY id");
            client.query_typed(&sql, &[(&pipeline, Type::TEXT)])?.iter().map(dead_letter).collect()
        })
    }

    fn count_dead_letters(&mut self) -> Result<BTreeMap<String, u64>, Error> {
        self.call("count dead letters", move |client| {
            let sql = format!("SELECT pipeline, count(*) FROM {TABLE} GROUP BY pipeline");
            let rows = client.query_typed(&sql, &[])?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))).collect()
        })
    }

    fn dead_letter(&mut self, id: i64) -> Result<Option<(DeadLetter, Vec<u8>)>, Error> {
        self.call("read a dead letter", move |client| {
            let sql = format!("SELECT {COLUMNS}, document FROM {FROM} WHERE id = $1");
            let row = client.query_typed_opt(&sql, &[(&id, Type::INT8)])?;
            row.map(|row| Ok((dead_letter(&row)?, row.try_get(9)?))).transpose()
        })
    }

    fn drop_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        self.call("drop a dead letter", move |client| {
            client.execute_typed(&format!("DELETE FROM {TABLE} WHERE id = $1"), &[(&id, Type::INT8)])
        })
        .map(|count| count > 0)
    }

    fn move_dead_letter(&mut self, id: i64, pipeline: &str) -> Result<bool, Error> {
        let pipeline = pipeline.to_owned();
        self.call("move a dead letter", move |client| {
            let sql = format!(
                "UPDATE {TABLE} AS letter SET pipeline = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM {TABLE} AS other \
                 WHERE other.pipeline = $2 AND other.source_id = letter.source_id AND other.id <> $1)"
            );
            client.execute_typed(&sql, &[(&id, Type::INT8), (&pipeline, Type::TEXT)])
        })
        .map(|count| count > 0)
    }

    fn keys(&mut self, table: &str) -> Result<Keys, Error> {
        let table = table.to_owned();
        let oldest: Option<i64> = self.call("read the schema", move |client| {
            let sql = format!("SELECT oldest::bigint FROM {SCHEMA_TABLE} WHERE object = $1");
            client.query_typed_opt(&sql, &[(&table, Type::TEXT)])?.map(|row| row.try_get(0)).transpose()
        })?;
        Ok(if oldest >= Some(KEYS_OF_VALUES) { Keys::Values } else { Keys::Types })
    }

    fn position(&mut self, pipeline: &str) -> Result<Option<Position>, Error> {
        let pipeline = pipeline.to_owned();
        self.call("read the position", move |client| {
            let sql = format!("SELECT source, field, value, passed FROM {POSITIONS} WHERE pipeline = $1");
            let row = client.query_typed_opt(&sql, &[(&pipeline, Type::TEXT)])?;
            let read = |row: Row| {
                let (source, field, value) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                Ok(Position { source, field, value, passed: row.try_get(3)? })
            };
            row.map(read).transpose()
        })
    }

    fn take_back(&mut self, pipeline: &str, ids: &[String], position: Option<&Position>) -> Result<(), Error> {
        let (pipeline, ids, position) = (pipeline.to_owned(), ids.to_vec(), position.cloned());
        self.call("take dead letters back", move |client| {
            let mut transaction = client.transaction()?;
            let sql = format!("DELETE FROM {TABLE} WHERE pipeline = $1 AND source_id = ANY ($2) AND attempts = 1");
            transaction.execute_typed(&sql, &[(&pipeline, Type::TEXT), (&ids, Type::TEXT_ARRAY)])?;
            if let Some(position) = position {
                keep_position(&mut transaction, &pipeline, &position)?;
            }
            transaction.commit()
        })
    }

    fn delete_old_readings(&mut self, table: &str, days: u32, until: Instant) -> Result<u64, Error> {
        let table = table_name(table);
        let old = "event_timestamp < now() - make_interval(days => $1) \
                   OR event_timestamp IS NULL AND created_at < now() - make_interval(days => $1)";
        let sql = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {old} LIMIT {DELETE_ROWS}))"
        );
        let days = i32::try_from(days.min(MOST_DAYS)).unwrap_or(i32::MAX);
        let mut deleted = 0;
        loop {
            let sql = sql.clone();
            let job = move |client: &mut Client| client.execute_typed(&sql, &[(&days, Type::INT4)]);
            let batch = self.call("delete old readings", job)?;
            deleted += batch;
            if batch < DELETE_ROWS || Instant::now() >= until {
                return Ok(deleted);
            }
        }
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
        place: row.try_get(8)?,
    })
}

fn insert(client: &mut Client, batch: &Readings) -> Result<u64, postgres::Error> {
    let mut transaction = client.transaction()?;
    // Documents are marked at their source after the commit, so it has to be a durable one.
    let prepared = transaction.query_typed_one(
        "SELECT set_config('synchronous_commit', 'on', true), COALESCE(bool_or(relation = $1 AND attname = 'id' AND type = 'int4'), \
         FALSE), COALESCE(bool_or(relation = $1 AND attname = 'source_id' AND type IN ('text', 'varchar')), FALSE), \
         COALESCE(bool_or(relation = $1 AND attname = 'updated_at' AND type IN ('timestamptz', 'timestamp')), FALSE), \
         COALESCE(bool_or(relation = $2 AND attname = 'place'), FALSE) FROM (SELECT relation, attname, typname AS type \
         FROM unnest(ARRAY[$1, $2]) AS relation JOIN pg_attribute ON attrelid = to_regclass(relation) AND attnum > 0 \
         JOIN pg_type ON pg_type.oid = atttypid) AS columns",
        &[(&table_name(&batch.table), Type::TEXT), (&TABLE, Type::TEXT)],
    )?;
    let has = Has {
        narrow_ids: prepared.try_get(1)?,
        source_id: prepared.try_get(2)?,
        updated_at: prepared.try_get(3)?,
        place: prepared.try_get(4)?,
    };
    let stored = insert_rows(&mut transaction, batch, has)?;
    insert_rejected(&mut transaction, batch, has)?;
    if let Some(position) = &batch.position {
        keep_position(&mut transaction, &batch.pipeline, position)?;
    }
    if !batch.settled.is_empty() {
        transaction.execute_typed(
            &format!("DELETE FROM {TABLE} WHERE pipeline = $1 AND source_id = ANY ($2)"),
            &[(&batch.pipeline, Type::TEXT), (&batch.settled, Type::TEXT_ARRAY)],
        )?;
    }
    transaction.commit()?;
    Ok(stored)
}

fn keep_position(
    transaction: &mut Transaction<'_>,
    pipeline: &str,
    position: &Position,
) -> Result<(), postgres::Error> {
    let sql = format!(
        "INSERT INTO {POSITIONS} (pipeline, source, field, value, passed) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (pipeline) DO UPDATE SET source = excluded.source, field = excluded.field, \
         value = excluded.value, passed = excluded.passed"
    );
    let texts = [pipeline, &position.source, &position.field, &position.value];
    let [pipeline, source, field, value] = &texts;
    let passed = position.passed;
    transaction.execute_typed(
        &sql,
        &[
            (pipeline, Type::TEXT),
            (source, Type::TEXT),
            (field, Type::TEXT),
            (value, Type::TEXT),
            (&passed, Type::INT8),
        ],
    )?;
    Ok(())
}

/// The statement that stores rows, for what the table has.
fn statement(table: &str, has: Has) -> String {
    let content = if has.source_id { &CONTENT[..] } else { &CONTENT[..5] };
    let columns = content.join(", ");
    let of = |name: &str| content.iter().map(|column| format!("{name}.{column}")).collect::<Vec<_>>().join(", ");
    // A row that conflicts uses up a number of its id. Tables of the Go version have 31 bits for it, so what is there
    // already, the same, is left out before; others are spared the look.
    let left_out = if has.narrow_ids {
        format!(
            "WHERE NOT EXISTS (SELECT FROM {table} AS same WHERE same.mongo_id = new.mongo_id \
             AND ({}) IS NOT DISTINCT FROM ({}))",
            of("same"),
            of("new")
        )
    } else {
        String::new()
    };
    let mut sets: Vec<String> = content.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let (times, now) =
        if has.updated_at { ("created_at, updated_at", "now(), now()") } else { ("created_at", "now()") };
    if has.updated_at {
        sets.push("updated_at = excluded.updated_at".to_owned());
    }
    let id = if has.source_id { ", i" } else { "" };
    format!(
        "INSERT INTO {table} AS old (mongo_id, {columns}, {times}) \
         SELECT new.*, {now} FROM (SELECT k, TIMESTAMPTZ 'epoch' + e * INTERVAL '1 millisecond', s, t, p::jsonb, m::jsonb{id} \
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) \
         AS u (k, e, s, t, p, m, i)) AS new (mongo_id, {columns}) {left_out} \
         ON CONFLICT (mongo_id) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})",
        sets.join(", "),
        of("old"),
        of("excluded")
    )
}

fn insert_rows(transaction: &mut Transaction<'_>, batch: &Readings, has: Has) -> Result<u64, postgres::Error> {
    if batch.rows.is_empty() {
        return Ok(0);
    }
    let text = |column: fn(&Reading) -> Option<&str>| batch.rows.iter().map(|row| column(row)).collect::<Vec<_>>();
    let keys: Vec<&str> = batch.rows.iter().map(|row| row.mongo_id.as_str()).collect();
    let times: Vec<Option<i64>> = batch.rows.iter().map(|row| row.event_timestamp).collect();
    transaction.execute_typed(
        &statement(&table_name(&batch.table), has),
        &[
            (&keys, Type::TEXT_ARRAY),
            (&times, Type::INT8_ARRAY),
            (&text(|row| row.source.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.event_type.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.payload.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.meta.as_deref()), Type::TEXT_ARRAY),
            (&text(|row| row.source_id.as_deref()), Type::TEXT_ARRAY),
        ],
    )
}

/// One statement for all of them: a batch of nothing else must not take a round trip each.
fn insert_rejected(transaction: &mut Transaction<'_>, batch: &Readings, has: Has) -> Result<(), postgres::Error> {
    if batch.rejected.is_empty() {
        return Ok(());
    }
    let (place, p, set) = if has.place { (", place", ", p", "place = excluded.place, ") } else { ("", "", "") };
    let sql = format!(
        "INSERT INTO {TABLE} AS old (pipeline, source_id, reason, document{place}) \
         SELECT $1, k, r, d{p} FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[]) AS u (k, r, d, p) \
         ON CONFLICT (pipeline, source_id) DO UPDATE SET reason = excluded.reason, document = excluded.document, {set}\
         attempts = old.attempts + 1, last_failed = now()"
    );
    let ids: Vec<&str> = batch.rejected.iter().map(|rejected| rejected.source_id.as_str()).collect();
    let reasons: Vec<&str> = batch.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    let documents: Vec<&[u8]> = batch.rejected.iter().map(|rejected| rejected.document.as_slice()).collect();
    let places: Vec<Option<&str>> = batch.rejected.iter().map(|rejected| rejected.place.as_deref()).collect();
    transaction.execute_typed(
        &sql,
        &[
            (&batch.pipeline, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&documents, Type::BYTEA_ARRAY),
            (&places, Type::TEXT_ARRAY),
        ],
    )?;
    Ok(())
}
