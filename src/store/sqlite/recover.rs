//! What can be read of a damaged file, put into a new one, and honest counts of what cannot.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;

use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params_from_iter};

use super::file::refusal;
use super::pages::{Pages, Row, Tree};
use crate::store::found::{Recovered, Table};
use crate::store::schema::SCHEMA_TABLE;

/// A table or an index of the damaged file, by its own schema.
struct Entry {
    name: String,
    table: String,
    root: u32,
    is_table: bool,
    sql: String,
}

impl Entry {
    /// A row of `sqlite_schema`.
    fn of(row: &Row) -> Option<Self> {
        let [kind, name, table, root, sql] = &row.values[..] else { return None };
        let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
        let Value::Integer(root) = root else { return None };
        let is_table = text(kind)? == "table";
        let (name, table) = (text(name)?, text(table)?);
        let root = u32::try_from(*root).ok().filter(|root| *root > 0)?;
        Some(Self { name, table, root, is_table, sql: text(sql).unwrap_or_default() })
    }
}

/// Puts the rows of a damaged file into a new one, which has the hub's tables already.
pub(super) fn recover(file: File, log: Option<File>, new: &Connection) -> Result<Recovered, Failed> {
    let pages = Pages::open(file, log)?;
    let mut recovered = Recovered { head: pages.header.map(str::to_owned), ..Recovered::default() };
    let (mut seen, mut entries) = (HashSet::new(), Vec::new());
    let schema = pages.tree(1, &mut seen, |row| entries.extend(Entry::of(&row)));
    recovered.bad_pages += schema.bad_pages;
    if schema.bad_rows + schema.bad_pages > 0 && recovered.head.is_none() {
        recovered.head = Some("its list of tables cannot be read whole".to_owned());
    }
    new.execute_batch("BEGIN")?;
    // The hub's own list of tables is made anew; only how old programs may be is taken over.
    let (own, tables): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().filter(|entry| entry.is_table).partition(|entry| entry.name == SCHEMA_TABLE);
    for entry in &tables {
        let is_virtual = entry.sql.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("CREATE VIRTUAL"));
        if is_virtual || entry.name.starts_with("sqlite_") {
            pages.tree(entry.root, &mut seen, |_| {});
            continue;
        }
        let filler = Filler::of(new, &entry.name, Some(&super::migrate::loosened(&entry.sql)))?;
        let mut table = Table::default();
        let mut failed = None;
        let tree = pages.tree(entry.root, &mut seen, |row| {
            table.count(filler.as_ref().is_some_and(|filler| filler.put(row, &mut failed)));
        });
        failed.map_or(Ok(()), Err)?;
        recovered.bad_pages += tree.bad_pages;
        table.lost += tree.bad_rows;
        let listed = (entries.iter().filter(|index| !index.is_table && index.table == entry.name))
            .map(|index| (pages.tree(index.root, &mut seen, |_| {}), index));
        for (index, entry) in listed {
            let Tree { entries, bad_pages, bad_rows } = index;
            recovered.bad_indexes.extend((bad_pages + bad_rows > 0).then(|| entry.name.clone()));
            if bad_pages + bad_rows == 0 {
                table.expected = Some(table.expected.unwrap_or(0).max(entries));
            }
        }
        recovered.tables.insert(entry.name.clone(), table);
    }
    for entry in own {
        pages.tree(entry.root, &mut seen, |row| keep_oldest(new, &row));
    }
    if recovered.bad_pages > 0 || recovered.head.is_some() {
        strays(&pages, &mut seen, new, &mut recovered)?;
    }
    new.execute_batch("COMMIT")?;
    Ok(recovered)
}

/// Rows on pages that nothing leads to any more: each is put into the one table that takes it.
fn strays(pages: &Pages, seen: &mut HashSet<u32>, new: &Connection, recovered: &mut Recovered) -> Result<(), Failed> {
    let names: Vec<String> = {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> ?1";
        let mut statement = new.prepare(sql)?;
        statement.query_map([SCHEMA_TABLE], |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    let mut fillers = Vec::new();
    for name in &names {
        fillers.extend(Filler::of(new, name, None)?.map(|filler| (name, filler)));
    }
    let mut taken: BTreeMap<&String, u64> = BTreeMap::new();
    let (mut homeless, mut failed) = (0, None);
    pages.strays(seen, |row| {
        let mut fitting = fillers.iter().filter(|(_, filler)| filler.fits(&row));
        match (fitting.next(), fitting.next()) {
            (Some((name, filler)), None) if filler.put(row, &mut failed) => *taken.entry(name).or_default() += 1,
            // It is there already, by another page.
            (Some(_), None) => {}
            _ => homeless += 1,
        }
    });
    failed.map_or(Ok(()), Err)?;
    for (name, count) in taken {
        let table = recovered.tables.entry(name.clone()).or_default();
        table.rows += count;
        table.strays += count;
    }
    recovered.homeless = homeless;
    Ok(())
}

/// Makes a table as the damaged file has it; false for any other statement, and for more than one.
fn makes_table(connection: &Connection, sql: &str) -> bool {
    sql.get(..13).is_some_and(|start| start.eq_ignore_ascii_case("CREATE TABLE "))
        && connection.execute(sql, []).is_ok()
}

/// How rows of the damaged file are put into a table of the new one.
struct Filler<'a> {
    insert: RefCell<Statement<'a>>,
    /// The place of the column that is the row's number; its value is not in the record.
    number: Option<usize>,
    /// Name, type and whether it may be null, of each column of the record.
    columns: Vec<(String, bool)>,
}

impl<'a> Filler<'a> {
    /// For a table, made where it is missing, whose columns are those of `sql`, or else its own; none where it cannot be made.
    fn of(new: &'a Connection, table: &str, sql: Option<&str>) -> Result<Option<Self>, rusqlite::Error> {
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let is_there =
            new.query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))?;
        if let (0, Some(sql)) = (is_there, sql)
            && !makes_table(new, sql)
        {
            return Ok(None);
        }
        // Columns may be in another order than today's.
        let old = Connection::open_in_memory()?;
        let shape = if sql.is_some_and(|sql| makes_table(&old, sql)) { &old } else { new };
        let mut statement = shape.prepare(&format!("PRAGMA table_info({quoted})"))?;
        let columns: Vec<(String, String, bool, bool)> = statement
            .query_map([], |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, i64>(5)? > 0)))?
            .collect::<Result<_, _>>()?;
        let number = columns.iter().position(|(_, kind, _, is_key)| *is_key && kind.eq_ignore_ascii_case("INTEGER"));
        let names: Vec<String> =
            columns.iter().map(|(name, ..)| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let sql = format!("INSERT OR IGNORE INTO {quoted} ({}) VALUES ({})", names.join(", "), places.join(", "));
        let columns = columns.into_iter().map(|(_, kind, not_null, _)| (kind.to_ascii_uppercase(), not_null)).collect();
        Ok(Some(Self { insert: RefCell::new(new.prepare(&sql)?), number, columns }))
    }

    /// Whether the values are such as the columns take.
    fn fits(&self, row: &Row) -> bool {
        // Columns that were added later are missing in older rows.
        let enough = row.values.len() <= self.columns.len() && row.values.len() + 2 >= self.columns.len();
        let fits = |(place, (value, (kind, not_null))): (usize, (&Value, &(String, bool)))| match value {
            Value::Null => self.number == Some(place) || !not_null,
            Value::Integer(_) => kind == "INTEGER" && self.number != Some(place),
            Value::Real(_) => kind == "REAL",
            Value::Text(_) => kind == "TEXT",
            Value::Blob(_) => kind == "BLOB",
        };
        enough && row.values.iter().zip(&self.columns).enumerate().all(fits)
    }

    /// Puts a row; false where the table does not take it, or has it already. `failed` is the first error of another kind;
    /// nothing is put after it.
    fn put(&self, row: Row, failed: &mut Option<rusqlite::Error>) -> bool {
        let Row { id, mut values } = row;
        if failed.is_some() || values.len() > self.columns.len() {
            return false;
        }
        values.resize(self.columns.len(), Value::Null);
        if let Some(number) = self.number {
            values[number] = Value::Integer(id);
        }
        match self.insert.borrow_mut().execute(params_from_iter(values)) {
            Ok(count) => count > 0,
            Err(error) => {
                if refusal(&error).is_none() {
                    *failed = Some(error);
                }
                false
            }
        }
    }
}

/// Takes over the oldest version that may write to a table of the hub's.
fn keep_oldest(new: &Connection, row: &Row) {
    if let [Value::Text(object), Value::Integer(version), Value::Integer(oldest)] = &row.values[..] {
        let sql = format!(
            "INSERT INTO {SCHEMA_TABLE} (object, version, oldest) VALUES (?1, ?2, ?3) \
             ON CONFLICT (object) DO UPDATE SET oldest = excluded.oldest"
        );
        // The new file has one of its own, which does as well.
        let _ = new.execute(&sql, (object, version, oldest));
    }
}

/// Why it stopped.
#[derive(Debug)]
pub(super) enum Failed {
    /// The damaged file could not be read.
    Read(std::io::Error),
    /// The new one could not be written.
    Write(rusqlite::Error),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Write(error)
    }
}
