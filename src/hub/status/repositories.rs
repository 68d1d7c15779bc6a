use serde::Serialize;

use super::{Facts, Level, Reason};
use crate::records::{self, Outcome, Reader, Refusal, ago, seconds_between, short, span};
use crate::state::{Entry, Folder, lock_holder};
use crate::text;

/// How long after its turn a repository may be looked at: a look may take long, and so may others before it.
const LATE: u64 = 3600;
/// A queued request is taken up within a second, unless a run is at work.
const WAITING: u64 = 10 * 60;
/// More entries are not counted.
const MOST: usize = 10_000;

#[derive(Debug, Serialize)]
pub(super) struct Repository {
    pub level: Level,
    #[serde(flatten)]
    pub known: records::Repository,
}

/// Requests for deployments, wherever they are.
#[derive(Debug, Default, Serialize)]
pub(super) struct Queue {
    /// What no run has taken up yet.
    pub requests: usize,
    pub oldest_age_seconds: Option<u64>,
    /// What a run is at work on, or was when it was killed.
    pub active: usize,
    /// The repositories that could not be fetched and are tried again.
    pub retry: Vec<String>,
    /// Entries that were refused and are kept.
    pub failed: usize,
    /// Why the newest of them was.
    pub failed_reason: Option<String>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.requests + self.active + self.retry.len() + self.failed == 0
    }
}

/// The configured repositories; those that left traces where the configuration cannot be read.
pub(super) fn all(facts: &Facts, reader: &mut Reader<'_>, reasons: &mut Vec<Reason>) -> Vec<Repository> {
    let mut names: Vec<(String, String)> =
        facts.repositories().iter().map(|(name, branch)| ((*name).to_owned(), (*branch).to_owned())).collect();
    if facts.config.is_err() {
        for folder in ["gitops/checked", "gitops/deployed"] {
            let entries = entries(reader, folder);
            names.extend(entries.iter().filter_map(repository_of).map(|name| (name, String::new())));
        }
        names.sort();
        names.dedup();
    }
    let gitops = reader.folder("gitops");
    let worker = gitops.and_then(|gitops| reader.heard(lock_holder(&gitops, "lock")).flatten());
    let judge = |(name, branch): &(String, String)| judge(facts, reader.repository(name, branch), worker, reasons);
    names.iter().map(judge).collect()
}

/// Repositories that own units and are not in hub.toml any more. Where that cannot be read, nobody knows.
pub(super) fn gone(facts: &Facts, reader: &mut Reader<'_>, reasons: &mut Vec<Reason>) {
    let Ok(config) = &facts.config else { return };
    for (owner, files) in reader.owners() {
        if !config.repositories.iter().any(|repository| repository.is_known_as(&owner)) {
            let reason = records::gone(&files);
            reasons.push(Reason::new(Level::Degraded, &owner, reason, facts.hub(&format!("remove {owner}"))));
        }
    }
}

/// `worker` is the process that changes the host at this moment.
fn judge(facts: &Facts, known: records::Repository, worker: Option<u32>, reasons: &mut Vec<Reason>) -> Repository {
    let name = known.repository.clone();
    let before = reasons.len();
    let mut say = |level, reason: String, mend: String| reasons.push(Reason::new(level, &name, reason, mend));
    if let Some(open) = known.open.get().filter(|_| worker.is_none()) {
        let (to, began) = (short(&open.to), ago(&open.started, facts.now));
        let until = open.confirm_until.as_ref().filter(|_| open.step == "confirm");
        let is_late = |until: &String| until.parse().is_ok_and(|until: jiff::Timestamp| until < facts.now);
        match until {
            Some(until) if !is_late(until) => {
                let reason =
                    format!("{to} is on trial, and goes back at {until} unless somebody says before that it stays");
                say(Level::Degraded, reason, facts.hub(&format!("confirm {name}")));
            }
            Some(until) => {
                let reason = format!("nobody confirmed {to} until {until}; the next run takes it back");
                say(Level::Failed, reason, facts.hub(&format!("deploy {name}")));
            }
            None => {
                let reason = format!(
                    "the deployment of {to}, begun {began}, was cut off at its step {}; what it changed stays until the next run takes it back",
                    open.step
                );
                say(Level::Failed, reason, facts.hub(&format!("deploy {name}")));
            }
        }
    }
    if let Some(bad) = known.bad.get() {
        let why = if bad.reason.is_empty() { "it does not say why" } else { &bad.reason };
        let reason =
            format!("commit {} failed and is not tried again until the branch moves: {why}", short(&bad.commit));
        say(Level::Degraded, reason, facts.hub(&format!("retry {name}")));
    }
    // A limit with a typo is no limit, and nothing fails for it.
    if let Some(deployed) = known.deployed.get().filter(|deployed| !deployed.ignored.is_empty()) {
        let reason = format!("systemd ignores lines of its units: {}", text::listed(&deployed.ignored, "; "));
        say(Level::Degraded, reason, "mend them in the repository and push".to_owned());
    }
    if let Some(checked) = known.checked.get() {
        if Outcome::of_word(&checked.status) == Outcome::Failed && known.bad.get().is_none() {
            let why = checked.reason.as_deref().unwrap_or("the log says why");
            let level = if checked.status == "rollback_failed" { Level::Failed } else { Level::Degraded };
            // What was refused says itself what to do; then somebody has to ask again.
            let mend = if checked.status == "refused" {
                format!("{}   # once that is done", facts.hub(&format!("deploy {name}")))
            } else {
                facts.hub("doctor")
            };
            say(level, format!("{}: {why}", checked.status.replace('_', " ")), mend);
        }
        let poll = facts.poll_seconds(&name);
        if let Some(left_out) = &checked.left_out {
            let mend = format!(
                "editor {}   # let build bring them: build = [\"/usr/bin/git\", \"{}\"]",
                facts.path.display(),
                if left_out.starts_with("sub") { "submodule\", \"update\", \"--init" } else { "lfs\", \"pull" }
            );
            say(Level::Degraded, format!("the checkout has {left_out}; the hub fetches from its own url only"), mend);
        }
        if let Some(age) =
            checked.at.parse().ok().map(|at| seconds_between(at, facts.now)).filter(|age| *age > poll + LATE)
        {
            let reason = format!("not looked at for {}, and it should be every {}", span(age), span(poll));
            say(Level::Degraded, reason, facts.start("gitops-sync.timer"));
        }
    }
    let level = reasons[before..].iter().map(|reason| reason.level).max().unwrap_or(Level::Healthy);
    Repository { level, known }
}

/// What waits, what is at work, what could not be done.
pub(super) fn queue(facts: &Facts, reader: &mut Reader<'_>, reasons: &mut Vec<Reason>) -> Queue {
    let waiting = entries(reader, "proxy/queue");
    let oldest = waiting.iter().map(|entry| entry.modified).min();
    let failed: Vec<Entry> = entries(reader, "gitops/failed");
    let is_note = |entry: &&Entry| entry.name.to_string_lossy().ends_with(Refusal::ENDING);
    let newest = failed.iter().rfind(is_note).map(|entry| entry.name.to_string_lossy().into_owned());
    let note: Option<Refusal> = newest.and_then(|name| reader.read("gitops/failed", &name).take());
    let queue = Queue {
        requests: waiting.len(),
        oldest_age_seconds: oldest.map(|at| u64::try_from(facts.now.as_second() - at).unwrap_or(0)),
        active: entries(reader, "gitops/active").len(),
        retry: entries(reader, "gitops/retry").iter().filter_map(repository_of).collect(),
        failed: failed.iter().filter(|entry| !is_note(entry)).count(),
        failed_reason: note.map(|note| note.reason),
    };
    let mut say = |reason: String, mend: &str| reasons.push(Reason::new(Level::Degraded, "queue", reason, mend));
    if let Some(age) = queue.oldest_age_seconds.filter(|age| *age > WAITING) {
        let start = facts.is_installed().then(|| "systemctl restart gitops-sync.path".to_owned());
        let start = start.unwrap_or_else(|| facts.hub("up"));
        say(format!("a request waits for {}, and gitops-sync does not take it up", span(age)), &start);
    }
    // One that is configured has its own line, with the reason.
    let known = facts.repositories();
    for name in queue.retry.iter().filter(|name| !known.iter().any(|(known, _)| known == name)) {
        say(format!("{name} could not be fetched; the next run tries again"), &facts.hub(&format!("retry {name}")));
    }
    if queue.failed > 0 {
        let why = queue.failed_reason.as_deref().unwrap_or("no reason is written down");
        let state = facts.state_dir.as_deref().unwrap_or(std::path::Path::new("")).join("gitops/failed");
        let reason = format!("{} refused and kept; the newest: {why}", queue.failed);
        say(reason, &format!("look at {0}, then: rm -r {0}/*", state.display()));
    }
    queue
}

fn entries(reader: &mut Reader<'_>, folder: &str) -> Vec<Entry> {
    let Some(folder) = reader.folder(folder) else { return Vec::new() };
    let found = Folder::entries(&folder, MOST);
    reader.heard(found).unwrap_or_default()
}

/// The name in a file name such as `acme__infra.json`, as far as it can be told.
fn repository_of(entry: &Entry) -> Option<String> {
    Some(entry.name.to_str()?.strip_suffix(".json")?.replacen("__", "/", 1))
}

impl Repository {
    /// What is live, since when, when it was looked at, and what came of that: four short texts.
    pub fn cells(&self, now: jiff::Timestamp) -> [String; 4] {
        let known = &self.known;
        let when = |at: &str| ago(at, now).trim_end_matches(" ago").to_owned();
        let deployed = known.deployed.get();
        let checked = known.checked.get();
        let result = match (known.hold.get(), known.bad.get(), checked) {
            (Some(hold), ..) => format!("held by {}", hold.holder()),
            (None, Some(bad), _) => format!("bad: {}", short(&bad.commit)),
            (None, None, Some(checked)) => checked.status.replace('_', " "),
            (None, None, None) => "never looked at".to_owned(),
        };
        [
            deployed.map_or_else(|| "nothing".to_owned(), |deployed| short(&deployed.commit).to_owned()),
            deployed.map_or_else(|| "-".to_owned(), |deployed| when(&deployed.at)),
            checked.map_or_else(|| "-".to_owned(), |checked| when(&checked.at)),
            result,
        ]
    }
}
