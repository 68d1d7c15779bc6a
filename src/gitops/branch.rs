use super::Error;
use super::checkout::Checkout;
use super::git::is_commit;
use super::look::Look;
use super::mirror::Mirror;
use crate::records::Deployed;

/// A branch that hub.toml does not name any more, in a checkout.
pub(super) struct Renamed {
    old: String,
    head: String,
    /// Where the branch is that hub.toml names; none where it is not there yet.
    new: Option<String>,
    /// Whether the old one followed the remote's.
    tracks: bool,
    /// Whether the old one has to go: git cannot have `rel` beside `rel/x`.
    goes: bool,
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
        let goes = if self.goes { "; the old one goes, since git cannot have both" } else { "" };
        format!("switch {path} from {} to {branch}: hub.toml names that branch now{goes}", self.old)
    }
}

impl Checkout<'_> {
    /// Whether the checkout is still on a branch that hub.toml named before: it was deployed from there, is at the deployed
    /// commit, and nothing of the branch that hub.toml names now would be lost.
    pub fn renamed(&self, look: &Look, deployed: Option<&Deployed>, mirror: &Mirror) -> Result<Option<Renamed>, Error> {
        let (Some(branch), Some(deployed)) = (&look.branch, deployed) else { return Ok(None) };
        let is_cut_off = *branch == self.repository.branch && look.head.is_none();
        let (old, head) = match (&look.head, &deployed.branch) {
            // A switch was cut off, between two steps of `follow`.
            (None, Some(old)) if is_cut_off && excludes(old, branch) => (old, &deployed.commit),
            (Some(head), _) if *branch != self.repository.branch && *head == deployed.commit => (branch, head),
            _ => return Ok(None),
        };
        let new = self.tip(&self.repository.branch)?;
        let is_followed = match (&deployed.branch, &new) {
            // Recorded by a hub that did not write down the branch: whoever made another one made it beside this.
            (None, new) => new.is_none(),
            (Some(branch), None) => branch == old,
            (Some(branch), Some(new)) => branch == old && mirror.is_ancestor(new, head)?,
        };
        let tracks = is_cut_off || look.upstream.as_deref() == Some(&format!("origin/{old}"));
        let goes = excludes(old, &self.repository.branch);
        Ok(is_followed.then(|| Renamed { old: old.clone(), head: head.clone(), new, tracks, goes }))
    }

    /// Follows hub.toml to its branch. No file changes and the old branch stays, where git can have both; each step can be
    /// done again.
    pub fn follow(&self, renamed: &Renamed) -> Result<(), Error> {
        let branch = &self.repository.branch;
        let reference = format!("refs/heads/{branch}");
        if renamed.goes {
            // HEAD comes first, so that a switch that is cut off is known by it.
            self.point_head_at(&reference)?;
            let old = &renamed.old;
            if self.tip(old)?.is_some() {
                self.git().args(["update-ref", "-d", &format!("refs/heads/{old}"), &renamed.head]).succeed()?;
            }
            // The remote has not got it any more either.
            self.git().args(["update-ref", "-d", &format!("refs/remotes/origin/{old}")]).succeed()?;
        }
        let before = renamed.new.clone().unwrap_or_else(|| "0".repeat(renamed.head.len()));
        self.git().args(["update-ref", &reference, &renamed.head, &before]).succeed()?;
        if renamed.tracks {
            for (key, value) in [("remote", "origin"), ("merge", &reference)] {
                self.git().args(["config", &format!("branch.{branch}.{key}"), value]).succeed()?;
            }
        }
        self.point_head_at(&reference)
    }

    fn point_head_at(&self, reference: &str) -> Result<(), Error> {
        let why = "gitops-sync: hub.toml names this branch";
        self.git().args(["symbolic-ref", "-m", why, "HEAD", reference]).succeed()?;
        Ok(())
    }

    /// A local branch beside which git cannot have the configured one; none where there is no such branch.
    pub fn in_the_way_of_branch(&self) -> Result<Option<String>, Error> {
        let output = self.git().args(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"]).succeed()?;
        Ok(output.text().lines().find(|name| excludes(name, &self.repository.branch)).map(str::to_owned))
    }

    /// The commit of a local branch; none where there is no such branch.
    pub fn tip(&self, branch: &str) -> Result<Option<String>, Error> {
        let reference = format!("refs/heads/{branch}");
        let output = self.git().args(["rev-parse", "--verify", "--quiet", &reference]).run()?;
        Ok(Some(output.text()).filter(|tip| output.status.success() && is_commit(tip)))
    }
}

/// True for two branches that git cannot have at one time: the name of one is a folder of the other.
fn excludes(one: &str, other: &str) -> bool {
    let holds = |folder: &str, name: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    holds(one, other) || holds(other, one)
}
