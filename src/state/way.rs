//! Opening a path that the configuration names: nobody but root and the path's user decides where it leads.
//!
//! A path that another user can change is no path but a question to that user. So root walks it part by part, by
//! descriptor, follows only links of its own in folders of its own, and is told who could have changed a part.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, fchown, fstat, getxattr, mkdirat, open, openat,
    readlinkat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use uzers::os::unix::GroupExt;

use super::owner::act_as;
use super::{Error, Folder, mounts};
use crate::command::{self, Account, Command};

/// As many links as Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
/// How long a file system may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
const PASS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a path led to, and whose the folders on the way are.
#[derive(Debug)]
pub struct Way {
    fd: OwnedFd,
    found: Stat,
    path: PathBuf,
    /// The folders that were passed, the root folder first; empty where a user other than root went by itself.
    passed: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
    /// Whether its access list lets others write it whom the mode does not name.
    is_shared: bool,
}

impl Part {
    fn of(path: PathBuf, stat: &Stat, fd: BorrowedFd<'_>) -> Self {
        let mode = stat.st_mode & 0o7777;
        // With an access list the group's part of the mode is what anybody in it may have at most (acl(5)).
        let is_shared = mode & 0o020 != 0 && lets_others_write(fd, stat.st_uid);
        Self { path, uid: stat.st_uid, gid: stat.st_gid, mode, is_shared }
    }

    /// True for a folder in which nobody but root can put something in another's place.
    fn is_roots(&self) -> bool {
        self.uid == 0 && (self.mode & 0o022 == 0 || self.mode & STICKY != 0)
    }

    fn takes_from_root(&self, user: &Account) -> Result<(), Error> {
        if self.is_roots() {
            return Ok(());
        }
        let reason = if self.uid == 0 {
            let run = format!("run: chmod go-w {}", self.path.display());
            format!("others than root can write it, so root makes nothing in it for {}; {run}", user.name)
        } else {
            let owner = name(self.uid);
            let whose = format!("it belongs to {owner}, so root makes nothing in it for {}", user.name);
            let known =
                Account::by_uid(self.uid).map(|owner| format!("write user = \"{}\" in hub.toml, or ", owner.name));
            format!("{whose}; {}choose another path, such as one in /srv", known.unwrap_or_default())
        };
        Err(Error::Untrusted { path: self.path.clone(), reason })
    }
}

/// What is expected at a path's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A folder, opened for reading.
    Folder,
    /// Anything, to be looked at only.
    Any,
}

impl Way {
    /// Opens a folder for reading. A user other than root opens it with the user's own rights, and links are followed.
    ///
    /// # Errors
    /// `Untrusted` at a link that is not root's own in a folder of root's own; when it is missing (`is_missing`), no
    /// folder, or not accessible for root and for the owner of the folder that it is in.
    pub fn to_folder(path: &Path) -> Result<Self, Error> {
        if geteuid().is_root() {
            return Self::go(path, End::Folder, None);
        }
        let failed = |error: Errno| Error::io("open", path, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&fd).map_err(failed)?;
        Ok(Self { fd, found, path: path.to_owned(), passed: Vec::new() })
    }

    /// Makes a folder with its parents, which are root's and have the mode 0755, and gives it to a user. Nothing is made
    /// where another user than root could have put something in the way.
    ///
    /// # Errors
    /// As `to_folder`, and when it cannot be made there or exists.
    pub fn make_folder(path: &Path, user: &Account) -> Result<(), Error> {
        let failed = |error: Errno| Error::io("make", path, error);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(Errno::EXIST)) };
        let parent = Self::go(parent, End::Folder, Some(user))?;
        parent.require_roots_for(user)?;
        // Given away under another name: a run that is killed leaves either nothing or all of it.
        let unfinished = [OsStr::new(".hub-"), name].join(OsStr::new(""));
        match unlinkat(&parent.fd, &unfinished, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        mkdirat(&parent.fd, &unfinished, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent.fd, &unfinished, flags, Mode::empty()).map_err(failed)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
        fchown(&made, Some(uid), Some(gid)).map_err(failed)?;
        renameat_with(&parent.fd, &unfinished, &parent.fd, name, RenameFlags::NOREPLACE).map_err(failed)
    }

    /// Says whether root would make something for a user in a folder that is there.
    ///
    /// # Errors
    /// As `to_folder`, and `Untrusted` with the folder in which another user could have put something in the way.
    pub fn takes_from_root(folder: &Path, user: &Account) -> Result<(), Error> {
        Self::go(folder, End::Folder, None)?.require_roots_for(user)
    }

    fn require_roots_for(&self, user: &Account) -> Result<(), Error> {
        let own = Part::of(self.path.clone(), &self.found, self.fd.as_fd());
        self.passed.iter().chain([&own]).try_for_each(|part| part.takes_from_root(user))
    }

    fn go(path: &Path, end: End, make: Option<&Account>) -> Result<Self, Error> {
        let failed = |error: Errno| Error::io("open", path, error);
        let root = openat(CWD, "/", PASS | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut walk = Walk {
            path,
            end,
            make,
            links: 0,
            mount: mounts::id(root.as_fd()),
            passed: Vec::new(),
            waiting: Vec::new(),
        };
        walk.push(root, PathBuf::from("/")).map_err(failed)?;
        walk.wait_for(path)?;
        walk.go()
    }

    /// The user id of what is at the end.
    pub fn owner(&self) -> u32 {
        self.found.st_uid
    }

    /// Where the path led to; none where the kernel does not say.
    pub fn real_path(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).ok()
    }

    /// The folder at the end.
    pub fn into_folder(self) -> Folder {
        Folder::from_parts(self.fd, &self.path)
    }

    /// Says whether root and this user alone could have changed where the path leads: all folders on the way are theirs,
    /// and nobody else can write them, but where the sticky bit keeps what they hold. What is at the end is not judged.
    ///
    /// # Errors
    /// `Untrusted`, with the folder, whose it is, and what to do.
    pub fn is_kept_by(&self, user: Option<&Account>) -> Result<(), Error> {
        for part in &self.passed {
            let theirs = part.uid == 0 || user.is_some_and(|user| user.uid == part.uid);
            if !theirs {
                let (whose, to) = (name(part.uid), user.map_or_else(|| "root".to_owned(), |user| user.name.clone()));
                let reason = format!(
                    "it belongs to {whose}, who decides where {} leads; chown it to root{}, or choose another path",
                    self.path.display(),
                    if to == "root" { String::new() } else { format!(" or {to}") }
                );
                return Err(Error::Untrusted { path: part.path.clone(), reason });
            }
            let own_group =
                user.is_some_and(|user| part.uid == user.uid && !part.is_shared && is_private_group(user, part.gid));
            let writable = part.mode & if own_group { 0o002 } else { 0o022 } != 0;
            if writable && part.mode & STICKY == 0 {
                let reason = format!(
                    "others than its owner can write it, and decide where {} leads; run: chmod go-w {}",
                    self.path.display(),
                    part.path.display()
                );
                return Err(Error::Untrusted { path: part.path.clone(), reason });
            }
        }
        Ok(())
    }

    /// Says whether nobody but root could have changed where the path leads, or what is there.
    ///
    /// # Errors
    /// As `is_kept_by`.
    fn is_roots(&self) -> Result<(), Error> {
        self.is_kept_by(None)?;
        let path = self.path.display();
        if self.found.st_uid != 0 {
            let reason =
                format!("it belongs to {}, and root obeys it; run: chown root: {path}", name(self.found.st_uid));
            return Err(Error::Untrusted { path: self.path.clone(), reason });
        }
        if self.found.st_mode & 0o022 != 0 {
            let reason = format!("others than root can write it, and root obeys it; run: chmod go-w {path}");
            return Err(Error::Untrusted { path: self.path.clone(), reason });
        }
        Ok(())
    }
}

/// Says whether what is at a path, and where the path leads, are root's alone. Links are followed where root has put them.
///
/// # Errors
/// `Untrusted` with what is wrong, others where the path cannot be walked.
pub fn require_roots(path: &Path) -> Result<(), Error> {
    let path = std::path::absolute(path).map_err(|source| Error::io("resolve", path, source))?;
    Way::go(&path, End::Any, None)?.is_roots()
}

/// A group that has the name of its user, as useradd(8) makes one for each, and no other member.
fn is_private_group(user: &Account, gid: u32) -> bool {
    let is_theirs = |name: &OsStr| name == OsStr::new(&user.name);
    gid == user.gid
        && uzers::get_group_by_gid(gid)
            .is_some_and(|group| is_theirs(group.name()) && group.members().iter().all(|member| is_theirs(member)))
}

/// Whether the access list of a folder has an entry by which somebody else than its owner may write it. A list that cannot be
/// read counts as such.
fn lets_others_write(folder: BorrowedFd<'_>, owner: u32) -> bool {
    /// acl(5) and linux/posix_acl_xattr.h: a version, then entries of tag, rights and id.
    const NAMED: [u16; 2] = [0x02, 0x08];
    const WRITE: u16 = 0o2;
    let mut list = [0; 4 + 8 * 512];
    // By its place in /proc: a descriptor that was opened to pass through takes no such question.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let length = match getxattr(path, c"system.posix_acl_access", &mut list) {
        Ok(length) => length,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return false,
        Err(_) => return true,
    };
    list[..length].get(4..).unwrap_or_default().chunks_exact(8).any(|entry| {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        NAMED.contains(&half(0)) && half(2) & WRITE != 0 && (half(0), id) != (NAMED[0], owner)
    })
}

fn name(uid: u32) -> String {
    Account::by_uid(uid).map_or_else(|| format!("user id {uid}"), |user| user.name)
}

struct Walk<'a> {
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

/// Where a step led.
enum Step {
    On,
    Arrived(OwnedFd, Stat),
}

impl Walk<'_> {
    fn push(&mut self, fd: OwnedFd, path: PathBuf) -> Result<(), Errno> {
        let part = Part::of(path, &fstat(&fd)?, fd.as_fd());
        self.passed.push((fd, part));
        Ok(())
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

    fn go(mut self) -> Result<Way, Error> {
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

    fn arrived(self, fd: OwnedFd, found: Stat) -> Way {
        let passed = self.passed.into_iter().map(|(_, part)| part).collect();
        Way { fd, found, path: self.path.to_owned(), passed }
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
            FileType::Directory if !is_last => self.push(fd, path.clone()).map_err(failed).map(|()| Step::On),
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
