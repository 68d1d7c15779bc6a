use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Error, units};
use crate::command;
use crate::config::Config;
use crate::hint::command_line;
use crate::log;
use crate::program::print;
use crate::random;
use crate::records::history::{Event, Kind};
use crate::records::{self, revert, short};
use crate::state::{self, Folder, lock_holder, repository_record};
use crate::systemd;
use crate::webhook::queue::Queue;

/// What starts gitops-sync for each queued request.
const PATH_UNIT: &str = "gitops-sync.path";

/// Queue a deployment of a repository, as a push to its branch does.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "deploy",
    note = "gitops-sync takes it up at once if hub up or gitops-sync.path runs. A repository on hold is not queued; the \
            message shows how to release it.",
    example = "hub deploy acme/infra"
)]
pub(super) struct Deploy {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Suspend deployments of a repository until hub release.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "hold",
    note = "What is pushed meanwhile is deployed after the release; a running deployment is not interrupted.",
    example = "hub hold acme/infra --reason \"database move, ask Ada\""
)]
pub(super) struct Hold {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// why, for whoever finds it on hold
    #[argh(option, arg_name = "TEXT")]
    reason: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Resume deployments of a repository and queue one.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(subcommand, name = "release", example = "hub release acme/infra")]
pub(super) struct Release {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// Try again the commit that was rolled back, and what could not be fetched.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "retry",
    note = "Without this a commit that failed is not tried again until the branch moves.",
    example = "hub retry acme/infra"
)]
pub(super) struct Retry {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml
    repository: String,
    /// forget the deployed commit too, because the branch was rewritten and that is wanted; move the checkout there
    /// by hand first
    #[argh(switch)]
    rewritten: bool,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

/// A configured repository and the state it is in.
pub(super) struct Target<'a> {
    pub(super) name: String,
    pub(super) file: String,
    /// Files under former names, which no run has taken over yet.
    former: Vec<String>,
    state: PathBuf,
    /// `--config`
    flag: Option<&'a Path>,
}

impl<'a> Target<'a> {
    pub(super) fn find(name: &str, flag: Option<&'a Path>) -> Result<Self, Error> {
        let config = Config::load(flag)?;
        let repository = config.repository(name)?;
        let former = repository.formerly.iter().map(|name| repository_record(name)).collect();
        Ok(Self { file: repository.record(), former, name: repository.name.clone(), state: config.state_dir, flag })
    }

    /// A folder of gitops-sync's state, made where missing.
    pub(super) fn gitops(&self, folder: &str) -> Result<Folder, Error> {
        Ok(self.history()?.sub_or_make(folder, 0o750)?)
    }

    /// The repository's file in one of these folders; none where there is none.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, folder: &str) -> Result<Option<T>, state::Error> {
        let found = Folder::open(&self.state).and_then(|root| root.sub("gitops")).and_then(|gitops| gitops.sub(folder));
        match found.and_then(|folder| folder.read_json(&self.file)) {
            Err(error) if error.is_missing() => Ok(None),
            other => other,
        }
    }

    /// The folder itself, with the history in it.
    fn history(&self) -> Result<Folder, state::Error> {
        Folder::open_or_make(&self.state, 0o755)?.sub_or_make("gitops", 0o751)
    }

    fn tell(&self, kind: Kind, word: &str, reason: Option<&String>) -> Result<(), Error> {
        let event = Event::new(kind, &self.name, word).because(reason.map(String::as_str));
        event.with("by", command::caller()).append(&self.history()?);
        Ok(())
    }

    pub(super) fn queue_deployment(&self) -> Result<(), Error> {
        let hold = find_hold(&self.state, &self.name, self.flag);
        if let Ok(Some(hold)) = hold {
            return Err(Error::OnHold(hold));
        }
        let delivery = format!("manual-{}", random::id().map_err(Error::no_random)?);
        Queue::open(&self.state)?.push(&self.name, &delivery, None)?;
        print(&format!("queued a deployment of {} ({delivery})", self.name));
        if let Err(error) = hold {
            print(&format!("whether it is on hold cannot be seen: {error}"));
        }
        if let Some(start) = self.taker_to_start() {
            print(&format!("it waits: neither hub up nor gitops-sync.path runs; start one: {start}"));
        }
        Ok(())
    }

    /// What to start so that the queue is worked off; none where something does that, or nobody can see whether.
    fn taker_to_start(&self) -> Option<String> {
        let root = Folder::open(&self.state).ok()?;
        if lock_holder(&root, "up.lock").ok()?.is_some() {
            return None;
        }
        let up = || command_line("hub", "up", self.flag);
        if !systemd::is_running() {
            return Some(up());
        }
        let found = units::properties(PATH_UNIT, &["LoadState", "ActiveState"]).ok()?;
        match (found.get("LoadState")?.as_str(), found.get("ActiveState")?.as_str()) {
            (_, "active") => None,
            ("loaded", _) => Some(format!("systemctl enable --now {PATH_UNIT}")),
            _ => Some(up()),
        }
    }
}

/// Whether deployments of a repository are suspended: by whom, why, and how to resume them. `flag` is `--config`.
///
/// # Errors
/// When the caller may not see it, or it is damaged.
pub(super) fn find_hold(state: &Path, repository: &str, flag: Option<&Path>) -> Result<Option<String>, state::Error> {
    let file = repository_record(repository);
    let folder = Folder::open(state).and_then(|root| root.sub("gitops")).and_then(|gitops| gitops.sub("hold"));
    let hold: records::Hold = match folder.and_then(|folder| folder.read_json(&file)) {
        Ok(Some(hold)) => hold,
        Ok(None) => return Ok(None),
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(format!(
        "{repository} is on hold by {}{}, and nothing is deployed until: {}",
        hold.told(),
        hold.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason:?}")),
        command_line("hub", &format!("release {repository}"), flag)
    )))
}

pub(super) fn deploy(arguments: &Deploy) -> Result<(), Error> {
    Target::find(&arguments.repository, arguments.config.as_deref())?.queue_deployment()
}

pub(super) fn hold(arguments: &Hold) -> Result<(), Error> {
    let target = Target::find(&arguments.repository, arguments.config.as_deref())?;
    let (since, by) = (log::now(), command::caller());
    let hold = records::Hold { since, by, reason: arguments.reason.clone(), went_back_from: None };
    target.gitops("hold")?.publish_json(&target.file, &hold)?;
    target.tell(Kind::Held, "held", arguments.reason.as_ref())?;
    let resume = command_line("hub", &format!("release {}", target.name), target.flag);
    print(&format!("{} is on hold; resume with: {resume}", target.name));
    Ok(())
}

pub(super) fn release(arguments: &Release) -> Result<(), Error> {
    let target = Target::find(&arguments.repository, arguments.config.as_deref())?;
    let holds = target.gitops("hold")?;
    // A damaged one is released all the same.
    let before: Option<records::Hold> = target.read("hold").ok().flatten();
    let mut was_held = holds.remove(OsStr::new(&target.file))?;
    for file in &target.former {
        was_held |= holds.remove(OsStr::new(file))?;
    }
    if was_held {
        target.tell(Kind::Released, "released", None)?;
    }
    print(&format!("{} {}", target.name, if was_held { "is released" } else { "was not on hold" }));
    if let Some(from) = before.and_then(|hold| hold.went_back_from) {
        let live: Option<records::Deployed> = target.read("deployed").ok().flatten();
        let how = live.map_or_else(String::new, |live| format!(" ({})", revert(&live.commit, &from)));
        let stay = command_line("hub", &format!("hold {}", target.name), target.flag);
        print(&format!(
            "you went back from {}: if the branch still has it, the next run deploys it again; push a revert{how}, or \
             stay where you are with: {stay}",
            short(&from)
        ));
    }
    // Also where it was not on hold: an earlier release may have been interrupted between the two.
    target.queue_deployment()
}

pub(super) fn retry(arguments: &Retry) -> Result<(), Error> {
    let target = Target::find(&arguments.repository, arguments.config.as_deref())?;
    let was_bad = target.gitops("bad")?.remove(OsStr::new(&target.file))?;
    let note = if was_bad { "the failed commit may be tried again" } else { "no commit is marked as failed" };
    print(&format!("{}: {note}", target.name));
    if arguments.rewritten && target.gitops("deployed")?.remove(OsStr::new(&target.file))? {
        print(&format!("{}: the deployed commit is forgotten; the next run starts from the checkout", target.name));
    }
    target.queue_deployment()
}
