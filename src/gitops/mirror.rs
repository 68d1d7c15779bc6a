use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::access::Access;
use super::git::{Change, LOCAL, git, is_commit, parse_changes};
use super::{Error, signatures};
use crate::command::{self, Account, Backoff, Command};
use crate::config::{Config, Repository};
use crate::log;
use crate::state::{self, Folder, repository_file_name};

/// The user that fetches, where it exists.
const USER: &str = "hub-git";
/// The fetched tip of the configured branch.
const TIP: &str = "refs/hub/tip";
/// How long a failing fetch is tried again within one run, but not longer than one fetch may take.
const TRIES: Duration = Duration::from_secs(60);
/// git's `diff-tree` of a very large commit.
const LARGEST_DIFF: usize = 64 << 20;

/// The bare mirror of a repository: what was fetched, owned by a user that owns nothing else.
pub(super) struct Mirror<'a> {
    config: &'a Config,
    repository: &'a Repository,
    user: Account,
    mirrors: Folder,
    path: PathBuf,
}

/// The user of the mirrors: `hub-git` where the caller is root and it exists, else the caller.
pub(super) fn user() -> Account {
    let caller = command::current();
    if caller.uid != 0 {
        return caller;
    }
    Account::by_name(USER).unwrap_or_else(|| {
        log::warn!("hub_git_missing", effect = "git fetches as root", remedy = "create the system user hub-git");
        caller
    })
}

impl<'a> Mirror<'a> {
    /// Opens the mirror, made empty where it is missing or belongs to another user than it should.
    pub fn open(
        config: &'a Config,
        repository: &'a Repository,
        gitops: &Folder,
        user: &Account,
    ) -> Result<Self, Error> {
        let mirrors = gitops.sub_or_make("mirror", 0o750)?;
        own(&mirrors, user)?;
        let file_name = repository_file_name(&repository.name);
        let mirror = Self {
            config,
            repository,
            user: user.clone(),
            path: mirrors.path().join(format!("{file_name}.git")),
            mirrors,
        };
        let failed = |act, source| state::Error::Io { act, path: mirror.path.clone(), source };
        match std::fs::symlink_metadata(&mirror.path) {
            Ok(found) if found.is_dir() && found.uid() == user.uid => return Ok(mirror),
            Ok(_) => std::fs::remove_dir_all(&mirror.path).map_err(|error| failed("remove", error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("inspect", error).into()),
        }
        // Made under another name and renamed, so that a mirror is either whole or not there.
        let unfinished = mirror.mirrors.path().join(format!(".{file_name}.new"));
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(|error| failed("remove", error))?;
        }
        let init = git(user, mirror.mirrors.path(), LOCAL).args(["init", "--quiet", "--bare", "--template=", "--"]);
        init.args([&unfinished]).succeed()?;
        std::fs::rename(&unfinished, &mirror.path).map_err(|error| failed("make", error))?;
        mirror.mirrors.sync()?;
        Ok(mirror)
    }

    fn git(&self) -> Command {
        git(&self.user, &self.path, LOCAL)
    }

    /// Fetches the branch and returns its tip.
    ///
    /// # Errors
    /// `Refused` when the branch does not exist, `Fetch` when the remote does not answer, after tries with backoff for
    /// a minute at most.
    pub fn fetch(&self) -> Result<String, Error> {
        self.remove_stale_locks()?;
        let (started, tries) = (Instant::now(), TRIES.min(self.fetch_limit()));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        loop {
            // Anew for every try: git forgets a token that a server refused.
            let access = Access::prepare(self.config, self.repository, &self.mirrors, &self.user)?;
            let error = match self.fetch_command(&access).succeed() {
                Ok(_) => return self.tip(),
                Err(error) => error,
            };
            let hung = matches!(error, command::Error::Deadline { .. });
            if !hung && self.branch_is_missing(&access) {
                return Err(Error::Refused(format!(
                    "the branch {} does not exist at {}; push it again, or change branch in hub.toml",
                    self.repository.branch,
                    self.repository.remote.url()
                )));
            }
            let wait = backoff.next_wait();
            // A local folder that cannot be read now cannot be read in a minute.
            let local = self.repository.remote.local_path().is_some();
            if local || started.elapsed() + wait >= tries {
                let url = self.repository.remote.url().to_owned();
                let reason = error.to_string();
                return Err(Error::Fetch {
                    url,
                    reason: access.advice(&reason).map_or(reason.clone(), |advice| format!("{reason}; {advice}")),
                });
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
            // A server that sends less than 1,000 bytes a second for 20 s has gone away.
            .args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20"])
            .args(["-c", "fetch.fsckObjects=true", "-c", "fetch.fsck.zeroPaddedFilemode=ignore"]);
        let caller_owns_nothing = rustix::process::geteuid().as_raw() != self.user.uid;
        if let Some(path) = self.repository.remote.local_path()
            && caller_owns_nothing
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
        let reference = format!("refs/heads/{}", self.repository.branch);
        let command = self.remote_git(access, self.fetch_limit().min(Duration::from_secs(30)));
        let command = command.args(["ls-remote", "--exit-code", "--", self.repository.remote.url(), &reference]);
        command.output_limit(1 << 16).run().is_ok_and(|output| output.status.code() == Some(2))
    }

    /// A killed fetch leaves its locks; this run holds the global one, so nobody else is at work here.
    fn remove_stale_locks(&self) -> Result<(), Error> {
        let locks = ["refs/hub/tip.lock", "packed-refs.lock", "shallow.lock", "config.lock", "HEAD.lock"];
        if !locks.iter().any(|lock| std::fs::symlink_metadata(self.path.join(lock)).is_ok()) {
            return Ok(());
        }
        let remove = Command::new("rm", LOCAL).user(&self.user).folder(&self.path).args(["-f", "--"]).args(locks);
        remove.succeed()?;
        Ok(())
    }

    fn tip(&self) -> Result<String, Error> {
        let tip = self.git().args(["rev-parse", "--verify", "--quiet", TIP]).succeed()?.text();
        if is_commit(&tip) { Ok(tip) } else { Err(Error::unexpected("git rev-parse", tip.as_bytes())) }
    }

    /// True where `old` is `new` or one of its ancestors; false as well where the mirror does not know `old`.
    pub fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, Error> {
        if old == new {
            return Ok(true);
        }
        let output = self.git().args(["merge-base", "--is-ancestor", old, new]).run()?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ if !self.knows(old)? => Ok(false),
            _ => output.require_success("git merge-base --is-ancestor").map(|_| false).map_err(Into::into),
        }
    }

    fn knows(&self, commit: &str) -> Result<bool, Error> {
        let output = self.git().args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).run()?;
        Ok(output.status.success())
    }

    /// Checks the signatures that the configuration asks for: every first-parent commit since `from`, or `to` alone
    /// where nothing was deployed yet.
    pub fn verify(&self, from: Option<&str>, to: &str) -> Result<(), Error> {
        signatures::verify(self.repository, &self.mirrors, &self.user, || self.git(), from, to)
    }

    /// What changes from one commit (none: from nothing) to another.
    pub fn changes(&self, from: Option<&str>, to: &str) -> Result<Vec<Change>, Error> {
        let from = match from {
            Some(commit) => commit.to_owned(),
            None => empty_tree(self.git())?,
        };
        let command = self.git().args(["diff-tree", "-r", "-z", "--no-renames", "--name-status", &from, to]);
        let output = command.output_limit(LARGEST_DIFF).succeed()?;
        parse_changes(&output.stdout).ok_or_else(|| Error::unexpected("git diff-tree", &output.stdout))
    }

    /// The files below a folder of a commit, with their paths relative to it; empty where there is no such folder.
    pub fn tree(&self, commit: &str, folder: &str) -> Result<Vec<TreeEntry>, Error> {
        let tree = format!("{commit}:{folder}");
        let exists =
            self.git().args(["ls-tree", "-r", "-z", "-l", "--full-tree", &tree]).output_limit(16 << 20).run()?;
        if exists.status.code() == Some(128) && !self.has_folder(commit, folder)? {
            return Ok(Vec::new());
        }
        let output = exists.require_success("git ls-tree")?;
        parse_tree(&output.stdout).ok_or_else(|| Error::unexpected("git ls-tree", &output.stdout))
    }

    fn has_folder(&self, commit: &str, folder: &str) -> Result<bool, Error> {
        let output = self.git().args(["ls-tree", "-d", "-z", "--full-tree", commit, "--", folder]).succeed()?;
        Ok(!output.stdout.is_empty())
    }

    /// The contents of objects, in the order of their names.
    pub fn blobs(&self, objects: &[&str]) -> Result<Vec<Vec<u8>>, Error> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let input = objects.iter().flat_map(|object| object.bytes().chain([b'\n'])).collect();
        let command = self.git().args(["cat-file", "--batch"]).input(input).output_limit(512 << 20);
        let output = command.succeed()?.stdout;
        parse_batch(&output, objects.len()).ok_or_else(|| Error::unexpected("git cat-file", &output))
    }

    /// The command that writes everything between two commits to its standard output as a pack.
    pub fn pack(&self, from: Option<&str>, to: &str) -> Command {
        let revisions = from.map_or_else(|| format!("{to}\n"), |from| format!("{to}\n^{from}\n"));
        self.git()
            // A bitmap would leave out what any ancestor of `from` has, and a shallow checkout does not have that.
            .args(["-c", "pack.useBitmaps=false"])
            .args(["pack-objects", "--revs", "--thin", "--stdout", "--quiet", "--delta-base-offset"])
            .input(revisions.into_bytes())
            .name("git pack-objects")
    }

    /// Lets git tidy the mirror when it thinks it should.
    pub fn tidy(&self) -> Result<(), Error> {
        self.git().args(["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"]).succeed()?;
        Ok(())
    }
}

/// A file of a commit's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// git's mode: `100644`, `100755`, `120000` for a link, `160000` for a submodule.
    pub mode: String,
    pub object: String,
    /// In bytes; 0 for a submodule.
    pub size: u64,
    /// Relative to the listed folder, any bytes but NUL.
    pub path: Vec<u8>,
}

/// Parses `git ls-tree -r -z -l` (git-ls-tree(1), OUTPUT FORMAT); none where it has another form.
fn parse_tree(output: &[u8]) -> Option<Vec<TreeEntry>> {
    let entries = output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let tab = entry.iter().position(|byte| *byte == b'\t')?;
            let head = std::str::from_utf8(&entry[..tab]).ok()?;
            let [mode, _kind, object, size] = head.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            let size = if size == "-" { 0 } else { size.parse().ok()? };
            let path = entry[tab + 1..].to_owned();
            Some(TreeEntry { mode: mode.to_owned(), object: object.to_owned(), size, path })
        })
        .collect()
}

/// Parses `git cat-file --batch` (git-cat-file(1), BATCH OUTPUT); none where an object is missing.
fn parse_batch(mut output: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let mut contents = Vec::with_capacity(count);
    for _ in 0..count {
        let line = output.iter().position(|byte| *byte == b'\n')?;
        let size: usize = std::str::from_utf8(&output[..line]).ok()?.rsplit(' ').next()?.parse().ok()?;
        let content = output.get(line + 1..line + 1 + size)?;
        contents.push(content.to_owned());
        output = output.get(line + 2 + size..)?;
    }
    output.is_empty().then_some(contents)
}

/// The name of the empty tree in a repository's hash.
pub(super) fn empty_tree(git: Command) -> Result<String, Error> {
    let tree = git.args(["hash-object", "-t", "tree", "--stdin"]).succeed()?.text();
    if is_commit(&tree) { Ok(tree) } else { Err(Error::unexpected("git hash-object", tree.as_bytes())) }
}

/// Hands a folder that root made to the mirrors' user.
fn own(folder: &Folder, user: &Account) -> Result<(), Error> {
    let failed = |source: rustix::io::Errno| state::Error::Io {
        act: "hand over",
        path: folder.path().to_owned(),
        source: source.into(),
    };
    if rustix::fs::fstat(folder.fd()).map_err(failed)?.st_uid != user.uid {
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
        rustix::fs::fchown(folder.fd(), Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_and_batches_are_parsed() {
        let object = "1".repeat(40);
        let tree = format!("100644 blob {object}      12\ta b.service\0160000 commit {object}       -\tsub\0");
        let entries = parse_tree(tree.as_bytes()).unwrap();
        assert_eq!((entries[0].size, entries[0].path.as_slice()), (12, &b"a b.service"[..]));
        assert_eq!((entries[1].mode.as_str(), entries[1].size), ("160000", 0));
        assert!(parse_tree(b"100644 blob").is_none());
        let batch = format!("{object} blob 3\na\nb\n{object} blob 0\n\n");
        assert_eq!(parse_batch(batch.as_bytes(), 2).unwrap(), [b"a\nb".to_vec(), b"".to_vec()]);
        assert!(parse_batch(format!("{object} missing\n").as_bytes(), 1).is_none());
        assert!(parse_batch(format!("{object} blob 9\nab\n").as_bytes(), 1).is_none());
    }
}
