use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::values::{AbsolutePath, Minutes, is_web_url, text_value};
use super::{Remote, WebUrl};
use crate::state::{may_hang_at, repository_record};
use crate::systemd::install::Name;

/// `[[repository]]`: one repository that is kept in sync.
#[derive(Clone, Debug)]
pub struct Repository {
    /// What it is called on this host, in state, records and commands: the key `id`, else the key `name`.
    pub name: String,
    /// `owner/name` at the forge: the key `name`.
    pub full_name: String,
    /// What it was called on this host before.
    pub formerly: Vec<String>,
    /// Where it is fetched from.
    pub remote: Remote,
    /// The checkout.
    pub path: PathBuf,
    /// The user that owns the checkout and runs commands in it; none: whoever owned `path` first.
    pub user: Option<String>,
    /// The branch that is deployed.
    pub branch: String,
    /// The folder of unit files in the repository; empty for none.
    pub units: String,
    /// Argument vector run in the checkout before units are validated; empty for none.
    pub build: Vec<String>,
    /// Argument vector run in the checkout after restarts; empty for none.
    pub after: Vec<String>,
    /// Which changed paths restart which units.
    pub restart: Vec<RestartRule>,
    /// SSH signers whose commits are accepted (ssh-keygen(1), ALLOWED SIGNERS).
    pub allowed_signers: Option<PathBuf>,
    /// OpenPGP keys whose commits are accepted, as `gpg --export` writes them.
    pub gpg_keyring: Option<PathBuf>,
    /// Name of the credential with the ssh key.
    pub ssh_key: Option<String>,
    /// Name of the credential with the https token.
    pub token: Option<String>,
    /// Name of the credential with the token for what is said of commits at the forge; default: that of `token`.
    pub status_token: Option<String>,
    /// The address of the forge's API, where the host that it is fetched from does not tell.
    pub api: Option<WebUrl>,
    /// Whether the forge is told how each commit fared here.
    pub status: bool,
    /// Whether a commit is deployed only when what others say of it is green.
    pub wait_for_checks: bool,
    /// How to see that a deployment is healthy.
    pub health: Health,
    /// How long a look serves, in minutes, where no delivery comes.
    pub poll_minutes: u32,
    /// Whether it may deploy the hub's own units.
    pub own: bool,
    /// Units of packages that it may have drop-ins for.
    pub dropins: Vec<String>,
    /// How long a deployment of units waits for `hub confirm` before it is taken back, in minutes; 0: it need not be confirmed.
    pub confirm_minutes: u32,
}

/// What a deployment must not take from the owner of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The remote that the deployment came from.
    Remote,
    /// A ssh server of this host.
    Ssh,
    /// The node's connection to its tailnet.
    Tailscale,
}

impl Guard {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Remote, Self::Ssh, Self::Tailscale];
}

text_value!(Guard, |text| match text {
    "remote" => Ok(Guard::Remote),
    "ssh" => Ok(Guard::Ssh),
    "tailscale" => Ok(Guard::Tailscale),
    _ => Err(format!("{text:?} is nothing that can be guarded; write some of \"remote\", \"ssh\" and \"tailscale\"")),
});

/// A day is long enough to say yes.
const LONGEST_TRIAL: u32 = 24 * 60;

struct ConfirmMinutes(u32);

impl<'de> Deserialize<'de> for ConfirmMinutes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let minutes = u32::deserialize(deserializer)?;
        if minutes <= LONGEST_TRIAL {
            return Ok(Self(minutes));
        }
        Err(serde::de::Error::custom(format!(
            "{minutes} minutes are more than a day; write at most {LONGEST_TRIAL}, or 0 for none"
        )))
    }
}

impl Repository {
    /// Its record in every folder of the state that has one a repository.
    pub fn record(&self) -> String {
        repository_record(&self.name)
    }

    /// What it is called on this host, and what it was called before.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.formerly).map(String::as_str)
    }

    /// True where a forge means this repository by `full_name`, its present or a former one. Forges compare without case.
    pub fn is_called(&self, full_name: &str) -> bool {
        let mut all = std::iter::once(self.full_name.as_str()).chain(self.formerly.iter().map(|name| at_forge(name)));
        all.any(|name| name.eq_ignore_ascii_case(full_name))
    }

    /// True where this host calls it `name`, or did before.
    pub fn is_known_as(&self, name: &str) -> bool {
        self.names().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// What a forge calls a repository that this host calls `name`: without `@staging`.
pub(super) fn at_forge(name: &str) -> &str {
    name.split_once('@').map_or(name, |(full_name, _)| full_name)
}

/// Changed paths that restart units.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartRule {
    /// Files, or folders with a slash at the end, relative to the repository.
    pub paths: Vec<String>,
    /// Units to restart.
    pub units: Vec<String>,
}

/// How to see that a deployment is healthy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// How long restarted services are watched and the URL is given to answer, in seconds.
    pub grace_seconds: u64,
    /// A URL that answers 2xx when the deployment is healthy.
    pub url: Option<HealthUrl>,
    /// The certificates that an https URL's server must come from; default: the system's authorities.
    pub ca: Option<AbsolutePath>,
}

impl Default for Health {
    fn default() -> Self {
        Self { grace_seconds: 10, url: None, ca: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthUrl(pub String);

text_value!(HealthUrl, |text| {
    is_web_url(text)
        .then(|| HealthUrl(text.to_owned()))
        .ok_or_else(|| format!("{text:?} is not a health URL; write one such as \"http://127.0.0.1:9000/healthz\""))
});

struct FullName(String);

text_value!(FullName, |text| {
    is_full_name(text)
        .then(|| FullName(text.to_owned()))
        .ok_or_else(|| format!("{text:?} is not owner/name; write it as the forge does, such as \"acme/infra\""))
});

struct Id(String);

text_value!(Id, |text| {
    let label = text.split_once('@').map(|(_, label)| label);
    let fits = is_full_name(at_forge(text)) && label.is_none_or(is_part);
    fits.then(|| Id(text.to_owned())).ok_or_else(|| {
        format!("{text:?} is not owner/name or owner/name@word; write one such as \"acme/infra@staging\"")
    })
});

/// The most parts that a name has (GitLab: 20 levels of groups), and the longest; files are named after it, with more
/// before and behind.
const MOST_PARTS: usize = 21;
const LONGEST_NAME: usize = 201;

/// True for `owner/name`, and for GitLab's `group/subgroup/name`. Of names that begin with a dot forges have some
/// (`me/.dotfiles`), of such owners none.
fn is_full_name(text: &str) -> bool {
    let parts = text.split('/').count();
    (2..=MOST_PARTS).contains(&parts)
        && text.len() <= LONGEST_NAME
        && !text.starts_with(['.', '-'])
        && text.split('/').all(is_part)
}

fn is_part(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

pub(super) struct Branch(String);

// The characters that git-check-ref-format(1) allows and that need no quoting anywhere.
text_value!(Branch, |text| {
    let fits = !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/+".contains(&b))
        && !text.contains("..")
        && !text.ends_with(['/', '.'])
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock"));
    fits.then(|| Branch(text.to_owned())).ok_or_else(|| format!("{text:?} is not a branch; write one such as \"main\""))
});

struct Url(Remote);
text_value!(Url, |text| Remote::parse(text).map(Url));

struct InRepository(String);
text_value!(InRepository, |text| relative_path(text).map(InRepository));

fn relative_path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let fits =
        path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.starts_with('-'));
    if !fits || text.chars().any(char::is_control) {
        return Err(format!(
            "{text:?} is not a folder of the repository; write one such as \"systemd\", or \"\" for none"
        ));
    }
    Ok(path.to_owned())
}

struct CredentialName(String);
// A credential's name becomes a file name in $CREDENTIALS_DIRECTORY.
text_value!(CredentialName, |text| {
    let fits = (1..=100).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    fits.then(|| CredentialName(text.to_owned()))
        .ok_or_else(|| "is not the name of a credential; write a file name such as \"infra-key\"".to_owned())
});

#[derive(Clone)]
struct Api(WebUrl);
// What is sent there shows a token.
text_value!(Api, |text| {
    let is_safe = text.starts_with("https://") || Remote::parse(text).is_ok_and(|remote| remote.protocol() == "http");
    WebUrl::new(text).ok().filter(|_| is_safe && !text.contains(['?', '#', '@'])).map(Api).ok_or_else(|| {
        format!("{text:?} is not the address of an API; write one such as \"https://git.acme.org/api/v1\"")
    })
});

struct UnitName(String);
// What is said of `app-.service` in drop-ins is in force for every unit whose name begins so (systemd.unit(5)).
text_value!(UnitName, |text| {
    let is_one = |name: &Name| !name.prefix.ends_with('-');
    Name::parse(text).filter(is_one).map(|_| UnitName(text.to_owned())).ok_or_else(|| {
        format!("{text:?} is not the name of a unit; write one such as \"ssh.service\" or \"getty@.service\"")
    })
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    name: FullName,
    id: Option<Id>,
    #[serde(default)]
    formerly: Vec<Id>,
    url: Url,
    path: AbsolutePath,
    user: Option<String>,
    branch: Option<Branch>,
    units: Option<InRepository>,
    #[serde(default)]
    build: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    restart: Vec<RestartRule>,
    allowed_signers: Option<AbsolutePath>,
    gpg_keyring: Option<AbsolutePath>,
    ssh_key: Option<CredentialName>,
    token: Option<CredentialName>,
    status_token: Option<CredentialName>,
    api: Option<Api>,
    #[serde(default)]
    status: bool,
    #[serde(default)]
    wait_for_checks: bool,
    #[serde(default)]
    health: Health,
    poll_minutes: Option<Minutes>,
    #[serde(default)]
    own: bool,
    #[serde(default)]
    dropins: Vec<UnitName>,
    confirm_minutes: Option<ConfirmMinutes>,
}

impl Section {
    /// The checked repository, or the key that is wrong and why. `poll_minutes` is that of `[gitops]`.
    pub(super) fn check(&self, poll_minutes: Option<Minutes>) -> Result<Repository, (&'static str, String)> {
        let remote = self.url.0.clone();
        for (key, argv) in [("build", &self.build), ("after", &self.after)] {
            if argv.first().is_some_and(|program| program.is_empty()) {
                return Err((
                    key,
                    "has an empty program; write an argument vector such as [\"/usr/bin/make\", \"build\"]".into(),
                ));
            }
        }
        if self.status && self.token.is_none() && self.status_token.is_none() {
            let reason = "needs a token: name the credential of one that may write commit statuses with status_token";
            return Err(("status", reason.into()));
        }
        if self.path.0.parent().is_none() {
            return Err(("path", "is the root folder; write the path of a checkout such as \"/srv/infra\"".into()));
        }
        Ok(Repository {
            name: self.id.as_ref().map_or(&self.name.0, |id| &id.0).clone(),
            full_name: self.name.0.clone(),
            formerly: self.formerly.iter().map(|name| name.0.clone()).collect(),
            remote,
            path: self.path.0.clone(),
            user: self.user.clone(),
            branch: self.branch.as_ref().map_or_else(|| "main".to_owned(), |branch| branch.0.clone()),
            units: self.units.as_ref().map_or_else(|| "systemd".to_owned(), |folder| folder.0.clone()),
            build: self.build.clone(),
            after: self.after.clone(),
            restart: self.restart.clone(),
            allowed_signers: self.allowed_signers.clone().map(|path| path.0),
            gpg_keyring: self.gpg_keyring.clone().map(|path| path.0),
            ssh_key: self.ssh_key.as_ref().map(|name| name.0.clone()),
            token: self.token.as_ref().map(|name| name.0.clone()),
            status_token: self.status_token.as_ref().map(|name| name.0.clone()),
            api: self.api.clone().map(|api| api.0),
            status: self.status,
            wait_for_checks: self.wait_for_checks,
            health: self.health.clone(),
            poll_minutes: self.poll_minutes.or(poll_minutes).map_or(60, |minutes| minutes.0),
            own: self.own,
            dropins: self.dropins.iter().map(|unit| unit.0.clone()).collect(),
            confirm_minutes: self.confirm_minutes.as_ref().map_or(0, |minutes| minutes.0),
        })
    }
}

/// As many links as Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The path with its links resolved, so that two ways to write one folder are seen as one: as far as nobody but root and the
/// caller can change where it leads. Whoever could would have a say in whether hub.toml is right.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let me = rustix::process::geteuid().as_raw();
    let is_ours = |found: &Metadata| [0, me].contains(&found.uid());
    let keeps = |found: &Metadata| found.is_dir() && (found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0);
    let parts = |path: &Path| path.iter().rev().filter(|part| *part != "/").map(OsStr::to_owned).collect::<Vec<_>>();
    let may_hang = may_hang_at();
    let (mut real, mut waiting, mut links, mut is_kept) = (PathBuf::from("/"), parts(path), 0, true);
    while let Some(part) = waiting.pop() {
        if part == ".." {
            real.pop();
            continue;
        }
        let look = |path: &Path| std::fs::symlink_metadata(path).ok().filter(is_ours);
        let at = real.join(part);
        is_kept = is_kept && !may_hang(&real) && look(&real).is_some_and(|found| keeps(&found));
        let link = if is_kept && !may_hang(&at) { look(&at) } else { None };
        let link = link.filter(|found| found.is_symlink() && links < MOST_LINKS);
        match link.and_then(|_| at.read_link().ok()) {
            Some(target) => {
                links += 1;
                waiting.extend(parts(&target));
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
            }
            None => real = at,
        }
    }
    real
}
