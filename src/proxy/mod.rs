//! The gateway: GitHub webhooks in, data pipelines started, status out.
//! Its HTTP engine knows nothing of routes; routes know nothing of sockets.
//! Nothing here runs git or moves data itself: that is other processes' work.

mod admin;
mod alive;
mod answer;
mod children;
mod deliveries;
pub mod listener;
mod page;
mod process;
mod prometheus;
mod public;
mod reader;
mod run;
mod secrets;
mod sites;
mod sockets;
mod status;
mod sync;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::ArgsInfo as _;

use crate::config::{self, Config, Renewal};
use crate::program::{self, CommandLine};
use crate::reading;
use crate::store::Store;
use secrets::secrets;

/// The gateway of Observability Hub: takes webhooks, shows the status. Stops on SIGTERM after the requests in flight. Takes a
/// changed configuration when it has not changed for two seconds, and at once on SIGHUP.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    error_code(0, "It was asked to stop, and did; or, with --check, configuration and credentials are good."),
    error_code(1, "It cannot work; the log has the reason."),
    error_code(2, "The command line is wrong."),
    error_code(78, "The configuration or a credential is wrong.")
)]
struct Arguments {
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// check configuration and credentials and exit
    #[argh(switch)]
    check: bool,
}

impl CommandLine for Arguments {
    const NAME: &'static str = "proxy";

    fn configuration(&self) -> (Option<&Path>, bool) {
        (self.config.as_deref(), self.check)
    }

    fn check(&self, config: &Config) -> Result<(), impl Display> {
        secrets(config).map_err(|error| error.to_string()).and_then(|_| check_pipelines(config))
    }
}

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// The main function of a program.
type Main = fn() -> ExitCode;

/// What the proxy starts of its own binary, by name: a pipeline's run and the reader of a page. Whatever program carries the
/// proxy has to know them.
pub const CHILDREN: [(&str, Main); 2] = [(reading::RUN, reading::run_main), (reader::NAME, reader::main)];

/// The program `proxy`.
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if let Some((_, main)) = CHILDREN.iter().find(|(name, _)| called == *name) {
        return main();
    }
    program::run(|_: Arguments, renewal: Renewal| match secrets(renewal.config()) {
        Ok(secrets) => run::serve(renewal, secrets),
        Err(error) => run::refuse(renewal.config(), &error),
    })
}

/// Whether the proxy would start with this configuration and the credentials that are there.
///
/// # Errors
/// The first thing that is wrong, and what to do.
pub fn check(config: &Config) -> Result<(), config::Error> {
    secrets(config).map(drop)
}

/// Whether the pipelines' addresses have the right form; nobody is spoken to. The proxy starts in any case: webhooks must
/// not wait for a database.
///
/// # Errors
/// The first that is wrong, and what to do; no piece of an address.
fn check_pipelines(config: &Config) -> Result<(), String> {
    if config.pipelines.is_empty() {
        return Ok(());
    }
    Store::check_address(config).map_err(|error| error.to_string())?;
    config.check_mongo().map_err(|error| error.to_string())
}
