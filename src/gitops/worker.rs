use std::time::Instant;

use serde_json::Map;

use super::attempts::Attempts;
use super::claim::Claims;
use super::crew::Crew;
use super::job::Job;
use super::run::{self, Request, Run};
use super::units::{Host, Manager};
use super::{Error, Outcome, Status, outcome};
use crate::config::{Config, Repository};
use crate::hint::hint;
use crate::log;
use crate::program::Exit;
use crate::records::{Details, Gitops};
use crate::state::{self, Folder, Record};
use crate::systemd::{GITOPS_SYNC, Own};

/// One run: syncs what was asked for, or what is queued and due, and keeps the record.
///
/// # Errors
/// `Busy` when a manual run finds another one that changes the host, `State` when the state folder cannot be used.
pub(super) fn run(config: &Config, request: &Request) -> Result<Vec<Outcome>, Error> {
    let gitops = run::folder(config)?;
    let root = Folder::open(&config.state_dir)?;
    let run = Run::open(config, &gitops, request)?;
    let manual = request.is_manual();
    let queue_lock = if manual { None } else { Some(run.locks.queue()?) };
    if manual && run.locks.attempt()?.is_none() {
        return Err(Error::Busy);
    }
    let (started, clock) = (log::now(), Instant::now());
    let attempts = Attempts::open(&gitops)?;
    let claims = Claims::open(&gitops)?;
    let mut worker = Worker { run: &run, attempts: &attempts, claims, outcomes: Vec::new() };
    let mut result = worker.work(&root, config, request);
    if !manual {
        worker.claims.end();
    }
    if !request.dry_run && (!worker.outcomes.is_empty() || result.is_err()) {
        let error = result.as_ref().err();
        if let Err(error) = write_record(&run, &gitops, started, clock, &worker.outcomes, error) {
            // What became of the repositories says more.
            result = if outcome::worst(&worker.outcomes) == Exit::Done { result.and(Err(error)) } else { result };
        }
        look_after_own_units(&run, !manual)?;
    }
    result?;
    if worker.outcomes.is_empty() {
        worker.say_idle(&config.repositories);
    }
    drop(queue_lock);
    Ok(worker.outcomes)
}

struct Worker<'a> {
    run: &'a Run<'a>,
    attempts: &'a Attempts,
    claims: Claims,
    outcomes: Vec<Outcome>,
}

impl<'a> Worker<'a> {
    fn work(&mut self, root: &Folder, config: &'a Config, request: &Request) -> Result<(), Error> {
        let repositories = &config.repositories;
        let asked = |repository: &&Repository| request.names.is_empty() || request.names.contains(&repository.name);
        if request.is_manual() {
            let jobs = repositories.iter().filter(asked).map(Job::asked).collect();
            Crew::new(self.run, self.attempts, None)?.work(jobs, &mut |_| Ok(Vec::new()), &mut |job, outcome| {
                if outcome.status != Status::Busy && !request.dry_run {
                    self.attempts.end(job.repository);
                }
                if outcome.status != Status::Busy && !request.dry_run && !outcome.retry {
                    self.claims.forget_retry(job.repository)?;
                }
                self.outcomes.push(outcome);
                Ok(())
            })?;
            let place = |outcome: &Outcome| repositories.iter().position(|known| known.name == outcome.repository);
            self.outcomes.sort_by_key(place);
            return Ok(());
        }
        // Without a queue the repositories that are due are still looked at.
        let queue = self.claims.open_queue(root);
        let is_due = |repository: &&Repository| self.is_due(repository);
        let due: Vec<Job> = repositories.iter().filter(is_due).map(Job::due).collect();
        if due.is_empty() && self.claims.is_empty()? {
            return queue.map_err(Into::into);
        }
        let (attempts, claims, outcomes) = (self.attempts, &self.claims, &mut self.outcomes);
        let mut is_first = true;
        let mut more = |is_busy: &dyn Fn(&Repository) -> bool| {
            let mut jobs = claims.take(repositories, is_busy)?;
            if std::mem::take(&mut is_first) {
                let is_taken =
                    |repository: &Repository| jobs.iter().any(|claim| claim.repository.name == repository.name);
                let left = claims
                    .take_left(repositories, attempts, |repository| is_taken(repository) || is_busy(repository))?;
                jobs.extend(left);
            }
            Ok(jobs.into_iter().map(Job::claimed).collect())
        };
        let finished = Crew::new(self.run, attempts, claims.queue())?.work(due, &mut more, &mut |job, outcome| {
            attempts.end(job.repository);
            if outcome.retry {
                claims.keep_for_retry(job.repository)?;
            } else {
                claims.forget_retry(job.repository)?;
                claims.finish(job.repository)?;
            }
            outcomes.push(outcome);
            Ok(())
        });
        finished.and(queue.map_err(Into::into))
    }

    /// What cannot be read counts as due: the sync that follows says what is wrong, and the other repositories go on.
    fn is_due(&self, repository: &Repository) -> bool {
        let is_due = self.run.is_to_end(repository).unwrap_or(true)
            || self.claims.is_to_retry(repository).unwrap_or(true)
            || self.run.store.looked_at_until(repository).is_none();
        is_due && !self.attempts.is_given_up(repository)
    }

    /// A run that found nothing to do says so, and until when that holds; there are many of them.
    fn say_idle(&self, repositories: &[Repository]) {
        if repositories.is_empty() {
            log::line!(
                log::Level::Debug,
                "nothing_configured",
                note = "hub.toml has no [[repository]]; contrib/hub.toml shows one"
            );
            return;
        }
        let next = repositories.iter().filter_map(|repository| self.run.store.looked_at_until(repository)).min();
        log::line!(
            log::Level::Debug,
            "nothing_due",
            repositories = repositories.len(),
            next_due = next.map(log::rfc3339),
            note = format!(
                "nothing is due; name the repository to have it looked at now: {}, or {}",
                hint("gitops-sync", "REPO"),
                hint("hub", "deploy REPO")
            )
        );
    }
}

/// Adds a run to the record.
pub(super) fn write_record(
    run: &Run,
    gitops: &Folder,
    started: String,
    clock: Instant,
    outcomes: &[Outcome],
    error: Option<&Error>,
) -> Result<(), Error> {
    let record = record(started, clock, outcomes, error);
    let _lock = run.locks.record()?;
    Record::add(gitops, GITOPS_SYNC, record).map_err(|error| {
        log::error!("state_not_written", error = error.to_string());
        error.into()
    })
}

/// Now that the result is on disk: restarts those of the hub's own units that changed, and starts the path unit again
/// where systemd gave it up. Both only where the host's systemd is there.
pub(super) fn look_after_own_units(run: &Run, queued: bool) -> Result<(), Error> {
    let own = run.store.own()?;
    if own.is_empty() && !queued {
        return Ok(());
    }
    let Ok(found) = run.manager() else { return Ok(()) };
    if found.manager != Manager::System {
        return Ok(());
    }
    if !own.is_empty() {
        Host::open(found, run.config, run.store.folder.path())?.restart_own(&own)?;
        run.store.forget_own()?;
        log::info!("own_units_restarted", units = own);
    }
    let starters = Own::named(GITOPS_SYNC).into_iter().flat_map(Own::starters);
    for path in starters.filter(|unit| queued && unit.ends_with(".path")) {
        if found.manager.revive(path)? {
            log::warn!("path_unit_revived", unit = path);
        }
    }
    Ok(())
}

fn record(started: String, clock: Instant, outcomes: &[Outcome], error: Option<&Error>) -> state::Run {
    let mut counts = Map::new();
    for outcome in outcomes {
        let count = counts.get(outcome.status.word()).and_then(serde_json::Value::as_u64).unwrap_or(0);
        counts.insert(outcome.status.word().to_owned(), (count + 1).into());
    }
    let worst = outcome::worst(outcomes);
    let failed = outcome::last(outcomes).find(|outcome| outcome.status.exit() == worst && worst != Exit::Done);
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
        details: Gitops { repositories: outcomes.iter().map(Outcome::for_record).collect() }.written(),
    }
}
