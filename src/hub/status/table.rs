use std::fmt::Write;

use super::shown::Status;
use crate::health::{Level, Service};
use crate::hint::hint;
use crate::hub::terminal::{Terminal, Tone, columns, fit};
use crate::records::{Repository, ago, counted, ended_ago, milliseconds, not_read, short, span};
use crate::text;

fn tone(level: Level) -> Tone {
    match level {
        Level::Healthy => Tone::Good,
        Level::Degraded => Tone::Warning,
        Level::Failed => Tone::Bad,
    }
}

/// What is told without colour too.
fn mark(level: Level) -> &'static str {
    match level {
        Level::Healthy => " ",
        Level::Degraded => "!",
        Level::Failed => "x",
    }
}

/// Columns of the tables but the last, which takes the rest.
const SERVICE: usize = 14;
const STATE: usize = 11;
const WHEN: usize = 10;
const TOOK: usize = 8;
const COMMIT: usize = 10;
/// The names of lines that are no table.
const LABEL: usize = 16;
const LONGEST_NAME: usize = 32;

/// A table for people. Whatever comes from a file loses its control characters: they could drive the terminal.
pub(super) fn format(status: &Status, terminal: Terminal) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, status, terminal)
        .and_then(|()| services(&mut text, status, terminal))
        .and_then(|()| repositories(&mut text, status, terminal))
        .and_then(|()| rest(&mut text, status, terminal))
        .and_then(|()| reasons(&mut text, status, terminal));
    text
}

fn head(text: &mut String, status: &Status, terminal: Terminal) -> std::fmt::Result {
    let level = status.status;
    let word = if status.is_fresh && level == Level::Healthy { "nothing has run here yet" } else { level.word() };
    let host = terminal.paint(Tone::Strong, &text::sentence(&status.host));
    let word = terminal.paint(tone(level), word);
    writeln!(text, "{host}: {word}  {}\n", terminal.paint(Tone::Quiet, &format!("({})", status.time)))
}

fn row(text: &mut String, level: Level, cells: &[String], last: &str, terminal: Terminal) -> std::fmt::Result {
    let line = cells.join(" ");
    let indent = 2 + columns(&line) + 1;
    let last = fit(&text::sentence(last), terminal.width.saturating_sub(indent).max(8));
    let line = format!("{} {line} {}", mark(level), last.trim_end());
    let colour = if level == Level::Healthy { Tone::Plain } else { tone(level) };
    writeln!(text, "{}", terminal.paint(colour, line.trim_end()))
}

fn titles(text: &mut String, titles: &[(&str, usize)], last: &str, terminal: Terminal) -> std::fmt::Result {
    let cells: Vec<String> = titles.iter().map(|(title, columns)| fit(title, *columns)).collect();
    writeln!(text, "{}", terminal.paint(Tone::Quiet, &format!("  {} {last}", cells.join(" "))))
}

fn services(text: &mut String, status: &Status, terminal: Terminal) -> std::fmt::Result {
    let columns = [("SERVICE", SERVICE), ("STATE", STATE), ("LAST RUN", WHEN), ("TOOK", TOOK)];
    titles(text, &columns, "RESULT", terminal)?;
    for service in &status.services {
        let (when, took) = times(service, status.now);
        let cells = [fit(service.service, SERVICE), fit(&service.state, STATE), fit(&when, WHEN), fit(&took, TOOK)];
        row(text, service.level, &cells, &result(service, status), terminal)?;
    }
    Ok(())
}

fn times(service: &Service, now: jiff::Timestamp) -> (String, String) {
    let when = |at: &str| ago(at, now).trim_end_matches(" ago").to_owned();
    match (&service.since, service.last_run.get(), service.service) {
        (Some(since), ..) => (format!("up {}", when(since)), "-".to_owned()),
        // A record of an earlier process says nothing of one that runs.
        (None, _, "proxy") if service.runs => ("-".to_owned(), "-".to_owned()),
        (None, Some(run), "tailscale-gate") => (when(&run.started), "-".to_owned()),
        (None, Some(run), _) => {
            let ended = ended_ago(&run.started, run.duration_ms, now);
            (ended.trim_end_matches(" ago").to_owned(), milliseconds(run.duration_ms))
        }
        (None, None, _) => (service.last_run.unknown().unwrap_or("never").to_owned(), "-".to_owned()),
    }
}

fn result(service: &Service, status: &Status) -> String {
    // A person reads the reason below; here is the short form of it.
    let counts = |service: &Service| service.last_run.get().is_some_and(|run| !run.counts.is_empty());
    if let Some(reason) = status.reasons.iter().find(|reason| reason.about == service.service)
        && (service.service != "gitops-sync" || !counts(service))
    {
        return reason.reason.clone();
    }
    match (service.service, service.last_run.get()) {
        ("proxy", _) if service.runs => "takes deliveries".to_owned(),
        ("tailscale-gate", Some(run)) => run.status.clone(),
        (_, Some(run)) => {
            let counted =
                run.counts.iter().filter_map(|(name, count)| Some((name, count.as_u64().filter(|n| *n > 0)?)));
            let counted: Vec<String> =
                counted.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
            let word = run.status.replace('_', " ");
            if counted.is_empty() || counted == [format!("{word} 1")] { word } else { counted.join(", ") }
        }
        (_, None) => "-".to_owned(),
    }
}

fn repositories(text: &mut String, status: &Status, terminal: Terminal) -> std::fmt::Result {
    text.push('\n');
    if status.repositories.is_empty() {
        let none = if status.configuration.error.is_some() { "not known" } else { "none is configured" };
        return line(text, "repositories", none, terminal);
    }
    let longest = status.repositories.iter().map(|repository| repository.known.repository.chars().count()).max();
    let name = longest.unwrap_or(0).clamp(SERVICE, LONGEST_NAME);
    let columns = [("REPOSITORY", name), ("DEPLOYED", COMMIT), ("SINCE", TOOK), ("CHECKED", TOOK)];
    titles(text, &columns, "RESULT", terminal)?;
    for repository in &status.repositories {
        let [deployed, since, checked, result] = cells(&repository.known, status.now);
        let cells = [
            fit(&text::sentence(&repository.known.repository), name),
            fit(&text::sentence(&deployed), COMMIT),
            fit(&since, TOOK),
            fit(&checked, TOOK),
        ];
        row(text, repository.level, &cells, &result, terminal)?;
        if let Some(why) = repository.known.checked.get().and_then(|checked| checked.not_deployed.as_ref()) {
            let note = text::sentence(&format!("its units are not deployed: {why}"));
            writeln!(text, "    {}", terminal.paint(Tone::Quiet, &terminal.wrap(&note, 4)))?;
        }
        if let Some(checked) = repository.known.checked.get().filter(|checked| checked.status == "waiting") {
            let note = text::sentence(checked.reason.as_deref().unwrap_or_default());
            writeln!(text, "    {}", terminal.paint(Tone::Quiet, &terminal.wrap(&note, 4)))?;
        }
        if let Some(hold) = repository.known.hold.get() {
            let reason = hold.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let since = if hold.since.is_empty() { String::new() } else { ago(&hold.since, status.now) };
            let release = hint("hub", &format!("release {}", repository.known.repository));
            let note = text::sentence(&format!("held {since}{reason}; {release}"));
            writeln!(text, "    {}", terminal.paint(Tone::Quiet, &terminal.wrap(&note, 4)))?;
        }
    }
    Ok(())
}

/// What is live, since when, when it was looked at, and what came of that: four short texts.
fn cells(known: &Repository, now: jiff::Timestamp) -> [String; 4] {
    let when = |at: &str| ago(at, now).trim_end_matches(" ago").to_owned();
    let (deployed, checked) = (known.deployed.get(), known.checked.get());
    let unknown = known.hold.unknown().or(known.bad.unknown());
    let result = match (known.hold.get(), known.bad.get(), checked) {
        (Some(hold), ..) => format!("held by {}", hold.holder()),
        (None, Some(bad), _) => format!("bad: {}", short(&bad.commit)),
        (None, None, Some(checked)) if unknown.is_none() => checked.status.replace('_', " "),
        (None, None, _) => known.checked.unknown().or(unknown).unwrap_or("never looked at").to_owned(),
    };
    let nothing = known.deployed.unknown().unwrap_or("nothing");
    [
        deployed.map_or(nothing, |deployed| short(&deployed.commit)).to_owned(),
        deployed.map_or_else(|| "-".to_owned(), |deployed| when(&deployed.at)),
        checked.map_or_else(|| "-".to_owned(), |checked| when(&checked.at)),
        result,
    ]
}

fn line(text: &mut String, label: &str, content: &str, terminal: Terminal) -> std::fmt::Result {
    let content = terminal.wrap(&text::sentence(content), 2 + LABEL + 1);
    writeln!(text, "  {} {content}", fit(label, LABEL))
}

fn rest(text: &mut String, status: &Status, terminal: Terminal) -> std::fmt::Result {
    let queue = &status.queue;
    text.push('\n');
    let oldest = queue.oldest_age_seconds.map(|age| format!(", the oldest for {}", span(age)));
    let waiting = queue.requests.map(|requests| format!("{requests} waiting{}", oldest.unwrap_or_default()));
    let mut parts: Vec<String> = waiting.into_iter().collect();
    let retry = queue.retry.as_ref().map(Vec::len);
    for (count, word) in [(queue.active, "at work"), (retry, "to retry"), (queue.failed, "refused")] {
        if let Some(count) = count.filter(|count| *count > 0) {
            parts.push(format!("{count} {word}"));
        }
    }
    let told = match (queue.is_empty(), queue.is_known()) {
        (true, true) => "empty".to_owned(),
        (true, false) => "not known".to_owned(),
        (false, true) => parts.join(", "),
        (false, false) => format!("{}; the rest is not known", parts.join(", ")),
    };
    line(text, "queue", &told, terminal)?;
    if !status.pipelines.is_empty() {
        let told = status.pipelines.iter().map(|pipeline| match &pipeline.kept {
            None => format!("{}: not known", pipeline.pipeline),
            Some(kept) => {
                let orphan = if pipeline.configured { "" } else { " (not configured)" };
                let mut told = format!("{}{orphan}: {}", pipeline.pipeline, kept.dead_letters);
                if kept.damaged_files > 0 {
                    told = format!("{told}, {}", counted(kept.damaged_files, "damaged file"));
                }
                if !kept.not_read.is_empty() {
                    told = format!("{told}, {}", not_read(&kept.not_read));
                }
                told
            }
        });
        line(text, "dead letters", &told.collect::<Vec<_>>().join("; "), terminal)?;
    }
    let funnel = match status.funnel.get() {
        None => status.funnel.unknown().unwrap_or("never opened").to_owned(),
        Some(funnel) => {
            let since = funnel.since.as_deref().map(|since| format!(" since {}", ago(since, status.now)));
            let since = since.unwrap_or_default().replace(" ago", "").replace(" since ", " for ");
            let url = funnel.url.as_ref().filter(|_| funnel.state == "open").map(|url| format!("  {url}"));
            let stale = if funnel.current { "" } else { " (by an old record)" };
            format!("{}{since}{stale}{}", funnel.state, url.unwrap_or_default())
        }
    };
    line(text, "funnel", &funnel, terminal)?;
    if !status.configuration.found {
        line(
            text,
            "configuration",
            &format!("{} is not there; the defaults are in force", status.configuration.path.display()),
            terminal,
        )?;
    }
    if status.is_fresh {
        let [doctor, up] = ["doctor", "up"].map(|word| hint("hub", word));
        let next = format!("{doctor} lists what to set up; {up} runs everything here, in the foreground.");
        writeln!(text, "\n{}", terminal.wrap(&next, 0))?;
    }
    Ok(())
}

fn reasons(text: &mut String, status: &Status, terminal: Terminal) -> std::fmt::Result {
    for reason in &status.reasons {
        let (level, about) = (reason.level, text::sentence(&reason.about));
        let about = terminal.paint(tone(level), &format!("{} {about}", mark(level)));
        let sentence = terminal.wrap(&text::sentence(&reason.reason), 4);
        write!(text, "\n{about}\n    {sentence}\n")?;
        if let Some(mend) = &reason.mend {
            writeln!(text, "    {}", terminal.paint(Tone::Strong, &format!("> {}", text::sentence(mend))))?;
        }
    }
    Ok(())
}
