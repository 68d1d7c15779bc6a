//! How a commit's objects come into a checkout. They are received in a folder of the hub's own below the checkout's
//! objects and moved from there when they are whole: what a dead transfer left is known by its place, and what the owner's
//! own git is receiving is nobody's business.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::Error;
use super::checkout::{Checkout, LOOK};
use super::git::{LOCAL, is_commit};
use crate::command::{Command, Prepared};
use crate::log;
use crate::state::{Error as StateError, act_as};
use crate::text;

/// The folder, below the checkout's objects.
const FOLDER: &str = "hub-incoming";

/// A transfer that is ready and waits for the revisions.
pub(super) struct Transfer {
    pack: Prepared,
    objects: PathBuf,
}

impl Transfer {
    /// The same, or none, where it is not wanted any more: it is ended then, so that nothing writes any more to the folder
    /// that the next one clears.
    pub fn still_wanted(self, wanted: bool) -> Option<Self> {
        if wanted {
            return Some(self);
        }
        if let Err(error) = self.pack.finish(b"") {
            log::line!(log::Level::Debug, "transfer_ended", error = error.to_string());
        }
        None
    }
}

impl Checkout<'_> {
    /// The folder of objects, relative to the checkout.
    fn objects(&self) -> Result<PathBuf, Error> {
        // Opened so that nobody is asked where something is mounted there.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if open(self.repository.path.join(".git"), flags, Mode::empty()).is_ok() {
            return Ok(PathBuf::from(".git/objects"));
        }
        Ok(PathBuf::from(self.git().args(["rev-parse", "--git-path", "objects"]).succeed()?.text()))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Command {
        Command::new(program, LOCAL).user(&self.user).folder(&self.repository.path).args(arguments).name(program)
    }

    /// Makes the folder where it is missing, and empties it of what a dead transfer left.
    pub fn clear_incoming(&self) -> Result<(), Error> {
        let checkout = self.folder()?;
        let look = || {
            let folder = checkout.sub(".git").and_then(|git| git.sub("objects")?.sub(FOLDER))?;
            match folder.sub("pack") {
                Err(error) if error.is_missing() => Ok(true),
                pack => pack.and_then(|pack| pack.entries(1)).map(|entries| entries.is_empty()),
            }
        };
        if act_as(&self.user, look)?.is_ok_and(|is_empty| is_empty) {
            return Ok(());
        }
        let folder = self.objects()?.join(FOLDER);
        self.run("rm", &["-rf", "--"]).args([&folder]).limit(LOOK).succeed()?;
        self.run("mkdir", &["-p", "--"]).args([&folder]).limit(LOOK).succeed()?;
        Ok(())
    }

    /// Starts what brings the output of `pack` into the checkout.
    pub fn transfer(&self, pack: Command) -> Result<Transfer, Error> {
        let objects = self.objects()?;
        let folder = objects.join(FOLDER);
        let receive = self
            .git()
            .env("GIT_OBJECT_DIRECTORY", &folder)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &objects)
            .args(["-c", "pack.writeReverseIndex=false", "index-pack", "--stdin", "--fix-thin"])
            .limit(LOCAL)
            .name("git index-pack");
        Ok(Transfer { pack: pack.prepare(Some(receive))?, objects })
    }

    /// Brings in what `revisions` name. What a failed transfer left is removed.
    pub fn take_in(&self, transfer: Transfer, revisions: &[u8]) -> Result<(), Error> {
        let Transfer { mut pack, objects } = transfer;
        pack.feed(revisions);
        let taken = pack.finish(b"").map_err(Error::from).and_then(|output| {
            let text = output.text();
            // git-index-pack(1): the word, a tab, and the hash in the pack's name.
            let hash = text.split_once('\t').map(|(_, hash)| hash).filter(|hash| is_commit(hash));
            let hash = hash.ok_or_else(|| Error::unexpected("git index-pack", text.as_bytes()))?;
            self.settle(&objects, hash)
        });
        if taken.is_err()
            && let Err(error) = self.clear_incoming()
        {
            log::warn!("incoming_not_cleared", repo = self.repository.name, error = error.to_string());
        }
        taken
    }

    /// Moves a received pack to where git looks for it.
    fn settle(&self, objects: &Path, hash: &str) -> Result<(), Error> {
        // git looks for packs by their index, so that one comes last.
        let names = ["pack", "idx"].map(|kind| format!("pack-{hash}.{kind}"));
        let checkout = self.folder()?;
        let rename = || -> Option<Result<(), StateError>> {
            let objects = checkout.sub(".git").and_then(|git| git.sub("objects")).ok()?;
            let (from, to) =
                (objects.sub(FOLDER).and_then(|folder| folder.sub("pack")).ok()?, objects.sub("pack").ok()?);
            Some(names.iter().try_for_each(|name| from.move_to(name.as_ref(), &to, name.as_ref())))
        };
        // A process takes longer than all the rest; it is for where a link or a mount leads elsewhere, and may not answer.
        if let Some(renamed) = act_as(&self.user, rename)? {
            return renamed.map_err(Into::into);
        }
        let mv = self.run("mv", &["-f", "-t"]).args([objects.join("pack")]).args(["--"]);
        mv.args(names.map(|name| objects.join(FOLDER).join("pack").join(name))).succeed().map(drop).map_err(Into::into)
    }

    /// The same error, or that the checkout's file system is full where that is the reason.
    pub fn says_full(&self, error: Error) -> Error {
        let said = error.to_string();
        if !text::is_full_disk(&said) {
            return error;
        }
        let path = self.repository.path.display();
        Error::Full(format!("the file system of {path} has no room for the commit; free some space: {said}"))
    }
}
