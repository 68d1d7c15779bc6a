//! Deployments that somebody has to confirm (`confirm_minutes`): the journal stays open until then, so that whatever happens to
//! the host, the next run that finds it too late takes it back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::journal::{Entry, Step};
use super::plan::Plan;
use super::run::{End, Run};
use super::turn::Turn;
use super::units::{Applied, Manager};
use super::{Error, Outcome, Status};
use crate::config::Repository;
use crate::hint::hint;
use crate::log;
use crate::records::{LAST_WORD, short};
use crate::state::repository_file_name;
use crate::systemd::GITOPS_SYNC;

/// How long systemd may take to start a timer.
const LIMIT: Duration = Duration::from_secs(30);

impl Entry {
    /// Until when the deployment is on trial; none where it is not. A time that cannot be read is over.
    pub fn trial(&self) -> Option<Timestamp> {
        let until = self.confirm_until.as_ref().filter(|_| self.step == Step::Confirm)?;
        Some(until.parse().unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// True where the time is over, or where the clock says that the deployment lies ahead: then nobody knows.
    fn is_late(&self, until: Timestamp) -> bool {
        let now = Timestamp::now();
        let began: Option<Timestamp> = self.started.parse().ok();
        now + LAST_WORD >= until || began.is_none_or(|began| began > now + LAST_WORD)
    }
}

impl Run<'_> {
    /// Leaves a deployment that went well on trial.
    pub(super) fn try_out(&self, plan: &Plan, mut entry: Entry, applied: &Applied) -> Result<End, Error> {
        let repository = plan.repository;
        self.make_durable(plan, applied)?;
        let minutes = SignedDuration::from_mins(i64::from(repository.confirm_minutes));
        let until = log::rfc3339(Timestamp::now().saturating_add(minutes).unwrap_or(Timestamp::MAX));
        entry.own.clone_from(&applied.own);
        entry.ignored = self.ignored(plan, applied)?;
        entry.confirm_until = Some(until.clone());
        self.journal.reach(repository, &mut entry, Step::Confirm)?;
        self.arm(repository, &entry);
        let reason =
            format!("on trial: it goes back at {until} unless somebody runs before: {}", confirm(&repository.name));
        Ok((Status::Deployed, Some(reason)))
    }

    /// What becomes of a deployment on trial: kept where somebody confirmed it (then none), left as it is until its time is
    /// over, taken back then.
    pub(super) fn end_of_trial(
        &self,
        repository: &Repository,
        entry: &Entry,
        until: Timestamp,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<Option<End>, Error> {
        let (name, to) = (&repository.name, short(&entry.to));
        // Looked at first: what somebody confirms in time is on disk before it is late.
        let is_late = entry.is_late(until);
        if self.store.confirmed(repository)?.is_some_and(|confirmed| entry.is_confirmed_by(&confirmed)) {
            if self.dry_run {
                return Ok(Some((Status::Planned, Some(format!("{to} is confirmed; the next run keeps it")))));
            }
            self.store.add_own(&entry.own)?;
            self.store.set_deployed(repository, &entry.to, entry.ignored.clone(), entry.goes_back)?;
            self.journal.close(repository)?;
            self.store.forget_confirmed(repository)?;
            self.disarm(repository, until);
            log::info!("confirmed", repo = name, commit = entry.to);
            self.note_live(&self.mirror(repository)?, (&entry.to, &log::now()), Some(outcome), entry.goes_back);
            return Ok(None);
        }
        if !is_late {
            let reason = format!(
                "{to} is on trial: it goes back at {} unless somebody runs before: {}",
                log::rfc3339(until),
                confirm(name)
            );
            self.arm(repository, entry);
            return Ok(Some((Status::Held, Some(reason))));
        }
        let reason = format!("nobody confirmed {to} within {} min ({})", repository.confirm_minutes, confirm(name));
        if self.dry_run {
            return Ok(Some((Status::Planned, Some(format!("{reason}; the next run takes it back")))));
        }
        log::warn!("not_confirmed", repo = name, commit = entry.to, until = log::rfc3339(until));
        let back = entry.from.as_deref().map_or("nothing", short);
        outcome.from.clone_from(&entry.from);
        outcome.to = Some(entry.to.clone());
        outcome.touched = true;
        // Before anything else, so that the commit is not tried again whatever happens while it is taken back.
        if !entry.goes_back {
            self.mark_bad(repository, &entry.to, &Error::Refused(reason.clone()), false);
        }
        Ok(Some(match self.recover(repository, entry, turn, outcome) {
            Ok(_) => (Status::RolledBack, Some(format!("{reason}; back on {back}"))),
            Err(error) => (Status::RollbackFailed, Some(format!("{reason}; going back to {back} failed: {error}"))),
        }))
    }

    /// True where a deployment was cut off, or its trial has come to an end. One on trial gets its timer anew: a reboot
    /// has taken it.
    pub(super) fn is_to_end(&self, repository: &Repository) -> Result<bool, Error> {
        let Some(entry) = self.journal.interrupted(repository)? else { return Ok(false) };
        let Some(until) = entry.trial().filter(|until| !entry.is_late(*until)) else { return Ok(true) };
        let is_confirmed = self.store.confirmed(repository)?.is_some_and(|confirmed| entry.is_confirmed_by(&confirmed));
        if !is_confirmed {
            log::line!(log::Level::Debug, "on_trial", repo = repository.name, until = log::rfc3339(until));
            self.arm(repository, &entry);
        }
        Ok(is_confirmed)
    }

    /// Has systemd start a run for the repository when its trial is over. Without systemd, or where that fails, it is the
    /// next run that nobody asks for.
    fn arm(&self, repository: &Repository, entry: &Entry) {
        let Some(until) = entry.trial() else { return };
        let Some(manager @ (Manager::System | Manager::User)) = self.commands_manager() else { return };
        let Ok(program) = std::env::current_exe() else { return };
        if program.file_name().is_none_or(|name| name != GITOPS_SYNC) {
            return;
        }
        let unit = timer_of(repository, until);
        let left = until.as_second().saturating_sub(Timestamp::now().as_second()).max(0);
        let mut command = manager.command("systemd-run", LIMIT);
        command = command.args(["--collect", "--quiet", "--timer-property=AccuracySec=1s"]);
        command = command.args([format!("--unit={unit}"), format!("--on-active={left}s")]);
        // Another run that changes the host at that moment ends it with 75.
        command = command.args(["--property=Type=oneshot", "--property=SuccessExitStatus=1 3 4 5"]);
        command = command.args([
            "--property=Restart=on-failure",
            "--property=RestartSec=2s",
            "--property=StartLimitIntervalSec=0",
        ]);
        command = command.args(["--property=RestartPreventExitStatus=2 78"]);
        command = command.args([format!("--setenv=HUB_STATE_DIR={}", self.config.state_dir.display())]);
        if let Some(path) = &self.config.path {
            command = command.args([format!("--setenv=HUB_CONFIG={}", path.display())]);
        }
        command = command.args(["--"]).args([program.as_os_str()]);
        if self.user_units {
            command = command.args(["--user-units"]);
        }
        command = command.args([&repository.name]);
        match command.name("systemd-run").run() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = log::printable(&output.stderr);
                if !said.contains("already") {
                    log::warn!("trial_timer_not_started", repo = repository.name, error = said);
                }
            }
            Err(error) => log::warn!("trial_timer_not_started", repo = repository.name, error = error.to_string()),
        }
    }

    /// Ends the timer of a trial that somebody has confirmed; where that fails the run that it starts finds nothing to end.
    fn disarm(&self, repository: &Repository, until: Timestamp) {
        let Some(manager @ (Manager::System | Manager::User)) = self.commands_manager() else { return };
        let timer = format!("{}.timer", timer_of(repository, until));
        let stopped = manager.command("systemctl", LIMIT).args(["stop", "--quiet", timer.as_str()]).run();
        match stopped {
            Ok(output) if output.status.success() => {}
            // After a reboot nobody may have made it anew yet.
            Ok(output) => log::line!(
                log::Level::Debug,
                "trial_timer_not_stopped",
                repo = repository.name,
                error = log::printable(&output.stderr)
            ),
            Err(error) => log::warn!("trial_timer_not_stopped", repo = repository.name, error = error.to_string()),
        }
    }
}

/// The transient unit that ends a trial. One for each moment: it is there already where an earlier run made it.
fn timer_of(repository: &Repository, until: Timestamp) -> String {
    let name: String = repository_file_name(&repository.name)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    format!("hub-confirm-{name}-{}", until.as_second())
}

fn confirm(name: &str) -> String {
    hint("hub", &format!("confirm {name}"))
}
