use super::Level;
use super::judge::Judge;
use crate::records::{self, Bad, Checked, Details as _, Open, Outcome, Repository, Watch, ago, short, span};
use crate::text;

/// How long after its turn a repository may be looked at: a look may take long, and so may others before it.
const LATE: u64 = 3600;
/// A deployment that has not ended for so long was cut off, or hangs: told where nobody can see which.
const LONG: u64 = 2 * 3600;

/// Checks that take longer than an hour hang, or wait for a person.
const LONG_CHECKS: u64 = 3600;

impl Judge<'_> {
    /// The repositories, and those that own units and are not in hub.toml any more.
    pub fn repositories(&mut self) {
        let seen = self.seen;
        for known in &seen.left.repositories {
            self.repository(known);
        }
        // Where the configuration cannot be read, nobody knows which are gone.
        let Some(config) = seen.known_config() else { return };
        for (owner, files) in &seen.left.owners {
            if !config.repositories.iter().any(|repository| repository.is_known_as(owner)) {
                let mend = seen.ways.hub(&format!("remove {owner}"));
                self.say(Level::Degraded, format!("gitops/{owner}/gone"), owner, records::gone(files), mend);
            }
        }
    }

    fn repository(&mut self, known: &Repository) {
        let (seen, name) = (self.seen, &known.repository);
        if let Some(open) = known.open.get() {
            self.open(name, open);
        }
        if let Some(bad) = known.bad.get() {
            self.bad(known, bad);
        }
        // A limit with a typo is no limit, and nothing fails for it.
        if let Some(deployed) = known.deployed.get().filter(|deployed| !deployed.ignored.is_empty()) {
            let reason = format!("systemd ignores lines of its units: {}", text::listed(&deployed.ignored, "; "));
            let mend = "fix them in the repository and push";
            self.say(Level::Degraded, format!("gitops/{name}/ignored-lines"), name, reason, mend);
        }
        let watch = seen.left.service("hub-watch").get().map(|record| Watch::known(&record.last));
        if let Some(unheard) = watch.and_then(|mut watch| watch.unheard.remove(name)) {
            let reason = format!("its forge does not take the result of deployments: {}", unheard.reason);
            let mend = seen.ways.journal("hub-watch");
            let key = format!("gitops/{name}/status-unsent");
            self.say_since(Some(&unheard.since), Level::Degraded, key, name, reason, mend);
        }
        let Some(checked) = known.checked.get() else { return };
        if Outcome::of_word(&checked.status) == Outcome::Failed && known.bad.get().is_none() {
            self.failed(name, checked);
        }
        if let Some(waiting) = checked.waiting.as_ref().filter(|_| checked.status == "waiting")
            && seen.age(&waiting.since).is_some_and(|age| age > LONG_CHECKS)
        {
            let why = checked.reason.as_deref().unwrap_or("its checks are not done");
            let mend = format!(
                "{}   # once they are done, or set wait_for_checks = false",
                seen.ways.hub(&format!("deploy {name}"))
            );
            self.say_since(
                Some(&waiting.since),
                Level::Degraded,
                format!("gitops/{name}/waiting"),
                name,
                why.to_owned(),
                mend,
            );
        }
        if let Some(left_out) = &checked.left_out {
            let arguments: Vec<&str> = checked.left_out_kinds.iter().map(|kind| kind.arguments()).collect();
            let build = match arguments[..] {
                [] => String::new(),
                [one] => format!(": build = [\"/usr/bin/git\", \"{}\"]", one.replace(' ', "\", \"")),
                _ => format!(": build = [\"/bin/sh\", \"-c\", \"git {}\"]", arguments.join(" && git ")),
            };
            let mend = format!("editor {}   # let build bring them{build}", seen.ways.file);
            let reason = format!("the checkout has {left_out}; the hub fetches from its own url only");
            self.say(Level::Degraded, format!("gitops/{name}/left-out"), name, reason, mend);
        }
        let poll = seen.repository(name).map_or(3600, |repository| u64::from(repository.poll_minutes) * 60);
        if let Some(age) = seen.age(&checked.at).filter(|age| *age > poll + LATE) {
            let reason = format!("not looked at for {}, and it should be every {}", span(age), span(poll));
            let mend = seen.ways.start("gitops-sync.timer");
            self.say_since(Some(&checked.at), Level::Degraded, format!("gitops/{name}/late"), name, reason, mend);
        }
    }

    /// A deployment that was begun: on trial, cut off, or at work.
    fn open(&mut self, name: &str, open: &Open) {
        let seen = self.seen;
        let (to, began) = (short(&open.to), ago(&open.started, seen.now));
        let since = Some(open.started.as_str());
        let until = open.confirm_until.as_ref().filter(|_| open.step == "confirm");
        let is_late = |until: &String| until.parse().is_ok_and(|until: jiff::Timestamp| until < seen.now);
        match (until, seen.left.works) {
            (_, Some(true)) => {}
            (Some(until), _) if !is_late(until) => {
                let reason = format!("{to} is on trial, and goes back at {until} unless somebody confirms it before");
                let mend = seen.ways.hub(&format!("confirm {name}"));
                self.say_since(since, Level::Degraded, format!("gitops/{name}/on-trial"), name, reason, mend);
            }
            (Some(until), _) => {
                let reason = format!("nobody confirmed {to} until {until}; the next run takes it back");
                let mend = seen.ways.hub(&format!("deploy {name}"));
                self.say_since(since, Level::Failed, format!("gitops/{name}/not-confirmed"), name, reason, mend);
            }
            (None, Some(false)) => {
                let reason = format!(
                    "the deployment of {to}, begun {began}, was cut off at its step {}; what it changed stays until the next run takes it back",
                    open.step
                );
                let mend = seen.ways.hub(&format!("deploy {name}"));
                self.say_since(since, Level::Failed, format!("gitops/{name}/cut-off"), name, reason, mend);
            }
            (None, None) if seen.age(&open.started).is_none_or(|age| age > LONG) => {
                let reason = format!("the deployment of {to}, begun {began}, has not ended; it hangs, or was cut off");
                let mend = seen.ways.hub("status");
                self.say_since(since, Level::Degraded, format!("gitops/{name}/not-ended"), name, reason, mend);
            }
            (None, None) => {}
        }
    }

    /// A commit that failed: its log says why, and only another one mends it.
    fn bad(&mut self, known: &Repository, bad: &Bad) {
        let (seen, name, commit) = (self.seen, &known.repository, short(&bad.commit));
        let why = if bad.reason.is_empty() { "it gives no reason" } else { &bad.reason };
        let look = match seen.repository(name) {
            _ if seen.ways.is_installed => format!("journalctl -u gitops-sync -g {name} -n 50"),
            Some(repository) => format!("git -C {} show {commit}", repository.path.display()),
            None => seen.ways.hub("doctor"),
        };
        let branch = if known.branch.is_empty() { "the branch" } else { &known.branch };
        let mend = format!("{look}   # then push to {branch} what fixes it");
        let reason = format!("commit {commit} failed and is not tried again until the branch moves: {why}");
        let word = if bad.refused { "refused" } else { "rolled-back" };
        self.say_since(Some(&bad.at), Level::Degraded, format!("gitops/{name}/{word}"), name, reason, mend);
    }

    fn failed(&mut self, name: &str, checked: &Checked) {
        let ways = self.seen.ways;
        let why = checked.reason.as_deref().unwrap_or("the log has the reason");
        let level = if checked.status == "rollback_failed" { Level::Failed } else { Level::Degraded };
        // What was refused says itself what to do; then somebody has to ask again.
        let mend = if checked.status == "refused" {
            format!("{}   # once that is done", ways.hub(&format!("deploy {name}")))
        } else {
            ways.hub("doctor")
        };
        let key = format!("gitops/{name}/{}", checked.status.replace('_', "-"));
        let reason = format!("{}: {why}", checked.status.replace('_', " "));
        self.say_since(Some(&checked.at), level, key, name, reason, mend);
    }
}
