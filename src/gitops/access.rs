use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::process::geteuid;

use super::Error;
use super::origin::{self, Origin};
use crate::command::{Account, Command};
use crate::config::{Config, Repository};
use crate::state::{self, Folder, require_roots};
use crate::text;

/// The folder in `<state>/gitops` for what fetches need. It is root's, so that the mirrors' user, whose the folders in it
/// are, cannot put others in their places.
const FOLDER: &str = "access";
/// The one for what signatures are checked with, which is another user's.
pub(super) const SIGNERS: &str = "verify";
/// So many names are removed at once of what was laid down there and what else was put beside it.
const REMOVED: usize = 100_000;
/// How the names of `hub doctor`'s folders in it begin; a repository's file name begins with its owner's.
pub(super) const DOCTORS: &str = "doctor-";

/// What a fetch needs, for its time: key, token or settings in a folder that only the mirrors' user can read, never in an
/// argument. Dropping it removes the folder.
#[derive(Debug, Default)]
pub(super) struct Access {
    _folder: Option<Private>,
    ssh_command: Option<String>,
    credential_helper: Option<String>,
    global: Option<PathBuf>,
    /// A repository on this host that its owner's git serves.
    pub(super) origin: Option<Origin>,
    known_hosts: PathBuf,
}

/// Opens the folder for what fetches need, made where it is missing; the mirrors' user can pass through it.
pub(super) fn folder(gitops: &Folder, user: &Account) -> Result<Folder, Error> {
    folder_of(gitops, FOLDER, user)
}

/// Opens a folder of root's for folders of a user's, made where it is missing; the user can pass through it.
pub(super) fn folder_of(gitops: &Folder, name: &str, user: &Account) -> Result<Folder, Error> {
    let folder = gitops.sub_or_make(name, 0o710)?;
    let failed = |error: rustix::io::Errno| state::Error::io("hand over", folder.path(), error);
    if rustix::fs::fstat(folder.fd()).map_err(failed)?.st_gid != user.gid {
        fchown(folder.fd(), None, Some(Gid::from_raw(user.gid))).map_err(failed)?;
    }
    Ok(folder)
}

/// The file of pinned host keys, which root alone must be able to change. It may be missing.
///
/// # Errors
/// `Refused`, with who can change it.
pub fn known_hosts(config: &Config) -> Result<&Path, Error> {
    let path = &config.gitops.known_hosts;
    match if geteuid().is_root() { require_roots(path) } else { Ok(()) } {
        Err(error) if !error.is_missing() => Err(Error::Refused(format!("known_hosts: {error}"))),
        _ => Ok(path),
    }
}

impl Access {
    /// Prepares what the repository's remote needs, in a new folder `name` of `parent`.
    ///
    /// # Errors
    /// When a credential that the configuration names is missing, or cannot be handed to the mirrors' user.
    pub fn prepare(
        config: &Config,
        repository: &Repository,
        (parent, name): (&Folder, &str),
        user: &Account,
    ) -> Result<Self, Error> {
        let mut access = Self::default();
        let mut folder = None;
        let mut lay = |file: &str, content: &[u8]| {
            let private = folder.insert(Private::make((parent, name), user)?);
            private.write(file, content)
        };
        match repository.remote.protocol() {
            "ssh" => {
                access.known_hosts.clone_from(&config.gitops.known_hosts);
                access.ssh_command = Some(ssh_command(config, repository, &mut lay)?);
            }
            "https" | "http" => access.credential_helper = credential_helper(config, repository, &mut lay)?,
            _ => {}
        }
        if let Some(path) = repository.remote.local_path() {
            access.origin = origin::find(&path, user)?;
            if access.origin.is_some() {
                return Ok(access);
            }
            // git refuses to serve a repository of another user, and this one is root's alone. `-c` does not reach the
            // serving process, a global file does.
            let mut content = "[safe]\n".to_owned();
            // git compares with the resolved path.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            for path in [&path, &path.join(".git"), &real, &real.join(".git")] {
                let quoted = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
                content += &format!("\tdirectory = \"{quoted}\"\n");
            }
            access.global = Some(lay("config", content.as_bytes())?);
        }
        Ok(Self { _folder: folder, ..access })
    }

    /// Adds it to a git command; call before the subcommand is added.
    pub fn apply(&self, mut command: Command) -> Command {
        let proxies = ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];
        for name in proxies.into_iter().chain(["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"]) {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        if let Some(ssh) = &self.ssh_command {
            command = command.env("GIT_SSH_COMMAND", ssh).env("GIT_SSH_VARIANT", "ssh");
        }
        if let Some(global) = &self.global {
            command = command.env("GIT_CONFIG_GLOBAL", global);
        }
        if let Some(helper) = &self.credential_helper {
            command = command.args(["-c", &format!("credential.helper={helper}")]);
        }
        command
    }

    /// What to do about a reason that git or ssh gave, where the answer is in hub.toml.
    pub fn advice(&self, reason: &str) -> Option<String> {
        let says = |part: &str| reason.contains(part);
        if says("Host key verification failed") {
            let hosts = self.known_hosts.display();
            return Some(format!(
                "the host's key is not the one in {hosts}; compare it with what the forge publishes and put that there"
            ));
        }
        if says("Permission denied (publickey") {
            return Some(
                "the forge does not take the key; add its public half there, and name the credential with ssh_key"
                    .to_owned(),
            );
        }
        if says("terminal prompts disabled") {
            return Some("the repository is private or does not exist; name a credential with token".to_owned());
        }
        // OpenSSL's word, and those of GnuTLS in Debian 12 and 13.
        if ["SSL certificate problem", "certificate verif", "server verification failed"].into_iter().any(says) {
            return Some(
                "if its authority is your own, put that into /usr/local/share/ca-certificates/NAME.crt and run \
                 update-ca-certificates"
                    .to_owned(),
            );
        }
        says("Authentication failed")
            .then(|| "the forge does not take the token; put a valid one into the credential".to_owned())
    }
}

/// What lays a file down for the mirrors' user, in a folder of its own, and says where it is.
type Lay<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<PathBuf, Error>;

fn ssh_command(config: &Config, repository: &Repository, lay: Lay) -> Result<String, Error> {
    let known_hosts = word(known_hosts(config)?)?;
    let mut ssh = format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts} \
         -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=2 -o PermitLocalCommand=no"
    );
    if let Some(name) = &repository.ssh_key {
        // ssh wants a key file to end with a newline, and credentials are often written without.
        let key = [config.credentials().require(name)?.bytes().trim_ascii_end(), b"\n"].concat();
        ssh += &format!(" -o IdentitiesOnly=yes -i {}", word(&lay("key", &key)?)?);
    }
    Ok(ssh)
}

fn credential_helper(config: &Config, repository: &Repository, lay: Lay) -> Result<Option<String>, Error> {
    let Some(name) = &repository.token else { return Ok(None) };
    let token = config.credentials().require(name)?;
    let url = repository.remote.url();
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split('/').next().unwrap_or(rest);
    // The format of git-credential-store(1), which hands it to this host only.
    let line = format!("{scheme}://x-access-token:{}@{authority}\n", text::percent_encoded(token.bytes().trim_ascii()));
    Ok(Some(format!("store --file={}", word(&lay("token", line.as_bytes())?)?)))
}

/// A folder that only one user can read, for a time; dropping it removes it.
#[derive(Debug)]
pub(super) struct Private {
    folder: Folder,
    user: Account,
}

impl Private {
    /// A new, empty folder `name` of the user's in `parent`; one that a killed run left is removed first.
    pub fn make((parent, name): (&Folder, &str), user: &Account) -> Result<Self, Error> {
        remove(&parent.path().join(name))?;
        let private = Self { folder: parent.sub_for_now(name, 0o700)?, user: user.clone() };
        give(private.folder.fd(), private.path(), user)?;
        Ok(private)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the user's; returns where it is.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
        let path = self.path().join(name);
        let failed = |source: std::io::Error| state::Error::io("write", &path, source);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            openat(self.folder.fd(), name, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed(error.into()))?;
        give(&fd, &path, &self.user)?;
        let mut file = File::from(fd);
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        Ok(path)
    }
}

/// Removes the keys and tokens that a killed run left, of those repositories that `is_idle` knows nobody at work on; it is
/// asked by the repository's file name. Those of an earlier version lie among the mirrors.
pub(super) fn remove_left(gitops: &Folder, is_idle: impl Fn(&str) -> Result<bool, Error>) -> Result<(), Error> {
    let now = jiff::Timestamp::now().as_second();
    for (folder, prefix) in [(FOLDER, ""), (SIGNERS, ""), ("mirror", ".access-"), ("mirror", ".keys-")] {
        let entries = match gitops
            .sub(folder)
            .and_then(|folder| if prefix.is_empty() { folder.entries(usize::MAX) } else { folder.unfinished() })
        {
            Err(error) if error.is_missing() => continue,
            other => other?,
        };
        for entry in entries {
            let Some(name) = entry.name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            // `hub doctor` has no lock, and is done within minutes.
            let is_left = if name.starts_with(DOCTORS) { now - entry.modified > 3600 } else { is_idle(name)? };
            if is_left {
                remove(&gitops.path().join(folder).join(&entry.name))?;
            }
        }
    }
    Ok(())
}

impl Drop for Private {
    fn drop(&mut self) {
        let error = match remove(self.path()) {
            Ok(true) => return,
            Ok(false) => "somebody has filled its folder; the next run goes on".to_owned(),
            Err(error) => error.to_string(),
        };
        crate::log::error!("credential_not_removed", error = error);
    }
}

/// Removes a folder of the mirrors' user, who may have made anything of it: its name is free at once, and no link in it is
/// followed. False where so much is in it that the next call has to go on.
pub(super) fn remove(path: &Path) -> Result<bool, Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(true) };
    let (parent, mut budget) = (Folder::open(parent)?, REMOVED);
    let is_whole = parent.clear_away(name, &mut budget)?;
    Ok(parent.remove_left_trees(&mut budget)? && is_whole)
}

pub(super) fn give(fd: impl std::os::fd::AsFd, path: &Path, user: &Account) -> Result<(), Error> {
    fchown(fd, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
        .map_err(|error| state::Error::io("hand over", path, error).into())
}

/// A path as one word of the commands that git itself splits, in which ssh expands `%`.
fn word(path: &Path) -> Result<&str, Error> {
    let plain = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b));
    path.to_str().filter(plain).ok_or_else(|| {
        Error::Refused(format!(
            "{} has characters that git would not pass to ssh unchanged; choose a folder of letters, digits, / . _ - + @",
            path.display()
        ))
    })
}
