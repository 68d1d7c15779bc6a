//! Fetching: what it takes to bring a branch into the mirror, and what is said where that fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Mirror, TIP};
use crate::command::{self, Backoff, Command};
use crate::gitops::Error;
use crate::gitops::access::Access;
use crate::gitops::git::{LOCAL, git};
use crate::log;
use crate::state::repository_file_name;

/// How long a failing fetch is tried again within one run, but not longer than one fetch may take.
const TRIES: Duration = Duration::from_secs(60);

impl Mirror<'_> {
    /// Fetches the branch and returns its tip. `meanwhile` is called once, while git is at work.
    ///
    /// # Errors
    /// `Refused` when the branch does not exist, `Fetch` when the remote does not answer, after tries with backoff for
    /// a minute at most.
    pub fn fetch(&self, meanwhile: impl FnOnce() -> Result<(), Error>) -> Result<String, Error> {
        self.remove_stale_locks()?;
        let mut meanwhile = Some(meanwhile);
        let (started, tries) = (Instant::now(), TRIES.min(self.fetch_limit()));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        loop {
            // Anew for every try: git forgets a token that a server refused.
            let access = Access::prepare(self.config, self.repository, &self.mirrors, &self.user)?;
            let fetching = self.fetch_command(&access).prepare(None)?;
            if let Some(meanwhile) = meanwhile.take() {
                drop(self.objects()?);
                meanwhile()?;
            }
            let error = match fetching.finish(b"") {
                Ok(_) => return self.tip(),
                Err(error) => error,
            };
            let hung = matches!(error, command::Error::Deadline { .. });
            if !hung && self.branch_is_missing(&access) {
                return Err(self.no_branch());
            }
            if !hung && !self.is_new() && self.is_damaged()? {
                log::warn!("mirror_made_anew", repo = self.repository.name, error = error.to_string());
                self.make()?;
                continue;
            }
            let wait = backoff.next_wait();
            // A local folder that cannot be read now cannot be read in a minute.
            let local = self.repository.remote.local_path().is_some();
            if local || started.elapsed() + wait >= tries {
                return Err(self.cannot_fetch(&access, &error));
            }
            log::warn!(
                "fetch_retried",
                repo = self.repository.name,
                error = error.to_string(),
                wait_s = wait.as_secs()
            );
            std::thread::sleep(wait);
        }
    }

    fn remote_git(&self, access: &Access, limit: Duration) -> Command {
        let mut command = git(&self.user, &self.path, limit)
            .env("GIT_ALLOW_PROTOCOL", self.repository.remote.protocol())
            // What a push brings is too little for threads; a first clone is not.
            .args(if self.is_new() { &[][..] } else { &["-c", "pack.threads=1"] })
            // A server that sends less than 1,000 bytes a second for 20 s has gone away.
            .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20"])
            .args(["-c", "fetch.fsckObjects=true", "-c", "fetch.fsck.zeroPaddedFilemode=ignore"]);
        let fetches_as_another = rustix::process::geteuid().as_raw() != self.user.uid;
        if let Some(path) = self.repository.remote.local_path()
            && fetches_as_another
        {
            // git refuses to serve a repository of another user; the path is the operator's choice, and hub-git has
            // nothing to lose. `-c` does not reach the serving process, a global file does.
            command = command.env("GIT_CONFIG_GLOBAL", self.safe_directory(&path));
        }
        access.apply(command)
    }

    fn safe_directory(&self, path: &std::path::Path) -> PathBuf {
        let name = format!(".{}.config", repository_file_name(&self.repository.name));
        let quoted = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
        let content = format!("[safe]\n\tdirectory = \"{quoted}\"\n\tdirectory = \"{quoted}/.git\"\n");
        if let Err(error) = self.mirrors.publish(&name, content.as_bytes(), 0o644) {
            log::warn!("safe_directory_not_written", error = error.to_string());
        }
        self.mirrors.path().join(name)
    }

    fn fetch_limit(&self) -> Duration {
        Duration::from_secs(self.config.gitops.fetch_timeout_seconds)
    }

    fn fetch_command(&self, access: &Access) -> Command {
        let refspec = format!("+refs/heads/{}:{TIP}", self.repository.branch);
        self.remote_git(access, self.fetch_limit())
            .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"])
            .args(["--no-recurse-submodules", "--", self.repository.remote.url(), &refspec])
            .name(format!("git fetch {}", self.repository.remote.url()))
    }

    /// `git ls-remote --exit-code` ends with 2 when the remote answers and has no such ref.
    fn branch_is_missing(&self, access: &Access) -> bool {
        let command = self.ls_remote(access, self.fetch_limit().min(Duration::from_secs(30)));
        command.run().is_ok_and(|output| output.status.code() == Some(2))
    }

    pub(super) fn ls_remote(&self, access: &Access, limit: Duration) -> Command {
        let reference = format!("refs/heads/{}", self.repository.branch);
        let command = self.remote_git(access, limit);
        command.args(["ls-remote", "--exit-code", "--", self.repository.remote.url(), &reference]).output_limit(1 << 16)
    }

    /// A killed fetch leaves its locks; this run holds the repository's, so nobody else is at work here.
    fn remove_stale_locks(&self) -> Result<(), Error> {
        let locks = ["refs/hub/tip.lock", "packed-refs.lock", "shallow.lock", "config.lock", "HEAD.lock"];
        if !locks.iter().any(|lock| std::fs::symlink_metadata(self.path.join(lock)).is_ok()) {
            return Ok(());
        }
        let remove = Command::new("rm", LOCAL).user(&self.user).folder(&self.path).args(["-f", "--"]).args(locks);
        remove.succeed()?;
        Ok(())
    }

    /// Why the remote cannot be fetched from, with what to do where that is known.
    pub(super) fn cannot_fetch(&self, access: &Access, error: &command::Error) -> Error {
        let reason = error.to_string();
        let reason = access.advice(&reason).map_or(reason.clone(), |advice| format!("{reason}; {advice}"));
        Error::Fetch { url: self.repository.remote.url().to_owned(), reason }
    }

    pub(super) fn no_branch(&self) -> Error {
        Error::Refused(format!(
            "the branch {} does not exist at {}; push it again, or change branch in hub.toml",
            self.repository.branch,
            self.repository.remote.url()
        ))
    }
}
