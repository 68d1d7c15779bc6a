//! The commands of `tailscale` that the gate runs, and the order in which it closes.

use std::process::Child;
use std::time::{Duration, Instant};

use super::exposure::{Seen, ServeConfig};
use super::{Error, node};
use crate::command::Command;
use crate::log;

/// The longest one call may take; the tool itself waits without end for a daemon that hangs.
const CALL: Duration = Duration::from_secs(5);
/// How long a foreground session may take to disappear after the process that held it.
const SESSION_END: Duration = Duration::from_millis(500);
/// How often a change that lost against another client is tried again (`etag mismatch`).
const TRIES: usize = 3;
/// The release whose command line the gate speaks.
const OLDEST: (u32, u32) = (1, 52);

/// The node's `tailscale`, asked about one port.
#[derive(Debug)]
pub(super) struct Tailscale {
    port: u16,
    target: String,
    name: Option<String>,
}

impl Tailscale {
    /// `target` is the URL that may be published on `port`.
    pub fn new(port: u16, target: String) -> Self {
        Self { port, target, name: None }
    }

    fn command(arguments: &[&str]) -> Command {
        Command::new("tailscale", CALL).args(arguments)
    }

    /// The version of the installed tool.
    ///
    /// # Errors
    /// When it is missing or too old.
    pub fn version(&self) -> Result<String, Error> {
        let output = Self::command(&["version"]).succeed()?.text();
        let version = output.lines().next().unwrap_or_default().trim().to_owned();
        let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        match parts.next().zip(parts.next()) {
            Some(found) if found >= OLDEST => Ok(version),
            Some(_) => Err(Error::TooOld(version)),
            None => Err(Error::Output { command: "tailscale version", reason: format!("it is {version:.40?}") }),
        }
    }

    /// Checks that Funnel can be used on the port; remembers and returns the node's DNS name.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&mut self) -> Result<&str, Error> {
        let output = Self::command(&["status", "--json", "--peers=false"]).succeed()?;
        Ok(self.name.insert(node::ready(&output.stdout, self.port)?))
    }

    fn serve_config(&self) -> Result<ServeConfig, Error> {
        let output = Self::command(&["funnel", "status", "--json"]).succeed()?;
        ServeConfig::parse(&output.stdout)
    }

    /// What is public on the port now.
    ///
    /// # Errors
    /// When tailscale does not say.
    pub fn look(&self) -> Result<Seen, Error> {
        Ok(self.judge(&self.serve_config()?))
    }

    fn judge(&self, config: &ServeConfig) -> Seen {
        config.see(self.port, self.name.as_deref(), &self.target)
    }

    /// What is public on the port, and an error where something that is not public has it.
    ///
    /// # Errors
    /// As `look`, and `Occupied`.
    pub fn look_before_opening(&self) -> Result<Seen, Error> {
        let config = self.serve_config()?;
        match (self.judge(&config), config.occupant(self.port)) {
            (Seen::Nothing, Some(by)) => Err(Error::Occupied { port: self.port, by }),
            (seen, _) => Ok(seen),
        }
    }

    /// Starts the funnel in the foreground: it lives as long as the process, and the process as long as the calling
    /// thread.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn open(&self) -> Result<Child, Error> {
        let port = format!("--https={}", self.port);
        Ok(Self::command(&["funnel", "--yes", &port, &self.target]).spawn()?)
    }

    /// Takes everything off the port that is public there, whoever put it there, and verifies that. Other ports keep
    /// what they have. True where there was something to close.
    ///
    /// `serve … off` and not `funnel … off`: the latter asks for the funnel capability first and may wait for ever.
    /// What `off` cannot reach, a foreground session or a key under an earlier name of the node, is taken out of the
    /// configuration as it was just read; that write is not conditional, so it comes last.
    ///
    /// # Errors
    /// `StillOpen` where all of that did not help; others where tailscale does not say what is public.
    pub fn close(&self) -> Result<bool, Error> {
        if self.look()? == Seen::Nothing {
            return Ok(false);
        }
        let patience = Instant::now() + SESSION_END;
        let port = format!("--https={}", self.port);
        let mut reason = String::new();
        let mut tries = TRIES;
        while tries > 0 {
            let config = self.serve_config()?;
            if self.judge(&config) == Seen::Nothing {
                return Ok(true);
            }
            if config.background_is_closed(self.port) && Instant::now() < patience {
                std::thread::sleep(SESSION_END / 10);
                continue;
            }
            tries -= 1;
            // Its exit code says little: there may be nothing that it can remove. The next look tells.
            reason = match Self::command(&["serve", "--yes", &port, "off"]).succeed() {
                Ok(_) => break,
                Err(error) => Error::from(error).to_string(),
            };
            if !reason.contains("etag") {
                break;
            }
        }
        let config = self.serve_config()?;
        if self.judge(&config) != Seen::Nothing {
            log::warn!("close_by_rewriting", port = self.port, error = reason);
            let rest = config.without(self.port).to_json();
            if let Err(error) = Self::command(&["serve", "set-raw"]).input(rest).succeed() {
                reason = Error::from(error).to_string();
            }
        }
        match self.look()? {
            Seen::Nothing => Ok(true),
            Seen::Ours => Err(Error::StillOpen { port: self.port, by: "a foreground session".to_owned(), reason }),
            Seen::Other(by) => Err(Error::StillOpen { port: self.port, by, reason }),
        }
    }
}
