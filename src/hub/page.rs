//! The status page for a person: who may see it, and how a browser gets there.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Error;
use super::credential::Store;
use super::greeting::url;
use crate::config::{Config, reachable};
use crate::hint::command_line;
use crate::http;
use crate::program::print;

const TOKEN: &str = "admin-token";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Open the status page in a browser; on a host without a screen, show how to reach it from yours.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "page",
    note = "The page is never public: it is on proxy.admin_listen. ssh forwards it to your own machine.",
    example = "hub page",
    error_code(1, "The page does not answer; the message shows what to do.")
)]
pub(super) struct Page {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Make the token that status page, /metrics and pipelines then ask for, so that other users of this host see nothing.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "admin-token",
    note = "The token itself is never shown; it is the content of the file that is named.",
    example = "sudo hub admin-token",
    error_code(1, "The token cannot be written; the message has the reason.")
)]
pub(super) struct AdminToken {
    /// replace the token that is there
    #[argh(switch)]
    new: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn admin_token(arguments: &AdminToken) -> Result<(), Error> {
    let flag = arguments.config.as_deref();
    let config = Config::load(flag)?;
    let store = Store::of(&config);
    let path = store.credentials.path(TOKEN);
    let is_there = store.credentials.read(TOKEN)?.is_some_and(|token| !token.bytes().trim_ascii().is_empty());
    if is_there && !arguments.new {
        let again = command_line("hub", "admin-token --new", flag);
        print(&format!("{} is there already, and nothing was changed. To replace it: {again}", path.display()));
        return Ok(());
    }
    store.make(&config, TOKEN)?;
    let path = store.credentials.path(TOKEN);
    print(&format!(
        "Wrote {} (mode 0600).\n\n\
         A proxy that runs asks for it within a few seconds.\n\
         In a browser, enter any user name, and the content of that file as the password.\n\
         In a script: curl -H \"Authorization: Bearer $(cat {})\" {}",
        path.display(),
        path.display(),
        url(config.proxy.admin_listen, "/api/status"),
    ));
    Ok(())
}

pub(super) fn page(arguments: &Page) -> Result<(), Error> {
    let flag = arguments.config.as_deref();
    let config = Config::load(flag)?;
    let page = url(config.proxy.admin_listen, "/");
    let store = Store::of(&config);
    let start =
        if store.installed { "systemctl start proxy.service".to_owned() } else { command_line("hub", "up", flag) };
    let token = match http::agent(TIMEOUT).get(&page).call().map(|answer| answer.status().as_u16()) {
        Ok(200) => false,
        Ok(401) => true,
        Ok(status) => {
            let reason = format!("{page} answered {status}; is it the proxy that listens there? Its log has more");
            return Err(Error::Page(reason));
        }
        Err(error) => {
            let reason = http::said(&error);
            return Err(Error::Page(format!("{page} does not answer ({reason}); start the proxy: {start}")));
        }
    };
    let password = if token {
        let path = store.credentials.path(TOKEN);
        format!("\nIt asks for a password: the content of {}. Any user name will do.", path.display())
    } else {
        String::new()
    };
    if has_screen() {
        // Not waited for and not ended with this program: it is the reader's browser.
        let opened = Command::new("xdg-open")
            .arg(&page)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let act = if opened.is_ok() { "Opening" } else { "Open in your browser:" };
        print(&format!("{act} {page}{password}"));
        return Ok(());
    }
    let address = reachable(config.proxy.admin_listen);
    print(&format!(
        "This host has no screen here. On your own machine, run\n\n  \
         ssh -N -L {}:{address} {}\n\n\
         and open http://localhost:{}/ there; Ctrl-C ends it.{password}",
        address.port(),
        login(),
        address.port(),
    ));
    Ok(())
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether a browser that is started here is seen by whoever asks.
fn has_screen() -> bool {
    let display = variable("WAYLAND_DISPLAY").or_else(|| variable("DISPLAY"));
    // Over ssh a display is one that is forwarded: a browser would run here and be slow there.
    display.is_some() && variable("SSH_CONNECTION").is_none() && std::io::stdout().is_terminal()
}

/// `user@host` as ssh(1) takes it, as far as it can be known here.
fn login() -> String {
    let user = variable("SUDO_USER").or_else(|| variable("USER")).unwrap_or_else(|| "USER".into());
    // CLIENT CLIENT-PORT SERVER SERVER-PORT
    let over_ssh = variable("SSH_CONNECTION").and_then(|value| {
        let value = value.to_string_lossy().into_owned();
        value.split(' ').nth(2).map(str::to_owned)
    });
    let host = over_ssh.unwrap_or_else(crate::host::name);
    format!("{}@{}", crate::text::shown(&user.to_string_lossy()), crate::text::shown(&host))
}
