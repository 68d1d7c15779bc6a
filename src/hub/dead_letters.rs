use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use crate::config::Config;
use crate::hint::hint;
use crate::log::rfc3339;
use crate::program::print;
use crate::reading::dead_letters::{DeadLetters, Retried};
use crate::records::counted;
use crate::store::DeadLetter;
use crate::text::shown;

/// Look at the documents that no pipeline could store, try them again, or drop them.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "dead-letters",
    note = "Without a command it lists them. A document is kept whole until it is stored or dropped.",
    example = "hub dead-letters\nhub dead-letters --pipeline reading retry\nhub dead-letters show 3\n\
               hub dead-letters drop 3 4 5\nhub dead-letters --pipeline old retry --as reading"
)]
pub(super) struct Arguments {
    /// only those of this pipeline, configured or not
    #[argh(option, arg_name = "PIPELINE")]
    pipeline: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    #[argh(subcommand)]
    command: Option<Deed>,
}

#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand)]
enum Deed {
    List(List),
    Show(Show),
    Retry(TryAgain),
    Drop(Discard),
}

/// List dead letters, oldest first.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "list")]
struct List {
    /// only those of this pipeline, configured or not
    #[argh(option, arg_name = "PIPELINE")]
    pipeline: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Show one with its document.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "show")]
struct Show {
    #[argh(positional, arg_name = "ID")]
    /// its number in the list
    id: i64,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Transform and store some again, or all.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "retry")]
struct TryAgain {
    #[argh(positional, arg_name = "ID")]
    /// their numbers in the list; default: all
    ids: Vec<i64>,
    /// all of them, or all of --pipeline
    #[argh(switch)]
    all: bool,
    /// as this pipeline's, for those of one that has another name now
    #[argh(option, arg_name = "PIPELINE", long = "as")]
    target: Option<String>,
    /// only those of this pipeline, configured or not
    #[argh(option, arg_name = "PIPELINE")]
    pipeline: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Remove some for good.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "drop")]
struct Discard {
    #[argh(positional, arg_name = "ID")]
    /// their numbers in the list
    ids: Vec<i64>,
    /// all of them, or all of --pipeline
    #[argh(switch)]
    all: bool,
    /// only those of this pipeline, configured or not
    #[argh(option, arg_name = "PIPELINE")]
    pipeline: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

impl Deed {
    fn config(&self) -> Option<&Path> {
        let (Self::List(List { config, .. })
        | Self::Show(Show { config, .. })
        | Self::Retry(TryAgain { config, .. })
        | Self::Drop(Discard { config, .. })) = self;
        config.as_deref()
    }

    fn pipeline(&self) -> Option<&str> {
        match self {
            Self::List(List { pipeline, .. })
            | Self::Retry(TryAgain { pipeline, .. })
            | Self::Drop(Discard { pipeline, .. }) => pipeline.as_deref(),
            Self::Show(_) => None,
        }
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let flag = arguments.command.as_ref().and_then(Deed::config);
    let config = Config::load(flag.or(arguments.config.as_deref()))?;
    let mut letters = DeadLetters::open(&config)?;
    let pipeline = arguments.command.as_ref().and_then(Deed::pipeline).or(arguments.pipeline.as_deref());
    let changes = matches!(&arguments.command, Some(Deed::Retry(_) | Deed::Drop(_)));
    match &arguments.command {
        None | Some(Deed::List(_)) => list(&mut letters, pipeline)?,
        Some(Deed::Show(Show { id, .. })) => {
            let id = chosen(&mut letters, pipeline, &[*id], false)?[0];
            let (letter, document) = letters.show(id)?.ok_or_else(|| unknown(id))?;
            show(&letter, &document);
        }
        Some(Deed::Retry(TryAgain { ids, all, target, .. })) => {
            let ids = chosen(&mut letters, pipeline, ids, *all || ids.is_empty())?;
            retry(&mut letters, &ids, target.as_deref())?;
        }
        Some(Deed::Drop(Discard { ids, all, .. })) => {
            if ids.is_empty() && !all {
                return Err(Error::Usage("name the numbers of dead letters, or --all".to_owned()));
            }
            let mut dropped = Vec::new();
            for id in chosen(&mut letters, pipeline, ids, *all)? {
                if letters.discard(id)? {
                    dropped.push(id.to_string());
                }
            }
            match &dropped[..] {
                [id] => print(&format!("Dropped dead letter {id}.")),
                dropped => print(&format!("Dropped {}.", counted(dropped.len() as u64, "dead letter"))),
            }
        }
    }
    if changes && let Err(error) = letters.recount() {
        print(&format!("hub status goes on with the old numbers until the pipeline has run: {error}"));
    }
    Ok(())
}

fn unknown(id: i64) -> Error {
    Error::Usage(format!("there is no dead letter {id}; {} shows those that are", hint("hub", "dead-letters list")))
}

/// The numbers that are meant; one that is not there, or of another pipeline than the one that was named, is refused
/// before anything is done.
fn chosen(letters: &mut DeadLetters<'_>, pipeline: Option<&str>, ids: &[i64], all: bool) -> Result<Vec<i64>, Error> {
    let known: Vec<i64> = letters.list(pipeline)?.iter().map(|letter| letter.id).collect();
    if all && !ids.is_empty() {
        return Err(Error::Usage("name numbers or --all, not both".to_owned()));
    }
    match ids.iter().find(|id| !known.contains(id)) {
        Some(id) => Err(unknown(*id)),
        None if all => Ok(known),
        None => Ok(ids.to_vec()),
    }
}

/// Where a document is from, for a person: file and line, else its key.
fn origin(letter: &DeadLetter) -> String {
    let key = || shown(&letter.source_id).into_owned();
    let Some((file, line)) = letter.place.as_deref().and_then(|place| place.rsplit_once(':')) else { return key() };
    let place = format!("{}, line {}", shown(file), line.replace('#', ", document "));
    // The key of a document without an id tells nothing more.
    if letter.source_id.contains("sha256:") { place } else { format!("{place}, _id {}", key()) }
}

fn list(letters: &mut DeadLetters<'_>, pipeline: Option<&str>) -> Result<(), Error> {
    let all = letters.list(pipeline)?;
    if all.is_empty() {
        print("No dead letters.");
    }
    let mut orphans = BTreeSet::new();
    for letter in &all {
        let is_orphan = !letters.is_configured(&letter.pipeline);
        print(&format!(
            "{}  {}{}  {}  {} bytes, tried {}x, last {}: {}",
            letter.id,
            letter.pipeline,
            if is_orphan { " (not configured)" } else { "" },
            origin(letter),
            letter.size,
            letter.attempts,
            time(letter.last_failed),
            shown(&letter.reason)
        ));
        if is_orphan {
            orphans.insert(&letter.pipeline);
        }
    }
    for name in orphans {
        print(&format!(
            "{name} is not configured; as another pipeline's: {}",
            hint("hub", &format!("dead-letters --pipeline {name} retry --as NAME"))
        ));
    }
    Ok(())
}

fn show(letter: &DeadLetter, document: &str) {
    print(&format!(
        "id            {}\npipeline      {}\nplace         {}\nsource id     {}\nreason        {}\nattempts      {}\n\
         first failed  {}\nlast failed   {}\ndocument      {} bytes\n\n{document}",
        letter.id,
        letter.pipeline,
        letter.place.as_deref().map_or("-".into(), shown),
        shown(&letter.source_id),
        shown(&letter.reason),
        letter.attempts,
        time(letter.first_failed),
        time(letter.last_failed),
        letter.size
    ));
}

fn retry(letters: &mut DeadLetters<'_>, ids: &[i64], target: Option<&str>) -> Result<(), Error> {
    let mut all = Retried::default();
    let mut left = BTreeMap::new();
    for id in ids {
        if let Some(target) = target
            && !letters.give(*id, target)?
            && letters.show(*id)?.is_some()
        {
            print(&format!("Dead letter {id} stays: {target} has one of the same document; drop one of them."));
            continue;
        }
        let pipeline = letters.show(*id)?.map(|(letter, _)| letter.pipeline);
        if let Some(name) = pipeline.filter(|name| !letters.is_configured(name)) {
            *left.entry(name).or_insert(0) += 1;
            continue;
        }
        // Where there is none any more, somebody else was faster.
        let retried = letters.retry(*id)?.unwrap_or_default();
        all.stored += retried.stored;
        all.dead += retried.dead;
    }
    print(&format!("{} stored, {} still dead letters.", all.stored, all.dead));
    for (name, count) in left {
        let count = counted(count, "dead letter");
        print(&format!("{count} of {name}, which is not configured; name a pipeline for them with: retry --as NAME"));
    }
    Ok(())
}

fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| milliseconds.to_string(), rfc3339)
}
