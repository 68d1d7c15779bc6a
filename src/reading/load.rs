//! Batches into the database: one transaction each, tried again while the database is away, divided where it refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::source::Document;
use crate::command::Backoff;
use crate::config::{Config, Pipeline};
use crate::log;
use crate::store::{self, Readings, Rejected, Store};

/// How long a batch waits for a database that is away, a restart for instance, before the run gives up.
const PATIENCE: Duration = Duration::from_secs(45);

/// What became of the documents of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Rows that are new or changed.
    pub stored: u64,
    /// Rows that were there already, the same.
    pub unchanged: u64,
    /// Documents that became dead letters.
    pub dead: u64,
}

/// The target of a pipeline.
pub(super) struct Loader<'a> {
    config: &'a Config,
    pipeline: &'a Pipeline,
    store: Option<Store>,
    /// Whether the pipeline has dead letters: where one of their documents is stored now, its letter goes.
    has_letters: bool,
}

impl<'a> Loader<'a> {
    /// Opens the database.
    pub(super) fn open(config: &'a Config, pipeline: &'a Pipeline) -> Result<Self, Error> {
        let mut store = Store::open(config)?;
        let has_letters = store.count_dead_letters(&pipeline.name)? > 0;
        Ok(Self { config, pipeline, store: Some(store), has_letters })
    }

    /// Stores what came of documents; when it returns, all of it is committed.
    pub(super) fn load(&mut self, documents: &[Document]) -> Result<Loaded, Error> {
        // The same key twice in one statement would be refused; the last one is the newest.
        let mut newest: HashMap<&str, usize> = HashMap::new();
        for (index, document) in documents.iter().enumerate() {
            newest.insert(key(document), index);
        }
        let current = |index: &usize| newest.get(key(&documents[*index])) == Some(index);
        let chosen: Vec<&Document> = (0..documents.len()).filter(current).map(|index| &documents[index]).collect();
        let mut loaded = Loaded::default();
        self.load_part(&chosen, &mut loaded)?;
        loaded.unchanged += (documents.len() - chosen.len()) as u64;
        Ok(loaded)
    }

    fn load_part(&mut self, documents: &[&Document], loaded: &mut Loaded) -> Result<(), Error> {
        let mut batch = self.empty();
        for document in documents {
            match &document.outcome {
                Ok(row) => batch.rows.push(Arc::clone(row)),
                Err((key, rejection)) => batch.rejected.push(rejected(key, &rejection.to_string(), &document.raw)),
            }
        }
        let (rows, dead) = (batch.rows.len() as u64, batch.rejected.len() as u64);
        match self.insert(batch) {
            Ok(stored) => {
                loaded.stored += stored;
                loaded.unchanged += rows.saturating_sub(stored);
                loaded.dead += dead;
                Ok(())
            }
            Err(Error::Store(store::Error::Row { reason, .. })) => self.divide(documents, &reason, loaded),
            Err(error) => Err(error),
        }
    }

    /// Halves a refused part until the guilty document is alone, which becomes a dead letter.
    fn divide(&mut self, documents: &[&Document], reason: &str, loaded: &mut Loaded) -> Result<(), Error> {
        if documents.len() > 1 {
            let (first, second) = documents.split_at(documents.len() / 2);
            self.load_part(first, loaded)?;
            return self.load_part(second, loaded);
        }
        let mut batch = self.empty();
        for document in documents {
            let reason = format!("the database refuses it: {reason}");
            batch.rejected.push(rejected(key(document), &reason, &document.raw));
        }
        loaded.dead += batch.rejected.len() as u64;
        self.insert(batch).map(|_| ())
    }

    /// How many documents of the pipeline are dead letters now; none where the database went away.
    pub(super) fn dead_letters(&mut self) -> Result<Option<u64>, Error> {
        let Some(store) = &mut self.store else { return Ok(None) };
        Ok(Some(store.count_dead_letters(&self.pipeline.name)?))
    }

    fn empty(&self) -> Readings {
        Readings { pipeline: self.pipeline.name.clone(), table: self.pipeline.table.clone(), ..Readings::default() }
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

pub(super) fn rejected(key: &str, reason: &str, document: &[u8]) -> Rejected {
    // A reason may quote the document, and a column of text takes no NUL.
    let reason = crate::text::printable(reason.as_bytes());
    Rejected { source_id: key.to_owned(), reason, document: document.to_vec() }
}
