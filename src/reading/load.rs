//! Batches into the database: one transaction each, tried again while the database is away, divided where it refuses.
//! Where it refuses everything for one reason, that is the table's, and no document's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::columns::Rules;
use super::source::{Batch, Document, PATIENCE};
use crate::command::Backoff;
use crate::config::{Config, Pipeline, Select};
use crate::log;
use crate::store::{self, Position, Readings, Rejected, Store};

/// How long a run deletes old rows; what is left is for the next one.
const DELETE_TIME: Duration = Duration::from_secs(60);
/// So many refusals in a row for one reason are the table's.
const ALIKE: u64 = 1000;

/// What became of the documents of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Rows that are new or changed.
    pub stored: u64,
    /// Rows that were there already, the same.
    pub unchanged: u64,
    /// Documents that became dead letters.
    pub dead: u64,
    /// Whether the database took a row.
    pub took_any: bool,
}

/// Refusals in a row.
#[derive(Default)]
struct Alike {
    code: String,
    /// The keys of the documents.
    keys: Vec<String>,
    /// How far the pipeline was before the first of them.
    position: Option<Position>,
}

/// The target of a pipeline.
pub(super) struct Loader<'a> {
    config: &'a Config,
    pipeline: &'a Pipeline,
    store: Option<Store>,
    /// Whether the pipeline has dead letters: where one of their documents is stored now, its letter goes.
    has_letters: bool,
    alike: Alike,
    position: Option<Position>,
}

impl<'a> Loader<'a> {
    /// Opens the database.
    pub(super) fn open(config: &'a Config, pipeline: &'a Pipeline) -> Result<Self, Error> {
        let mut store = Store::open(config)?;
        for note in store.notes() {
            log::warn!("database_unusual", note = note);
        }
        let has_letters = store.count_dead_letters()?.contains_key(&pipeline.name);
        let has_position = matches!(pipeline.select, Select::Cursor { .. });
        let position = if has_position { store.position(&pipeline.name)? } else { None };
        Ok(Self { config, pipeline, store: Some(store), has_letters, alike: Alike::default(), position })
    }

    /// How the pipeline's documents become rows of its table.
    pub(super) fn rules(&mut self) -> Result<Rules, Error> {
        let keys = match &mut self.store {
            Some(store) => store.keys(&self.pipeline.table)?,
            None => Store::open(self.config)?.keys(&self.pipeline.table)?,
        };
        Ok(Rules::new(self.pipeline, keys))
    }

    /// How far the pipeline is, where it keeps that.
    pub(super) fn position(&self) -> Option<Position> {
        self.position.clone()
    }

    /// Stores what came of documents; when it returns, all of it is committed.
    pub(super) fn load(&mut self, batch: &Batch) -> Result<Loaded, Error> {
        let documents = &batch.documents;
        // The same key twice in one statement would be refused; the last one is the newest.
        let mut newest: HashMap<&str, usize> = HashMap::new();
        for (index, document) in documents.iter().enumerate() {
            newest.insert(key(document), index);
        }
        let current = |index: &usize| newest.get(key(&documents[*index])) == Some(index);
        let chosen: Vec<&Document> = (0..documents.len()).filter(current).map(|index| &documents[index]).collect();
        let mut loaded = Loaded::default();
        if self.alike.keys.is_empty() {
            self.alike.position.clone_from(&self.position);
        }
        let mut refused = Vec::new();
        if !self.load_part(&chosen, batch.position.as_ref(), &mut refused, &mut loaded)? {
            // All of the refused at once, and the position with the last of the batch.
            loaded.dead += refused.len() as u64;
            self.insert(Readings { rejected: refused, ..self.empty(batch.position.as_ref()) })?;
        }
        if batch.position.is_some() {
            self.position.clone_from(&batch.position);
        }
        loaded.unchanged += (documents.len() - chosen.len()) as u64;
        Ok(loaded)
    }

    /// Whether the last documents were refused, and may have to be taken back.
    pub(super) fn is_refusing(&self) -> bool {
        !self.alike.keys.is_empty()
    }

    /// Takes back the dead letters of the refusals in a row; how many.
    pub(super) fn take_back(&mut self) -> Result<u64, Error> {
        let alike = std::mem::take(&mut self.alike);
        if let Some(store) = &mut self.store {
            // Where there was no position, an empty one stands for the beginning.
            let beginning =
                self.position.as_ref().map(|position| Position { value: String::new(), ..position.clone() });
            let position = alike.position.or(beginning);
            store.take_back(&self.pipeline.name, &alike.keys, position.as_ref())?;
            self.position = position;
        }
        Ok(alike.keys.len() as u64)
    }

    /// Stores documents at once, or else in parts without the position and without those that are refused; which of the
    /// two it was.
    fn load_part(
        &mut self,
        documents: &[&Document],
        position: Option<&Position>,
        refused: &mut Vec<Rejected>,
        loaded: &mut Loaded,
    ) -> Result<bool, Error> {
        let mut batch = self.empty(position);
        for document in documents {
            match &document.outcome {
                Ok(row) => batch.rows.push(Arc::clone(row)),
                Err((_, rejection)) => batch.rejected.push(rejected(document, &rejection.to_string())),
            }
        }
        let (rows, dead) = (batch.rows.len() as u64, batch.rejected.len() as u64);
        match self.insert(batch) {
            Ok(stored) => {
                if rows > 0 {
                    self.alike = Alike { position: self.position.clone(), ..Alike::default() };
                    loaded.took_any = true;
                }
                loaded.stored += stored;
                loaded.unchanged += rows.saturating_sub(stored);
                loaded.dead += dead;
                Ok(true)
            }
            Err(Error::Store(store::Error::Row { code, reason, .. })) => {
                self.divide(documents, (&code, &reason), refused, loaded)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Halves a refused part until the guilty document is alone, which becomes a dead letter.
    fn divide(
        &mut self,
        documents: &[&Document],
        (code, reason): (&str, &str),
        refused: &mut Vec<Rejected>,
        loaded: &mut Loaded,
    ) -> Result<(), Error> {
        let [document] = documents else {
            let (first, second) = documents.split_at(documents.len() / 2);
            self.load_part(first, None, refused, loaded)?;
            self.load_part(second, None, refused, loaded)?;
            return Ok(());
        };
        if self.alike.code != code {
            self.alike = Alike { code: code.to_owned(), position: self.position.clone(), ..Alike::default() };
        }
        refused.push(rejected(document, &format!("the database refuses it: {reason}")));
        self.alike.keys.push(key(document).to_owned());
        let count = self.alike.keys.len() as u64;
        if count >= ALIKE {
            return Err(Error::RefusedAlike { count, reason: reason.to_owned() });
        }
        Ok(())
    }

    /// How many documents of every pipeline are dead letters now; none where the database went away.
    pub(super) fn dead_letters(&mut self) -> Result<Option<BTreeMap<String, u64>>, Error> {
        let Some(store) = &mut self.store else { return Ok(None) };
        Ok(Some(store.count_dead_letters()?))
    }

    /// Deletes rows that are older than the pipeline keeps them, for at most a minute; how many.
    pub(super) fn delete_old(&mut self) -> Result<u64, Error> {
        let Some(store) = &mut self.store else { return Ok(0) };
        let until = Instant::now() + DELETE_TIME;
        Ok(store.delete_old_readings(&self.pipeline.table, self.pipeline.retention_days, until)?)
    }

    fn empty(&self, position: Option<&Position>) -> Readings {
        let (pipeline, table) = (self.pipeline.name.clone(), self.pipeline.table.clone());
        Readings { pipeline, table, position: position.cloned(), ..Readings::default() }
    }

    /// One transaction. Sent again after an outage, because nothing tells whether the lost commit was made; a second
    /// time it changes nothing.
    fn insert(&mut self, mut batch: Readings) -> Result<u64, Error> {
        if self.has_letters {
            batch.settled = batch.rows.iter().map(|row| row.mongo_id.clone()).collect();
        }
        self.has_letters |= !batch.rejected.is_empty();
        let batch = Arc::new(batch);
        let until = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        loop {
            let outcome = match &mut self.store {
                Some(store) => store.insert_readings(&batch),
                None => Store::open(self.config).and_then(|store| self.store.insert(store).insert_readings(&batch)),
            };
            let error = match outcome {
                Err(error) if error.is_unavailable() => error,
                other => return Ok(other?),
            };
            self.store = None;
            let wait = backoff.next_wait();
            if Instant::now() + wait > until {
                return Err(error.into());
            }
            log::warn!("database_away", error = error.to_string(), again_in_ms = wait.as_millis() as u64);
            std::thread::sleep(wait);
        }
    }
}

fn key(document: &Document) -> &str {
    match &document.outcome {
        Ok(row) => &row.mongo_id,
        Err((key, _)) => key,
    }
}

fn rejected(document: &Document, reason: &str) -> Rejected {
    Rejected {
        source_id: key(document).to_owned(),
        place: document.place.clone(),
        reason: printable(reason),
        document: document.raw.clone(),
    }
}

/// A reason may quote the document, and a column of text takes no NUL.
pub(super) fn printable(reason: &str) -> String {
    crate::text::printable(reason.as_bytes())
}
