//! The operator's command: `hub up` and what a person or a script asks of the installation.
//! No service's work is done here: services are started by name, and asked through the queue and their files.
//! It may know the ground floor, webhook, and what gate, gitops, reading and store tell of themselves; none of them knows it.

mod confirm;
mod credential;
mod database;
mod dead_letters;
mod doctor;
mod error;
mod fresh_credentials;
mod greeting;
mod init;
mod instant;
mod job;
mod log;
mod metrics;
mod names;
mod page;
mod queued;
mod remove;
mod repository;
mod rollback;
mod schedule;
mod service;
mod status;
mod supervisor;
mod terminal;
mod timeline;
mod units;
mod up;
mod versions;
mod voice;
mod webhook_test;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

pub(crate) use error::Error;
pub use service::Service;
pub use voice::watch_main;

use argh::{ArgsInfo as _, SubCommands as _};

use crate::program::{self, Exit};

/// Observability Hub: this host updates itself from git.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    note = "The configuration is /etc/observability-hub/hub.toml, for an ordinary user ~/.config/observability-hub/hub.toml \
            if that exists. HUB_CONFIG names another. It may be missing. --check shows whether it is right.",
    example = "{command_name} init                        write the first configuration",
    example = "{command_name} up                          run everything here, without systemd units",
    example = "{command_name} status                      how everything is",
    example = "{command_name} doctor                      what is wrong, and what fixes it",
    example = "{command_name} webhook-test                make the webhook secret and send a signed delivery",
    example = "{command_name} page                        open the status page",
    example = "{command_name} deploy acme/infra           bring the host to the branch's newest commit",
    example = "{command_name} rollback acme/infra         go back to what was deployed before",
    example = "{command_name} timeline                    what happened here",
    example = "{command_name} metrics --at 03:00          how the host was at three in the night",
    error_code(1, "It could not be done; the message has the reason."),
    error_code(2, "The command line is wrong."),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    #[argh(subcommand)]
    command: Order,
}

#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand)]
enum Order {
    Init(init::Arguments),
    Up(up::Arguments),
    Status(status::Arguments),
    Doctor(doctor::Arguments),
    WebhookTest(webhook_test::Arguments),
    Deploy(repository::Deploy),
    Hold(repository::Hold),
    Release(repository::Release),
    Retry(repository::Retry),
    Confirm(confirm::Arguments),
    Remove(remove::Arguments),
    Versions(versions::Arguments),
    Rollback(rollback::Arguments),
    Timeline(timeline::Arguments),
    Metrics(metrics::Arguments),
    Credentials(fresh_credentials::Arguments),
    DeadLetters(dead_letters::Arguments),
    Page(page::Page),
    AdminToken(page::AdminToken),
    Database(database::Arguments),
    Log(log::Arguments),
    Watch(voice::Watch),
    Notify(voice::Notify),
}

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// Runs `hub`, or, where the program was called by the name of one of `services`, that service: `hub up` starts them
/// so, from the one binary that `cargo run --bin hub` builds.
pub fn main(services: &[Service]) -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().unwrap_or_default();
    if let Some(service) = services.iter().find(|service| called == service.name) {
        return service.run();
    }
    let words: Vec<OsString> = words.collect();
    // What a timer starts is a service.
    crate::log::start(if words.first().is_some_and(|word| word == "watch") { crate::watch::SERVICE } else { "hub" });
    if words.is_empty() {
        return program::help::<Arguments>("hub").into();
    }
    if words[0] == names::WORD {
        return names::main(&words[1..]).into();
    }
    if let Some(code) = unknown_command(&words[0]) {
        return code;
    }
    // Every other program of the hub has `--check`, too.
    let before = (words[0] == "--check").then(|| "up".to_owned());
    // A script's log line must not be lost to a byte that is not UTF-8.
    let parsed = if words[0] == "log" || before.is_some() {
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        program::parse_arguments("hub", &before.into_iter().chain(words).collect::<Vec<_>>())
    } else {
        program::arguments("hub")
    };
    match parsed {
        Ok(Arguments { command }) => run(command, services),
        Err(code) => code,
    }
}

fn run(command: Order, services: &[Service]) -> ExitCode {
    let done = match command {
        Order::Up(arguments) => return up::main(&arguments, services).into(),
        Order::Status(arguments) => return status::main(&arguments),
        Order::Doctor(arguments) => return doctor::main(&arguments, services),
        Order::Init(arguments) => init::main(&arguments),
        Order::WebhookTest(arguments) => webhook_test::main(&arguments),
        Order::Deploy(arguments) => repository::deploy(&arguments),
        Order::Hold(arguments) => repository::hold(&arguments),
        Order::Release(arguments) => repository::release(&arguments),
        Order::Retry(arguments) => repository::retry(&arguments),
        Order::Confirm(arguments) => confirm::main(&arguments),
        Order::Remove(arguments) => remove::main(&arguments),
        Order::Versions(arguments) => versions::main(&arguments),
        Order::Rollback(arguments) => match rollback::main(&arguments) {
            Ok(exit) => return exit.into(),
            Err(error) => Err(error),
        },
        Order::Timeline(arguments) => timeline::main(&arguments),
        Order::Metrics(arguments) => metrics::main(&arguments),
        Order::DeadLetters(arguments) => dead_letters::main(&arguments),
        Order::Page(arguments) => page::page(&arguments),
        Order::AdminToken(arguments) => page::admin_token(&arguments),
        Order::Database(arguments) => database::main(&arguments),
        Order::Credentials(arguments) => return fresh_credentials::main(&arguments, services).into(),
        Order::Watch(arguments) => return voice::watch(&arguments),
        Order::Notify(arguments) => voice::notify(&arguments),
        Order::Log(arguments) => log::main(&arguments),
    };
    match done {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            error.complain();
            error.exit().into()
        }
    }
}

/// argh says of a wrong command only that it does not know it.
fn unknown_command(word: &OsStr) -> Option<ExitCode> {
    let word = word.to_str().filter(|word| !word.starts_with('-'))?;
    let names: Vec<&str> = Order::COMMANDS.iter().map(|command| command.name).collect();
    if names.contains(&word) || word == "help" {
        return None;
    }
    Error::Usage(format!(
        "there is no command {word:?}; write one of {}. Run hub --help for more information.",
        names.join(", ")
    ))
    .complain();
    Some(Exit::Usage.into())
}
