use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::Value;

use super::Error;
use super::instant::{Clock, instant};
use crate::command::timespec;
use crate::config::{Config, LOOK_EVERY};
use crate::program::print;
use crate::records::history::{self, Event, Told, all};
use crate::records::{SERVICES, milliseconds, short};
use crate::text;

/// Show what happened on this host: deployments, the funnel, pipelines, starts of services.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "timeline",
    note = "Times are UTC. Runs that found nothing to do do not happen. Each service keeps two files of a mebibyte: \
            history.jsonl in its folder of the state.",
    example = "hub timeline --since 12h --about acme/infra",
    example = "hub timeline --json | jq -r 'select(.kind == \"rolled_back\") | .reason'"
)]
pub(super) struct Arguments {
    /// how far back: 30m, 12h, 2d, 4w, 03:00, "yesterday 22:10", 2026-01-31T12:00:00Z (default: 7d)
    #[argh(option, arg_name = "TIME")]
    since: Option<String>,
    /// a repository, a pipeline, or a service
    #[argh(option, arg_name = "ABOUT")]
    about: Option<String>,
    /// one JSON object a line
    #[argh(switch)]
    json: bool,
    /// go on with what happens from now on
    #[argh(switch)]
    follow: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let since = instant("--since", arguments.since.as_deref().unwrap_or("7d"), &Clock::here())?;
    let config = Config::load(arguments.config.as_deref())?;
    let wanted = |told: &Told| {
        // What has no time that can be read may be of any.
        let is_new = told.event.time().is_none_or(|time| time >= since);
        let about = |name: &String| told.service == name || told.event.about.eq_ignore_ascii_case(name);
        is_new && arguments.about.as_ref().is_none_or(about)
    };
    let show = |told: &Told| print(&if arguments.json { told.json() } else { told.line() });
    let (told, unseen) = all(&config.state_dir);
    let mut shown = HashSet::new();
    for told in told.iter().filter(|told| wanted(told)) {
        show(told);
        shown.insert(told.json());
    }
    if let (Some(error), false) = (unseen, arguments.follow) {
        return Err(error.into());
    }
    if shown.is_empty() && !arguments.json && !arguments.follow {
        print(&format!("nothing happened since {since:.0}"));
    }
    if !arguments.follow {
        return Ok(());
    }
    let failed = |source| Error::System { act: "wait for what happens", source };
    let paths = SERVICES.map(|(_, folder)| config.state_dir.join(folder).join(history::FILE));
    let stamp = |path: &PathBuf| std::fs::metadata(path).ok().map(|file| (file.len(), file.modified().ok()));
    let mut read = None;
    loop {
        let there = Some(paths.each_ref().map(stamp));
        if read != there {
            let (all, _) = all(&config.state_dir);
            let now_there: HashSet<String> = all.iter().map(Told::json).collect();
            all.iter().filter(|told| wanted(told) && !shown.contains(&told.json())).for_each(show);
            // What is forgotten of the oldest need not be remembered.
            (shown, read) = (now_there, there);
        }
        let stdout = std::io::stdout();
        let mut waited = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut waited, Some(&timespec(LOOK_EVERY))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        // Whoever read this has gone.
        if waited[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Ok(());
        }
    }
}

impl Told {
    /// As an object.
    pub(super) fn value(&self) -> Value {
        let mut value = serde_json::json!({ "service": self.service });
        if let (Some(object), Value::Object(event)) = (value.as_object_mut(), serde_json::json!(self.event)) {
            object.extend(event);
        }
        value
    }

    fn json(&self) -> String {
        text::json(&self.value(), false)
    }

    /// For people: when, whose, about what, what, and what is known of it.
    fn line(&self) -> String {
        self.line_at(&self.event.at)
    }

    /// The same with the time written in another way.
    pub(super) fn line_at(&self, at: &str) -> String {
        let Event { kind, about, reason, more, .. } = &self.event;
        let part = |key: &str| more.get(key).and_then(Value::as_str);
        let mut line = format!("{at}  {:<14}  ", self.service);
        if !about.is_empty() {
            line += &format!("{about}  ");
        }
        line += kind;
        match (part("from"), part("to")) {
            (Some(from), Some(to)) if from != to => line += &format!("  {} -> {}", short(from), short(to)),
            (_, Some(to)) => line += &format!("  {}", short(to)),
            _ => {}
        }
        if let Some(subject) = part("subject").filter(|subject| !subject.is_empty()) {
            line += &format!("  \"{subject}\"");
        }
        if let Some(author) = part("author").filter(|author| !author.is_empty()) {
            line += &format!(" ({author})");
        }
        let counts = more.get("counts").and_then(Value::as_object).into_iter().flatten();
        let counts = counts
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(key, count)| format!("{} {count}", key.replace('_', " ")));
        let took = more.get("duration_ms").and_then(Value::as_u64).map(|took| format!("took {}", milliseconds(took)));
        let version = part("version").map(str::to_owned);
        let by = part("by").map(|by| format!("by {by}"));
        let facts: Vec<String> = counts.chain(version).chain(by).chain(took).collect();
        if !facts.is_empty() {
            line += &format!("  {}", facts.join(", "));
        }
        if let Some(reason) = reason {
            line += &format!("  {reason}");
        }
        text::shown(&line).into_owned()
    }
}
