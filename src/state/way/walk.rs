//! One walk: by descriptor, with a child asked first where a file system may not answer, and as a folder's owner where root is
//! kept out.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::part::{End, Part, name};
use crate::command::{self, Account, Command};
use crate::state::owner::act_as;
use crate::state::{Error, mounts};

/// As many links as Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// How long a file system may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
const PASS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Going a path part by part.
pub(super) struct Walk<'a> {
    path: &'a Path,
    end: End,
    /// Missing folders are made, for this user.
    make: Option<&'a Account>,
    links: usize,
    /// The mount that the last part is in.
    mount: Option<String>,
    passed: Vec<(OwnedFd, Part)>,
    /// What is still to be passed, the next one last.
    waiting: Vec<OsString>,
}

/// What is at the end, and the folders on the way.
type Arrived = (OwnedFd, Stat, Vec<Part>);

/// Where a step led.
enum Step {
    On,
    Arrived(OwnedFd, Stat),
}

impl<'a> Walk<'a> {
    /// At the root folder, with the whole path to go; missing folders are made for `make`.
    pub fn begin(path: &'a Path, end: End, make: Option<&'a Account>) -> Result<Self, Error> {
        let failed = |error: Errno| Error::io("open", path, error);
        let root = openat(CWD, "/", PASS | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        let mount = mounts::id(root.as_fd());
        let mut walk = Self { path, end, make, links: 0, mount, passed: Vec::new(), waiting: Vec::new() };
        let found = fstat(&root).map_err(failed)?;
        walk.push(root, PathBuf::from("/"), &found);
        walk.wait_for(path)?;
        Ok(walk)
    }

    fn push(&mut self, fd: OwnedFd, path: PathBuf, found: &Stat) {
        let part = Part::of(path, found, fd.as_fd());
        self.passed.push((fd, part));
    }

    /// Puts the parts of a path, or of a link's target, before what waits.
    fn wait_for(&mut self, path: &Path) -> Result<(), Error> {
        if path.is_absolute() {
            self.passed.truncate(1);
        } else if self.passed.len() <= 1 && self.links == 0 {
            return Err(Error::io("open", self.path, Errno::INVAL));
        }
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.waiting.push(name.to_owned()),
                Component::ParentDir => self.waiting.push("..".into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn here(&self) -> Result<(BorrowedFd<'_>, &Part), Error> {
        let last = self.passed.last().map(|(fd, part)| (fd.as_fd(), part));
        last.ok_or_else(|| Error::io("open", self.path, Errno::INVAL))
    }

    /// Goes to the end.
    pub fn go(mut self) -> Result<Arrived, Error> {
        loop {
            let Some(name) = self.waiting.pop() else {
                // The root folder, or a link that ended in `..`.
                let (fd, _) = self.here()?;
                let fd = openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                let found = fd.and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
                let (fd, stat) = found.map_err(|error| Error::io("open", self.path, error))?;
                return Ok(self.arrived(fd, stat));
            };
            match self.step(&name) {
                Ok(Step::On) => {}
                Ok(Step::Arrived(fd, stat)) => return Ok(self.arrived(fd, stat)),
                // A home that a server keeps from root (nfs's root_squash), or a user from everybody (fuse).
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::PermissionDenied && geteuid().is_root() =>
                {
                    let (folder, part) = self.here()?;
                    // In a folder of root's it is that folder itself which is mounted there.
                    let named = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_uid);
                    let uid = [Some(part.uid), named].into_iter().flatten().find(|uid| *uid != 0);
                    let Some(owner) = uid.and_then(Account::by_uid) else {
                        return Err(Error::Io { act: "open", path: self.path.to_owned(), source });
                    };
                    self.waiting.push(name);
                    return act_as(&owner, || self.go())?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn arrived(self, fd: OwnedFd, found: Stat) -> Arrived {
        (fd, found, self.passed.into_iter().map(|(_, part)| part).collect())
    }

    fn step(&mut self, name: &OsStr) -> Result<Step, Error> {
        if name == ".." {
            self.passed.truncate(self.passed.len().saturating_sub(1).max(1));
            return Ok(Step::On);
        }
        let is_last = self.waiting.is_empty();
        let (folder, part) = self.here()?;
        let path = part.path.join(name);
        let failed = |error: Errno| Error::io("open", &path, error);
        // Without O_DIRECTORY nothing is mounted yet, and nobody is asked.
        if let Ok(fd) = openat(folder, name, PASS, Mode::empty()) {
            self.require_answer(fd.as_fd(), &path)?;
        }
        let (folder, _) = self.here()?;
        // With O_DIRECTORY, so that what is mounted on demand is mounted (open(2), O_PATH).
        let kind = if is_last && self.end == End::Any { OFlags::empty() } else { OFlags::DIRECTORY };
        let mut opened = openat(folder, name, PASS | kind, Mode::empty());
        if let (Err(Errno::NOENT), Some(user)) = (&opened, self.make) {
            self.make_here(name, user)?;
            opened = openat(folder, name, PASS | kind, Mode::empty());
        }
        let fd = match opened {
            Ok(fd) => fd,
            // A link, or no folder.
            Err(Errno::NOTDIR | Errno::LOOP) => openat(folder, name, PASS, Mode::empty()).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        let stat = fstat(&fd).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = self.target(fd.as_fd(), &stat, path)?;
                self.wait_for(&target).map(|()| Step::On)
            }
            _ if is_last && self.end == End::Any => Ok(Step::Arrived(fd, stat)),
            FileType::Directory if !is_last => {
                self.push(fd, path, &stat);
                Ok(Step::On)
            }
            FileType::Directory => {
                let fd = openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                Ok(Step::Arrived(fd.map_err(failed)?, stat))
            }
            _ => Err(Error::NotFolder(path)),
        }
    }

    /// Has a child ask first where what was opened is in a file system that may not answer. One that a user's program answers for
    /// could hang at any time after, and says whatever that user likes of owners and modes.
    fn require_answer(&mut self, fd: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let id = mounts::id(fd);
        if id == self.mount {
            return Ok(());
        }
        let mount = id.as_deref().and_then(mounts::find);
        self.mount = id;
        let Some(mount) = mount else { return Ok(()) };
        // That it opens the folder and reads an entry is all that counts. Not while an earlier one still waits.
        let find = Command::new("find", ANSWER).args(["-H"]).args([self.path]).args(["-maxdepth", "0", "-empty"]);
        let waits = |process: &command::Hanging| {
            let mut words = process.command.split(|byte| *byte == 0);
            words.next() == Some(b"find") && words.nth(1) == Some(self.path.as_os_str().as_bytes())
        };
        let no_answer = || {
            let (path, mount, kind) = (self.path.to_owned(), mount.point.clone(), mount.kind.clone());
            Err(Error::NoAnswer { path, mount, kind, limit: ANSWER })
        };
        if command::hanging().iter().any(waits) {
            return no_answer();
        }
        match find.run() {
            Err(command::Error::Deadline { .. }) => return no_answer(),
            Err(error) => return Err(Error::io("ask for", self.path, std::io::Error::other(error))),
            Ok(_) => {}
        }
        let Some(user) = mount.user else { return Ok(()) };
        let reason = format!(
            "a program of {}'s answers for it ({}), and root would wait for that program and believe it; choose a path on another \
             file system",
            name(user),
            mount.kind
        );
        Err(Error::Untrusted { path: path.to_owned(), reason })
    }

    /// Where a link leads that root may follow.
    fn target(&mut self, link: BorrowedFd<'_>, stat: &Stat, path: PathBuf) -> Result<PathBuf, Error> {
        let folder = self.here()?.1;
        if !folder.is_roots() || stat.st_uid != 0 {
            let reason = format!(
                "it is a link of {}'s, and root follows only its own in folders of its own; write the path that it leads to",
                name(if stat.st_uid == 0 { folder.uid } else { stat.st_uid })
            );
            return Err(Error::Untrusted { path, reason });
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Error::io("open", &path, Errno::LOOP));
        }
        let target = readlinkat(link, "", Vec::new()).map_err(|error| Error::io("read", &path, error))?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    fn make_here(&self, name: &OsStr, user: &Account) -> Result<(), Error> {
        let (folder, part) = self.here()?;
        let path = part.path.join(name);
        self.passed.iter().try_for_each(|(_, part)| part.takes_from_root(user))?;
        match mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Error::io("make", &path, error)),
        }
    }
}
