use std::ffi::OsStr;
use std::path::Path;
use std::sync::Once;

use super::Error;
use super::access::{self, Private};
use super::git::{LOCAL, git, object_format};
use super::objects::SHA1;
use crate::command::{Account, Command};
use crate::config::{Config, Repository};
use crate::records::short;
use crate::state::{self, Folder, repository_file_name, require_roots};

/// Who checks signatures: nobody else has a hand in it. The mirrors' user talks to forges and could make its own git say
/// anything.
pub(super) const USER: &str = "hub-verify";
/// Longer lists of signers are a mistake.
const LONGEST_LIST: u64 = 16 << 20;
/// Commits alone, which are a few hundred bytes each.
const LARGEST_PACK: u64 = 1 << 30;

pub(super) fn are_asked_for(repository: &Repository) -> bool {
    repository.allowed_signers.is_some() || repository.gpg_keyring.is_some()
}

/// Checks that each of the commits is signed by a listed key, with git in a repository of its own that `pack` brings
/// them to: whatever the mirror makes of them, there they have the names that their content gives them.
pub(super) fn verify(
    config: &Config,
    repository: &Repository,
    mirrors: &Account,
    pack: Command,
    commits: &[String],
) -> Result<(), Error> {
    let user = user_or_warn(mirrors);
    let gitops = Folder::open(&config.state_dir)?.sub("gitops")?;
    let parent = access::folder_of(&gitops, access::SIGNERS, &user)?;
    let desk = Private::make((&parent, &repository_file_name(&repository.name)), &user)?;
    let signers = match &repository.allowed_signers {
        Some(path) => desk.write("allowed_signers", &list(path, "allowed_signers").map_err(refused)?)?,
        None => Path::new("/dev/null").to_owned(),
    };
    let keys = desk.path().join("gnupg");
    make_keys(repository, &desk, &user, &keys)?;
    let format = format!("--object-format={}", object_format(&commits[0]));
    let init =
        git(&user, desk.path(), LOCAL).args(["init", "--quiet", "--bare", "--template=", &format, "--", "commits"]);
    init.succeed()?;
    let git = || git(&user, &desk.path().join("commits"), LOCAL);
    let names: Vec<u8> = commits.iter().flat_map(|commit| format!("{commit}\n").into_bytes()).collect();
    let receive = git().args(["index-pack", "--stdin", &format!("--max-input-size={LARGEST_PACK}")]);
    pack.prepare(Some(receive.name("git index-pack (commits)")))?.finish(&names)?;
    let output = git()
        .args(["-c", &format!("gpg.ssh.allowedSignersFile={}", signers.display())])
        // Without these a signature of a kind that nobody listed would be checked by whatever is installed.
        .args(["-c", "gpg.program=gpg", "-c", "gpg.ssh.program=ssh-keygen", "-c", "gpg.x509.program=false"])
        .args(["-c", "gpg.minTrustLevel=undefined"])
        .env("GNUPGHOME", &keys)
        .args(["log", "--no-walk=unsorted", "--stdin", "--format=%H %G?", "--no-show-signature"])
        .input(names)
        .output_limit(256 << 20)
        .name("git log (signatures)")
        .succeed()?;
    let text = output.text();
    let results: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    if !results.iter().map(|(commit, _)| *commit).eq(commits.iter().map(String::as_str)) {
        return Err(Error::unexpected("git log", text.as_bytes()));
    }
    let Some((commit, result)) = results.into_iter().find(|(_, result)| *result != "G") else { return Ok(()) };
    let said = crate::log::printable(&output.stderr);
    let said = if said.is_empty() { said } else { format!(" (git: {said})") };
    Err(Error::Refused(format!(
        "commit {} {}{said}; nothing of the push was applied: sign it with a listed key, or list the key",
        short(commit),
        meaning(result)
    )))
}

/// Whether a commit that is well signed has the header of that signature and no other. `found` are its headers.
///
/// # Errors
/// `Refused`, with what to do.
pub(super) fn is_only(commit: &str, found: &[String]) -> Result<(), Error> {
    let expected = if commit.len() == SHA1 { "gpgsig" } else { "gpgsig-sha256" };
    if found == [expected] {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "commit {} has the signature headers {} and may have {expected} alone: git checks one of them, and anybody \
         can add the others; nothing of the push was applied: sign it anew with git commit --amend -S",
        short(commit),
        found.join(", ")
    )))
}

/// Who checks signatures for root: a user of nothing else, or the mirrors' user where that is missing.
fn user_or_warn(mirrors: &Account) -> Account {
    static WARNED: Once = Once::new();
    if !rustix::process::geteuid().is_root() {
        return mirrors.clone();
    }
    Account::by_name(USER).unwrap_or_else(|| {
        WARNED.call_once(|| {
            let (effect, remedy) =
                (format!("{} checks signatures, which fetches too", mirrors.name), "create the system user hub-verify");
            crate::log::warn!("hub_verify_missing", effect = effect, remedy = remedy);
        });
        mirrors.clone()
    })
}

/// Whether the lists of signers that a repository names are trusted and readable. Returns the keys' names in hub.toml and how
/// many lines or bytes each list has; nothing where none is asked for.
///
/// # Errors
/// What is wrong with one, and what to do.
pub fn look(repository: &Repository) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for (key, path) in [("allowed_signers", &repository.allowed_signers), ("gpg_keyring", &repository.gpg_keyring)] {
        let Some(path) = path else { continue };
        let content = list(path, key)?;
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
        denied if denied.is_denied() => Error::State(denied),
        error => Error::Refused(format!("{key}: {shown} cannot be read: {error}")),
    })
}

/// A list that cannot be read lets no commit pass.
fn refused(error: Error) -> Error {
    Error::Refused(error.to_string())
}

/// The content of a list that root alone can change.
fn list(path: &Path, key: &str) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let mut content = Vec::new();
    let read =
        std::fs::File::open(trusted(path, key)?).and_then(|file| file.take(LONGEST_LIST + 1).read_to_end(&mut content));
    read.map_err(|source| match state::Error::io("read", path, source) {
        denied if denied.is_denied() => Error::State(denied),
        error => Error::Refused(format!("{key}: {error}")),
    })?;
    if content.len() as u64 > LONGEST_LIST {
        return Err(Error::Refused(format!("{key}: {} is longer than {LONGEST_LIST} bytes", path.display())));
    }
    Ok(content)
}

/// Makes a GnuPG home that holds the listed keys and no others.
fn make_keys(repository: &Repository, desk: &Private, user: &Account, home: &Path) -> Result<(), Error> {
    let run = |program: &str| Command::new(program, LOCAL).user(user).folder(desk.path());
    run("mkdir").args(["-m", "700", "--"]).args([home]).succeed()?;
    let Some(keyring) = &repository.gpg_keyring else { return Ok(()) };
    let listed = desk.write("keys.gpg", &list(keyring, "gpg_keyring").map_err(refused)?)?;
    let options = ["--batch", "--quiet", "--no-autostart", "--trust-model", "always", "--import", "--"].map(OsStr::new);
    run("gpg").env("GNUPGHOME", home).name("gpg --import").args(options).args([listed]).succeed()?;
    // git calls gpg itself; the listed keys are trusted by being listed.
    desk.write("gpg.conf", b"trust-model always\nno-autostart\n")?;
    run("mv").args(["--", "gpg.conf", "gnupg/"]).succeed()?;
    Ok(())
}
