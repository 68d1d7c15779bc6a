use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::greeting::as_root;
use crate::program::Exit;
use crate::webhook::queue;
use crate::{command, config, gitops, reading, state, store};

/// Why a command of `hub` did not do what it was asked to.
#[derive(Debug)]
pub enum Error {
    /// The configuration is wrong, or the repository is not in it.
    Config(config::Error),
    /// The command line cannot be obeyed.
    Usage(String),
    /// The state folder cannot be read or written.
    State(state::Error),
    /// The queue does not take a request.
    Queue(queue::Error),
    /// The repository's deployments are suspended: by whom, and how to resume them.
    OnHold(String),
    /// The installed units already do what was asked for.
    UnitsActive(Vec<String>),
    /// systemd runs here but does not say which units do.
    Units(command::Error),
    /// Another `hub up` uses the state folder.
    AlreadyUp(PathBuf),
    /// Somebody else listens on a configured address.
    Listen {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A call that needs nothing but the system failed.
    System {
        /// What was tried, as a verb.
        act: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A repository cannot be removed.
    Gitops(gitops::Error),
    /// Dead letters cannot be read or changed.
    Reading(reading::Error),
    /// The first configuration was not written: why.
    Init(String),
    /// The database cannot be used, or is damaged.
    Store(store::Error),
    /// The test delivery was not accepted: what happened and what to do.
    Delivery(String),
    /// A notice was not taken: what came back and what to do.
    Notice(String),
    /// The status page does not answer: what happened and what to do.
    Page(String),
}

impl Error {
    /// The exit code of the program.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(config::Error::UnknownRepository { .. } | config::Error::AmbiguousRepository { .. })
            | Self::Usage(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            Self::Reading(error) => error.exit(),
            Self::Store(store::Error::Config(_)) => Exit::Usage,
            Self::Gitops(error) => error.exit(),
            _ => Exit::Error,
        }
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}

impl From<reading::Error> for Error {
    fn from(error: reading::Error) -> Self {
        Self::Reading(error)
    }
}

impl From<queue::Error> for Error {
    fn from(error: queue::Error) -> Self {
        Self::Queue(error)
    }
}

/// What to do where the state folder belongs to somebody else.
fn hint(error: &state::Error) -> String {
    if error.is_denied() { format!("; run it as root: {}; or {}", as_root(), OWNER) } else { String::new() }
}

/// Who else may.
const OWNER: &str = "as the user that hub up runs as (HUB_STATE_DIR names another state folder)";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) if error.is_denied() => write!(f, "{error}; run it as root: {}", as_root()),
            Self::Config(error) => error.fmt(f),
            Self::Reading(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Gitops(error) => error.fmt(f),
            Self::Usage(reason)
            | Self::Init(reason)
            | Self::Delivery(reason)
            | Self::Notice(reason)
            | Self::Page(reason)
            | Self::OnHold(reason) => f.write_str(reason),
            Self::State(error) => write!(f, "{error}{}", hint(error)),
            Self::Queue(error) => {
                let hint = if let queue::Error::State(state) = error { hint(state) } else { String::new() };
                write!(f, "{error}{hint}")
            }
            Self::UnitsActive(units) => {
                let units = units.join(" ");
                write!(f, "the installed units do this work already; stop them first: systemctl stop {units}")
            }
            Self::Units(error) => write!(f, "cannot see whether the installed units are active: {error}"),
            Self::AlreadyUp(state) => write!(
                f,
                "another hub up runs with the state folder {}; stop it, or set HUB_STATE_DIR to another folder",
                state.display()
            ),
            Self::Listen { key, address, source } if source.kind() == std::io::ErrorKind::AddrInUse => write!(
                f,
                "{address} ({key}) is in use by another program; stop it (ss -ltnp shows which it is) or set {key} in \
                 hub.toml to another address"
            ),
            Self::Listen { key, address, source } => {
                write!(f, "cannot listen on {address}: {source}; set {key} in hub.toml to an address of this host")
            }
            Self::System { act, source } => write!(f, "cannot {act}: {source}"),
        }
    }
}

impl std::error::Error for Error {}
