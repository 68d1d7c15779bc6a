//! The manual pages.

use argh::Optionality;
use observability_hub::Exit;
use observability_hub::config::keys::{Key, SECTIONS, Usual, Value};

use super::commands::{Command, repeats, value_of};
use super::roff::Roff;

/// What a page says that no command line does. The first paragraphs go to its description.
const TEXTS: &[(&str, &str)] = &[
    ("gitops-sync", include_str!("../man/gitops-sync.8.md")),
    ("hub", include_str!("../man/hub.1.md")),
    ("hub.toml", include_str!("../man/hub.toml.5.md")),
    ("observability-hub", include_str!("../man/observability-hub.7.md")),
    ("proxy", include_str!("../man/proxy.8.md")),
    ("reading-sync", include_str!("../man/reading-sync.8.md")),
    ("system-metrics", include_str!("../man/system-metrics.8.md")),
    ("tailscale-gate", include_str!("../man/tailscale-gate.8.md")),
];

/// Name, section and content of every page.
pub fn pages(programs: &[(Command, u8)]) -> Vec<(String, u8, String)> {
    let mut pages =
        vec![("hub.toml".to_owned(), 5, hub_toml(programs)), ("observability-hub".to_owned(), 7, overview(programs))];
    for (program, section) in programs {
        pages.push((program.page(), *section, page(program, *section, programs)));
        // Commands of the others are few, and are described where they are listed.
        if program.page() == "hub" {
            let commands = program.commands.iter();
            pages.extend(commands.map(|command| (command.page(), *section, page(command, *section, programs))));
        }
    }
    pages
}

/// The page's own text, parted at its first heading.
fn text(name: &str) -> (&'static str, &'static str) {
    let text = TEXTS.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text.trim());
    match text.find("\n## ") {
        Some(at) => (&text[..at], &text[at..]),
        None if text.starts_with("## ") => ("", text),
        None => (text, ""),
    }
}

fn new(name: &str, section: u8, summary: &str) -> Roff {
    // 0.1.0+20261129.891e73b has the day of its commit.
    let version = observability_hub::VERSION;
    let day = version.split_once('+').and_then(|(_, commit)| commit.get(..8));
    let day = day.map(|day| format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]));
    let number = version.split('+').next().unwrap_or(version);
    let mut page = Roff::new(name, section, &day.unwrap_or_else(today), number);
    page.heading("Name");
    page.paragraph(&format!("{name} - {summary}"));
    page
}

/// Where the sources do not say of which day they are.
fn today() -> String {
    observability_hub::rfc3339(jiff::Timestamp::now()).chars().take(10).collect()
}

fn page(command: &Command, section: u8, programs: &[(Command, u8)]) -> String {
    let name = command.page();
    let (before, after) = text(&name);
    let mut page = new(&name, section, &command.summary());
    page.heading("Synopsis");
    let calls = if command.commands.is_empty() || is_list(command) {
        vec![synopsis(command)]
    } else {
        let own = !needs_command(command);
        own.then_some(command).into_iter().chain(&command.commands).map(synopsis).collect()
    };
    for call in calls {
        page.paragraph(&call);
    }
    page.heading("Description");
    for part in paragraphs(command.info.description) {
        page.paragraph(&part);
    }
    for note in command.info.notes {
        page.paragraph(&words(note));
    }
    if !before.is_empty() {
        page.markdown(before);
    }
    arguments(&mut page, command);
    options(&mut page, command);
    if !command.commands.is_empty() {
        page.heading("Commands");
        for sub in &command.commands {
            if is_list(command) {
                page.term(&format!("{}({section})", sub.page()), &first_upper(&(sub.summary() + ".")));
            } else {
                page.term(&synopsis(sub), &words(sub.info.description));
                let taken = sub.positionals().map(|one| (one.name.to_owned(), one.description));
                let flags = sub.flags().filter(|flag| flag.long != "--config");
                for (name, text) in taken.chain(flags.map(|flag| (option(flag), flag.description))) {
                    page.more(&format!(
                        "{}: {}",
                        if name.contains('*') { name } else { format!("*{name}*") },
                        words(text)
                    ));
                }
            }
        }
    }
    page.markdown(after);
    page.heading("Exit status");
    for (code, meaning) in &command.exits {
        page.term(&code.to_string(), meaning);
    }
    if !command.info.examples.is_empty() {
        page.heading("Examples");
        let examples: Vec<&str> = command.info.examples.iter().flat_map(|text| text.lines()).map(str::trim).collect();
        page.example(&examples.join("\n").replace("{command_name}", &command.words()));
    }
    see_also(&mut page, &name, programs);
    page.text()
}

/// Whether its commands have pages of their own.
fn is_list(command: &Command) -> bool {
    command.page() == "hub"
}

/// `dead-letters` and the gate do something without a command, too.
fn needs_command(command: &Command) -> bool {
    ["hub", "hub-database", "hub-notify"].contains(&command.page().as_str())
}

fn first_upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A text on one line.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn paragraphs(text: &str) -> Vec<String> {
    text.split("\n\n").map(words).collect()
}

fn option(flag: &argh::FlagInfo<'_>) -> String {
    let value = value_of(flag).map(|value| format!(" *{value}*")).unwrap_or_default();
    format!("**{}**{value}", flag.long)
}

fn synopsis(command: &Command) -> String {
    let mut parts = vec![format!("**{}**", command.words())];
    let around = |text: String, optionality: &Optionality| match optionality {
        Optionality::Required => text,
        Optionality::Optional => format!("[{text}]"),
        Optionality::Repeating | Optionality::Greedy => format!("[{text} ...]"),
    };
    parts.extend(command.flags().map(|flag| around(option(flag), &flag.optionality)));
    if is_list(command) {
        parts.push("*COMMAND* [*ARGUMENTS*]".to_owned());
    }
    parts.extend(command.positionals().map(|one| around(format!("*{}*", one.name), &one.optionality)));
    parts.join(" ")
}

fn arguments(page: &mut Roff, command: &Command) {
    if command.positionals().next().is_some() {
        page.heading("Arguments");
        for one in command.positionals() {
            let more = if repeats(&one.optionality) { " ..." } else { "" };
            page.term(&format!("*{}*{more}", one.name), &sentence(one.description));
        }
    }
}

fn options(page: &mut Roff, command: &Command) {
    page.heading("Options");
    for flag in command.flags() {
        let again = if repeats(&flag.optionality) { " It may be given several times." } else { "" };
        page.term(&option(flag), &(sentence(flag.description) + again));
    }
    page.term("**--help**, **-h**", "Show the help and exit.");
    if command.path.len() == 1 {
        page.term("**--version**, **-V**", "Show the version and exit.");
    }
}

/// What help says in lower case, as a sentence. `owner/name` stays as it is written.
fn sentence(text: &str) -> String {
    let text = words(text);
    let is_word = text.split(' ').next().is_some_and(|word| word.chars().all(char::is_alphabetic));
    let text = if is_word { first_upper(&text) } else { text };
    if text.ends_with('.') { text } else { text + "." }
}

fn see_also(page: &mut Roff, name: &str, programs: &[(Command, u8)]) {
    page.heading("See also");
    let programs = programs.iter().map(|(program, section)| (program.page(), *section));
    let mut all: Vec<(String, u8)> = programs.collect();
    all.extend([("hub.toml".to_owned(), 5), ("observability-hub".to_owned(), 7)]);
    all.sort_by_key(|(name, section)| (*section, name.clone()));
    let others = all.iter().filter(|(other, _)| other != name);
    let list: Vec<String> = others.map(|(other, section)| format!("**{other}**({section})")).collect();
    page.paragraph(&list.join(", "));
}

fn overview(programs: &[(Command, u8)]) -> String {
    let name = "observability-hub";
    let (before, after) = text(name);
    let mut page = new(name, 7, "one Linux host that updates itself from git and measures itself");
    page.heading("Description");
    page.markdown(before);
    page.heading("Programs");
    for (program, section) in programs {
        page.term(&format!("{}({section})", program.page()), &first_upper(&(program.summary() + ".")));
    }
    page.markdown(after);
    page.heading("Exit status");
    page.paragraph("Every program uses these codes. A page of a program says what they mean there.");
    for exit in Exit::ALL {
        page.term(&(exit as i32).to_string(), exit.meaning());
    }
    see_also(&mut page, name, programs);
    page.text()
}

fn hub_toml(programs: &[(Command, u8)]) -> String {
    let name = "hub.toml";
    let (before, after) = text(name);
    let mut page = new(name, 5, "configuration of Observability Hub");
    page.heading("Description");
    page.markdown(before);
    for section in SECTIONS {
        let brackets = if section.many { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
        page.heading(if section.name.is_empty() { "Keys before the first table" } else { &brackets });
        page.paragraph(section.text);
        for key in section.keys {
            describe(&mut page, "", key);
        }
    }
    page.markdown(after);
    see_also(&mut page, name, programs);
    page.text()
}

/// A key with what it takes and its default, then those of its table.
fn describe(page: &mut Roff, before: &str, key: &Key) {
    page.term(&format!("**{before}{}** ({})", key.name, kind(&key.value)), key.text);
    page.line(&match key.usual {
        Usual::Is(value) => format!("Default: `{value}`"),
        Usual::Else(words, value) => format!("Default: {words}. Example: `{value}`"),
        Usual::Needed(value) => format!("It must be written. Example: `{value}`"),
    });
    let tables = match &key.value {
        Value::Either(all) => all.iter().collect(),
        one => vec![one],
    };
    for table in tables {
        if let Value::Table(keys) | Value::List(Value::Table(keys)) = table {
            for inner in *keys {
                describe(page, &format!("{before}{}.", key.name), inner);
            }
        }
    }
}

/// What a key takes, in words.
fn kind(value: &Value) -> String {
    match value {
        Value::Text("^/") => "absolute path".to_owned(),
        Value::Text(_) => "text".to_owned(),
        Value::Word(words) => words.join(", "),
        Value::Number(numbers) => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        Value::Size => "size".to_owned(),
        Value::Whole(unit, least, most) if *most >= u64::from(u32::MAX) => format!("{unit}, {least} or more"),
        Value::Whole(unit, least, most) => format!("{unit}, {least} to {most}"),
        Value::Limit(unit, _) => format!("{unit}, or false"),
        Value::Switch => "true or false".to_owned(),
        Value::List(inner) => format!("list: {}", kind(inner)),
        Value::Table(_) => "table".to_owned(),
        Value::Either(all) => all.iter().map(kind).collect::<Vec<_>>().join(" or "),
    }
}
