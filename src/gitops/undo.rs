//! The way back of a deployment that failed, was cut off, or was not confirmed.

use super::checkout::Checkout;
use super::commands;
use super::journal::{Entry, Step};
use super::run::Run;
use super::turn::Turn;
use super::units::{Applied, Host};
use super::{Error, Outcome};
use crate::config::Repository;
use crate::log;

impl Run<'_> {
    /// Takes a deployment back, however far it came: files and enablement of units, the checkout, what commands made,
    /// the running services.
    pub(super) fn take_back(
        &self,
        checkout: &Checkout,
        host: Option<&Host>,
        entry: &Entry,
        interrupted: bool,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let repository = checkout.repository;
        turn.take_again()?;
        self.journal.make_room();
        let mut back = Applied::new(&repository.name, Some(&entry.to), entry.from.as_deref());
        let units = host.zip(entry.units.as_ref());
        let mut moved = None;
        if let Some((host, before)) = units.filter(|_| entry.step >= Step::Units) {
            let restored = host.restore_files(before, &repository.name, &mut back);
            outcome.restarts.append(&mut back.actions);
            moved = Some(restored?);
        }
        let code = || self.take_code_back(checkout, entry, interrupted);
        let (done, seen) = turn.aside(code, || host.map(Host::look))?;
        done?;
        // At any step: a unit that came up meanwhile, after a power cut for one, came up on the failed commit's files.
        let Some((host, before)) = units else { return Ok(()) };
        let newer = match seen.flatten() {
            Some(seen) => Some(host.before_others(before, &seen?, &repository.name)?),
            None => None,
        };
        let restored = host.restore_jobs(newer.as_ref().unwrap_or(before), moved.as_ref(), &mut back);
        outcome.restarts.append(&mut back.actions);
        restored
    }

    /// Takes back what a deployment did to the checkout, and has the last good commit's commands make anew what they made.
    fn take_code_back(&self, checkout: &Checkout, entry: &Entry, interrupted: bool) -> Result<(), Error> {
        let repository = checkout.repository;
        if !checkout.is_missing() {
            checkout.undo(entry.branch(repository), entry.from.as_deref(), &entry.to)?;
            if entry.step > Step::Checkout {
                if interrupted && matches!(entry.step, Step::Build | Step::After) {
                    self.note_built(repository, checkout, entry.local.as_deref());
                }
                checkout.undo_built(&self.store.built(repository))?;
            }
            checkout.folder()?.sync_file_system()?;
        }
        if self.store.deployed(repository)?.is_some()
            && let Some(good) = &entry.from
        {
            // What these commands made for the failed commit is made again for the last good one.
            for (step, argv) in [(Step::Build, &repository.build), (Step::After, &repository.after)] {
                // Of an interrupted command nobody knows how far it came.
                let ran = step < entry.step || interrupted && step == entry.step || entry.restored;
                if ran && !argv.is_empty() {
                    let persons = checkout.persons(&self.store.built(repository))?;
                    self.command(repository, checkout, step, good, persons.as_deref())?;
                }
            }
        }
        Ok(())
    }

    /// Undoes a deployment that was cut off.
    pub(super) fn recover(
        &self,
        repository: &Repository,
        entry: &Entry,
        turn: &Turn,
        outcome: &mut Outcome,
    ) -> Result<CutOff, Error> {
        log::warn!("interrupted_deployment_undone", repo = repository.name, from = entry.from, to = entry.to);
        let host = match (&entry.units, self.manager()) {
            (None, manager) => {
                if let Ok(manager) = manager {
                    commands::end_leftovers(manager.manager, &entry.repository)?;
                }
                None
            }
            (Some(_), Ok(manager)) => {
                commands::end_leftovers(manager.manager, &entry.repository)?;
                Some(Host::open(manager, self.config, self.store.folder.path())?)
            }
            (Some(_), Err(reason)) => return Err(Error::Refused(format!("units cannot be put back: {reason}"))),
        };
        // Where only the end of the journal was missing, the commit is live and stays.
        let live = self
            .store
            .deployed(repository)?
            .is_some_and(|deployed| deployed.commit == entry.to && deployed.at >= entry.started);
        if !live {
            let checkout = Checkout::find(self.config, repository)?;
            if !checkout.is_missing() {
                checkout.remove_stale_locks(entry.branch(repository))?;
            }
            self.take_back(&checkout, host.as_ref(), entry, true, turn, outcome)?;
        }
        self.journal.end(repository)?;
        Ok(if live { CutOff::Done } else { CutOff::Undone })
    }
}

/// What became of a deployment that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutOff {
    /// It is taken back.
    Undone,
    /// All of it was done.
    Done,
}
