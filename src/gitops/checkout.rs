use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::git::{Change, LOCAL, git, is_commit, short};
use super::mirror::empty_tree;
use crate::command::{self, Account, Command};
use crate::config::Repository;
use crate::log;

/// The user that owns checkouts which the hub makes.
const USER: &str = "hub";
/// How many bytes of paths go onto one command line; the kernel takes 128 KiB an argument and 2 MiB in all.
const PATHS_PER_CALL: usize = 64 << 10;

/// A repository's working copy, and the user it belongs to. Every git command here runs as that user, because the
/// user controls `.git` and thereby what git runs.
pub(super) struct Checkout<'a> {
    repository: &'a Repository,
    pub user: Account,
}

/// What a look at the checkout showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The commit that is checked out; none where the branch has no commit yet.
    pub head: Option<String>,
    /// The branch that is checked out; none for a detached HEAD.
    pub branch: Option<String>,
    /// The remote-tracking branch that the branch follows.
    pub upstream: Option<String>,
    /// Tracked files that differ from the commit.
    pub changed: Vec<Vec<u8>>,
}

impl Look {
    /// How a checkout looks that the hub has just made.
    pub fn of_new(branch: &str) -> Self {
        let upstream = Some(format!("origin/{branch}"));
        Self { head: None, branch: Some(branch.to_owned()), upstream, changed: Vec::new() }
    }
}

impl<'a> Checkout<'a> {
    /// Finds out whose the checkout is, or whose it will be.
    ///
    /// # Errors
    /// `Refused`, with what to do, when the configured user does not exist, does not own the path, or cannot be used
    /// by this caller.
    pub fn find(repository: &'a Repository) -> Result<Self, Error> {
        let path = &repository.path;
        let owner = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Some(found.uid()),
            Ok(_) => return Err(refused(format!("{} is not a folder; move it away", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(format!("{} cannot be looked at: {error}", path.display()))),
        };
        let user = user_of(repository, owner)?;
        let caller = command::current();
        if caller.uid != 0 && caller.uid != user.uid {
            return Err(refused(format!(
                "{} belongs to {}, and gitops-sync runs as {}: run it as root or as {}",
                path.display(),
                user.name,
                caller.name,
                user.name
            )));
        }
        if owner.is_some_and(|uid| uid != user.uid) {
            let (path, name) = (path.display(), &user.name);
            return Err(refused(format!(
                "{path} does not belong to {name}: run chown -R {name}: {path}, or change user"
            )));
        }
        Ok(Self { repository, user })
    }

    fn git(&self) -> Command {
        git(&self.user, &self.repository.path, LOCAL).env("GIT_REFLOG_ACTION", "gitops-sync")
    }

    /// True where there is nothing yet that could be looked at.
    pub fn is_missing(&self) -> bool {
        !self.repository.path.join(".git/HEAD").exists() && !self.repository.path.join(".git").is_file()
    }

    /// True where the path holds something that is no checkout.
    pub fn is_occupied(&self) -> bool {
        let mut entries = std::fs::read_dir(&self.repository.path).into_iter().flatten().flatten();
        self.is_missing() && entries.any(|entry| entry.file_name() != ".git")
    }

    /// Makes an empty checkout that follows the configured branch.
    pub fn make(&self) -> Result<(), Error> {
        let path = &self.repository.path;
        let as_user = Command::new("mkdir", LOCAL).user(&self.user).args(["-p", "--"]).args([path]);
        if let Err(error) = as_user.succeed() {
            make_as_root(path, &self.user)
                .map_err(|reason| refused(format!("{} cannot be made: {reason} ({error})", path.display())))?;
        }
        let branch = &self.repository.branch;
        let init = ["init", "--quiet", "--template=", &format!("--initial-branch={branch}")];
        self.git().args(init).succeed()?;
        for (key, value) in [
            ("remote.origin.url", self.repository.remote.url()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            (&format!("branch.{branch}.remote"), "origin"),
            (&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}")),
        ] {
            self.git().args(["config", key, value]).succeed()?;
        }
        Ok(())
    }

    /// Looks at branch, commit and local changes.
    pub fn look(&self) -> Result<Look, Error> {
        let status = ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=all"];
        let output = self.git().args(status).args(["--no-renames"]).output_limit(64 << 20).succeed()?;
        parse_status(&output.stdout).ok_or_else(|| Error::unexpected("git status", &output.stdout))
    }

    /// Refuses what a fast-forward from `look` to a commit that makes `changes` would overwrite.
    pub fn check(&self, look: &Look, changes: &[Change]) -> Result<(), Error> {
        let path = self.repository.path.display();
        let branch = &self.repository.branch;
        if look.branch.as_deref() != Some(branch) {
            let there = look.branch.as_deref().map_or_else(|| "no branch".to_owned(), |name| format!("branch {name}"));
            return Err(refused(format!(
                "{path} has {there} checked out, not {branch}; run: git -C {path} switch {branch}"
            )));
        }
        let touched = |name: &[u8]| changes.iter().any(|change| overlap(&change.path, name));
        let local: Vec<&[u8]> = look.changed.iter().map(Vec::as_slice).filter(|name| touched(name)).collect();
        if !local.is_empty() {
            return Err(refused(format!(
                "{path} has local changes to {}, which the commit changes too; commit and push them, or undo them with: git -C {path} restore FILE",
                listed(&local)
            )));
        }
        let untracked = self.untracked(changes)?;
        if !untracked.is_empty() {
            let names: Vec<&[u8]> = untracked.iter().map(Vec::as_slice).collect();
            return Err(refused(format!(
                "{path} has files that git does not track where the commit adds some: {}; move them away",
                listed(&names)
            )));
        }
        Ok(())
    }

    /// Files that git does not track (ignored ones too) at the places where a commit adds some.
    fn untracked(&self, changes: &[Change]) -> Result<Vec<Vec<u8>>, Error> {
        use std::os::unix::ffi::OsStrExt;
        let added: Vec<&[u8]> = changes.iter().filter(|c| c.kind == b'A').map(|c| c.path.as_slice()).collect();
        let mut found = Vec::new();
        let mut rest = added.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |path: &&[u8]| {
                bytes += path.len() + 1;
                bytes <= PATHS_PER_CALL
            };
            let count = rest.iter().copied().take_while(fits).count().max(1);
            let command = self.git().args(["ls-files", "--others", "-z", "--"]).name("git ls-files --others");
            let command = command.args(rest[..count].iter().map(|path| std::ffi::OsStr::from_bytes(path)));
            let output = command.output_limit(64 << 20).succeed()?;
            found.extend(output.stdout.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_owned));
            rest = &rest[count..];
        }
        Ok(found)
    }

    /// Takes a commit's objects from `pack` and moves the branch to it.
    pub fn fast_forward(&self, pack: Command, look: &Look, commit: &str) -> Result<(), Error> {
        let receive = self.git().args(["index-pack", "--stdin", "--fix-thin"]).name("git index-pack");
        pack.pipe_to(receive)?;
        let merge = ["merge", "--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures"];
        let merge = self.git().args(merge).args(["--no-stat", "--quiet", commit]).name("git merge --ff-only");
        merge.succeed()?;
        let tracking = format!("origin/{}", self.repository.branch);
        if look.upstream.as_deref() == Some(&tracking) {
            // Otherwise `git status` would tell the operator that the branch is ahead of its remote.
            self.git().args(["update-ref", &format!("refs/remotes/{tracking}"), commit]).succeed()?;
        }
        Ok(())
    }

    /// Puts back what a fast-forward from one commit (none: from an empty branch) to another changed, however far it
    /// came. Files that the two commits do not differ in, and files that git does not track, stay as they are: the
    /// fast-forward was begun only after a check that nothing of the operator's was in its way.
    pub fn undo(&self, from: Option<&str>, to: &str) -> Result<(), Error> {
        self.remove_stale_locks()?;
        let reference = format!("refs/heads/{}", self.repository.branch);
        if !self.has(to)? {
            // The fast-forward cannot have begun before the commit was there.
            return Ok(());
        }
        let tip = self.git().args(["rev-parse", "--verify", "--quiet", &reference]).run()?.text();
        let tip = (!tip.is_empty()).then_some(tip);
        let look = self.look()?;
        if look.branch.as_deref() != Some(&self.repository.branch) {
            return Err(refused(format!("another branch than {} was checked out meanwhile", self.repository.branch)));
        }
        if tip.as_deref() != from && tip.as_deref() != Some(to) {
            let tip = tip.unwrap_or_default();
            return Err(refused(format!(
                "the branch moved to {} meanwhile, which is not the hub's doing",
                short(&tip)
            )));
        }
        let empty = empty_tree(self.git())?;
        let source = from.unwrap_or(&empty);
        let diff = ["diff-tree", "-r", "-z", "--no-renames", "--name-only", source, to];
        let paths = self.git().args(diff).output_limit(64 << 20).succeed()?.stdout;
        if !paths.is_empty() {
            // First the index as the fast-forward would have left it, so that git knows of every file that it may have
            // written; then files and index as they were.
            for arguments in [&["--staged", "--source", to][..], &["--staged", "--worktree", "--source", source]] {
                let restore = self.git().args(["restore", "--quiet"]).args(arguments);
                let restore = restore.args(["--pathspec-from-file=-", "--pathspec-file-nul"]);
                restore.input(paths.clone()).name("git restore").succeed()?;
            }
        }
        if tip.as_deref() == Some(to) && from != Some(to) {
            match from {
                Some(from) => self.git().args(["update-ref", &reference, from, to]).succeed()?,
                None => self.git().args(["update-ref", "-d", &reference, to]).succeed()?,
            };
        }
        Ok(())
    }

    fn has(&self, commit: &str) -> Result<bool, Error> {
        let output = self.git().args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).run()?;
        Ok(output.status.success())
    }

    /// A killed git leaves its locks. Called only where the journal says that a fast-forward of the hub was cut off.
    fn remove_stale_locks(&self) -> Result<(), Error> {
        let branch = format!("refs/heads/{}.lock", self.repository.branch);
        let tracking = format!("refs/remotes/origin/{}.lock", self.repository.branch);
        let names = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "packed-refs.lock", &branch, &tracking];
        let mut command = self.git().args(["rev-parse"]);
        for name in names {
            command = command.args(["--git-path", name]);
        }
        let paths = command.succeed()?.text();
        let remove = Command::new("rm", LOCAL).user(&self.user).folder(&self.repository.path).args(["-f", "--"]);
        remove.args(paths.lines()).succeed()?;
        Ok(())
    }

    /// Lets git tidy the checkout's objects when it thinks it should.
    pub fn tidy(&self) -> Result<(), Error> {
        self.git().args(["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"]).succeed()?;
        Ok(())
    }
}

fn refused(reason: String) -> Error {
    Error::Refused(reason)
}

/// Whose the checkout is: the configured user, else the owner of the path, else `hub`. Root only where it is written,
/// or where there is no user `hub` (a container, a first try).
fn user_of(repository: &Repository, owner: Option<u32>) -> Result<Account, Error> {
    if let Some(name) = &repository.user {
        return Account::by_name(name)
            .ok_or_else(|| refused(format!("the user {name} does not exist on this host; create it, or change user")));
    }
    let caller = command::current();
    if caller.uid != 0 {
        return Ok(match owner {
            Some(uid) if uid != caller.uid => {
                Account::by_uid(uid).unwrap_or(Account { name: uid.to_string(), uid, ..caller })
            }
            _ => caller,
        });
    }
    if let Some(uid) = owner.filter(|uid| *uid != 0) {
        return Account::by_uid(uid).ok_or_else(|| {
            refused(format!("{} belongs to user id {uid}, which has no name on this host", repository.path.display()))
        });
    }
    match (Account::by_name(USER), owner) {
        (Some(hub), None) => Ok(hub),
        (Some(_), Some(_)) => Err(refused(format!(
            "{} belongs to root: write user = \"root\" to run git and the repository's commands as root, or chown it",
            repository.path.display()
        ))),
        (None, _) => {
            let effect = "git and the repository's commands run as root";
            log::warn!(
                "hub_user_missing",
                repo = repository.name,
                effect = effect,
                remedy = "create the system user hub"
            );
            Ok(caller)
        }
    }
}

/// Makes a folder for a user in a place where only root may write.
fn make_as_root(path: &Path, user: &Account) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("no permission".to_owned());
    }
    let existing =
        path.ancestors().find(|ancestor| ancestor.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let metadata = std::fs::metadata(&existing).map_err(|error| error.to_string())?;
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        // There, another user could put a link in the way.
        return Err(format!("{} is neither {}'s nor root's alone", existing.display(), user.name));
    }
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(|error| error.to_string())
}

/// True where two paths are the same or one is a folder of the other.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

fn listed(names: &[&[u8]]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| log::printable(name)).collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// Parses `git status --porcelain=v2 --branch -z --no-renames` (git-status(1), Porcelain Format Version 2); none where
/// it has another form.
fn parse_status(output: &[u8]) -> Option<Look> {
    let mut look = Look::default();
    for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let text = String::from_utf8_lossy(entry);
        if let Some(oid) = text.strip_prefix("# branch.oid ") {
            look.head = (oid != "(initial)").then(|| oid.to_owned());
            if look.head.as_deref().is_some_and(|head| !is_commit(head)) {
                return None;
            }
        } else if let Some(name) = text.strip_prefix("# branch.head ") {
            look.branch = (name != "(detached)").then(|| name.to_owned());
        } else if let Some(name) = text.strip_prefix("# branch.upstream ") {
            look.upstream = Some(name.to_owned());
        } else if !text.starts_with("# ") {
            // `1 XY sub mH mI mW hH hI path`, and `u XY sub m1 m2 m3 mW h1 h2 h3 path` for unmerged files.
            let fields = match entry.first()? {
                b'1' => 9,
                b'u' => 11,
                _ => return None,
            };
            look.changed.push(entry.splitn(fields, |byte| *byte == b' ').nth(fields - 1)?.to_owned());
        }
    }
    Some(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_parsed_with_odd_names() {
        let head = "1".repeat(40);
        let entry = format!("1 .M N... 100644 100644 100644 {head} {head} a b\n#");
        let output = format!(
            "# branch.oid {head}\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +0 -0\0{entry}\0"
        );
        let look = parse_status(output.as_bytes()).unwrap();
        assert_eq!(look.head, Some(head));
        assert_eq!((look.branch.as_deref(), look.upstream.as_deref()), (Some("main"), Some("origin/main")));
        assert_eq!(look.changed, [b"a b\n#".to_vec()]);
        let look = parse_status(b"# branch.oid (initial)\0# branch.head (detached)\0").unwrap();
        assert_eq!(look, Look::default());
        assert!(parse_status(b"# branch.oid HEAD\0").is_none());
        assert!(parse_status(b"2 R. x\0").is_none());
    }

    #[test]
    fn paths_overlap_when_one_is_a_folder_of_the_other() {
        assert!(overlap(b"a/b", b"a/b") && overlap(b"a", b"a/b") && overlap(b"a/b/c", b"a/b"));
        assert!(!overlap(b"a", b"ab") && !overlap(b"a/b", b"a/c"));
    }
}
