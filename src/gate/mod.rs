//! tailscale-gate: publishes the proxy through Tailscale Funnel while it is healthy, and in no other case.
//! What decides is in `machine`, which starts no process and has no clock; what acts is around it.
//! Nothing here changes another port's configuration, and nothing calls open or closed what was not verified.

mod alive;
mod error;
mod exposure;
mod funnel;
mod health;
mod home;
mod machine;
mod node;
mod report;
mod run;
mod status;
mod tailscale;
mod target;
mod worker;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::config::{Config, Renewal};
use crate::log;
use crate::program::{self, CommandLine, Exit};
use crate::state::Folder;

pub use alive::instance;
pub(crate) use error::Error;
use target::{Target, folder, publishable, target};

/// Open Tailscale Funnel while the proxy is healthy, and close it in every other case.
///
/// Without a command: keep the funnel until SIGTERM; a changed configuration is taken when it has not changed for two seconds,
/// and at once on SIGHUP.
#[derive(ArgsInfo, FromArgs)]
#[argh(
    error_code(0, "Done, and verified."),
    error_code(1, "It was not done, or the state is not known."),
    error_code(2, "The command line is wrong."),
    error_code(75, "Another gate runs."),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// check the configuration and exit
    #[argh(switch)]
    check: bool,
    #[argh(subcommand)]
    command: Option<Subcommand>,
}

#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand)]
enum Subcommand {
    Close(Close),
    Status(Status),
    Allow(Allow),
}

/// Take whatever is public off the gate's port, and verify that; for ExecStopPost= and for people.
#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand, name = "close")]
struct Close {
    /// configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Show what tailscale exposes on the gate's port now; exit code 1 when that is not known.
#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand, name = "status")]
struct Status {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Allow the gate to publish in the tailnet that this node is in now; needed once after the node has moved to another.
#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand, name = "allow")]
struct Allow {
    /// configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

impl CommandLine for Arguments {
    const NAME: &'static str = report::SERVICE;

    fn configuration(&self) -> (Option<&Path>, bool) {
        let of_command = match &self.command {
            Some(Subcommand::Close(close)) => close.config.as_deref(),
            Some(Subcommand::Status(status)) => status.config.as_deref(),
            Some(Subcommand::Allow(allow)) => allow.config.as_deref(),
            None => None,
        };
        (of_command.or(self.config.as_deref()), self.check)
    }

    fn check(&self, config: &Config) -> Result<(), impl Display> {
        self.target(config).map(drop)
    }
}

impl Arguments {
    /// What may be published, where the command can be carried out.
    fn target(&self, config: &Config) -> Result<Target, String> {
        // Closing works whatever is wrong.
        if self.command.is_some() { target(config).map_err(|error| error.to_string()) } else { publishable(config) }
    }
}

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// The program `tailscale-gate`.
pub fn main() -> ExitCode {
    program::run(|arguments: Arguments, renewal: Renewal| {
        let config = renewal.config();
        let target = match arguments.target(config) {
            Ok(target) => target,
            Err(error) => return program::configuration_error(&error),
        };
        match arguments.command {
            Some(Subcommand::Close(_)) => close(config, &target),
            Some(Subcommand::Allow(_)) => allow(config, &target),
            Some(Subcommand::Status(Status { json, .. })) => status::show(config, &target, json),
            None => run::keep(renewal, target),
        }
    })
}

/// Whether the gate could publish the proxy now, for `hub doctor`: tailscale is there, connected, allowed to, and has the
/// port free. Changes nothing. Takes at most 15 seconds. Returns a sentence for a person.
///
/// # Errors
/// What is in the way, and what to do.
pub fn check(config: &Config) -> Result<String, Error> {
    let target = target(config)?;
    let mut tailscale = tailscale::Tailscale::new(&config.gate, &target.url);
    let node = tailscale.ready()?;
    // Who may not read it does not know which tailnet it was.
    if let Ok(folder) = Folder::open(&config.state_dir).and_then(|root| root.sub("gate")) {
        home::Home::check(&folder, &node)?;
    }
    tailscale.prepare()?;
    let facts = tailscale.facts();
    let (version, name) = (facts.version.as_deref().unwrap_or_default(), node.name.as_deref().unwrap_or_default());
    Ok(format!("tailscale {version} may publish port {} of {name}", config.gate.port))
}

/// Closes whatever the port exposes, without a gate that runs.
fn close(config: &Config, target: &Target) -> Exit {
    let port = config.gate.port;
    let result = tailscale::Tailscale::new(&config.gate, &target.url).close();
    status::record_close(config, &result);
    match result {
        Ok(was_open) => {
            log::info!("funnel_closed", port = port, was_open = was_open);
            if let Some(pid) = status::running_gate(config) {
                let reason = "a gate runs and will open the port again; stop it: systemctl stop tailscale-gate";
                log::warn!("gate_is_running", pid = pid, reason = reason);
            }
            Exit::Done
        }
        Err(error) => {
            log::error!("close_failed", port = port, error = error.to_string());
            Exit::Error
        }
    }
}

/// Keeps the tailnet in which the node is now as the one to publish in.
fn allow(config: &Config, target: &Target) -> Exit {
    let allow = || -> Result<_, Error> {
        let node = tailscale::Tailscale::new(&config.gate, &target.url).node()?;
        let folder = folder(config).map_err(|error| Error::State(error.to_string()))?;
        home::Home::allow(&folder, &node)
    };
    match allow() {
        Ok((before, now)) => {
            log::info!("tailnet_allowed", tailnet = now, before = before);
            Exit::Done
        }
        Err(error) => {
            log::error!("not_allowed", error = error.to_string());
            Exit::Error
        }
    }
}
