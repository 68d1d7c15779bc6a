//! Dead letters for the operator: looked at, tried again, dropped.

use std::sync::Arc;

use super::Error;
use super::columns::Rules;
use super::load::printable;
use super::run::{pipeline, recount};
use super::transform::{Form, Oddities, readable, transform};
use crate::config::Config;
use crate::store::{self, DeadLetter, Readings, Rejected, Store};

/// What came of a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Documents that are rows now.
    pub stored: u64,
    /// Documents that are dead letters still.
    pub dead: u64,
}

/// The dead letters of a configuration's database.
pub struct DeadLetters<'a> {
    config: &'a Config,
    store: Store,
}

impl<'a> DeadLetters<'a> {
    /// Opens the database.
    ///
    /// # Errors
    /// When no pipeline is configured and none ever was, or the database cannot be used.
    pub fn open(config: &'a Config) -> Result<Self, Error> {
        let mut store = Store::open(config)?;
        // Their table is made for the first pipeline, and outlives it.
        if config.pipelines.is_empty() && store.count_dead_letters().is_err() {
            return Err(Error::NoPipeline);
        }
        Ok(Self { config, store })
    }

    /// Those of a pipeline, or of all, oldest first; of one that is not configured any more too.
    ///
    /// # Errors
    /// When the pipeline is not configured and has none, or the database cannot be used.
    pub fn list(&mut self, name: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        let letters = self.store.dead_letters(name)?;
        if let (Some(name), true) = (name, letters.is_empty()) {
            pipeline(self.config, name)?;
        }
        Ok(letters)
    }

    /// Whether a pipeline is configured.
    pub fn is_configured(&self, name: &str) -> bool {
        pipeline(self.config, name).is_ok()
    }

    /// Gives one to another pipeline; false where there is none of this number, or that pipeline has one of the same
    /// document.
    ///
    /// # Errors
    /// When that pipeline is not configured, or the database cannot be used.
    pub fn give(&mut self, id: i64, name: &str) -> Result<bool, Error> {
        pipeline(self.config, name)?;
        Ok(self.store.move_dead_letter(id, name)?)
    }

    /// One of them with its document as text: Extended JSON, or what can be printed of it. None where there is none
    /// of this number.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn show(&mut self, id: i64) -> Result<Option<(DeadLetter, String)>, Error> {
        let letter = self.store.dead_letter(id)?;
        Ok(letter.map(|(letter, document)| (letter, readable(&document))))
    }

    /// Transforms and stores a document again, with today's program and configuration. None where there is none of
    /// this number.
    ///
    /// # Errors
    /// When its pipeline is not configured any more, or the database cannot be used.
    pub fn retry(&mut self, id: i64) -> Result<Option<Retried>, Error> {
        let Some((letter, document)) = self.store.dead_letter(id)? else { return Ok(None) };
        let pipeline = pipeline(self.config, &letter.pipeline)?;
        let key = letter.source_id;
        let batch = Readings { pipeline: letter.pipeline, table: pipeline.table.clone(), ..Readings::default() };
        let rules = Rules::new(pipeline, self.store.keys(&pipeline.table)?);
        let place = letter.place.as_deref().unwrap_or_default();
        let outcome = transform(&document, Form::of(&document), place, &rules, &mut Oddities::default());
        let reason = match outcome {
            Ok(mut row) => {
                // The place of a document without an id is not known any more; its key is.
                if row.mongo_id.starts_with("line:") {
                    row.mongo_id.clone_from(&key);
                }
                let batch = Readings { rows: vec![Arc::new(row)], settled: vec![key.clone()], ..batch.clone() };
                match self.store.insert_readings(&Arc::new(batch)) {
                    Ok(_) => return Ok(Some(Retried { stored: 1, dead: 0 })),
                    Err(store::Error::Row { reason, .. }) => format!("the database refuses it: {reason}"),
                    Err(error) => return Err(error.into()),
                }
            }
            Err((_, rejection)) => rejection.to_string(),
        };
        let rejected = Rejected { source_id: key, place: letter.place, reason: printable(&reason), document };
        let batch = Readings { rejected: vec![rejected], ..batch };
        self.store.insert_readings(&Arc::new(batch))?;
        Ok(Some(Retried { stored: 0, dead: 1 }))
    }

    /// Tells readers how many there are by now, as a run does.
    ///
    /// # Errors
    /// When the database cannot be used, or the record cannot be written.
    pub fn recount(&mut self) -> Result<(), Error> {
        let letters = self.store.count_dead_letters()?;
        Ok(recount(&self.config.state_dir, &letters)?)
    }

    /// Removes one for good; false where there is none of this number.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn discard(&mut self, id: i64) -> Result<bool, Error> {
        Ok(self.store.drop_dead_letter(id)?)
    }
}
