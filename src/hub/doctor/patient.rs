use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::{CREDSTORE, Config, Credentials};
use crate::health::Reason;
use crate::hint::command_line;
use crate::hub::service::Service;
use crate::hub::units::Units;
use crate::records::Left;

/// What every look starts from.
pub(super) struct Patient<'a> {
    pub flag: Option<PathBuf>,
    pub path: PathBuf,
    pub config: Option<Config>,
    /// Or why it is not known.
    pub state_dir: Result<PathBuf, String>,
    /// None where systemd does not run this host, or does not answer.
    pub units: Option<Units>,
    pub is_root: bool,
    /// True for the installation of the whole host, in contrast to one that somebody runs with `hub up`.
    pub is_system: bool,
    pub services: &'a [Service],
    pub past: OnceLock<Past>,
}

impl Patient<'_> {
    /// What the services left, read and judged once.
    pub fn past(&self) -> &Past {
        self.past.get_or_init(|| Past::new(self))
    }

    /// True where the state, and what is in it, can be looked at by this user.
    pub fn sees_all(&self) -> bool {
        self.is_root || !self.is_system
    }

    /// Where the services find their secrets; where the configuration cannot be read, as far as that is known without it.
    pub fn credentials(&self) -> Option<Credentials> {
        match (&self.config, &self.state_dir) {
            (Some(config), _) => Some(config.credentials()),
            (None, _) if self.is_system => Some(Credentials::in_folder(Path::new(CREDSTORE))),
            (None, state) => state.as_ref().ok().map(|state| Credentials::in_folder(&state.join("credentials"))),
        }
    }

    /// The user that the gateway, the pipeline and the metrics run as.
    pub fn service_user(&self) -> String {
        let of_unit =
            self.units.iter().flatten().find(|(name, _)| *name == "proxy.service").map(|(_, unit)| &unit.user);
        of_unit.filter(|user| !user.is_empty()).cloned().unwrap_or_else(|| "hub".to_owned())
    }

    /// Another command of this hub, as it is to be typed for the same state and configuration.
    pub fn hub(&self, command: &str) -> String {
        command_line("hub", command, self.flag.as_deref())
    }
}

/// What the past says of this host.
pub(super) struct Past {
    /// Whether a proxy holds alive.sock.
    pub lives: bool,
    pub reasons: Vec<Reason>,
    pub left: Left,
}
