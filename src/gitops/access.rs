use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};

use super::Error;
use crate::command::{Account, Command};
use crate::config::{Config, Repository};
use crate::state::{self, Folder};

/// How the names of the folders with keys and tokens begin.
const PREFIX: &str = ".access-";

/// What a fetch from a private remote needs, for the time of the fetch: key or token in a folder that only the mirror's
/// user can read, never in an argument. Dropping it removes the folder.
#[derive(Debug, Default)]
pub(super) struct Access {
    folder: Option<PathBuf>,
    ssh_command: Option<String>,
    credential_helper: Option<String>,
    known_hosts: PathBuf,
}

impl Access {
    /// Prepares what the repository's remote needs.
    ///
    /// # Errors
    /// When a credential that the configuration names is missing, or cannot be handed to the mirror's user.
    pub fn prepare(config: &Config, repository: &Repository, mirrors: &Folder, user: &Account) -> Result<Self, Error> {
        let mut access = Self::default();
        match repository.remote.protocol() {
            "ssh" => access.prepare_ssh(config, repository, mirrors, user)?,
            "https" | "http" => access.prepare_token(config, repository, mirrors, user)?,
            _ => {}
        }
        Ok(access)
    }

    /// Adds it to a git command; call before the subcommand is added.
    pub fn apply(&self, mut command: Command) -> Command {
        for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"] {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        if let Some(ssh) = &self.ssh_command {
            command = command.env("GIT_SSH_COMMAND", ssh).env("GIT_SSH_VARIANT", "ssh");
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
        if says("certificate verif") || says("SSL certificate problem") {
            return Some(
                "if its authority is your own, put that into /usr/local/share/ca-certificates/NAME.crt and run \
                 update-ca-certificates"
                    .to_owned(),
            );
        }
        says("Authentication failed")
            .then(|| "the forge does not take the token; put a valid one into the credential".to_owned())
    }

    fn prepare_ssh(
        &mut self,
        config: &Config,
        repository: &Repository,
        mirrors: &Folder,
        user: &Account,
    ) -> Result<(), Error> {
        let known_hosts = word(&config.gitops.known_hosts)?;
        self.known_hosts.clone_from(&config.gitops.known_hosts);
        let mut ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts} \
             -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=2 -o PermitLocalCommand=no"
        );
        if let Some(name) = &repository.ssh_key {
            let key = config.credentials().require(name)?;
            let folder = self.private_folder(repository, mirrors, user)?;
            write_private(&folder, "key", key.bytes(), user)?;
            ssh += &format!(" -o IdentitiesOnly=yes -i {}", word(&folder.path().join("key"))?);
        }
        self.ssh_command = Some(ssh);
        Ok(())
    }

    fn prepare_token(
        &mut self,
        config: &Config,
        repository: &Repository,
        mirrors: &Folder,
        user: &Account,
    ) -> Result<(), Error> {
        let Some(name) = &repository.token else { return Ok(()) };
        let token = config.credentials().require(name)?;
        let folder = self.private_folder(repository, mirrors, user)?;
        let url = repository.remote.url();
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let authority = rest.split('/').next().unwrap_or(rest);
        // The format of git-credential-store(1), which hands it to this host only.
        let line = format!("{scheme}://x-access-token:{}@{authority}\n", percent_encoded(token.bytes().trim_ascii()));
        write_private(&folder, "token", line.as_bytes(), user)?;
        self.credential_helper = Some(format!("store --file={}", word(&folder.path().join("token"))?));
        Ok(())
    }

    /// A new, empty folder that belongs to the mirror's user; one that a killed run left is removed first.
    fn private_folder(&mut self, repository: &Repository, mirrors: &Folder, user: &Account) -> Result<Folder, Error> {
        let name = format!("{PREFIX}{}", state::repository_file_name(&repository.name));
        let path = mirrors.path().join(&name);
        remove(&path)?;
        let folder = mirrors.sub_or_make(&name, 0o700)?;
        self.folder = Some(path);
        give(folder.fd(), folder.path(), user)?;
        Ok(folder)
    }
}

/// Removes the keys and tokens that a killed run left in the folder of the mirrors, of those repositories that `is_idle`
/// knows nobody at work on; it is asked by the repository's file name.
pub(super) fn remove_left(gitops: &Folder, is_idle: impl Fn(&str) -> Result<bool, Error>) -> Result<(), Error> {
    let mirrors = gitops.path().join("mirror");
    let failed = |source: std::io::Error| state::Error::io("list", &mirrors, source);
    let entries = match std::fs::read_dir(&mirrors) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some(repository) = name.to_str().and_then(|name| name.strip_prefix(PREFIX))
            && is_idle(repository)?
        {
            remove(&mirrors.join(&name))?;
        }
    }
    Ok(())
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.folder.take().map(|folder| remove(&folder)) {
            crate::log::error!("credential_not_removed", error = error.to_string());
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(state::Error::io("remove", path, source).into())
        }
        _ => Ok(()),
    }
}

fn write_private(folder: &Folder, name: &str, content: &[u8], user: &Account) -> Result<(), Error> {
    let path = folder.path().join(name);
    let failed = |source: std::io::Error| state::Error::io("write", &path, source);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(folder.fd(), name, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed(error.into()))?;
    give(&fd, &path, user)?;
    let mut file = File::from(fd);
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    // ssh wants a key file to end with a newline, and credentials are often written without.
    if !content.ends_with(b"\n") {
        file.write_all(b"\n").map_err(failed)?;
    }
    Ok(())
}

fn give(fd: impl std::os::fd::AsFd, path: &Path, user: &Account) -> Result<(), Error> {
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

fn percent_encoded(bytes: &[u8]) -> String {
    let encoded = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(encoded).collect()
}
