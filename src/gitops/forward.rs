use super::Error;
use super::checkout::{Checkout, LOOK};
use super::git::LOCAL;
use super::look::Look;
use super::mirror::empty_tree;
use crate::command::{self, Command};
use crate::records::short;

impl Checkout<'_> {
    /// Moves the branch to a commit whose objects were received, durably.
    ///
    /// # Errors
    /// `Refused` when git found something of the operator's in the way, `InUse` when the operator's git holds the index;
    /// then nothing was touched.
    pub fn fast_forward(&self, look: &Look, commit: &str) -> Result<(), Error> {
        let branch = &self.repository.branch;
        let merge = ["merge", "--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures"];
        let merge = self
            .git()
            // Options of the checkout's own configuration could make something else of it than a fast-forward.
            .args(["-c", &format!("branch.{branch}.mergeOptions=")])
            .args(merge)
            .args(["--no-stat", "--quiet", commit])
            .name("git merge --ff-only")
            .limit(LOCAL)
            .prepare(None)?;
        // It gets ready while the other git merges.
        let settling = self.git().args(["update-ref", "--stdin"]).limit(LOCAL).prepare(None);
        merge.finish(b"").map_err(|error| self.not_moved(error))?;
        let mut update = format!("verify refs/heads/{branch} {commit}\n");
        if look.upstream.as_deref() == Some(&format!("origin/{branch}")) {
            // Otherwise `git status` would tell the operator that the branch is ahead of its remote.
            update += &format!("update refs/remotes/origin/{branch} {commit}\n");
        }
        let mut settling = settling?;
        settling.feed(update.as_bytes());
        // git does not fsync the files of a checkout; after a power cut they must be as whole as the record will say.
        self.folder()?.sync_file_system()?;
        settling.finish(b"")?;
        Ok(())
    }

    /// Moves the branch to a commit that does not follow on it, durably. What the remote's branch is known to be at stays.
    ///
    /// # Errors
    /// As `fast_forward`.
    pub fn go_back(&self, commit: &str) -> Result<(), Error> {
        let switch =
            ["checkout", "--quiet", "--no-overwrite-ignore", "--no-track", "-B", &self.repository.branch, commit];
        self.git()
            .args(switch)
            .args(["--"])
            .name("git checkout")
            .limit(LOCAL)
            .succeed()
            .map_err(|error| self.not_moved(error))?;
        Ok(self.folder()?.sync_file_system()?)
    }

    /// Why git did not move the branch.
    fn not_moved(&self, error: command::Error) -> Error {
        match &error {
            // What git says before it touches anything.
            command::Error::Failed { output, .. }
                if output.contains("Aborting") || output.contains("have not concluded") =>
            {
                Error::Refused(format!("{}: {error}", self.repository.path.display()))
            }
            command::Error::Failed { output, .. } if output.contains("index.lock") => Error::InUse(error.to_string()),
            _ => error.into(),
        }
    }

    /// Puts back what a fast-forward of `branch` from one commit (none: from an empty branch) to another changed, however far it
    /// came. Files that the two commits do not differ in, and files that git does not track, stay as they are: the
    /// fast-forward was begun only after a check that nothing of the operator's was in its way.
    pub fn undo(&self, branch: &str, from: Option<&str>, to: &str) -> Result<(), Error> {
        if !self.has(to)? {
            // The fast-forward cannot have begun before the commit was there.
            return Ok(());
        }
        let path = self.repository.path.display();
        let look = self.look()?;
        if look.branch.as_deref() != Some(branch) {
            return Err(Error::Refused(format!(
                "another branch than {branch} was checked out meanwhile; run: git -C {path} switch {branch}"
            )));
        }
        if look.head.as_deref() != from && look.head.as_deref() != Some(to) {
            let (tip, back) = (look.head.as_deref().map_or("nothing", short), from.unwrap_or(to));
            return Err(Error::Refused(format!(
                "{branch} in {path} moved to {tip} meanwhile, which is not the hub's doing; keep what you need of it and run: git -C {path} reset --hard {back}"
            )));
        }
        let empty = empty_tree(self.git())?;
        let source = from.unwrap_or(&empty);
        // First the index as the fast-forward leaves it, so that git knows of every file that it may have written; then
        // index and files as they were. Both steps leave alone what does not differ between the two commits.
        let git = |name| self.git().limit(LOCAL).name(name);
        git("git read-tree (index)").args(["read-tree", "-i", "-m", source, to]).succeed()?;
        git("git read-tree (files)").args(["read-tree", "--reset", "-u", to, source]).succeed()?;
        if look.head.as_deref() == Some(to) && from != Some(to) {
            let reference = format!("refs/heads/{branch}");
            match from {
                Some(from) => self.git().args(["update-ref", &reference, from, to]).succeed()?,
                None => self.git().args(["update-ref", "-d", &reference, to]).succeed()?,
            };
        }
        Ok(())
    }

    pub fn has(&self, commit: &str) -> Result<bool, Error> {
        let output = self.git().args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).run()?;
        Ok(output.status.success())
    }

    /// Removes the locks that a killed git left. Only for when the journal says that a fast-forward of the hub was cut
    /// off: otherwise they may be those of an operator's git at work.
    pub fn remove_stale_locks(&self, branch: &str) -> Result<(), Error> {
        let tracking = format!("refs/remotes/origin/{branch}.lock");
        let branch = format!("refs/heads/{branch}.lock");
        let names = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "packed-refs.lock", &branch, &tracking];
        let mut command = self.git().args(["rev-parse"]);
        for name in names {
            command = command.args(["--git-path", name]);
        }
        let paths = command.succeed()?.text();
        let remove = Command::new("rm", LOOK).user(&self.user).folder(&self.repository.path).args(["-f", "--"]);
        remove.args(paths.lines()).succeed()?;
        Ok(())
    }

    /// Lets git tidy the checkout's objects when it thinks it should.
    pub fn tidy(&self) -> Result<(), Error> {
        self.git()
            .args(["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"])
            .limit(LOCAL)
            .succeed()?;
        Ok(())
    }
}
