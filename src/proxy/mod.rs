//! The gateway: GitHub webhooks in, data pipelines started, status out.
//! Its HTTP engine knows nothing of routes; routes know nothing of sockets.
//! Nothing here runs git or moves data itself: that is other processes' work.

mod admin;
mod alive;
mod answer;
mod deliveries;
pub mod listener;
mod page;
mod process;
mod prometheus;
mod public;
mod run;
mod sites;
mod sockets;
mod status;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Config, Credentials, Renewal, Secret};
use crate::exit;
use crate::store::Store;
use crate::{log, reading};
use admin::Token;

/// The gateway of Observability Hub: takes webhooks, shows the status. Stops on SIGTERM after the requests in flight. Takes a
/// changed configuration when it has not changed for two seconds, and at once on SIGHUP.
#[derive(argh::FromArgs)]
struct Arguments {
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// check configuration and credentials and exit: 0 when they are good, 78 when not
    #[argh(switch)]
    check: bool,
}

/// Secrets, read and checked.
struct Secrets {
    credentials: Credentials,
    webhook: Vec<Secret>,
    token: Option<Token>,
}

/// The program `proxy`.
///
/// Returns 0 after a stop that was asked for, 1 when it cannot work, 2 for a wrong command line, 78 for a wrong
/// configuration.
pub fn main() -> ExitCode {
    // A pipeline's run is this program under another name.
    if std::env::args_os().next().is_some_and(|name| name == reading::RUN) {
        return reading::run_main();
    }
    log::start("proxy");
    let arguments: Arguments = match exit::arguments("proxy") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let renewal = match Renewal::load(arguments.config.as_deref()) {
        Ok(renewal) => renewal,
        Err(error) => return exit::configuration_error(&error).into(),
    };
    let config = renewal.config();
    match secrets(config) {
        Ok(_) if arguments.check => match check_pipelines(config) {
            Err(error) => exit::configuration_error(&error).into(),
            Ok(()) => exit::configuration_valid(config).into(),
        },
        Ok(secrets) => run::serve(renewal, secrets).into(),
        Err(error) if arguments.check => exit::configuration_error(&error).into(),
        Err(error) => run::refuse(config, &error).into(),
    }
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

fn secrets(config: &Config) -> Result<Secrets, config::Error> {
    let credentials = config.credentials();
    let webhook = credentials.webhook_secrets()?;
    let wrong = |reason: String| config::Error::Credential { name: "admin-token".to_owned(), reason };
    let token = match credentials.read("admin-token")? {
        Some(secret) => {
            let token = Token::new(&secret).map_err(|error| wrong(error.to_string()))?;
            Some(token.ok_or_else(|| wrong("is empty; make one with: openssl rand -hex 32".to_owned()))?)
        }
        None => None,
    };
    let address = config.proxy.admin_listen;
    if token.is_none() && config::is_exposed(address) {
        let reason = format!(
            "is missing, and proxy.admin_listen = \"{address}\" is not a loopback address: \
             put a token into {}, or listen on 127.0.0.1",
            credentials.path("admin-token").display()
        );
        return Err(wrong(reason));
    }
    Ok(Secrets { credentials, webhook, token })
}
