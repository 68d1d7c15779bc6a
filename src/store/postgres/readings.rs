use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, Row, Transaction};

use super::Postgres;
use super::escape::{escaped, unescaped};
use super::explain::table_name;
use super::refused::Stop;
use crate::store::Error;
use crate::store::engine::ReadingStore;
use crate::store::readings::{DeadLetter, Keys, MOST_DAYS, POSITIONS, Position, Reading, Readings, TABLE};
use crate::store::schema::{KEYS_OF_VALUES, SCHEMA_TABLE};

/// One batch; its bytes are bounded by the pipeline, but a slow disk may take them slowly.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

/// Rows that one transaction of `delete_old_readings` deletes.
const DELETE_ROWS: u64 = 5000;

/// Where the owner of the table has not added `place` yet, the name is that of `FROM`'s second part, which is null.
const COLUMNS: &str = "id, pipeline, source_id, reason, attempts::bigint, \
    (extract(epoch FROM first_failed) * 1000)::bigint, (extract(epoch FROM last_failed) * 1000)::bigint, \
    octet_length(document)::bigint, (SELECT place FROM dead_letters AS same WHERE same.id = letter.id)";
const FROM: &str = "dead_letters AS letter CROSS JOIN (SELECT NULL::text AS place) AS no_place";

/// Times of columns without a time zone are in UTC.
const IN_UTC: &str = "SET LOCAL TimeZone = 'UTC'";

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
        let (table, utf8) = (batch.table.clone(), self.server.is_utf8());
        let stored = self.session.call(BATCH_LIMIT, move |client| insert(client, &batch, utf8))?;
        stored.map_err(|stop| self.readings_failed(&table, stop))
    }

    fn dead_letters(&mut self, pipeline: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        let (pipeline, utf8) = (pipeline.map(str::to_owned), self.server.is_utf8());
        self.call("read dead letters", move |client| {
            let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE pipeline = COALESCE($1, pipeline) ORDER BY id");
            let rows = client.query_typed(&sql, &[(&pipeline, Type::TEXT)])?;
            rows.iter().map(|row| dead_letter(row, utf8)).collect()
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
        let utf8 = self.server.is_utf8();
        self.call("read a dead letter", move |client| {
            let sql = format!("SELECT {COLUMNS}, document FROM {FROM} WHERE id = $1");
            let row = client.query_typed_opt(&sql, &[(&id, Type::INT8)])?;
            row.map(|row| Ok((dead_letter(&row, utf8)?, row.try_get(9)?))).transpose()
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
        let (pipeline, utf8) = (pipeline.to_owned(), self.server.is_utf8());
        self.call("read the position", move |client| {
            let sql = format!("SELECT source, field, value, passed FROM {POSITIONS} WHERE pipeline = $1");
            let row = client.query_typed_opt(&sql, &[(&pipeline, Type::TEXT)])?;
            let read = |row: Row| {
                let text = |at: usize| row.try_get(at).map(|text| unescaped(text, utf8));
                Ok(Position { source: text(0)?, field: text(1)?, value: text(2)?, passed: row.try_get(3)? })
            };
            row.map(read).transpose()
        })
    }

    fn take_back(&mut self, pipeline: &str, ids: &[String], position: Option<&Position>) -> Result<(), Error> {
        let (pipeline, position, utf8) = (pipeline.to_owned(), position.cloned(), self.server.is_utf8());
        let ids: Vec<String> = ids.iter().map(|id| escaped(id, utf8).into_owned()).collect();
        self.call("take dead letters back", move |client| {
            let mut transaction = client.transaction()?;
            let sql = format!("DELETE FROM {TABLE} WHERE pipeline = $1 AND source_id = ANY ($2) AND attempts = 1");
            transaction.execute_typed(&sql, &[(&pipeline, Type::TEXT), (&ids, Type::TEXT_ARRAY)])?;
            if let Some(position) = position {
                keep_position(&mut transaction, &pipeline, &position, utf8)?;
            }
            transaction.commit()
        })
    }

    fn delete_old_readings(&mut self, table: &str, days: u32, until: Instant) -> Result<u64, Error> {
        let table = table_name(table);
        let old = "event_timestamp < now() - make_interval(days => $1) \
                   OR event_timestamp IS NULL AND created_at < now() - make_interval(days => $1)";
        // By their key: the place of a row (ctid) is one in each partition, and in each table that inherits from this one.
        let sql = format!(
            "DELETE FROM {table} WHERE mongo_id = ANY (ARRAY(SELECT mongo_id FROM {table} WHERE {old} LIMIT {DELETE_ROWS})) \
             AND ({old})"
        );
        let days = i32::try_from(days.min(MOST_DAYS)).unwrap_or(i32::MAX);
        let mut deleted = 0;
        loop {
            let sql = sql.clone();
            let job = move |client: &mut Client| {
                let mut transaction = client.transaction()?;
                transaction.batch_execute(IN_UTC)?;
                let deleted = transaction.execute_typed(&sql, &[(&days, Type::INT4)])?;
                transaction.commit().map(|()| deleted)
            };
            let batch = self.call("delete old readings", job)?;
            deleted += batch;
            if batch < DELETE_ROWS || Instant::now() >= until {
                return Ok(deleted);
            }
        }
    }
}

fn dead_letter(row: &Row, utf8: bool) -> Result<DeadLetter, postgres::Error> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        pipeline: row.try_get(1)?,
        source_id: unescaped(row.try_get(2)?, utf8),
        reason: unescaped(row.try_get(3)?, utf8),
        attempts: row.try_get(4)?,
        first_failed: row.try_get(5)?,
        last_failed: row.try_get(6)?,
        size: row.try_get(7)?,
        place: row.try_get::<_, Option<String>>(8)?.map(|place| unescaped(place, utf8)),
    })
}

fn insert(client: &mut Client, batch: &Readings, utf8: bool) -> Result<u64, Stop> {
    let mut transaction = client.transaction()?;
    // Documents are marked at their source after the commit, so it has to be a durable one. A column without a time zone
    // gets its times in UTC.
    let prepared = transaction.query_typed_one(
        "SELECT set_config('synchronous_commit', 'on', true), COALESCE(bool_or(relation = $1 AND attname = 'id' AND type = 'int4'), \
         FALSE), COALESCE(bool_or(relation = $1 AND attname = 'source_id' AND type IN ('text', 'varchar')), FALSE), \
         COALESCE(bool_or(relation = $1 AND attname = 'updated_at' AND type IN ('timestamptz', 'timestamp')), FALSE), \
         COALESCE(bool_or(relation = $2 AND attname = 'place'), FALSE), set_config('TimeZone', 'UTC', true) \
         FROM (SELECT relation, attname, typname AS type \
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
    let stored = insert_rows(&mut transaction, batch, has).map_err(Stop::Rows)?;
    if stored < batch.rows.len() as u64 && may_leave_out(&mut transaction, &batch.table)? {
        let (left_out, elsewhere) = left_out(&mut transaction, batch)?;
        if elsewhere > 0 {
            return Err(Stop::Elsewhere);
        }
        if left_out > 0 {
            return Err(Stop::LeftOut(left_out));
        }
    }
    let kept = insert_rejected(&mut transaction, batch, has, utf8).map_err(|error| Stop::Rest(TABLE, error))?;
    if kept != batch.rejected.len() as u64 {
        return Err(Stop::NotTaken(TABLE));
    }
    if let Some(position) = &batch.position {
        let kept = keep_position(&mut transaction, &batch.pipeline, position, utf8);
        if kept.map_err(|error| Stop::Rest(POSITIONS, error))? != 1 {
            return Err(Stop::NotTaken(POSITIONS));
        }
    }
    if !batch.settled.is_empty() {
        let keys: Vec<_> = batch.settled.iter().map(|key| escaped(key, utf8)).collect();
        let sql = format!("DELETE FROM {TABLE} WHERE pipeline = $1 AND source_id = ANY ($2)");
        let settled = transaction.execute_typed(&sql, &[(&batch.pipeline, Type::TEXT), (&keys, Type::TEXT_ARRAY)]);
        settled.map_err(|error| Stop::Rest(TABLE, error))?;
    }
    // A constraint may wait for the end of the transaction.
    transaction.commit().map_err(|error| if batch.rows.is_empty() { Stop::Whole(error) } else { Stop::Rows(error) })?;
    Ok(stored)
}

/// Whether a table has triggers that can leave rows out, or partitions that may have some.
fn may_leave_out(transaction: &mut Transaction<'_>, table: &str) -> Result<bool, postgres::Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND tgenabled <> 'D' AND tgtype & 7 = 7) \
               OR EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'p')";
    transaction.query_typed_one(sql, &[(&table_name(table), Type::TEXT)])?.try_get(0)
}

/// How many rows of a batch the table does not have, and how many only a table that inherits from it has.
fn left_out(transaction: &mut Transaction<'_>, batch: &Readings) -> Result<(i64, i64), postgres::Error> {
    let keys: Vec<&str> = batch.rows.iter().map(|row| row.mongo_id.as_str()).collect();
    let table = table_name(&batch.table);
    let sql = format!(
        "SELECT count(*) FILTER (WHERE NOT is_there), count(*) FILTER (WHERE is_there AND NOT is_own AND NOT is_partitioned) \
         FROM (SELECT EXISTS (SELECT FROM {table} WHERE mongo_id = key) AS is_there, \
                      EXISTS (SELECT FROM ONLY {table} WHERE mongo_id = key) AS is_own, \
                      EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($2) AND relkind = 'p') AS is_partitioned \
               FROM unnest($1::text[]) AS key) AS found"
    );
    let row = transaction.query_typed_one(&sql, &[(&keys, Type::TEXT_ARRAY), (&table, Type::TEXT)])?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn keep_position(
    transaction: &mut Transaction<'_>,
    pipeline: &str,
    position: &Position,
    utf8: bool,
) -> Result<u64, postgres::Error> {
    let sql = format!(
        "INSERT INTO {POSITIONS} (pipeline, source, field, value, passed) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (pipeline) DO UPDATE SET source = excluded.source, field = excluded.field, \
         value = excluded.value, passed = excluded.passed"
    );
    let texts = [pipeline, &position.source, &position.field, &position.value].map(|text| escaped(text, utf8));
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
    )
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
/// How many of them are there then.
fn insert_rejected(
    transaction: &mut Transaction<'_>,
    batch: &Readings,
    has: Has,
    utf8: bool,
) -> Result<u64, postgres::Error> {
    if batch.rejected.is_empty() {
        return Ok(0);
    }
    let (place, p, set) = if has.place { (", place", ", p", "place = excluded.place, ") } else { ("", "", "") };
    let sql = format!(
        "INSERT INTO {TABLE} AS old (pipeline, source_id, reason, document{place}) \
         SELECT $1, k, r, d{p} FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[]) AS u (k, r, d, p) \
         ON CONFLICT (pipeline, source_id) DO UPDATE SET reason = excluded.reason, document = excluded.document, {set}\
         attempts = old.attempts + 1, last_failed = now()"
    );
    let ids: Vec<_> = batch.rejected.iter().map(|rejected| escaped(&rejected.source_id, utf8)).collect();
    let reasons: Vec<_> = batch.rejected.iter().map(|rejected| escaped(&rejected.reason, utf8)).collect();
    let documents: Vec<&[u8]> = batch.rejected.iter().map(|rejected| rejected.document.as_slice()).collect();
    let places: Vec<_> =
        batch.rejected.iter().map(|rejected| rejected.place.as_deref().map(|place| escaped(place, utf8))).collect();
    transaction.execute_typed(
        &sql,
        &[
            (&batch.pipeline, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&documents, Type::BYTEA_ARRAY),
            (&places, Type::TEXT_ARRAY),
        ],
    )
}
