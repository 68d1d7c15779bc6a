//! Why a batch of readings was not stored, told apart: for a row of it, for the table, or for neither.

use postgres::error::SqlState;

use super::Postgres;
use super::explain::{self, Lack, refusal, table_name};
use crate::store::Error;
use crate::store::readings::TABLE;

/// Why a batch was not stored.
pub(super) enum Stop {
    Rows(postgres::Error),
    /// So many rows are not in the table though nothing was refused.
    LeftOut(i64),
    /// Rows are in another table that inherits from this one.
    Elsewhere,
    /// For what is stored beside them, in this table.
    Rest(&'static str, postgres::Error),
    /// This table did not take what is stored beside them, though nothing was refused.
    NotTaken(&'static str),
    /// For neither.
    Whole(postgres::Error),
}

impl From<postgres::Error> for Stop {
    fn from(error: postgres::Error) -> Self {
        Self::Whole(error)
    }
}

impl Postgres {
    pub(super) fn readings_failed(&mut self, table: &str, stop: Stop) -> Error {
        let target = self.address.target.clone();
        let error = match stop {
            Stop::Rows(error) => error,
            Stop::LeftOut(count) => {
                let reason = format!(
                    "{count} of the rows are not in table {table} after it took them: a trigger leaves them out"
                );
                return Error::Row { index: 0, code: "trigger".to_owned(), reason };
            }
            Stop::Elsewhere => {
                return Error::Rights {
                    target,
                    reason: format!(
                        "a trigger hands the rows of table {table} on to tables that inherit from it, where they would be \
                         there twice: a table that is partitioned so cannot be used"
                    ),
                    remedy: "name an ordinary table in hub.toml, or partition it by hash of mongo_id".to_owned(),
                };
            }
            Stop::NotTaken(table) => {
                let reason =
                    format!("table {table} did not take a row, without an error: a trigger or a rule leaves it out");
                return Error::Statement { target, act: "store readings".to_owned(), reason };
            }
            Stop::Rest(table, error) => return self.failed_on(&[table], "store readings", &error),
            Stop::Whole(error) => return self.failed("store readings", &error),
        };
        let is_key = error.code() == Some(&SqlState::INVALID_COLUMN_REFERENCE);
        let lack = if is_key || explain::is_about_rights(&error) { self.lack(&table_name(table)) } else { None };
        if let Some((code, mut reason)) = refusal(&error)
            && !lack.as_ref().is_some_and(Lack::has_no_policy)
        {
            if explain::is_policy(&error) {
                reason.push_str(&format!("; the policies of {table} for role {} refuse it", self.address.role));
            }
            return Error::Row { index: 0, code, reason };
        }
        if !is_key {
            return self.failed_on(&[table, TABLE], "store readings", &error);
        }
        if lack.is_some_and(|lack| lack.is_partitioned) {
            return Error::Rights {
                target,
                reason: format!(
                    "table {table} is partitioned, and mongo_id alone is not the key of its rows: a partitioned table \
                     cannot be used"
                ),
                remedy: format!(
                    "name an ordinary table in hub.toml, or partition it by hash of mongo_id and run ALTER TABLE {} ADD \
                     UNIQUE (mongo_id);",
                    table_name(table)
                ),
            };
        }
        Error::Rights {
            target,
            reason: format!("table {table} has no unique key on mongo_id"),
            remedy: format!("as its owner, run: ALTER TABLE {} ADD UNIQUE (mongo_id);", table_name(table)),
        }
    }
}
