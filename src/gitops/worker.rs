use std::cell::OnceCell;
use std::collections::HashSet;
use std::time::Instant;

use serde_json::Map;

use super::claim::Claims;
use super::journal::Journal;
use super::store::{Store, now};
use super::sync::Run;
use super::units::{Host, Manager};
use super::{Error, Outcome, Request, Status, access, outcome};
use crate::command;
use crate::config::{Config, Repository};
use crate::exit::Exit;
use crate::log;
use crate::state::{self, Folder, Lock, Record};

/// The unit that starts the worker when something is queued.
const PATH_UNIT: &str = "gitops-sync.path";

/// One run: takes the lock, syncs what was asked for, keeps the record.
///
/// # Errors
/// `Busy` when a manual run finds another one at work, `State` when the state folder cannot be used.
pub(super) fn run(config: &Config, request: &Request) -> Result<Vec<Outcome>, Error> {
    let root = Folder::open_or_make(&config.state_dir, 0o755)?;
    let gitops = root.sub_or_make("gitops", 0o750)?;
    let manual = request.is_manual();
    let mut lock =
        if manual { Lock::attempt(&gitops, "lock")?.ok_or(Error::Busy)? } else { Lock::wait(&gitops, "lock")? };
    let (started, clock) = (now(), Instant::now());
    let failed =
        |source: std::io::Error| state::Error::io("end what is left of the last run in", gitops.path(), source);
    let earlier = lock.exchange(command::mark_children().map_err(failed)?)?;
    if !earlier.is_empty() {
        let ended = command::end_orphans(&earlier).map_err(failed)?;
        log::warn!("last_run_was_killed", processes_ended = ended);
        access::remove_left(&gitops)?;
    }
    let run = Run {
        config,
        journal: Journal::open(&gitops)?,
        store: Store::open(root.sub("gitops")?)?,
        mirror_user: OnceCell::new(),
        dry_run: request.dry_run,
        remove_all: request.remove_all,
        adopt: &request.adopt,
        user_units: request.user_units,
        manager: OnceCell::new(),
    };
    let mut worker = Worker { run, claims: Claims::open(&gitops)?, outcomes: Vec::new() };
    let result = worker.work(&root, config, request);
    if !request.dry_run && (!worker.outcomes.is_empty() || result.is_err()) {
        let run = record(started, clock, &worker.outcomes, result.as_ref().err());
        Record::add(&gitops, "gitops-sync", run)?;
        worker.look_after_own_units(!manual)?;
    }
    result?;
    if worker.outcomes.is_empty() {
        worker.say_idle(&config.repositories);
    }
    lock.exchange("")?;
    Ok(worker.outcomes)
}

struct Worker<'a> {
    run: Run<'a>,
    claims: Claims,
    outcomes: Vec<Outcome>,
}

impl Worker<'_> {
    fn work(&mut self, root: &Folder, config: &Config, request: &Request) -> Result<(), Error> {
        let repositories = &config.repositories;
        if request.is_manual() {
            let asked = |repository: &&Repository| request.names.is_empty() || request.names.contains(&repository.name);
            for repository in repositories.iter().filter(asked) {
                let outcome = self.run.sync(repository);
                if !request.dry_run && !outcome.retry {
                    self.claims.forget_retry(repository)?;
                }
                self.outcomes.push(outcome);
            }
            return Ok(());
        }
        // Without a queue the repositories that are due are still looked at.
        let queue = self.claims.open_queue(root);
        let mut done = self.drain(repositories)?;
        for repository in repositories {
            if !done.contains(&repository.name) && self.is_due(repository) {
                self.sync(repository)?;
                self.run.tidy(repository);
                // A push that came meanwhile is not left to the next start.
                done.extend(self.drain(repositories)?);
            }
        }
        queue.map_err(Into::into)
    }

    /// Syncs what is queued until the queue is empty; returns the names.
    fn drain(&mut self, repositories: &[Repository]) -> Result<HashSet<String>, Error> {
        let mut done = HashSet::new();
        while let Some(repository) = self.claims.next(repositories)? {
            self.sync(repository)?;
            done.insert(repository.name.clone());
        }
        Ok(done)
    }

    fn sync(&mut self, repository: &Repository) -> Result<(), Error> {
        let outcome = self.run.sync(repository);
        if outcome.retry {
            self.claims.keep_for_retry(repository)?;
        } else {
            self.claims.forget_retry(repository)?;
            self.claims.finish(repository)?;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Now that the result is on disk: restarts those of the hub's own units that changed, and starts the path unit again
    /// where systemd gave it up. Both only where the host's systemd is there.
    fn look_after_own_units(&self, queued: bool) -> Result<(), Error> {
        let own = self.run.store.own()?;
        if own.is_empty() && !queued {
            return Ok(());
        }
        let Ok(found) = self.run.manager() else { return Ok(()) };
        if found.manager != Manager::System {
            return Ok(());
        }
        if !own.is_empty() {
            Host::open(found, self.run.config, self.run.store.folder.path())?.restart_own(&own)?;
            self.run.store.forget_own()?;
            log::info!("own_units_restarted", units = own);
        }
        if queued && found.manager.revive(PATH_UNIT)? {
            log::warn!("path_unit_revived", unit = PATH_UNIT);
        }
        Ok(())
    }

    /// What cannot be read counts as due: the sync that follows says what is wrong, and the other repositories go on.
    fn is_due(&self, repository: &Repository) -> bool {
        self.run.is_interrupted(repository).unwrap_or(true)
            || self.claims.is_to_retry(repository).unwrap_or(true)
            || self.run.store.looked_at_until(repository).is_none()
    }

    /// A run that found nothing to do says so, and until when that holds.
    fn say_idle(&self, repositories: &[Repository]) {
        if repositories.is_empty() {
            log::info!("nothing_configured", note = "hub.toml has no [[repository]]; contrib/hub.toml shows one");
            return;
        }
        let next = repositories.iter().filter_map(|repository| self.run.store.looked_at_until(repository)).min();
        log::info!(
            "nothing_due",
            repositories = repositories.len(),
            next_due = next.map(log::rfc3339),
            note = "hub deploy REPO, or gitops-sync REPO, looks at one now"
        );
    }
}

fn record(started: String, clock: Instant, outcomes: &[Outcome], error: Option<&Error>) -> state::Run {
    let mut counts = Map::new();
    for outcome in outcomes {
        let count = counts.get(outcome.status.word()).and_then(serde_json::Value::as_u64).unwrap_or(0);
        counts.insert(outcome.status.word().to_owned(), (count + 1).into());
    }
    let worst = outcome::worst(outcomes);
    let failed = outcomes.iter().find(|outcome| outcome.status.exit() == worst && worst != Exit::Done);
    let status = match (error, failed) {
        (Some(_), _) => Status::Failed,
        (None, Some(outcome)) => outcome.status,
        (None, None) if outcomes.iter().any(|outcome| outcome.status == Status::Deployed) => Status::Deployed,
        (None, None) => Status::Unchanged,
    };
    if let Some(error) = error {
        log::error!("run_incomplete", error = error.to_string());
    }
    state::Run {
        started,
        duration_ms: clock.elapsed().as_millis() as u64,
        status: status.word().to_owned(),
        counts,
        error: error.map(ToString::to_string).or_else(|| failed.and_then(|outcome| outcome.reason.clone())),
        details: serde_json::json!({ "repositories": outcomes }),
    }
}
