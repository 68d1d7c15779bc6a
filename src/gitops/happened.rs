//! What is told of a look at a repository beyond its own record: a line of the history where something happened, and the list of
//! commits that were live. Neither stops a deployment.

use jiff::Timestamp;

use super::journal::Entry;
use super::mirror::Mirror;
use super::objects::Objects;
use super::run::Run;
use super::undo::CutOff;
use super::{Error, Outcome, Status};
use crate::config::Repository;
use crate::records::history::{Event, Kind};
use crate::records::versions::{About, Version, Versions};
use crate::records::{Checked, Totals};
use crate::{forge, log, text};

/// How much is kept of a subject and of a name, in bytes.
const SUBJECT: usize = 200;
const AUTHOR: usize = 100;

impl Objects {
    /// What a commit says of itself; its text may have any bytes (git-commit-tree(1)).
    fn about(&mut self, commit: &str) -> Result<About, Error> {
        Ok(about(&String::from_utf8_lossy(&self.listing(commit, "commit")?)))
    }
}

fn about(text: &str) -> About {
    let (head, message) = text.split_once("\n\n").unwrap_or((text, ""));
    let person = |key| head.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let author = person("author ").split_once(" <").map_or("", |(name, _)| name);
    // `NAME <ADDRESS> SECONDS ZONE`
    let seconds = person("committer ").rsplit(' ').nth(1).and_then(|seconds| seconds.parse().ok());
    let committed = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map(log::rfc3339);
    // As git does for `%s`, the lines of the first paragraph are one.
    let lines = message.trim_start_matches('\n').lines().take_while(|line| !line.trim().is_empty());
    let subject = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let shown = |text: &str, limit| text::cut(&text::shown(text), limit).into_owned();
    About { subject: shown(&subject, SUBJECT), author: shown(author, AUTHOR), committed, link: None }
}

impl Mirror<'_> {
    /// What a commit says of itself, and where its page is.
    fn about(&self, commit: &str) -> Result<About, Error> {
        let Repository { remote, full_name, .. } = self.repository();
        let link = forge::commit_link(remote.url(), remote.host(), full_name, commit);
        Ok(About { link, ..self.objects()?.about(commit)? })
    }
}

impl Run<'_> {
    /// Says of the commit that a look is about what it says of itself. Where that cannot be read, it is left out.
    pub(super) fn describe(&self, mirror: &Mirror, outcome: &mut Outcome) {
        let Some(commit) = outcome.to.as_deref().filter(|_| outcome.about.is_none()) else { return };
        match mirror.about(commit) {
            Ok(about) => outcome.about = Some(about),
            Err(error) => log::warn!("commit_not_described", commit = commit, error = error.to_string()),
        }
    }

    /// Takes into the list of versions that a commit is live, since `at`, and keeps it from git's tidying; `back` where somebody
    /// went back to it. Who did it, and what the commit says of itself, is in `outcome` where it is about this commit. Where
    /// that fails the next look does it.
    pub(super) fn note_live(&self, mirror: &Mirror, (commit, at): (&str, &str), outcome: Option<&Outcome>, back: bool) {
        let repository = mirror.repository();
        let known =
            outcome.filter(|outcome| outcome.to.as_deref() == Some(commit)).and_then(|outcome| outcome.about.clone());
        let note = || {
            let about = known.map_or_else(|| mirror.about(commit), Ok)?;
            let mut versions = Versions { repository: repository.name.clone(), ..self.store.versions(repository) };
            let by = outcome.and_then(|outcome| outcome.by.clone());
            let (commit, at) = (commit.to_owned(), at.to_owned());
            let gone = versions.note(Version { commit: commit.clone(), at, by, left: None, about }, back);
            mirror.keep(&commit, &gone)?;
            self.store.set_versions(repository, &versions).map_err(Error::from)
        };
        if let Err(error) = note() {
            log::warn!("version_not_noted", repo = repository.name, commit = commit, error = error.to_string());
        }
    }

    /// Takes in the live commit where the list of versions lacks it: an older hub made it live, or a run that was killed.
    pub(super) fn note_missing(&self, repository: &Repository, mirror: &Mirror) -> Result<(), Error> {
        if !self.dry_run
            && let Some(live) = self.store.deployed(repository)?
            && !self.store.versions(repository).has(&live.commit)
        {
            self.note_live(mirror, (&live.commit, &live.at), None, false);
        }
        Ok(())
    }

    /// Appends to the history what happened, if anything has. `before` is what the look before came to.
    pub(super) fn tell(&self, outcome: &Outcome, before: Option<&Checked>) {
        let status = outcome.status.word();
        let is_known = before.is_some_and(|before| before.status == status);
        let kind = match outcome.status {
            Status::Deployed => Kind::Deployed,
            Status::RolledBack if outcome.touched => Kind::RolledBack,
            // It is tried again by each run, until it succeeds.
            Status::RollbackFailed if outcome.touched || !is_known => Kind::RollbackFailed,
            // The words of a network differ each time; of a rule, where it is another one.
            Status::Failed if outcome.touched || !is_known => Kind::Failed,
            Status::Refused if !is_known || before.is_some_and(|before| before.reason != outcome.reason) => {
                Kind::Refused
            }
            _ => return,
        };
        let event = Event::new(kind, &outcome.repository, status).because(outcome.reason.clone());
        self.happen(&self.told_of(event, outcome));
    }

    /// Appends what became of a deployment that was cut off.
    pub(super) fn tell_cut_off(&self, entry: &Entry, end: CutOff) {
        let (kind, status, reason) = match end {
            CutOff::Undone => (Kind::RolledBack, Status::RolledBack, "the deployment was cut off, and is undone"),
            CutOff::Done => (Kind::Deployed, Status::Deployed, "the run was cut off when it was done"),
        };
        let event = Event::new(kind, &entry.repository, status.word()).because(Some(reason));
        self.happen(&event.with("from", &entry.from).with("to", &entry.to));
    }

    fn happen(&self, event: &Event) {
        Totals::append(&self.store.folder, event);
    }

    fn told_of(&self, event: Event, outcome: &Outcome) -> Event {
        let about = outcome.about.as_ref();
        let units: Vec<_> = outcome.units.iter().map(|line| format!("{} {}", line.action.word(), line.file)).collect();
        let some = |list: Vec<serde_json::Value>| (!list.is_empty()).then_some(list);
        event
            .with("from", &outcome.from)
            .with("to", &outcome.to)
            .with("subject", about.map(|about| &about.subject))
            .with("author", about.map(|about| &about.author))
            .with("committed", about.and_then(|about| about.committed.as_ref()))
            .with("link", about.and_then(|about| about.link.as_ref()))
            .with("units", some(text::first(&units)))
            .with("restarts", some(text::first(&outcome.restarts)))
            .with("duration_ms", outcome.duration_ms)
            .with("by", &outcome.by)
            .with("plan", &outcome.plan_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_says_what_it_is() {
        let head = "tree 1\nparent 2\nauthor A \u{202e}B <a@b> 1 +0000\ncommitter C <c@d> 1767323045 +0100\n";
        let found = about(&format!("{head}gpgsig -----\n  x\n\n\nfix \u{1b}[2J\nthe thing\n\nbody\n"));
        assert_eq!(found.subject, "fix \\u{1b}[2J the thing");
        assert_eq!(found.author, "A \\u{202e}B");
        assert_eq!(found.committed.as_deref(), Some("2026-01-02T03:04:05.000Z"));
        assert_eq!(about(head), About { subject: String::new(), ..found });
        assert_eq!(about(""), About::default());
        assert_eq!(about("author x\ncommitter y z\n\n").author, "");
        let long = about(&format!("\n\n{}", "ä".repeat(5000))).subject;
        assert!(long.len() < 250 && long.ends_with("(cut, 10000 bytes)"), "{long}");
    }
}
