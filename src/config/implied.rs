//! What variables of the environment say of pipelines on MongoDB, as those of the Go version did.

use super::environment::environment;
use super::{Error, Pipeline, Source};

/// The documents of a batch where `BATCH_SIZE` says nothing.
const BATCH: usize = 1000;
/// A batch is one transaction and one update with all its ids.
const LARGEST_BATCH: usize = 10_000;

/// How many documents a batch has: `$BATCH_SIZE`, else 1000; an error where it is no number from 1 to 10,000.
pub(super) fn batch_size() -> Result<usize, Error> {
    let Some(text) = environment("BATCH_SIZE") else { return Ok(BATCH) };
    text.parse().ok().filter(|size| (1..=LARGEST_BATCH).contains(size)).ok_or_else(|| Error::Environment {
        name: "BATCH_SIZE",
        reason: format!("{text:?} is no size of a batch; write a number from 1 to {LARGEST_BATCH}"),
    })
}

/// Refuses variables that name one collection where several pipelines would read it.
pub(super) fn check_names(pipelines: &[Pipeline]) -> Result<(), Error> {
    let several = pipelines.iter().filter(|pipeline| pipeline.source == Source::MongoDb).count() > 1;
    let set = ["MONGO_DB_NAME", "MONGO_COLLECTION"].into_iter().find(|name| environment(name).is_some());
    match set {
        Some(name) if several => Err(Error::Environment {
            name,
            reason: "names one collection, and hub.toml has several pipelines on MongoDB; set database and collection \
                     there instead"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The pipeline of an installation of the Go version, which has `MONGO_URI` and no hub.toml.
pub(super) fn implied() -> Option<Pipeline> {
    environment("MONGO_URI").map(|_| Pipeline::new("reading".to_owned()))
}
