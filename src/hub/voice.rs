//! `hub watch`: one look at this host, and what is to be told of it. `hub notify test`: whether notices arrive.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Error, status};
use crate::config::Config;
use crate::health::Level;
use crate::log;
use crate::program::{self, Exit, print};
use crate::said;
use crate::watch::{self, Change, Heartbeat, News, Notice, SERVICE, run, ways};

/// Judge this host once, send the notices that are due, and the heartbeat. hub-watch.timer starts it every minute, `hub up` too.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "watch",
    note = "Which notices go where is [notify] in hub.toml. It logs JSON lines, and leaves what is open in the folder \
            watch/ of the state.",
    example = "sudo systemctl start hub-watch   # a look now",
    error_code(75, "Another look goes on.")
)]
pub(super) struct Watch {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// show whether the configuration is right, and do nothing
    #[argh(switch)]
    check: bool,
}

/// Send a notice, and show the answer.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "notify",
    note = "Where notices go is [notify] in hub.toml, or the credentials notify-url, notify-token and notify-secret.",
    example = "sudo hub notify test",
    error_code(1, "It was not taken; the message has the reason.")
)]
pub(super) struct Notify {
    #[argh(subcommand)]
    command: NotifyCommand,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand)]
enum NotifyCommand {
    Test(Test),
}

/// Send one notice to each place that is configured, now.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "test")]
struct Test {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn watch(arguments: &Watch) -> ExitCode {
    look(arguments.config.as_deref(), arguments.check).into()
}

/// The service under `hub up`, whose configuration is in the environment.
pub fn watch_main() -> ExitCode {
    log::start(SERVICE);
    look(None, false).into()
}

fn look(flag: Option<&Path>, check: bool) -> Exit {
    let config = match Config::load(flag) {
        Ok(config) => config,
        Err(error) => match watch::last_valid(flag).filter(|_| !check) {
            // Who broke hub.toml is to hear of it.
            Some(config) => {
                log::warn!("configuration_refused", error = error.to_string());
                config
            }
            None => return program::configuration_error(&error),
        },
    };
    if check {
        return program::checked(&config, ways(&config).and(Heartbeat::url(&config)).and(said::check(&config)));
    }
    let now = Timestamp::now();
    match run(&config, now, |limits| status::look(flag, &config, limits, now)) {
        Ok(()) => {
            watch::remember(&config);
            Exit::Done
        }
        Err(watch::Error::Busy) => {
            log::warn!("busy", note = watch::Error::Busy.to_string());
            Exit::Busy
        }
        Err(error) => {
            log::error!("watch_failed", error = error.to_string());
            Exit::Error
        }
    }
}

pub(super) fn notify(arguments: &Notify) -> Result<(), Error> {
    let NotifyCommand::Test(test) = &arguments.command;
    let config = Config::load(test.config.as_deref().or(arguments.config.as_deref()))?;
    let ways = ways(&config)?;
    if ways.is_empty() {
        return Err(Error::Notice(
            "no place for notices is configured; write into hub.toml:\n  [notify]\n  url = \"https://ntfy.sh/a-name-that-nobody-guesses\""
                .to_owned(),
        ));
    }
    let now = Timestamp::now();
    let event = News {
        kind: Change::Raised,
        key: "watch/test".to_owned(),
        level: Level::Degraded,
        about: "hub notify test".to_owned(),
        reason: "this is a test; nothing is wrong".to_owned(),
        mend: None,
        since: now,
        at: now,
    };
    let notice = Notice::new(&crate::host::name(), vec![event], 0, now, &TimeZone::system())
        .map_err(|source| Error::System { act: "get random bytes", source })?;
    let mut wrong = Vec::new();
    for way in &ways {
        match way.send(&notice) {
            Ok(answer) => print(&format!("taken: {}: {answer}", way.shown())),
            Err(unsent) => wrong.push(format!("not taken: {}", unsent.reason)),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Notice(wrong.join("\n"))) }
}
