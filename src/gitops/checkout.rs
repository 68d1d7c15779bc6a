use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, accessat, open};
use rustix::io::Errno;

use super::Error;
use super::git::git;
use super::look::{Look, Unseen, parse_files, parse_status};
use super::owner::{self, Known};
use crate::command::{self, Account, Command};
use crate::config::{Config, Repository};
use crate::state::{self, Folder, Way, act_as, barring, may_hang_around};

/// Where a new checkout's `.git` is made.
const UNFINISHED: &str = ".hub-unfinished";
/// How long a look at a checkout may take. What it runs is partly its user's, and other repositories wait.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// With so many killed processes in it that do not end, nothing more is started in a checkout.
const MOST_HANGING: usize = 4;

/// File systems that the kernel draws, by their numbers (linux/magic.h, statfs(2)): proc, sysfs, cgroup, cgroup2, devpts, debugfs,
/// tracefs, securityfs, pstore, efivarfs, bpf, selinuxfs, binfmt_misc, mqueue, configfs, fusectl. Even root makes no files there.
const KERNELS: [u32; 16] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6165_676c,
    0xde5e_81e4,
    0xcafe_4a11,
    0xf97c_ff8c,
    0x4249_4e4d,
    0x1980_0202,
    0x6265_6570,
    0x6573_5543,
];

/// A repository's working copy, and the user it belongs to. Every git command here runs as that user, because the
/// user controls `.git` and thereby what git runs.
pub(super) struct Checkout<'a> {
    pub(super) repository: &'a Repository,
    pub user: Account,
}

impl<'a> Checkout<'a> {
    /// Finds out whose the checkout is, or whose it will be.
    ///
    /// # Errors
    /// `Refused`, with what to do, when the configured user does not exist, does not own the path, or cannot be used by
    /// this caller; when the checkout changed hands; when another user could say where the path leads.
    pub fn find(config: &Config, repository: &'a Repository) -> Result<Self, Error> {
        let path = &repository.path;
        let way = match Way::to_folder(path) {
            Ok(way) => Some(way),
            Err(error) if error.is_missing() => None,
            Err(state::Error::NotFolder(part)) if part == *path => {
                return Err(refused(format!("{} is not a folder; move it away", path.display())));
            }
            Err(error) => return Err(untrusted(path, &error)),
        };
        let user = owner::decide(repository, way.as_ref().map(Way::owner), &Known::read(config, repository)?)?;
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
        let real = way.as_ref().and_then(Way::real_path);
        // Looking at every process costs more than the rest of this.
        let hang = |real: &PathBuf| command::hanging().iter().filter(|process| process.folder == *real).count();
        if real.as_ref().filter(|real| may_hang_around(real)).is_some_and(|real| hang(real) >= MOST_HANGING) {
            return Err(Error::Slow(format!(
                "the checkout {}: {MOST_HANGING} processes in it were killed and hang in a file system that does not answer; see what is mounted \
                 in it (grep {0} /proc/self/mountinfo) and unmount that (umount -l)",
                path.display()
            )));
        }
        let checkout = Self { repository, user };
        match way {
            Some(way) => checkout.require_own(way).map(|_| checkout),
            None => Ok(checkout),
        }
    }

    /// The checkout's folder, opened without anybody else having a say in where its path leads.
    ///
    /// # Errors
    /// `Refused` when it is not the user's, or others can change where the path leads; when it cannot be opened.
    pub fn folder(&self) -> Result<Folder, Error> {
        let path = &self.repository.path;
        self.require_own(Way::to_folder(path).map_err(|error| untrusted(path, &error))?)
    }

    fn require_own(&self, way: Way) -> Result<Folder, Error> {
        let (path, name) = (self.repository.path.display(), &self.user.name);
        if way.owner() != self.user.uid {
            return Err(refused(format!(
                "{path} does not belong to {name}: run chown -R {name}: {path}, or change user"
            )));
        }
        way.is_kept_by(Some(&self.user)).map_err(|error| untrusted(&self.repository.path, &error))?;
        Ok(way.into_folder().staying())
    }

    pub fn is_there(&self) -> bool {
        !matches!(Way::to_folder(&self.repository.path), Err(error) if error.is_missing())
    }

    /// True where git and the repository's commands run as root although nobody wrote that: the hub is not installed.
    pub fn is_roots_unasked(&self) -> bool {
        self.user.uid == 0 && self.repository.user.is_none()
    }

    /// A git that is ended after as long as a look may take: others may wait for it. What nobody waits for may take longer.
    pub(super) fn git(&self) -> Command {
        git(&self.user, &self.repository.path, LOOK)
            .env("GIT_REFLOG_ACTION", "gitops-sync")
            // `core.worktree` would have git work on other files than those of the configured path.
            .env("GIT_WORK_TREE", &self.repository.path)
    }

    /// True where there is no repository yet, as far as its user sees.
    pub fn is_missing(&self) -> bool {
        // Opened so that nobody is asked where something is mounted there.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let looked = act_as(&self.user, || open(self.repository.path.join(".git"), flags, Mode::empty()));
        matches!(looked, Ok(Err(Errno::NOENT | Errno::NOTDIR)))
    }

    /// True where the path holds something that is no checkout.
    pub fn is_occupied(&self) -> bool {
        let has_entries = || {
            let mut entries = std::fs::read_dir(&self.repository.path).into_iter().flatten().flatten();
            entries.any(|entry| entry.file_name() != UNFINISHED)
        };
        self.is_missing() && act_as(&self.user, has_entries).unwrap_or(true)
    }

    /// Says whether the user gets to the checkout, and where it is missing, whether it can be made. Nothing is changed.
    ///
    /// # Errors
    /// `Refused` with the folder that is in the way, and what to do.
    pub fn require_place(&self) -> Result<(), Error> {
        self.require_way()?;
        let path = &self.repository.path;
        let Some(folder) = path.ancestors().find(|folder| folder.exists()).filter(|folder| folder != path) else {
            return Ok(());
        };
        let cannot = |reason: &str| refused(format!("{} cannot be made: {reason}", path.display()));
        if rustix::fs::statvfs(folder).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
            return Err(cannot(&format!("{} is mounted read-only", folder.display())));
        }
        if rustix::fs::statfs(folder).is_ok_and(|found| KERNELS.contains(&(found.f_type as u32))) {
            return Err(cannot(&format!("{} is the kernel's own, and takes no files", folder.display())));
        }
        let writes = || accessat(CWD, folder, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        if act_as(&self.user, writes)? {
            Ok(())
        } else if rustix::process::geteuid().is_root() {
            Way::takes_from_root(folder, &self.user).map_err(|error| cannot(&error.to_string()))
        } else {
            Err(cannot(&format!("{} may not write in {}", self.user.name, folder.display())))
        }
    }

    fn require_way(&self) -> Result<(), Error> {
        let path = &self.repository.path;
        let Some(barred) = barring(&self.user, path)? else { return Ok(()) };
        let may_not = owner::may_not_enter(&self.user.name, &format!("whose checkout {} is", path.display()), &barred);
        Err(refused(format!("{may_not} choose another path, such as one in /srv")))
    }

    /// Makes an empty checkout that follows the configured branch. It is made under another name and renamed, so
    /// that `.git` is either whole or not there. Its objects are named by `format`, git's word for a hash.
    pub fn make(&self, format: &str) -> Result<(), Error> {
        self.require_way()?;
        let path = &self.repository.path;
        let as_user = Command::new("mkdir", LOOK).user(&self.user).args(["-p", "--"]).args([path]);
        if let Err(error) = as_user.succeed() {
            if !rustix::process::geteuid().is_root() {
                return Err(refused(format!("{} cannot be made: {error}", path.display())));
            }
            Way::make_folder(path, &self.user)
                .map_err(|reason| refused(format!("{} cannot be made: {reason} ({error})", path.display())))?;
        }
        // The user may have made it through a link of its own.
        self.folder()?;
        let config = path.join(UNFINISHED).join("config");
        let run = |program: &str, arguments: &[&str]| -> Result<(), Error> {
            Command::new(program, LOOK).user(&self.user).folder(path).args(arguments).succeed()?;
            Ok(())
        };
        run("rm", &["-rf", "--", UNFINISHED])?;
        let branch = &self.repository.branch;
        let (branch_option, format) = (format!("--initial-branch={branch}"), format!("--object-format={format}"));
        let init = ["init", "--quiet", "--bare", "--template=", &branch_option, &format, "--", UNFINISHED];
        git(&self.user, path, LOOK).args(init).succeed()?;
        for (key, value) in [
            ("core.bare", "false"),
            ("remote.origin.url", self.repository.remote.url()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            (&format!("branch.{branch}.remote"), "origin"),
            (&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}")),
        ] {
            git(&self.user, path, LOOK).args(["config", "--file"]).args([&config]).args([key, value]).succeed()?;
        }
        run("mv", &["-T", "--", UNFINISHED, ".git"])
    }

    /// Looks at everything that `check` wants to know.
    pub fn look_closely(&self) -> Result<Look, Error> {
        // First what has a sentence for a repository that git cannot use.
        let look = self.look()?;
        let unseen = self.ls_files(&["--cached", "--others", "--directory", "--no-empty-directory"], &[])?;
        Ok(Look { unseen, ..look })
    }

    /// Looks at branch, commit and local changes.
    pub fn look(&self) -> Result<Look, Error> {
        let status = ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=all"];
        let command = self
            .git()
            .args(status)
            .args(["--no-renames", "--no-ahead-behind"])
            .output_limit(64 << 20)
            .name("git status");
        let output = command.succeed().map_err(|error| {
            let (path, name) = (self.repository.path.display(), &self.user.name);
            match &error {
                command::Error::Deadline { .. } => Error::Slow(format!(
                    "{error}; a filter of {path}/.git/config may hang, or the disk; see how long it takes: runuser -u {name} -- git -C {path} status"
                )),
                command::Error::Failed { output, .. } if output.contains("dubious ownership") => refused(format!(
                    "{path}/.git does not belong to {name} as {path} does; run: chown -R {name}: {path}"
                )),
                command::Error::Failed { output, .. } if output.contains("not a git repository") => refused(format!(
                    "{path}/.git is no repository that git can use; repair it, or move {path} away to have it made anew"
                )),
                _ => error.into(),
            }
        })?;
        parse_status(&output.stdout).ok_or_else(|| Error::unexpected("git status", &output.stdout))
    }

    pub(super) fn ls_files(&self, options: &[&str], paths: &[&[u8]]) -> Result<Unseen, Error> {
        let command = self.git().args(["ls-files", "-v", "-z"]).args(options).args(["--"]).name("git ls-files");
        let command = command.args(paths.iter().map(|path| OsStr::from_bytes(path)));
        let output = command.output_limit(256 << 20).succeed()?;
        parse_files(&output.stdout).ok_or_else(|| Error::unexpected("git ls-files", &output.stdout))
    }
}

fn refused(reason: String) -> Error {
    Error::Refused(reason)
}

fn untrusted(path: &Path, error: &state::Error) -> Error {
    if let state::Error::NoAnswer { .. } = error {
        return Error::Slow(format!("the checkout: {error}"));
    }
    refused(format!("the checkout {}: {error}", path.display()))
}
