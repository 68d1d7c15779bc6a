use std::path::{Path, PathBuf};

use super::{Error, say};
use crate::config::Config;
use crate::log::rfc3339;
use crate::reading::dead_letters::{DeadLetters, Retried};
use crate::store::DeadLetter;
use crate::text::shown;

/// Look at the documents that no pipeline could store, try them again, or drop them.
#[derive(argh::FromArgs)]
#[argh(
    subcommand,
    name = "dead-letters",
    note = "Without a command it lists them. A document is kept whole until it is stored or dropped.",
    example = "hub dead-letters\nhub dead-letters --pipeline reading retry\nhub dead-letters show 3"
)]
pub(super) struct Arguments {
    /// only those of this pipeline
    #[argh(option, arg_name = "NAME")]
    pipeline: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(argh::FromArgs)]
#[argh(subcommand)]
enum Command {
    List(List),
    Show(Show),
    Retry(Retry),
    Drop(Drop),
}

/// List dead letters, oldest first.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "list")]
struct List {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Show one with its document.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "show")]
struct Show {
    #[argh(positional, arg_name = "ID")]
    /// its number in the list
    id: i64,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Transform and store one again, or all.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "retry")]
struct Retry {
    #[argh(positional, arg_name = "ID")]
    /// its number in the list; default: all
    id: Option<i64>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Remove one for good.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "drop")]
struct Drop {
    #[argh(positional, arg_name = "ID")]
    /// its number in the list
    id: i64,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

impl Command {
    fn config(&self) -> Option<&Path> {
        let (Self::List(List { config })
        | Self::Show(Show { config, .. })
        | Self::Retry(Retry { config, .. })
        | Self::Drop(Drop { config, .. })) = self;
        config.as_deref()
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let flag = arguments.command.as_ref().and_then(Command::config);
    let config = Config::load(flag.or(arguments.config.as_deref()))?;
    let mut letters = DeadLetters::open(&config)?;
    let pipeline = arguments.pipeline.as_deref();
    match &arguments.command {
        None | Some(Command::List(_)) => list(&letters.list(pipeline)?),
        Some(Command::Show(Show { id, .. })) => {
            of_pipeline(&mut letters, pipeline, *id)?;
            let (letter, document) = letters.show(*id)?.ok_or_else(|| unknown(*id))?;
            show(&letter, &document);
        }
        Some(Command::Retry(Retry { id, .. })) => return retry(&mut letters, pipeline, *id),
        Some(Command::Drop(Drop { id, .. })) => {
            of_pipeline(&mut letters, pipeline, *id)?;
            if !letters.discard(*id)? {
                return Err(unknown(*id));
            }
            say(&format!("Dropped dead letter {id}."));
        }
    }
    Ok(())
}

fn unknown(id: i64) -> Error {
    Error::Usage(format!("there is no dead letter {id}; hub dead-letters list shows those that are"))
}

/// Refuses a number of another pipeline than the one that was named.
fn of_pipeline(letters: &mut DeadLetters<'_>, pipeline: Option<&str>, id: i64) -> Result<(), Error> {
    let Some(pipeline) = pipeline else { return Ok(()) };
    if letters.list(Some(pipeline))?.iter().any(|letter| letter.id == id) { Ok(()) } else { Err(unknown(id)) }
}

fn list(letters: &[DeadLetter]) {
    if letters.is_empty() {
        say("No dead letters.");
    }
    for letter in letters {
        say(&format!(
            "{}  {}  {}  {} bytes, tried {}x, last {}: {}",
            letter.id,
            letter.pipeline,
            shown(&letter.source_id),
            letter.size,
            letter.attempts,
            time(letter.last_failed),
            shown(&letter.reason)
        ));
    }
}

fn show(letter: &DeadLetter, document: &str) {
    say(&format!(
        "id            {}\npipeline      {}\nsource id     {}\nreason        {}\nattempts      {}\n\
         first failed  {}\nlast failed   {}\ndocument      {} bytes\n\n{document}",
        letter.id,
        letter.pipeline,
        shown(&letter.source_id),
        shown(&letter.reason),
        letter.attempts,
        time(letter.first_failed),
        time(letter.last_failed),
        letter.size
    ));
}

fn retry(letters: &mut DeadLetters<'_>, pipeline: Option<&str>, id: Option<i64>) -> Result<(), Error> {
    let ids = match id {
        Some(id) => {
            of_pipeline(letters, pipeline, id)?;
            vec![id]
        }
        None => letters.list(pipeline)?.iter().map(|letter| letter.id).collect(),
    };
    let mut all = Retried::default();
    for one in ids {
        match letters.retry(one)? {
            Some(retried) => {
                all.stored += retried.stored;
                all.dead += retried.dead;
            }
            None if id.is_some() => return Err(unknown(one)),
            // Somebody else was faster.
            None => {}
        }
    }
    say(&format!("{} stored, {} still dead letters.", all.stored, all.dead));
    Ok(())
}

fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| milliseconds.to_string(), rfc3339)
}
