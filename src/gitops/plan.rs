//! What would be done: the branch is fetched, the checkout and the host are looked at, and nothing of either is changed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::checkout::Checkout;
use super::git::{Change, object_format};
use super::incoming::Transfer;
use super::look::Look;
use super::mirror::Mirror;
use super::run::Run;
use super::units::{self, Desired, Host};
use super::worktree::Yielding;
use super::{Error, Outcome, prune};
use crate::command::scoped_thread;
use crate::config::Repository;
use crate::hint::hint;
use crate::log;
use crate::records::short;

/// How old a look at a checkout may be when its answer is used.
const FRESH: Duration = Duration::from_secs(1);

/// What a plan is made from.
pub(super) struct Fetched<'a> {
    pub mirror: Mirror<'a>,
    pub checkout: Checkout<'a>,
    pub began: Instant,
    /// How the checkout looked then; none where nobody looked.
    pub look: Option<Result<Look, Error>>,
    /// A transfer that waits for its revisions.
    pub transfer: Option<Transfer>,
    pub deployed: Option<String>,
    pub to: String,
}

/// What was learnt before anything is changed.
pub(super) struct Plan<'a> {
    pub repository: &'a Repository,
    pub mirror: Mirror<'a>,
    pub checkout: Checkout<'a>,
    pub look: Look,
    /// Changed files that give way.
    pub yielding: Yielding,
    pub transfer: Cell<Option<Transfer>>,
    /// The commit that is live, by the hub's own account.
    pub deployed: Option<String>,
    pub to: String,
    pub changes: Vec<Change>,
    /// What the `restart` rules look at where that is more: the code that runs may be older than the checkout, when somebody
    /// else has moved it.
    pub since_deployed: Option<Vec<Change>>,
    pub units: Option<(Host, units::Plan)>,
    pub lines: Vec<String>,
}

impl Plan<'_> {
    /// True where the commit is live already, by record and checkout.
    pub fn is_live(&self) -> bool {
        self.deployed.as_deref() == Some(&self.to) && self.look.head.as_deref() == Some(&self.to)
    }

    /// True where there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.is_live() && self.units.as_ref().is_none_or(|(_, units)| units.is_idle())
    }

    /// True where the commit takes away more than unit files.
    pub fn takes_code(&self) -> bool {
        let folder = format!("{}/", self.repository.units);
        let lines = || self.units.iter().flat_map(|(_, units)| &units.lines);
        let is_unit = |path: &[u8]| {
            path.strip_prefix(folder.as_bytes()).is_some_and(|file| lines().any(|line| line.file.as_bytes() == file))
        };
        self.changes.iter().any(|change| change.kind == b'D' && !is_unit(&change.path))
    }

    /// What the `restart` rules look at.
    pub fn code_changes(&self) -> &[Change] {
        self.since_deployed.as_deref().unwrap_or(&self.changes)
    }
}

impl Run<'_> {
    /// Fetches, and looks at the checkout meanwhile.
    pub(super) fn fetch<'b>(&'b self, repository: &'b Repository, outcome: &mut Outcome) -> Result<Fetched<'b>, Error> {
        let checkout = Checkout::find(self.config, repository)?;
        if !self.dry_run && checkout.is_there() {
            self.store.keep_owner(repository, &checkout.user)?;
        }
        if checkout.is_roots_unasked() {
            let effect = "git and the repository's commands run as root";
            let remedy = "create the system user hub-checkout, or write user = \"root\"";
            log::warn!("hub_user_missing", repo = repository.name, effect = effect, remedy = remedy);
        }
        let mirror = self.mirror(repository)?;
        let deployed = self.store.deployed(repository)?.map(|deployed| deployed.commit);
        outcome.from.clone_from(&deployed);
        let (began, missing) = (Instant::now(), checkout.is_missing());
        let bad = self.store.bad(repository)?;
        let unfit = bad.as_ref().filter(|bad| bad.unfit).map(|bad| bad.commit.as_str());
        let mut is_clear = false;
        let (to, look) = std::thread::scope(|scope| {
            let mut look = None;
            let to = mirror.fetch(unfit, || {
                if !missing {
                    // Without the thread it is looked at later.
                    look = scoped_thread(scope, || checkout.look_closely()).ok();
                    is_clear = !self.dry_run && checkout.clear_incoming().is_ok();
                }
                Ok(())
            });
            (to, look.and_then(|thread| thread.join().ok().flatten()))
        });
        let to = to?;
        outcome.to = Some(to.clone());
        // It gets ready while the commit is looked at. What is in its way is said by the look, or when it is needed.
        let is_known = deployed.as_ref() == Some(&to) || bad.is_some_and(|bad| bad.commit == to);
        let transfer = if is_clear && !is_known { Some(checkout.transfer(mirror.pack())?) } else { None };
        Ok(Fetched { mirror, checkout, began, look, transfer, deployed, to })
    }

    /// Refuses what does not follow on what is deployed.
    pub(super) fn follows(&self, repository: &Repository, fetched: &Fetched) -> Result<(), Error> {
        let Fetched { mirror, deployed: Some(old), to, .. } = fetched else { return Ok(()) };
        if mirror.is_ancestor(old, to)? {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the branch {} was rewritten: {} does not follow on the deployed {}; push a commit that does, or, if the \
             rewrite is wanted, move the checkout there by hand and run: {}",
            repository.branch,
            short(to),
            short(old),
            hint("hub", &format!("retry {} --rewritten", repository.name))
        )))
    }

    /// Looks at the checkout and the host and says what would be done.
    pub(super) fn plan<'a>(
        &self,
        repository: &'a Repository,
        fetched: Fetched<'a>,
        outcome: &mut Outcome,
    ) -> Result<Plan<'a>, Error> {
        let Fetched { mirror, checkout, began, look, transfer, deployed, to } = fetched;
        // The remote, or another deployment, may have let this one wait.
        let is_fresh = began.elapsed() < FRESH;
        // A look that failed is not made again: what held it up would do so once more.
        let look = look.filter(|look| is_fresh || look.is_err());
        let transfer = transfer.and_then(|transfer| transfer.still_wanted(is_fresh));
        let mut lines = Vec::new();
        let path = repository.path.display();
        let missing = checkout.is_missing();
        if missing && checkout.is_occupied() {
            return Err(Error::Refused(format!("{path} is not empty and no git checkout; move its content away")));
        }
        let units = self.plan_units(repository, &mirror, &to, outcome)?;
        let mut look = if missing {
            lines.push(format!("make the checkout {path} for user {}: there is none yet", checkout.user.name));
            if !self.dry_run {
                self.store.keep_owner(repository, &checkout.user)?;
                checkout.make(object_format(&to))?;
            }
            Look::of_new(&repository.branch)
        } else {
            look.unwrap_or_else(|| checkout.look_closely())?
        };
        if !missing && look.head.is_none() && !self.dry_run {
            let deployed = self.store.deployed(repository)?;
            if let Some(renamed) = checkout.renamed(&look, deployed.as_ref(), &mirror)? {
                checkout.follow(&renamed)?;
                look = checkout.look_closely()?;
            }
        }
        // Who goes back leaves what was deployed and nothing else.
        let newest = deployed.as_ref().filter(|_| self.goes_back).unwrap_or(&to);
        if let Some(head) = &look.head
            && *head != to
            && !mirror.is_ancestor(head, newest)?
        {
            return Err(Error::Refused(format!(
                "{path} has commits that the branch {} does not have ({}); push them, or drop them with: \
                 git -C {path} reset --hard {}",
                repository.branch,
                short(head),
                short(deployed.as_deref().unwrap_or(&to))
            )));
        }
        let changes = match &look.head {
            Some(head) if *head == to => Vec::new(),
            head => mirror.changes(head.as_deref(), &to)?,
        };
        let mut yielding = Yielding::default();
        if !missing {
            let renamed = if look.branch.as_ref() == Some(&repository.branch) {
                None
            } else {
                checkout.renamed(&look, self.store.deployed(repository)?.as_ref(), &mirror)?
            };
            if let Some(renamed) = &renamed {
                lines.push(renamed.describe(&checkout));
                look = renamed.after(look, &repository.branch);
            }
            yielding = checkout.yielding(&look, &changes, &self.store.built(repository), &mirror)?;
            checkout.check(&look, &changes, &yielding)?;
            if let (Some(renamed), false) = (&renamed, self.dry_run) {
                checkout.follow(renamed)?;
                log::info!("branch_followed", repo = repository.name, note = renamed.describe(&checkout));
            }
            lines.extend(yielding.built.iter().map(|path| format!("restore {path}: build or after wrote it")));
        }
        let since_deployed = match &deployed {
            Some(old) if !repository.restart.is_empty() && *old != to && look.head.as_ref() != Some(old) => {
                Some(mirror.changes(Some(old), &to)?)
            }
            _ => None,
        };
        let transfer = Cell::new(transfer);
        Ok(Plan {
            repository,
            mirror,
            checkout,
            look,
            yielding,
            transfer,
            deployed,
            to,
            changes,
            since_deployed,
            units,
            lines,
        })
    }

    /// Compares the commit's units with the host; none where the repository has neither units nor `restart` rules, or they
    /// are not for this host.
    pub(super) fn plan_units(
        &self,
        repository: &Repository,
        mirror: &Mirror,
        to: &str,
        outcome: &mut Outcome,
    ) -> Result<Option<(Host, units::Plan)>, Error> {
        let has_folder = !repository.units.is_empty();
        let desired = if has_folder { Desired::read(mirror, to, repository)? } else { Desired::default() };
        // What has a problem is there, and the refusal that follows says so.
        if desired.problems.is_empty() {
            outcome.not_there = self.adopt.iter().filter(|name| !desired.has(name)).cloned().collect();
        }
        let none = desired.files.is_empty() && desired.problems.is_empty();
        let mut installed = Vec::new();
        if has_folder || self.remove_all {
            installed = Host::units_of_repository(&self.store.folder, &repository.name)?;
        }
        if none && has_folder && !self.remove_all {
            prune::check(repository, mirror, to, &installed)?;
        }
        let had = !installed.is_empty();
        if none && !had && repository.restart.is_empty() {
            return Ok(None);
        }
        let manager = match self.manager() {
            Ok(manager) => manager,
            Err(reason) => {
                outcome.not_deployed = Some(reason);
                return Ok(None);
            }
        };
        let host = Host::open(manager, self.config, self.store.folder.path())?;
        if none && !had {
            return Ok(Some((host, units::Plan::default())));
        }
        let plan = host.plan(repository, to, desired, self.adopt)?;
        outcome.units = plan.lines.iter().filter(|line| line.action != units::Action::Keep).cloned().collect();
        Ok(Some((host, plan)))
    }
}
