mod ask;
mod fetch;
mod room;

use std::cell::{Cell, RefCell, RefMut};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::git::{Change, LOCAL, git, is_commit};
use super::objects::{Node, Objects, TreeEntry};
use super::{Error, access, signatures};
use crate::command::{self, Account, Command};
use crate::config::{Config, Repository};
use crate::log;
use crate::state::{self, Folder, repository_file_name};

/// The user that fetches, where it exists.
pub(super) const USER: &str = "hub-git";
/// The fetched tip of the configured branch.
const TIP: &str = "refs/hub/tip";
/// What was deployed, each commit under its own name.
const DEPLOYED: &str = "refs/hub/deployed";
/// How far back an ancestor is looked for before git is asked.
const FIRST_PARENTS: usize = 50;
/// So many names are removed at once of a mirror that is made anew; the next one to be made goes on.
const REMOVED: usize = 1_000_000;
/// git puts packs together when there are more (`gc.autoPackLimit`, git-config(1)).
const MOST_PACKS: usize = 50;

/// The bare mirror of a repository: what was fetched, owned by a user that owns nothing else.
pub(super) struct Mirror<'a> {
    config: &'a Config,
    repository: &'a Repository,
    user: Account,
    mirrors: Folder,
    /// Where keys and tokens are laid down.
    access: Folder,
    path: PathBuf,
    objects: RefCell<Option<Objects>>,
    /// True where it was made in this run.
    is_new: Cell<bool>,
    /// How many packs it had at the last look.
    packs: Cell<usize>,
}

/// As `user`; root is warned where it fetches itself.
pub(super) fn user_or_warn() -> Account {
    let user = user();
    if user.uid == 0 {
        log::warn!("hub_git_missing", effect = "git fetches as root", remedy = "create the system user hub-git");
    }
    user
}

/// The user of the mirrors: `hub-git` where the caller is root and it exists, else the caller.
pub(super) fn user() -> Account {
    let caller = command::current();
    if caller.uid != 0 { caller } else { Account::by_name(USER).unwrap_or(caller) }
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
        if rustix::process::geteuid().as_raw() != user.uid {
            let_through(gitops)?;
        }
        let file_name = repository_file_name(&repository.name);
        let mirror = Self {
            config,
            repository,
            user: user.clone(),
            path: mirrors.path().join(format!("{file_name}.git")),
            mirrors,
            access: access::folder(gitops, user)?,
            objects: RefCell::default(),
            is_new: Cell::new(false),
            packs: Cell::new(0),
        };
        match std::fs::symlink_metadata(&mirror.path) {
            Ok(found) if found.is_dir() && found.uid() == user.uid => return Ok(mirror),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(mirror.failed("inspect", error)),
        }
        mirror.make("sha1")?;
        Ok(mirror)
    }

    fn failed(&self, act: &'static str, source: std::io::Error) -> Error {
        state::Error::io(act, &self.path, source).into()
    }

    /// Makes an empty mirror, whose objects are named by `format`, in place of what is there: under another name and renamed, so that it is either whole or
    /// not there.
    fn make(&self, format: &str) -> Result<(), Error> {
        let unfinished = self.mirrors.path().join(format!(".{}.new", repository_file_name(&self.repository.name)));
        let mut budget = REMOVED;
        for name in [&unfinished, &self.path].into_iter().filter_map(|path| path.file_name()) {
            self.mirrors.clear_away(name, &mut budget)?;
        }
        self.mirrors.remove_left_trees(&mut budget)?;
        let init = git(&self.user, self.mirrors.path(), LOCAL).args(["init", "--quiet", "--bare", "--template="]);
        init.args([&format!("--object-format={format}"), "--"]).args([&unfinished]).succeed()?;
        std::fs::rename(&unfinished, &self.path).map_err(|error| self.failed("make", error))?;
        self.mirrors.sync()?;
        // It reads what was there before.
        self.objects.take();
        self.is_new.set(true);
        Ok(())
    }

    /// True where the mirror was made in this run, so that whatever was started in it before is worth nothing.
    pub fn is_new(&self) -> bool {
        self.is_new.get()
    }

    /// True where so many fetches left their packs that git should put them together.
    pub fn is_untidy(&self) -> bool {
        self.packs.get() > MOST_PACKS
    }

    /// True where not all is there and whole that its names lead to: a new mirror, or one that a power cut damaged. Without
    /// `thoroughly` only whether it is a repository that has a tip.
    fn is_damaged(&self, thoroughly: bool) -> bool {
        let well = |arguments: &[&OsStr]| match self.git().args(arguments).run() {
            Ok(output) => output.status.success(),
            // Not known; that the fetch failed is told in any case.
            Err(error) => {
                log::warn!("mirror_not_looked_at", repo = self.repository.name, error = error.to_string());
                true
            }
        };
        if !well(&["rev-parse", "--verify", "--quiet", TIP].map(OsStr::new)) {
            return true;
        }
        if !thoroughly {
            return false;
        }
        // What lies there unreadable is there for fsck; verify-pack reads all of it, and judges nobody's old commits.
        let packs = std::fs::read_dir(self.path.join("objects/pack")).into_iter().flatten().flatten();
        let indexes = packs.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "idx"));
        let indexes: Vec<PathBuf> = indexes.collect();
        let mut verify = ["verify-pack", "--"].map(OsStr::new).to_vec();
        verify.extend(indexes.iter().map(|path| path.as_os_str()));
        !well(&["fsck", "--connectivity-only", "--no-dangling", "--no-progress"].map(OsStr::new))
            || !indexes.is_empty() && !well(&verify)
    }

    pub fn repository(&self) -> &Repository {
        self.repository
    }

    /// Keeps a commit from git's tidying, and others, which need not be there any more, no longer.
    pub fn keep(&self, commit: &str, gone: &[String]) -> Result<(), Error> {
        let mut update = format!("update {DEPLOYED}/{commit} {commit}\n");
        update.extend(gone.iter().map(|gone| format!("delete {DEPLOYED}/{gone}\n")));
        self.git().args(["update-ref", "--stdin"]).input(update.into_bytes()).succeed()?;
        Ok(())
    }

    fn git(&self) -> Command {
        git(&self.user, &self.path, LOCAL)
    }

    /// The reader of the mirror's objects, started where it is not there yet.
    pub(super) fn objects(&self) -> Result<RefMut<'_, Objects>, Error> {
        let mut objects = self.objects.borrow_mut();
        if objects.is_none() {
            *objects = Some(Objects::open(self.git())?);
        }
        RefMut::filter_map(objects, Option::as_mut)
            .map_err(|_| Error::unexpected("git cat-file", b"nothing, because it was not started"))
    }

    fn tip(&self) -> Result<String, Error> {
        let tip = self.objects()?.resolve(TIP)?;
        tip.ok_or_else(|| Error::unexpected("git cat-file", format!("{TIP} is no commit").as_bytes()))
    }

    /// True where `old` is `new` or one of its ancestors; false as well where the mirror does not know `old`.
    pub fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, Error> {
        // Most often it is a few commits back, and that needs no process of its own.
        let mut commit = Some(new.to_owned());
        for _ in 0..FIRST_PARENTS {
            match commit {
                Some(commit) if commit == old => return Ok(true),
                Some(older) => commit = self.objects()?.first_parent(&older)?,
                None => break,
            }
        }
        let output = self.git().args(["merge-base", "--is-ancestor", old, new]).run()?;
        match output.status.code() {
            // It is the word of the mirrors' user, and an older commit must not be made live for it.
            Some(0) => self.objects()?.has_ancestor(new, old),
            Some(1) => Ok(false),
            _ if !self.has(old)? => Ok(false),
            _ => output.require_success("git merge-base --is-ancestor").map(|_| false).map_err(Into::into),
        }
    }

    pub fn has(&self, commit: &str) -> Result<bool, Error> {
        Ok(self.objects()?.resolve(commit)?.is_some())
    }

    /// Checks the signatures that the configuration asks for: every first-parent commit since `from`, or `to` alone
    /// where nothing was deployed yet.
    pub fn verify(&self, from: Option<&str>, to: &str) -> Result<(), Error> {
        if !signatures::are_asked_for(self.repository) {
            return Ok(());
        }
        let commits = match from {
            Some(from) => self.objects()?.line_since(from, to)?,
            None => vec![to.to_owned()],
        };
        if commits.is_empty() {
            return Ok(());
        }
        let pack = self.git().args(["pack-objects", "--stdout", "--quiet"]).name("git pack-objects (commits)");
        signatures::verify(self.config, self.repository, &self.user, pack, &commits)?;
        commits.iter().try_for_each(|commit| signatures::is_only(commit, &self.objects()?.signatures(commit)?))
    }

    /// What changes from one commit (none: from nothing) to another.
    pub fn changes(&self, from: Option<&str>, to: &str) -> Result<Vec<Change>, Error> {
        self.objects()?.changes(from, to)
    }

    /// The files below a folder of a commit, with their paths relative to it; empty where there is no such folder.
    pub fn files(&self, commit: &str, folder: &str) -> Result<Vec<TreeEntry>, Error> {
        self.objects()?.files(commit, folder)
    }

    /// The first part of a path that is no folder in a commit, with its mode and object; none where all are.
    pub fn not_folder(&self, commit: &str, path: &str) -> Result<Option<(String, Option<Node>)>, Error> {
        self.objects()?.not_folder(commit, path)
    }

    /// A file's content by its object id; none where it has more bytes than `limit`.
    pub fn blob(&self, object: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.objects()?.blob(object, limit)
    }

    /// The command that reads `revisions` and writes what lies between them to its standard output as a pack.
    pub fn pack(&self) -> Command {
        self.git()
            // A bitmap would leave out what any ancestor of `from` has, and a shallow checkout does not have that.
            .args(["-c", "pack.useBitmaps=false"])
            .args(["pack-objects", "--revs", "--thin", "--stdout", "--quiet", "--delta-base-offset"])
            .name("git pack-objects")
    }

    /// Everything that `to` has and `from` (none: nobody) does not.
    pub fn revisions(from: Option<&str>, to: &str) -> Vec<u8> {
        from.map_or_else(|| format!("{to}\n"), |from| format!("{to}\n^{from}\n")).into_bytes()
    }

    /// Lets git tidy the mirror when it thinks it should.
    pub fn tidy(&self) -> Result<(), Error> {
        self.git().args(["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"]).succeed()?;
        Ok(())
    }
}

/// The name of the empty tree in a repository's hash.
pub(super) fn empty_tree(git: Command) -> Result<String, Error> {
    let tree = git.args(["hash-object", "-t", "tree", "--stdin"]).succeed()?.text();
    if is_commit(&tree) { Ok(tree) } else { Err(Error::unexpected("git hash-object", tree.as_bytes())) }
}

/// Lets everybody pass through a folder, and nobody else list it: on the way to its mirror, git looks at every folder above,
/// and the mirrors' user is in no group of the hub's.
fn let_through(folder: &Folder) -> Result<(), Error> {
    let failed = |error: rustix::io::Errno| state::Error::io("change the mode of", folder.path(), error);
    let found = rustix::fs::fstat(folder.fd()).map_err(failed)?;
    let (mode, others) = (rustix::fs::Mode::from_raw_mode(found.st_mode & 0o7777), rustix::fs::Mode::XOTH);
    if mode.contains(others) {
        return Ok(());
    }
    rustix::fs::fchmod(folder.fd(), mode | others).map_err(|error| failed(error).into())
}

/// Hands a folder that root made to the mirrors' user.
fn own(folder: &Folder, user: &Account) -> Result<(), Error> {
    let failed = |error: rustix::io::Errno| state::Error::io("hand over", folder.path(), error);
    if rustix::fs::fstat(folder.fd()).map_err(failed)?.st_uid != user.uid {
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
        rustix::fs::fchown(folder.fd(), Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(())
}
