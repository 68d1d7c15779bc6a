//! A private PostgreSQL, and PgBouncer before it, from Debian's packages `postgresql` and `pgbouncer`.
//! `HUB_TEST_PG_BIN` names another folder of PostgreSQL's programs.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use postgres::{Client, NoTls};

use super::{PATIENCE, skip};

/// PostgreSQL and PgBouncer refuse to run as root; this account owns nothing else.
const NOBODY: u32 = 65534;

/// A server with a data folder of its own; stopped when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
    pub port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Child>>,
}

/// The cluster that the tests of a binary share, each with a database of its own; none, said aloud, without PostgreSQL.
pub fn shared() -> Option<Arc<Cluster>> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(cluster) = shared.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(Cluster::start(&[])?);
    *shared = Arc::downgrade(&cluster);
    Some(cluster)
}

impl Cluster {
    /// Makes a cluster and starts it with these settings (`name=value`); none, said aloud, without PostgreSQL.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let Some(bin) = programs() else {
            skip::skip("tests on PostgreSQL", "no initdb under /usr/lib/postgresql; apt-get install postgresql");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        give(dir.path());
        let output = unprivileged(&bin.join("initdb"))
            .args([
                "--no-sync",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "-D",
            ])
            .arg(dir.path().join("data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let cluster = Self { dir, bin, port: free_port(), settings, server: Mutex::new(None) };
        cluster.run();
        Some(cluster)
    }

    pub fn socket_folder(&self) -> &Path {
        self.dir.path()
    }

    /// A file that the server can read, for keys and certificates.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        give(&path);
        path
    }

    /// Starts the server and waits until it answers.
    pub fn run(&self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = unprivileged(&self.bin.join("postgres"));
        command.arg("-D").arg(self.dir.path().join("data")).arg("-k").arg(self.dir.path());
        command.args(["-p", &self.port.to_string(), "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut server = command.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap()).spawn().unwrap();
        while self.try_client("postgres").is_err() {
            if server.try_wait().unwrap().is_some() {
                // After kill -9 the old server's children may still hold its shared memory.
                server = command.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap()).spawn().unwrap();
            }
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        *self.server.lock().unwrap() = Some(server);
    }

    /// Ends the server with a signal: `QUIT` (at once, in order) or `KILL`.
    pub fn stop(&self, signal: &str) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            assert!(
                Command::new("kill")
                    .args([&format!("-{signal}"), &server.id().to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
            server.wait().unwrap();
        }
    }

    fn try_client(&self, database: &str) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(self.socket_folder()).port(self.port).user("postgres").dbname(database).connect(NoTls)
    }

    /// The superuser, in a database.
    pub fn superuser(&self, database: &str) -> Client {
        self.try_client(database).unwrap()
    }

    /// Makes a role with a password and a database that it owns, both of this name.
    pub fn database(&self, name: &str) -> Database<'_> {
        self.superuser("postgres")
            .batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'geheim'"))
            .and_then(|()| self.superuser("postgres").batch_execute(&format!("CREATE DATABASE {name} OWNER {name}")))
            .unwrap();
        Database { cluster: self, name: name.to_owned() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop("QUIT");
    }
}

/// A database whose owner is a role of the same name.
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Database<'_> {
    /// With the password, over TCP.
    pub fn url(&self) -> String {
        format!("postgres://{0}:geheim@127.0.0.1:{1}/{0}", self.name, self.cluster.port)
    }

    /// Over the unix socket.
    pub fn socket_url(&self) -> String {
        format!(
            "postgres:///{0}?host={1}&port={2}&user={0}",
            self.name,
            self.cluster.socket_folder().display(),
            self.cluster.port
        )
    }

    pub fn superuser(&self) -> Client {
        self.cluster.superuser(&self.name)
    }

    /// The number that a query gives, as a superuser sees it.
    pub fn number(&self, sql: &str) -> i64 {
        self.superuser().query_one(&format!("SELECT ({sql})::bigint"), &[]).unwrap().get(0)
    }
}

/// PgBouncer in transaction mode before a cluster; stopped when dropped.
pub struct PgBouncer {
    _dir: tempfile::TempDir,
    process: Child,
    pub port: u16,
}

impl PgBouncer {
    /// Starts it for one role; none, said aloud, without the program.
    pub fn start(database: &Database<'_>) -> Option<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            skip::skip("tests on PgBouncer", "no /usr/sbin/pgbouncer; apt-get install pgbouncer");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (port, users) = (free_port(), dir.path().join("users"));
        std::fs::write(&users, format!("\"{}\" \"geheim\"\n", database.name)).unwrap();
        let ini = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 10\nmax_client_conn = 2000\n",
            database.cluster.socket_folder().display(),
            database.cluster.port,
            users.display()
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, ini).unwrap();
        let process = unprivileged(program).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Self { _dir: dir, process, port };
        super::eventually("PgBouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(bouncer)
    }

    pub fn url(&self, name: &str) -> String {
        format!("postgres://{name}:geheim@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("HUB_TEST_PG_BIN") {
        return Some(folder.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max()
}

fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]).arg(program);
    command
}

fn give(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
