//! A private PostgreSQL, and PgBouncer before it, from Debian's packages `postgresql` and `pgbouncer`.
//! `HUB_TEST_PG_BIN` names another folder of PostgreSQL's programs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use observability_hub::config::Config;
use observability_hub::store::{Error, Store};
use postgres::{Client, NoTls};

use super::{Host, PATIENCE, skip};

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

/// The configuration that names a database, with more keys.
pub fn configured(url: &str, more: &str) -> Config {
    super::rows::config(&Host::new(), url, more)
}

pub fn open(url: &str) -> Result<Store, Error> {
    Store::open(&configured(url, ""))
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

    /// How many rows `system_metrics` has.
    pub fn count(&self) -> i64 {
        self.number("SELECT count(*) FROM system_metrics")
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
    /// Starts it for one role, which logs in by this `auth_type`; none, said aloud, without the program.
    pub fn start(database: &Database<'_>, auth: &str) -> Option<Self> {
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
             unix_socket_dir =\nauth_type = {auth}\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 10\nmax_client_conn = 2000\n",
            database.cluster.socket_folder().display(),
            database.cluster.port,
            users.display()
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, ini).unwrap();
        let process = unprivileged(program).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Self { _dir: dir, process, port };
        super::eventually("PgBouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
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

/// A path for the bytes between client and server that counts how often the client waits for an answer: a Query or a
/// Sync message ends its turn (PostgreSQL manual, "55.2. Message Flow").
pub fn counting_relay(port: u16) -> (u16, Arc<AtomicUsize>) {
    let turns: Arc<AtomicUsize> = Arc::default();
    let (listener, counter) = (TcpListener::bind("127.0.0.1:0").unwrap(), turns.clone());
    let relay = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
            let (mut from_server, counter) = (server.try_clone().unwrap(), counter.clone());
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::thread::spawn(move || {
                let mut message = |typed: bool| -> std::io::Result<u8> {
                    let mut head = vec![0; if typed { 5 } else { 4 }];
                    from_client.read_exact(&mut head)?;
                    let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
                    let mut body = vec![0; length as usize - 4];
                    from_client.read_exact(&mut body)?;
                    server.write_all(&[head.clone(), body].concat())?;
                    Ok(if typed { head[0] } else { 0 })
                };
                let mut kind = message(false);
                while let Ok(byte) = kind {
                    if matches!(byte, b'Q' | b'S') {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    kind = message(true);
                }
            });
        }
    });
    (relay, turns)
}

pub fn free_port() -> u16 {
    super::free_address().port()
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
