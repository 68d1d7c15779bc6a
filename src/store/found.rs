//! What is found when a whole database is looked at.

use std::collections::BTreeMap;

/// What a look at every page found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Which database, without secrets.
    pub target: String,
    /// What is damaged, in the words of the database, at most twenty of them.
    pub faults: Vec<String>,
    /// What is unusual about it, and no damage.
    pub notes: Vec<String>,
    /// How many rows every table has; none for one that cannot be counted.
    pub tables: BTreeMap<String, Option<u64>>,
}

/// What became of a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Why the tables had to be found without the file's own list of them, where that is so.
    pub head: Option<String>,
    /// By name.
    pub tables: BTreeMap<String, Table>,
    /// Pages of tables that could not be read.
    pub bad_pages: u64,
    /// Indexes that were damaged; they are made anew.
    pub bad_indexes: Vec<String>,
    /// Rows that no table takes, or more than one.
    pub homeless: u64,
}

/// What became of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Rows in the new file.
    pub rows: u64,
    /// Of these, rows on pages that nothing led to any more: one that was deleted long ago may be among them.
    pub strays: u64,
    /// Rows that were seen, and could not be read.
    pub lost: u64,
    /// Rows that were read, and that the new table does not take.
    pub refused: u64,
    /// How many rows there were, by an index that is sound.
    pub expected: Option<u64>,
}

impl Table {
    /// Counts a row that was put, or was not.
    #[cfg(feature = "sqlite")]
    pub(super) fn count(&mut self, put: bool) {
        if put {
            self.rows += 1;
        } else {
            self.refused += 1;
        }
    }

    /// How many rows are missing, as far as that is known.
    pub fn missing(&self) -> u64 {
        let by_index = self.expected.map_or(0, |expected| expected.saturating_sub(self.rows));
        by_index.max(self.lost + self.refused)
    }
}

impl Recovered {
    /// Whether all that was there is in the new file, as far as can be known.
    pub fn is_whole(&self) -> bool {
        let nothing = self.bad_pages == 0 && self.homeless == 0 && self.head.is_none();
        nothing && self.tables.values().all(|table| table.missing() == 0)
    }
}
