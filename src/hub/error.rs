use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::greeting::as_root;
use crate::program::Exit;
use crate::webhook::queue;
use crate::{command, config, gitops, reading, state, store};

/// Why a command of `hub` did not do what it was asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration is wrong, or the repository is not in it.
    #[error("{}{}", .0, if .0.is_denied() { as_root_hint() } else { String::new() })]
    Config(#[from] config::Error),
    /// The command line cannot be obeyed.
    #[error("{0}")]
    Usage(String),
    /// The state folder cannot be read or written.
    #[error("{}{}", .0, hint(.0))]
    State(#[from] state::Error),
    /// The queue does not take a request.
    #[error("{}{}", .0, if let queue::Error::State(state) = .0 { hint(state) } else { String::new() })]
    Queue(#[from] queue::Error),
    /// The repository's deployments are suspended: by whom, and how to resume them.
    #[error("{0}")]
    OnHold(String),
    /// The installed units already do what was asked for.
    #[error("the installed units do this work already; stop them first: systemctl stop {}", .0.join(" "))]
    UnitsActive(Vec<String>),
    /// systemd runs here but does not say which units do.
    #[error("cannot see whether the installed units are active: {0}")]
    Units(command::Error),
    /// Another `hub up` uses the state folder.
    #[error("another hub up runs with the state folder {0}; stop it, or set HUB_STATE_DIR to another folder")]
    AlreadyUp(PathBuf),
    /// Somebody else listens on a configured address.
    #[error("{}", no_listener(.key, *.address, .source))]
    Listen {
        /// The key that names it.
        key: &'static str,
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A call that needs nothing but the system failed.
    #[error("cannot {act}: {source}")]
    System {
        /// What was tried, as a verb.
        act: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A repository cannot be removed.
    #[error(transparent)]
    Gitops(gitops::Error),
    /// Dead letters cannot be read or changed.
    #[error(transparent)]
    Reading(#[from] reading::Error),
    /// The first configuration was not written: why.
    #[error("{0}")]
    Init(String),
    /// The database cannot be used, or is damaged.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The test delivery was not accepted: what happened and what to do.
    #[error("{0}")]
    Delivery(String),
    /// A notice was not taken: what came back and what to do.
    #[error("{0}")]
    Notice(String),
    /// There are no metrics to show: why.
    #[error("{0}")]
    Metrics(String),
    /// The status page does not answer: what happened and what to do.
    #[error("{0}")]
    Page(String),
}

impl Error {
    /// There are no random bytes.
    pub(super) fn no_random(source: std::io::Error) -> Self {
        Self::System { act: "get random bytes", source }
    }

    /// Says it on standard error.
    #[expect(clippy::print_stderr, reason = "commands for people answer people")]
    pub(super) fn complain(&self) {
        eprintln!("hub: {}", crate::text::shown_lines(&self.to_string()));
    }

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

/// What to do where the state folder belongs to somebody else.
fn hint(error: &state::Error) -> String {
    if error.is_denied() { format!("{}; or {OWNER}", as_root_hint()) } else { String::new() }
}

fn as_root_hint() -> String {
    format!("; run it as root: {}", as_root())
}

fn no_listener(key: &str, address: SocketAddr, source: &std::io::Error) -> String {
    if source.kind() == std::io::ErrorKind::AddrInUse {
        return format!(
            "{address} ({key}) is in use by another program; stop it (ss -ltnp shows which it is) or set {key} in hub.toml \
             to another address"
        );
    }
    format!("cannot listen on {address}: {source}; set {key} in hub.toml to an address of this host")
}

/// Who else may.
const OWNER: &str = "as the user that hub up runs as (HUB_STATE_DIR names another state folder)";
