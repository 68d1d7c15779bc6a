//! Configuration: hub.toml, environment, credentials, the first that has a value decides; every key has a default.
//! Only reading and checking of values lives here: no file is written, no service is started, nothing is connected to.
//! Secrets are read on demand, are never part of `Config`, and have no `Debug` or `Display` that shows them.

mod credentials;
mod database;
mod environment;
mod error;
mod file;
mod implied;
pub mod keys;
mod limits;
mod mongo;
mod names;
mod notify;
mod pipeline;
mod remote;
mod renewal;
mod repository;
mod sections;
pub(crate) mod tables;
mod values;
mod wording;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use credentials::{CREDSTORE, Credentials, Secret};
pub use database::DatabaseUrl;
use environment::environment;
pub use error::Error;
pub(crate) use error::known_names;
pub use limits::Limits;
pub use notify::{Format, MailAddress, Notify, WebUrl};
pub use pipeline::{FieldPath, Map, Pipeline, Select};
pub use remote::Remote;
pub use renewal::{InForce, LOOK_EVERY, Look, Refused, Renew, Renewal};
pub use repository::{Guard, Repository, RestartRule};
pub use sections::{Database, Gate, Gitops, Metrics, Proxy};
pub use values::{Json, Source};

/// Where the file is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/observability-hub/hub.toml";

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; none where the defaults are in force.
    pub path: Option<PathBuf>,
    /// The state root, absolute.
    pub state_dir: PathBuf,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[database]`
    pub database: Database,
    /// `[gitops]`
    pub gitops: Gitops,
    /// `[[repository]]`, in the order of the file.
    pub repositories: Vec<Repository>,
    /// `[gate]`
    pub gate: Gate,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[limits]`
    pub limits: Limits,
    /// `[notify]`
    pub notify: Notify,
    /// `[[pipeline]]`, in the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// How many documents of a pipeline make a batch: `$BATCH_SIZE`, else 1000.
    pub batch_size: usize,
    credentials_dir: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the configuration: `flag` (`--config`), else `$HUB_CONFIG`, else an ordinary user's own, else the default
    /// path; the last two may be missing.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line, key and what would be right.
    pub fn load(flag: Option<&Path>) -> Result<Self, Error> {
        let named = named_file(flag);
        let path = Self::file_path(flag);
        let text = match file::read(&path)? {
            Some(text) => Some(text),
            None if named.is_some() => return Err(Error::Missing(path)),
            None => None,
        };
        Self::of(text.as_ref().map(|_| path), text.as_deref().unwrap_or(""))
    }

    /// Checks a configuration that is not written yet; `path` is where it will be.
    ///
    /// # Errors
    /// As `load`.
    pub fn of_text(path: &Path, text: &str) -> Result<Self, Error> {
        Self::of(Some(path.to_owned()), text)
    }

    fn of(path: Option<PathBuf>, text: &str) -> Result<Self, Error> {
        let file = file::parse(path.as_deref().unwrap_or(Path::new("")), text)?;
        let state_dir =
            crate::state::root(file.state_dir.as_deref()).map_err(|error| Error::State(error.to_string()))?;
        let mut proxy = file.proxy()?;
        if let Some(port) = environment("PORT") {
            let port = port.parse().map_err(|_| Error::Environment {
                name: "PORT",
                reason: format!("{port:?} is not a port; write a number from 0 to 65535"),
            })?;
            proxy.listen.set_port(port);
        }
        if let Some(reason) = proxy.clash("proxy.admin_listen", proxy.listen) {
            return Err(Error::Environment { name: "PORT", reason });
        }
        let mut pipelines = file.pipelines()?;
        if pipelines.is_empty() {
            pipelines.extend(implied::implied());
        }
        implied::check_names(&pipelines)?;
        Ok(Self {
            state_dir,
            proxy,
            database: file.database(),
            gitops: file.gitops(),
            gate: file.gate(),
            metrics: file.metrics(),
            limits: file.limits(),
            notify: file.notify(),
            pipelines,
            batch_size: implied::batch_size()?,
            repositories: file.repositories()?,
            path,
            credentials_dir: None,
        })
    }

    /// The file that `load` reads, whether it exists or not.
    pub fn file_path(flag: Option<&Path>) -> PathBuf {
        let users = || user_path().filter(|path| !rustix::process::geteuid().is_root() && path.exists());
        named_file(flag).or_else(users).unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// The credentials of this process: `$CREDENTIALS_DIRECTORY`, else the folder of `with_credentials`, else
    /// `<state>/credentials`. A command that root runs by hand on an installed host, where there is no such folder,
    /// sees those of the units in `/etc/credstore`: with the database of its defaults it would answer for another one.
    pub fn credentials(&self) -> Credentials {
        let given = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from).or_else(|| self.credentials_dir.clone());
        Credentials::new(given.unwrap_or_else(|| {
            let own = self.state_dir.join("credentials");
            let is_system = self.state_dir == Path::new(crate::state::SYSTEM_ROOT) && !own.exists();
            // A unit gets what its LoadCredential= names and nothing else (systemd.exec(5), $INVOCATION_ID).
            let by_hand = rustix::process::geteuid().is_root() && environment("INVOCATION_ID").is_none();
            if is_system && by_hand { CREDSTORE.into() } else { own }
        }))
    }

    /// The same configuration with credentials from a folder, for a command by hand that sees them where units do.
    pub fn with_credentials(self, folder: &Path) -> Self {
        Self { credentials_dir: Some(folder.to_owned()), ..self }
    }

    /// Where the database is: `$DATABASE_URL`, else `$DB_HOST`, `$DB_PORT`, `$DB_USER` and `$DB_NAME`, else the credential
    /// `database-url`, else `database.url`. A URL without a password takes it from `$SERVER_DB_PASSWORD`.
    ///
    /// # Errors
    /// When the chosen one is no URL of a known database, or the credential cannot be read.
    pub fn database_url(&self) -> Result<DatabaseUrl, Error> {
        DatabaseUrl::choose(&self.database.url, &self.credentials())
    }

    /// The configured repository of a name: what this host calls it, else what a forge does; former names too, and letter
    /// case does not matter.
    ///
    /// # Errors
    /// A sentence that lists the configured names, or those that a forge's name may mean.
    pub fn repository(&self, name: &str) -> Result<&Repository, Error> {
        let (name, all) = (name.to_owned(), &self.repositories);
        let known = all.iter().find(|repository| repository.is_known_as(&name));
        let called: Vec<&Repository> = all.iter().filter(|repository| repository.is_called(&name)).collect();
        let names = |all: &[&Repository]| all.iter().map(|repository| repository.name.clone()).collect();
        match (known, called.as_slice()) {
            (Some(repository), _) => Ok(repository),
            (None, [repository]) => Ok(*repository),
            (None, []) => Err(Error::UnknownRepository { name, known: names(&all.iter().collect::<Vec<_>>()) }),
            (None, several) => Err(Error::AmbiguousRepository { name, meant: names(several) }),
        }
    }
}

/// Where an ordinary user's own configuration is, for `hub up`; none without a home (XDG Base Directory Specification).
pub fn user_path() -> Option<PathBuf> {
    let home = || environment("HOME").map(|home| Path::new(&home).join(".config"));
    let folder = environment("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home)?;
    Some(folder.join("observability-hub/hub.toml"))
}

/// The file that somebody named; it has to exist.
fn named_file(flag: Option<&Path>) -> Option<PathBuf> {
    flag.map(Path::to_owned).or_else(|| environment("HUB_CONFIG").map(PathBuf::from))
}

/// Where a listener on this address is reached from this host: one that stands for all becomes loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

/// True for an address that other hosts can reach.
pub fn is_exposed(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}
