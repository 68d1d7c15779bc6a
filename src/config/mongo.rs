use super::{Config, Error, Pipeline, Source, environment};

/// The documents of a batch where `BATCH_SIZE` says nothing.
const BATCH: usize = 1000;
/// A batch is one transaction and one update with all its ids.
const LARGEST_BATCH: usize = 10_000;

/// A MongoDB connection string. It may hold a password, so it has no text form.
pub struct MongoUri(String);

impl MongoUri {
    /// The string with everything in it; for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Config {
    /// Where MongoDB is: `$MONGO_URI`, else the credential `mongo-uri`.
    ///
    /// # Errors
    /// When neither is there, or it is no text or no MongoDB URI.
    pub fn mongo_uri(&self) -> Result<MongoUri, Error> {
        let credential = |reason: &str| Error::Credential { name: "mongo-uri".to_owned(), reason: reason.to_owned() };
        let (uri, from_environment) = match environment("MONGO_URI") {
            Some(uri) => (uri, true),
            None => {
                let secret = self.credentials().require("mongo-uri")?;
                (String::from_utf8(secret.bytes().to_vec()).map_err(|_| credential("is not UTF-8"))?, false)
            }
        };
        let uri = uri.trim().to_owned();
        if uri.starts_with("mongodb://") || uri.starts_with("mongodb+srv://") {
            return Ok(MongoUri(uri));
        }
        // The text may be a password, so it is not repeated.
        let reason = "is no MongoDB URI; write mongodb://user:password@host:27017/ or mongodb+srv://…";
        Err(if from_environment {
            Error::Environment { name: "MONGO_URI", reason: reason.to_owned() }
        } else {
            credential(reason)
        })
    }

    /// The database and collection of a pipeline; `$MONGO_DB_NAME` and `$MONGO_COLLECTION` come first.
    pub fn mongo_names(&self, pipeline: &Pipeline) -> (String, String) {
        let name = |variable, configured: &String| environment(variable).unwrap_or_else(|| configured.clone());
        (name("MONGO_DB_NAME", &pipeline.database), name("MONGO_COLLECTION", &pipeline.collection))
    }

    /// Whether the address of MongoDB, where there is one, can be used by the pipelines.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check_mongo(&self) -> Result<(), Error> {
        let is_used = self.pipelines.iter().any(|pipeline| pipeline.source == Source::MongoDb);
        let is_given = || Ok(environment("MONGO_URI").is_some() || self.credentials().read("mongo-uri")?.is_some());
        if is_used && is_given()? { self.mongo_uri().map(drop) } else { Ok(()) }
    }
}

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
