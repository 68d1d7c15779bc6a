//! Dead letters for the operator: looked at, tried again, dropped.

use std::sync::Arc;

use super::Error;
use super::load::rejected;
use super::run::pipeline;
use super::transform::{Form, Oddities, readable, transform};
use crate::config::Config;
use crate::store::{self, DeadLetter, Readings, Store};

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
    /// When no pipeline is configured, or the database cannot be used.
    pub fn open(config: &'a Config) -> Result<Self, Error> {
        if config.pipelines.is_empty() {
            return Err(Error::NoPipeline);
        }
        Ok(Self { config, store: Store::open(config)? })
    }

    /// Those of a pipeline, or of all, oldest first.
    ///
    /// # Errors
    /// When the pipeline is not configured, or the database cannot be used.
    pub fn list(&mut self, name: Option<&str>) -> Result<Vec<DeadLetter>, Error> {
        if let Some(name) = name {
            pipeline(self.config, name)?;
        }
        Ok(self.store.dead_letters(name)?)
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
        let outcome = transform(&document, Form::of(&document), "", pipeline.json, &mut Oddities::default());
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
        let batch = Readings { rejected: vec![rejected(&key, &reason, &document)], ..batch };
        self.store.insert_readings(&Arc::new(batch))?;
        Ok(Some(Retried { stored: 0, dead: 1 }))
    }

    /// Removes one for good; false where there is none of this number.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn discard(&mut self, id: i64) -> Result<bool, Error> {
        Ok(self.store.drop_dead_letter(id)?)
    }
}
