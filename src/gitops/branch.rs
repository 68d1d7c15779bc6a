use super::Error;
use super::checkout::Checkout;
use super::git::is_commit;
use super::look::Look;
use super::mirror::Mirror;
use super::store::Deployed;

/// A branch that hub.toml does not name any more, in a checkout.
pub(super) struct Renamed {
    /// The branch that is checked out.
    old: String,
    head: String,
    /// Where the branch is that hub.toml names; none where it is not there yet.
    new: Option<String>,
    /// Whether the old one followed the remote's.
    tracks: bool,
}

impl Renamed {
    /// How a checkout that looked so looks then.
    pub fn after(&self, look: Look, branch: &str) -> Look {
        let upstream = if self.tracks { Some(format!("origin/{branch}")) } else { look.upstream };
        Look { branch: Some(branch.to_owned()), upstream, ..look }
    }

    /// What is done, in words.
    pub fn describe(&self, checkout: &Checkout) -> String {
        let (path, branch) = (checkout.repository.path.display(), &checkout.repository.branch);
        format!("switch {path} from {} to {branch}: hub.toml names that branch now", self.old)
    }
}

impl Checkout<'_> {
    /// Whether the checkout is still on a branch that hub.toml named before: it was deployed from there, is at the deployed
    /// commit, and nothing of the branch that hub.toml names now would be lost.
    pub fn renamed(&self, look: &Look, deployed: Option<&Deployed>, mirror: &Mirror) -> Result<Option<Renamed>, Error> {
        let (Some(old), Some(head), Some(deployed)) = (&look.branch, &look.head, deployed) else { return Ok(None) };
        if *old == self.repository.branch || *head != deployed.commit {
            return Ok(None);
        }
        let new = self.tip(&self.repository.branch)?;
        let is_followed = match (&deployed.branch, &new) {
            // Recorded by a hub that did not write down the branch: whoever made another one made it beside this.
            (None, new) => new.is_none(),
            (Some(branch), None) => branch == old,
            (Some(branch), Some(new)) => branch == old && mirror.is_ancestor(new, head)?,
        };
        let tracks = look.upstream.as_deref() == Some(&format!("origin/{old}"));
        Ok(is_followed.then(|| Renamed { old: old.clone(), head: head.clone(), new, tracks }))
    }

    /// Follows hub.toml to its branch. No file changes and the old branch stays; each step can be done again.
    pub fn follow(&self, renamed: &Renamed) -> Result<(), Error> {
        let branch = &self.repository.branch;
        let reference = format!("refs/heads/{branch}");
        let before = renamed.new.clone().unwrap_or_else(|| "0".repeat(renamed.head.len()));
        self.git().args(["update-ref", &reference, &renamed.head, &before]).succeed()?;
        if renamed.tracks {
            for (key, value) in [("remote", "origin"), ("merge", &reference)] {
                self.git().args(["config", &format!("branch.{branch}.{key}"), value]).succeed()?;
            }
        }
        self.git()
            .args(["symbolic-ref", "-m", "gitops-sync: hub.toml names this branch", "HEAD", &reference])
            .succeed()?;
        Ok(())
    }

    /// The commit of a local branch; none where there is no such branch.
    pub fn tip(&self, branch: &str) -> Result<Option<String>, Error> {
        let reference = format!("refs/heads/{branch}");
        let output = self.git().args(["rev-parse", "--verify", "--quiet", &reference]).run()?;
        Ok(Some(output.text()).filter(|tip| output.status.success() && is_commit(tip)))
    }
}
