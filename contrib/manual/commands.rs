//! The programs and their commands, as their command lines are declared.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};
use observability_hub::{Exit, gate, gitops, hub, metrics, proxy, reading};

/// A program, or a command of one.
pub struct Command {
    /// The words that call it, such as `hub` and `status`.
    pub path: Vec<String>,
    /// What it says of itself.
    pub info: CommandInfoWithArgs,
    /// Its commands.
    pub commands: Vec<Self>,
    /// How it ends.
    pub exits: Vec<(i32, String)>,
}

/// All programs with the sections of their manual pages.
pub fn programs() -> Vec<(Command, u8)> {
    [
        ("hub", hub::described(), 1),
        ("proxy", proxy::described(), 8),
        ("gitops-sync", gitops::described(), 8),
        ("reading-sync", reading::described(), 8),
        ("system-metrics", metrics::described(), 8),
        ("tailscale-gate", gate::described(), 8),
    ]
    .map(|(name, info, section)| (Command::new(vec![name.to_owned()], info, &[]), section))
    .into()
}

impl Command {
    /// A command ends as the one that it belongs to does, where it says nothing else.
    fn new(path: Vec<String>, info: CommandInfoWithArgs, before: &[(i32, String)]) -> Self {
        let mut exits: Vec<(i32, String)> =
            info.error_codes.iter().map(|code| (code.code, code.description.to_owned())).collect();
        let add = |exits: &mut Vec<(i32, String)>, code: i32, text: &str| {
            if exits.iter().all(|(known, _)| *known != code) {
                exits.push((code, text.to_owned()));
            }
        };
        for (code, text) in before {
            add(&mut exits, *code, text);
        }
        for exit in [Exit::Done, Exit::Error, Exit::Usage, Exit::Config] {
            add(&mut exits, exit as i32, exit.meaning());
        }
        exits.sort();
        let commands = info
            .commands
            .iter()
            .map(|sub| Self::new([&path[..], &[sub.name.to_owned()]].concat(), sub.command.clone(), &exits))
            .collect();
        Self { path, info, commands, exits }
    }

    /// Its page's name: `hub-status`.
    pub fn page(&self) -> String {
        self.path.join("-")
    }

    /// The words that call it, as a person writes them.
    pub fn words(&self) -> String {
        self.path.join(" ")
    }

    /// The first sentence of what it says of itself, as the NAME of a page has it.
    pub fn summary(&self) -> String {
        let text = self.info.description.split_whitespace().collect::<Vec<_>>().join(" ");
        let first = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
        // A name is written as it is, and a page's name stands before this already.
        let first = first.strip_prefix("Observability Hub: ").unwrap_or(first);
        let mut chars = first.chars();
        chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
    }

    /// Its options that help shows.
    pub fn flags(&self) -> impl Iterator<Item = &FlagInfo<'static>> {
        self.info.flags.iter().filter(|flag| !flag.hidden && flag.long != "--help")
    }

    /// What it takes besides.
    pub fn positionals(&self) -> impl Iterator<Item = &PositionalInfo<'static>> {
        self.info.positionals.iter().filter(|positional| !positional.hidden)
    }

    /// It and all its commands.
    pub fn all(&self) -> Vec<&Self> {
        let below = self.commands.iter().flat_map(Self::all);
        std::iter::once(self).chain(below).collect()
    }
}

/// The name of an option's value; none for a switch.
pub fn value_of<'a>(flag: &FlagInfo<'a>) -> Option<&'a str> {
    match flag.kind {
        FlagInfoKind::Switch => None,
        FlagInfoKind::Option { arg_name } => Some(arg_name),
    }
}

/// Whether something may come several times.
pub fn repeats(optionality: &Optionality) -> bool {
    matches!(optionality, Optionality::Repeating | Optionality::Greedy)
}

/// What a shell offers for a value.
pub enum Offer {
    /// What `hub names KIND` prints.
    Names(&'static str),
    Files,
    Folders,
    Words(&'static [&'static str]),
    Nothing,
}

/// What is offered, by the name that help has for the value. A name that is not here is an error of whoever added it.
pub fn offer(name: &str) -> Result<Offer, String> {
    Ok(match name {
        "REPO" => Offer::Names("repositories"),
        "GONE" => Offer::Names("gone"),
        "PIPELINE" => Offer::Names("pipelines"),
        "SERVICE" => Offer::Names("services"),
        "ABOUT" => Offer::Names("all"),
        "PATH" | "FILE" => Offer::Files,
        "FOLDER" => Offer::Folders,
        "FORMAT" => Offer::Words(&["json", "prometheus"]),
        "LEVEL MSG key=value" => Offer::Words(&["debug", "info", "warn", "error"]),
        "BRANCH" | "COMMIT" | "HOST" | "ID" | "NAME" | "SECONDS" | "TEXT" | "TIME" | "UNIT" | "URL" => Offer::Nothing,
        _ => return Err(format!("contrib/manual/commands.rs does not say what a shell offers for {name}")),
    })
}
