//! Fetching: what it takes to bring a branch into the mirror, and what is said where that fails.

use std::fs::DirEntry;
use std::path::Path;
use std::time::{Duration, Instant};

use super::room::Room;
use super::{DEPLOYED, Mirror, TIP};
use crate::command::{self, Backoff, Command};
use crate::gitops::Error;
use crate::gitops::access::Access;
use crate::gitops::git::{LOCAL, git};
use crate::gitops::owner::may_not_enter;
use crate::log;
use crate::state::{barring, repository_file_name};

/// How long a failing fetch is tried again within one run, but not longer than one fetch may take.
const TRIES: Duration = Duration::from_secs(60);

/// What git finds wrong in old commits of honest repositories and what does no harm: odd names and dates of people, and
/// modes written with a zero in front (git-fsck(1), FSCK MESSAGES). Everything else that fsck reports stays refused.
const HARMLESS: [&str; 12] = [
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// As many files of killed processes are removed at once.
const MOST_LEFT: usize = 1000;

/// What a `git fetch` or `git gc` holds that is killed; git itself would wait for it for ever.
const LOCKS: [&str; 10] = [
    "refs/hub/tip.lock",
    "packed-refs.lock",
    "shallow.lock",
    "config.lock",
    "HEAD.lock",
    "gc.pid.lock",
    "gc.log.lock",
    "objects/info/commit-graph.lock",
    "objects/info/commit-graphs/commit-graph-chain.lock",
    "objects/pack/multi-pack-index.lock",
];

impl Mirror<'_> {
    /// Fetches the branch and returns its tip. `meanwhile` is called once, while git is at work. Where the branch still is
    /// at `unfit`, a commit that could not be fetched for its own fault, that is returned and nothing is fetched.
    ///
    /// # Errors
    /// `Refused` when the branch does not exist, `Unfit` when it cannot be fetched as it is, `Full` when the disk has no
    /// room, `Fetch` when the remote does not answer, after tries with backoff for a minute at most.
    pub fn fetch(&self, unfit: Option<&str>, meanwhile: impl FnOnce() -> Result<(), Error>) -> Result<String, Error> {
        let mut meanwhile = Some(meanwhile);
        let name = repository_file_name(&self.repository.name);
        let (started, tries) = (Instant::now(), TRIES.min(self.fetch_limit()));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        // Both once a run; a look at all of the mirror takes long where there is much.
        let (mut other_format, mut look) = (true, true);
        loop {
            self.remove_left()?;
            let room = Room::find(self)?;
            // Anew for every try: git forgets a token that a server refused.
            let access = Access::prepare(self.config, self.repository, (&self.access, &name), &self.user)?;
            if let Some(unfit) = unfit
                && self.remote_tip(&access).is_ok_and(|tip| tip.as_deref() == Some(unfit))
            {
                return Ok(unfit.to_owned());
            }
            let fetching = self.fetch_command(&access, &room)?.prepare(None)?;
            if let Some(meanwhile) = meanwhile.take() {
                drop(self.objects()?);
                meanwhile()?;
            }
            let error = match fetching.finish(b"") {
                Ok(_) => return self.fetched_tip(&access),
                Err(error) => error,
            };
            let received = self.remove_left()?;
            let said = error.to_string();
            if let Some(format) = said.split("server ").nth(1).filter(|_| said.contains("mismatched algorithms"))
                && std::mem::take(&mut other_format)
            {
                self.make(if format.starts_with("sha256") { "sha256" } else { "sha1" })?;
                continue;
            }
            if let Some(error) = self.fault(&access, &room, received, &error) {
                return Err(error);
            }
            let hung = matches!(error, command::Error::Deadline { .. });
            let tip = if hung { None } else { Some(self.remote_tip(&access)) };
            if matches!(tip, Some(Ok(None))) {
                return Err(self.no_branch());
            }
            // Where the remote does not answer at all, it is hardly the mirror's fault.
            let answers = matches!(tip, Some(Ok(Some(_))));
            if !hung && !self.is_new() && self.is_damaged(answers && std::mem::take(&mut look)) {
                log::warn!("mirror_made_anew", repo = self.repository.name, error = said);
                self.make("sha1")?;
                continue;
            }
            let wait = backoff.next_wait();
            // A local folder that cannot be read now cannot be read in a minute.
            let local = self.repository.remote.local_path().is_some();
            if local || started.elapsed() + wait >= tries {
                return Err(self.cannot_fetch(&access, &error));
            }
            log::warn!("fetch_retried", repo = self.repository.name, error = said, wait_s = wait.as_secs());
            std::thread::sleep(wait);
        }
    }

    /// What is wrong with the history or the disk, so that another try at once is worth nothing; none where it is
    /// something else.
    fn fault(&self, access: &Access, room: &Room, received: u64, error: &command::Error) -> Option<Error> {
        let said = error.to_string();
        if let Some(full) = room.fault(self, received, &said) {
            return Some(if full.is_disk { Error::Full(full.reason) } else { self.unfit(access, full.reason) });
        }
        said.contains("fsck error").then(|| {
            let reason = format!(
                "the history of {} at {} has what git takes for dangerous: {said}; it is the history's fault, not the \
                 network's: have it rewritten there without that object (git fsck names it)",
                self.repository.branch,
                self.repository.remote.url()
            );
            self.unfit(access, reason)
        })
    }

    fn unfit(&self, access: &Access, reason: String) -> Error {
        // Where the remote does not say what it has, it is fetched once more by the next run.
        Error::Unfit { commit: self.remote_tip(access).ok().flatten(), reason }
    }

    /// The tip that was fetched. It is compared with what the remote named: from a remote that is shallow itself git takes
    /// nothing that needs its missing history, warns, and ends well.
    fn fetched_tip(&self, access: &Access) -> Result<String, Error> {
        let named = self.objects()?.resolve("FETCH_HEAD")?;
        if named.is_some() && self.objects()?.resolve(TIP)? == named {
            return self.tip();
        }
        let (branch, url) = (&self.repository.branch, self.repository.remote.url());
        Err(self.unfit(
            access,
            format!(
                "{branch} at {url} moved and could not be taken over: that repository is shallow, its history is cut off; run \
                 there: git fetch --unshallow"
            ),
        ))
    }

    /// A git command that talks with the remote; `complete` adds to it what is to be done and with which URL.
    fn remote_git(
        &self,
        access: &Access,
        limit: Duration,
        complete: impl FnOnce(Command, &str) -> Command,
    ) -> Result<Command, command::Error> {
        let command = git(&self.user, &self.path, limit)
            // What a push brings is too little for threads; a first clone is not.
            .args(if self.is_new() { &[][..] } else { &["-c", "pack.threads=1"] })
            // A server that sends less than 1,000 bytes a second for 20 s has gone away.
            .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20"]);
        let command = access.apply(command);
        let Some(origin) = &access.origin else {
            let remote = &self.repository.remote;
            return Ok(complete(command.env("GIT_ALLOW_PROTOCOL", remote.protocol()), remote.url()));
        };
        let server = git(&origin.owner, Path::new("/"), limit).env("GIT_PROTOCOL", "version=2");
        // git-remote-fd(1).
        command
            .env("GIT_ALLOW_PROTOCOL", "fd")
            .served_by(server.args(["upload-pack", "--"]).args([&origin.path]), |command, socket| {
                complete(command, &format!("fd::{socket}"))
            })
    }

    fn fetch_limit(&self) -> Duration {
        Duration::from_secs(self.config.gitops.fetch_timeout_seconds)
    }

    fn fetch_command(&self, access: &Access, room: &Room) -> Result<Command, command::Error> {
        let refspec = format!("+refs/heads/{}:{TIP}", self.repository.branch);
        let complete = |mut command: Command, url: &str| {
            // One pack, whatever comes, so that the limit of a file is the limit of a fetch.
            command =
                command.file_limit(room.bytes).args(["-c", "fetch.unpackLimit=1", "-c", "fetch.fsckObjects=true"]);
            for message in HARMLESS {
                command = command.args(["-c", &format!("fetch.fsck.{message}=ignore")]);
            }
            command
                .args(["fetch", "--quiet", "--no-tags", "--no-auto-maintenance"])
                .args(["--no-recurse-submodules", "--", url, &refspec])
                .name(format!("git fetch {}", self.repository.remote.url()))
        };
        self.remote_git(access, self.fetch_limit(), complete)
    }

    /// What the remote has the branch at; none where it answers and has no such branch.
    fn remote_tip(&self, access: &Access) -> Result<Option<String>, command::Error> {
        let output = self.ls_remote(access, self.fetch_limit().min(Duration::from_secs(30)))?.run()?;
        // `git ls-remote --exit-code` ends with 2 then.
        if output.status.code() == Some(2) {
            return Ok(None);
        }
        let text = output.require_success("git ls-remote")?.text();
        Ok(Some(text.split_whitespace().next().unwrap_or_default().to_owned()))
    }

    pub(super) fn ls_remote(&self, access: &Access, limit: Duration) -> Result<Command, command::Error> {
        let reference = format!("refs/heads/{}", self.repository.branch);
        self.remote_git(access, limit, |command, url| {
            command
                .args(["ls-remote", "--exit-code", "--", url, &reference])
                .output_limit(1 << 16)
                .name(format!("git ls-remote {}", self.repository.remote.url()))
        })
    }

    /// A killed fetch or `git gc` leaves its locks and what it had written; this run holds the repository's lock, so nobody
    /// else is at work here. Returns how much of a pack was received, in bytes.
    fn remove_left(&self) -> Result<u64, Error> {
        let is_there = |name: &&str| std::fs::symlink_metadata(self.path.join(*name)).is_ok();
        let mut left: Vec<String> = LOCKS.into_iter().filter(is_there).map(str::to_owned).collect();
        let (mut count, mut received) = (0, 0);
        for (name, entry) in self.names("objects/pack") {
            count += usize::from(name.ends_with(".pack"));
            if name.starts_with("tmp_") {
                received = received.max(entry.metadata().map_or(0, |found| found.len()));
            }
        }
        self.packs.set(count);
        let mut note = |folder: &str, is_left: &dyn Fn(&str) -> bool| {
            let names = self.names(folder).map(|(name, _)| name).filter(|name| is_left(name));
            let room = MOST_LEFT.saturating_sub(left.len());
            left.extend(names.take(room).map(|name| format!("{folder}/{name}")));
        };
        // `git index-pack` writes the first, `git repack` the second.
        note("objects/pack", &|name| name.starts_with("tmp_") || name.starts_with(".tmp-"));
        note(DEPLOYED, &|name| name.ends_with(".lock"));
        // What git writes for itself; a `git gc` that is killed leaves it.
        for (folder, _) in self.names("objects").filter(|(name, _)| name.len() == 2) {
            note(&format!("objects/{folder}"), &|name| name.starts_with("tmp_obj_"));
        }
        note("objects", &|name| name.starts_with("tmp_obj_"));
        if !left.is_empty() {
            let remove = Command::new("rm", LOCAL).user(&self.user).folder(&self.path).args(["-f", "--"]);
            remove.args(left).name("rm").succeed()?;
        }
        Ok(received)
    }

    fn names(&self, folder: &str) -> impl Iterator<Item = (String, DirEntry)> {
        let entries = std::fs::read_dir(self.path.join(folder)).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry)))
    }

    /// Why the remote cannot be fetched from, with what to do where that is known.
    pub(super) fn cannot_fetch(&self, access: &Access, error: &command::Error) -> Error {
        let url = self.repository.remote.url().to_owned();
        let local = self.repository.remote.local_path().filter(|_| access.origin.is_none());
        if let Some(reason) = local.and_then(|path| self.shut_out(&path)) {
            return Error::Fetch { url, reason };
        }
        let reason = error.to_string();
        let reason = access.advice(&reason).map_or(reason.clone(), |advice| format!("{reason}; {advice}"));
        Error::Fetch { url, reason }
    }

    /// What keeps the fetching user from a local remote, and what to do; none where nothing does.
    fn shut_out(&self, path: &Path) -> Option<String> {
        let user = &self.user.name;
        // Where that cannot be asked, nothing is said of it.
        if let Ok(Some(barred)) = barring(&self.user, path) {
            let may_not = may_not_enter(user, "who fetches", &barred);
            return Some(format!("{may_not} move the repository to where it may go, such as /srv/git"));
        }
        let is_missing =
            |folder: &&Path| std::fs::metadata(folder).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if let Some(missing) = path.ancestors().filter(is_missing).last() {
            return Some(format!("there is no {}; make it, or correct url in hub.toml", missing.display()));
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let may_read = |path: &Path| {
            let test = Command::new("test", LOCAL).user(&self.user).args(["-r"]).args([path]).run();
            test.map_or(true, |output| output.status.success())
        };
        let parts = ["", "HEAD", "objects", ".git", ".git/HEAD", ".git/objects"].map(|part| real.join(part));
        let closed = parts.iter().find(|part| part.exists() && !may_read(part))?.display();
        Some(format!(
            "{user}, who fetches, may not read {closed}; let it with: setfacl -R -m u:{user}:rX {0} && setfacl -R -d -m \
             u:{user}:rX {0}",
            real.display()
        ))
    }

    pub(super) fn no_branch(&self) -> Error {
        Error::Refused(format!(
            "the branch {} does not exist at {}; push it again, or change branch in hub.toml",
            self.repository.branch,
            self.repository.remote.url()
        ))
    }
}
