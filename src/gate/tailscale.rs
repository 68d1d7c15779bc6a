//! The commands of `tailscale` that the gate runs, and the order in which it closes.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use super::Error;
use super::exposure::{Look, Seen, ServeConfig};
use super::home::Home;
use super::node::{Node, is_older};
use crate::command::{self, Command};
use crate::config::Gate;
use crate::log;
use crate::records::FormerName;
use crate::state::Folder;

/// The longest one call may take; the tool itself waits without end for a daemon that hangs.
/// It says by itself within six that it reaches no daemon.
const CALL: Duration = Duration::from_secs(7);
/// How long a foreground session may take to disappear after the process that held it.
const SESSION_END: Duration = Duration::from_millis(500);
/// How often a change that lost against another client is tried again (`etag mismatch`).
const TRIES: usize = 3;
/// The release whose command line the gate speaks.
const OLDEST: (u32, u32) = (1, 52);

/// What was learnt about this node on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The version of the tool.
    pub version: Option<String>,
    /// The node's DNS name.
    pub name: Option<String>,
    /// When its key expires.
    pub key_expiry: Option<jiff::Timestamp>,
    /// The name that it had before.
    pub former: Option<FormerName>,
}

/// The node's `tailscale`, asked about one port.
#[derive(Debug)]
pub(super) struct Tailscale {
    port: u16,
    target: String,
    socket: Option<PathBuf>,
    facts: Facts,
    /// The gate's folder, where the gate itself asks.
    folder: Option<Folder>,
}

impl Tailscale {
    /// Asks for the configured port and socket; `target` is the URL that may be published.
    pub fn new(gate: &Gate, target: &str) -> Self {
        let (target, socket) = (target.to_owned(), gate.socket.clone());
        Self { port: gate.port, target, socket, facts: Facts::default(), folder: None }
    }

    /// With the folder that says which tailnet may be published in.
    pub fn with_folder(mut self, folder: Folder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// What it has learnt so far.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let command = Command::new("tailscale", CALL);
        let command = match &self.socket {
            Some(socket) => command.args([format!("--socket={}", socket.display())]),
            None => command,
        };
        command.args(arguments)
    }

    /// The version of the installed tool.
    ///
    /// # Errors
    /// When it is missing or too old.
    pub fn version(&mut self) -> Result<String, Error> {
        let output = self.command(&["version"]).succeed()?.text();
        let version = output.lines().next().unwrap_or_default().trim().to_owned();
        let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        match parts.next().zip(parts.next()) {
            Some(found) if found >= OLDEST => {}
            Some(_) => return Err(Error::TooOld(version)),
            None => {
                return Err(Error::Output { command: "tailscale version", reason: format!("it is {version:.40?}") });
            }
        }
        if self.facts.version.as_ref() != Some(&version) {
            log::info!("tailscale_found", version = version);
        }
        Ok(self.facts.version.insert(version).clone())
    }

    /// How the node is; remembers what is worth it.
    ///
    /// # Errors
    /// When tailscale does not say.
    pub fn node(&mut self) -> Result<Node, Error> {
        let output = self.command(&["status", "--json", "--peers=false"]).succeed()?;
        let node = Node::parse(&output.stdout)?;
        self.facts.key_expiry = node.key_expiry;
        // A node that is logged out has no name for the moment.
        if let Some(name) = &node.name {
            self.facts.name = Some(name.clone());
        }
        Ok(node)
    }

    /// Checks that Funnel can be used on the port of this node, and in this tailnet.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&mut self) -> Result<Node, Error> {
        let client = self.version()?;
        let node = self.node()?;
        node.ready(self.port)?;
        Self::refuse_old(&client, &node)?;
        Ok(node)
    }

    /// An older tool reads the whole configuration, leaves out what it does not know, and writes the rest back.
    fn refuse_old(client: &str, node: &Node) -> Result<(), Error> {
        match is_older(client, &node.daemon) {
            Some(true) => Err(Error::OldClient { client: client.to_owned(), daemon: node.daemon.clone() }),
            _ => Ok(()),
        }
    }

    fn serve_config(&self) -> Result<ServeConfig, Error> {
        let output = self.command(&["funnel", "status", "--json"]).succeed()?;
        ServeConfig::parse(&output.stdout)
    }

    /// What is public on the port now, and whether anybody reaches it.
    ///
    /// # Errors
    /// When tailscale does not say.
    pub fn look(&mut self) -> Result<Look, Error> {
        let config = self.serve_config()?;
        if !config.is_public(self.port) {
            return Ok(Seen::Nothing.into());
        }
        let node = self.node()?;
        let away = node.away().map(|error| error.to_string());
        if let Some(folder) = &self.folder
            && let Err(error) = Home::check(folder, &node)
        {
            return Ok(Look { seen: Seen::Other(error.to_string()), away });
        }
        let seen = config.see(self.port, self.facts.name.as_deref(), &self.target);
        Ok(Look { seen, away })
    }

    /// Finds out whether the funnel can be opened: what is public on the port, and an error where something is in the way.
    ///
    /// # Errors
    /// What is in the way: of the node, its tailnet, the tool, or `Occupied` where something that is not public has the
    /// port.
    pub fn prepare(&mut self) -> Result<Seen, Error> {
        let node = self.ready()?;
        if let Some(folder) = &self.folder {
            self.facts.former = Home::keep(folder, &node)?;
        }
        let config = self.serve_config()?;
        match (config.see(self.port, self.facts.name.as_deref(), &self.target), config.occupant(self.port)) {
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
        Ok(self.command(&["funnel", "--yes", &port, &self.target]).spawn()?)
    }

    /// Takes everything off the port that is public there, whoever put it there, and verifies that. Other ports keep
    /// what they have. True where there was something to close.
    ///
    /// `serve … off` and not `funnel … off`: the latter asks for the funnel capability first and may wait for ever.
    /// What `off` cannot reach, a foreground session or a key under an earlier name of the node, is taken out of the
    /// configuration as it was just read; that write is not conditional, so it comes last.
    ///
    /// # Errors
    /// `StillOpen` where all of that did not help, or the tool is too old to write anything; others where tailscale does
    /// not say what is public.
    pub fn close(&mut self) -> Result<bool, Error> {
        let mut config = self.serve_config()?;
        if !config.is_public(self.port) {
            return Ok(false);
        }
        let patience = Instant::now() + SESSION_END;
        while config.background_is_closed(self.port) && Instant::now() < patience {
            std::thread::sleep(SESSION_END / 10);
            config = self.serve_config()?;
            if !config.is_public(self.port) {
                return Ok(true);
            }
        }
        let reason = self.take_off();
        let config = self.serve_config()?;
        if !config.is_public(self.port) {
            return Ok(true);
        }
        let by = config.who_is_public(self.port);
        let reason = reason.err().map_or_else(String::new, |error| error.to_string());
        Err(Error::StillOpen { port: self.port, by, reason })
    }

    /// Takes what is public off the port; the last error of the tool, which may have done its work all the same.
    fn take_off(&mut self) -> Result<(), Error> {
        let client = self.version()?;
        Self::refuse_old(&client, &self.node()?)?;
        let port = format!("--https={}", self.port);
        let mut result = Ok(());
        for _ in 0..TRIES {
            // Its exit code says little: there may be nothing that it can remove. The next look tells.
            result = self.command(&["serve", "--yes", &port, "off"]).succeed().map(drop).map_err(Error::from);
            // Somebody else wrote in between.
            let is_overtaken = |error: &Error| match error {
                Error::Command(command::Error::Failed { output, .. }) => output.contains("etag"),
                _ => false,
            };
            if !result.as_ref().is_err_and(is_overtaken) {
                break;
            }
        }
        let config = self.serve_config()?;
        if config.is_public(self.port) {
            let error = result.as_ref().err().map(Error::to_string);
            log::warn!("close_by_rewriting", port = self.port, error = error);
            let rest = config.without(self.port).to_json();
            self.command(&["serve", "set-raw"]).input(rest).succeed()?;
        }
        result
    }
}
