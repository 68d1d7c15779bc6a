//! A MongoDB-wire server: `MONGO_TEST_URI`, else `mongod` on PATH, else FerretDB built with Go from PATH.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use mongodb::bson::{Document, doc};
use mongodb::sync::{Client, Collection};

use crate::support::{eventually, free_address, skip};

/// A server; the test's own one is stopped when dropped.
pub struct Mongo {
    uri: String,
    own: Option<(Command, Option<Child>, tempfile::TempDir)>,
}

impl Mongo {
    /// One that takes TLS alone, with this certificate for 127.0.0.1 and its key; whoever calls it names `authority`, a
    /// file. Always FerretDB; None, said aloud, where it cannot be built.
    pub fn start_with_tls((certificate, key): (String, String), authority: &Path) -> Option<Self> {
        let Some(ferretdb) = ferretdb() else {
            skip::skip("tests on MongoDB", "go cannot build FerretDB");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = free_address().port().to_string();
        let mut command = Command::new(ferretdb);
        command.arg(dir.path()).arg(&port);
        for (name, pem) in [("certificate.pem", certificate), ("key.pem", key)] {
            std::fs::write(dir.path().join(name), pem).unwrap();
            command.arg(dir.path().join(name));
        }
        let options = format!("directConnection=true&tls=true&tlsCAFile={}", authority.display());
        let uri = format!("mongodb://127.0.0.1:{port}/?{options}");
        let mut mongo = Self { uri, own: Some((command, None, dir)) };
        mongo.run();
        Some(mongo)
    }

    /// None, said aloud, where there is none to be had.
    pub fn start() -> Option<Self> {
        if let Ok(uri) = std::env::var("MONGO_TEST_URI") {
            return Some(Self { uri, own: None });
        }
        let dir = tempfile::tempdir().unwrap();
        let port = free_address().port().to_string();
        let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=3000");
        let command = if on_path("mongod") {
            let mut command = Command::new("mongod");
            command.args(["--bind_ip", "127.0.0.1", "--port", &port, "--dbpath"]).arg(dir.path());
            command
        } else if let Some(ferretdb) = ferretdb() {
            let mut command = Command::new(ferretdb);
            command.arg(dir.path()).arg(port);
            command
        } else {
            skip::skip("tests on MongoDB", "neither MONGO_TEST_URI nor mongod, and go cannot build FerretDB");
            return None;
        };
        let mut mongo = Self { uri, own: Some((command, None, dir)) };
        mongo.run();
        Some(mongo)
    }

    /// The connection string.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Starts the test's own server, again after a stop.
    pub fn run(&mut self) {
        let Some((command, child, _)) = &mut self.own else { return };
        *child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let uri = &self.uri;
        eventually("MongoDB answers", || {
            let client = Client::with_uri_str(uri).unwrap();
            client.database("admin").run_command(doc! { "ping": 1 }).run().is_ok()
        });
    }

    /// Stops the test's own server at once; false where it is somebody else's.
    pub fn stop(&mut self) -> bool {
        let Some((_, child, _)) = &mut self.own else { return false };
        if let Some(mut child) = child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        true
    }

    /// Sends the test's own server a signal; false where it is somebody else's.
    pub fn signal(&self, name: &str) -> bool {
        let Some((_, Some(child), _)) = &self.own else { return false };
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success()
    }

    /// A collection of its own, in a database of this name, empty.
    pub fn collection(&self, database: &str, name: &str) -> Collection<Document> {
        let database = Client::with_uri_str(&self.uri).unwrap().database(database);
        let collection = database.collection(name);
        collection.drop().run().unwrap();
        database.create_collection(name).run().unwrap();
        #[cfg(feature = "sqlite")]
        if let Some((_, _, dir)) = &self.own {
            index_ids(&dir.path().join(format!("{}.sqlite", database.name())), name);
        }
        collection
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        self.stop();
    }
}

/// FerretDB looks documents up by an expression that its own index does not have, and so reads a whole table for every
/// document that it updates.
#[cfg(feature = "sqlite")]
fn index_ids(file: &Path, collection: &str) {
    if !file.exists() {
        return;
    }
    let database = rusqlite::Connection::open(file).unwrap();
    database.busy_timeout(crate::support::PATIENCE).unwrap();
    let sql = "SELECT table_name FROM _ferretdb_collections WHERE name = ?1";
    let table: String = database.query_row(sql, [collection], |row| row.get(0)).unwrap();
    database.execute_batch(&format!("CREATE INDEX \"{table}_id\" ON \"{table}\" (_ferretdb_sjson->'$._id')")).unwrap();
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// FerretDB, built once into the target folder; none where Go or its module proxy is missing.
pub fn ferretdb() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/ferretdb");
            let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ferretdb");
            let made = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified());
            if made(&program).is_ok_and(|program| made(&source.join("main.go")).is_ok_and(|source| source < program)) {
                return Some(program);
            }
            // Where its own installer puts it, PATH often does not name it.
            let go = ["go", "/usr/local/go/bin/go"].into_iter().find(|go| on_path(go) || Path::new(go).is_file())?;
            let unfinished = program.with_extension(std::process::id().to_string());
            let built = Command::new(go).args(["build", "-o"]).arg(&unfinished).arg(".").current_dir(source).output();
            let built = built.ok().filter(|output| output.status.success())?;
            drop(built);
            std::fs::rename(&unfinished, &program).ok()?;
            Some(program)
        })
        .clone()
}
