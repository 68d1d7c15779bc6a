use super::{Config, Error, Pipeline, Source, environment};

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
