use std::path::Path;
use std::time::Duration;

use super::Error;
use super::git::{LOCAL, is_commit};
use super::objects::Objects;
use crate::command::{Account, Command};
use crate::config::Repository;
use crate::records::short;
use crate::state::{self, Folder, repository_file_name, require_roots};

/// How long names of objects are where git uses SHA-1; with SHA-256 they are longer, and signatures have another header.
const SHA1: usize = 40;

/// Checks that commits are signed by a listed key.
///
/// With `from`, every first-parent commit after it up to `to`; without, `to` alone. `git` makes a command in the mirror,
/// whose user runs it. Nothing is checked where the repository lists no signers.
pub(super) fn verify(
    repository: &Repository,
    mirrors: &Folder,
    user: &Account,
    git: impl Fn() -> Command,
    from: Option<&str>,
    to: &str,
) -> Result<(), Error> {
    if repository.allowed_signers.is_none() && repository.gpg_keyring.is_none() {
        return Ok(());
    }
    let signers = match &repository.allowed_signers {
        Some(path) => trusted(path, "allowed_signers")?,
        None => Path::new("/dev/null"),
    };
    let keys = KeyFolder::make(repository, mirrors, user)?;
    let mut command = git()
        .args(["-c", &format!("gpg.ssh.allowedSignersFile={}", signers.display())])
        // Without these a signature of a kind that nobody listed would be checked by whatever is installed.
        .args(["-c", "gpg.program=gpg", "-c", "gpg.ssh.program=ssh-keygen", "-c", "gpg.x509.program=false"])
        .args(["-c", "gpg.minTrustLevel=undefined"])
        .env("GNUPGHOME", keys.path())
        .args(["log", "--first-parent", "--format=%H %G?", "--no-show-signature"]);
    command = match from {
        Some(from) => command.args([format!("{from}..{to}").as_str()]),
        None => command.args(["-1", to]),
    };
    let output = command.args(["--"]).output_limit(16 << 20).name("git log (signatures)").succeed()?;
    let mut objects = Objects::open(git())?;
    for line in output.text().lines() {
        let (commit, result) = line.split_once(' ').unwrap_or((line, ""));
        if !is_commit(commit) {
            return Err(Error::unexpected("git log", line.as_bytes()));
        }
        if result != "G" {
            let said = crate::log::printable(&output.stderr);
            let said = if said.is_empty() { said } else { format!(" (git: {said})") };
            return Err(Error::Refused(format!(
                "commit {} {}{said}; nothing of the push was applied: sign it with a listed key, or list the key",
                short(commit),
                meaning(result)
            )));
        }
        let expected = if commit.len() == SHA1 { "gpgsig" } else { "gpgsig-sha256" };
        let found = objects.signatures(commit)?;
        if found != [expected] {
            return Err(Error::Refused(format!(
                "commit {} has the signature headers {} and may have {expected} alone: git checks one of them, and anybody \
                 can add the others; nothing of the push was applied: sign it anew with git commit --amend -S",
                short(commit),
                found.join(", ")
            )));
        }
    }
    Ok(())
}

/// Whether the lists of signers that a repository names can be used: trusted, and readable for the mirrors' user. Returns
/// the keys' names in hub.toml and how many lines or bytes each list has.
pub(super) fn look(repository: &Repository, user: &Account) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for (key, path) in [("allowed_signers", &repository.allowed_signers), ("gpg_keyring", &repository.gpg_keyring)] {
        let Some(path) = path else { continue };
        let content = Command::new("cat", Duration::from_secs(10))
            .user(user)
            .args(["--"])
            .args([trusted(path, key)?])
            .succeed()?
            .stdout;
        let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let signers = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).count();
        if signers == 0 {
            return Err(Error::Refused(format!("{key}: {} lists nobody, so no commit is accepted", path.display())));
        }
        found.push(if key == "gpg_keyring" {
            format!("{key} ({} bytes)", content.len())
        } else {
            format!("{key} ({signers} signers)")
        });
    }
    Ok(found)
}

/// The letters of `%G?` (git-log(1), PRETTY FORMATS).
fn meaning(result: &str) -> &'static str {
    match result {
        "B" => "has a bad signature",
        "U" => "is signed by a key that is not listed",
        "X" => "has a signature that has expired",
        "Y" => "is signed by a key that has expired",
        "R" => "is signed by a key that was revoked",
        "E" => "has a signature that cannot be checked, because its key is not listed",
        _ => "is not signed",
    }
}

/// Whoever can write the list of signers, or say where its path leads, decides what root runs.
fn trusted<'a>(path: &'a Path, key: &str) -> Result<&'a Path, Error> {
    let shown = path.display();
    let found = if rustix::process::geteuid().is_root() {
        require_roots(path)
    } else {
        std::fs::metadata(path).map(drop).map_err(|source| state::Error::io("inspect", path, source))
    };
    found.map(|()| path).map_err(|error| match error {
        state::Error::Untrusted { .. } => Error::Refused(format!(
            "{key}: {shown} or a folder above it can be written by others than root; run: chown root: {shown} && chmod go-w {shown}, and keep it in a folder of root's ({error})"
        )),
        error => Error::Refused(format!("{key}: {shown} cannot be read: {error}")),
    })
}

/// A GnuPG home that holds the listed keys and no others, for one check.
struct KeyFolder {
    folder: std::path::PathBuf,
    user: Account,
}

impl KeyFolder {
    fn make(repository: &Repository, mirrors: &Folder, user: &Account) -> Result<Self, Error> {
        let name = format!(".keys-{}", repository_file_name(&repository.name));
        let keys = Self { folder: mirrors.path().join(name), user: user.clone() };
        keys.remove()?;
        Command::new("mkdir", LOCAL).user(user).args(["-m", "700", "--"]).args([&keys.folder]).succeed()?;
        if let Some(keyring) = &repository.gpg_keyring {
            let gpg = |name: &str| {
                Command::new("gpg", LOCAL).user(user).env("GNUPGHOME", &keys.folder).name(name.to_owned()).args([
                    "--batch",
                    "--quiet",
                    "--no-autostart",
                    "--trust-model",
                    "always",
                ])
            };
            gpg("gpg --import").args(["--import", "--"]).args([trusted(keyring, "gpg_keyring")?]).succeed()?;
            // git calls gpg itself; the listed keys are trusted by being listed.
            let configure = Command::new("dd", LOCAL).user(user).folder(&keys.folder);
            configure
                .args(["of=gpg.conf", "status=none"])
                .input(b"trust-model always\nno-autostart\n".to_vec())
                .succeed()?;
        }
        Ok(keys)
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn remove(&self) -> Result<(), Error> {
        Command::new("rm", LOCAL).user(&self.user).args(["-rf", "--"]).args([&self.folder]).succeed()?;
        Ok(())
    }
}

impl Drop for KeyFolder {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            crate::log::warn!("key_folder_not_removed", error = error.to_string());
        }
    }
}
