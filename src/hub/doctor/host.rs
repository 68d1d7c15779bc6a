use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::findings::{Finding, Findings, Level};
use super::patient::Patient;
use crate::command::{self, Command};

/// How long a program gets to say its version.
const ANSWER: Duration = Duration::from_secs(5);

/// Space below which the next deployment or sample may not fit.
const LITTLE: u64 = 64 << 20;
/// Space below which somebody should make room.
const SCARCE: u64 = 512 << 20;

/// `git -c` by environment variables (`GIT_CONFIG_COUNT`) came with this one, signatures by ssh with the other.
const OLDEST_GIT: (u32, u32) = (2, 31);
const OLDEST_GIT_FOR_SIGNERS: (u32, u32) = (2, 34);
/// The oldest that the units are written for.
const OLDEST_SYSTEMD: (u32, u32) = (252, 0);
/// `ssh-keygen -Y find-principals`, with which git checks signatures.
const OLDEST_SSH_FOR_SIGNERS: (u32, u32) = (8, 2);

/// Disk, clock and programs.
pub(super) fn host(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = disk(patient);
    findings.extend(clock(patient));
    findings.extend(programs(patient));
    findings
}

fn disk(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("disk");
    // What is not there yet will be made in the nearest folder that is.
    let Some(path) = patient.state_dir.iter().flat_map(|path| path.ancestors()).find(|path| path.exists()) else {
        return findings.all;
    };
    let shown = path.display();
    let space = match rustix::fs::statvfs(path) {
        Ok(space) => space,
        Err(Errno::ACCESS | Errno::PERM) => {
            findings.skipped(format!("{shown} cannot be looked at by this user"));
            return findings.all;
        }
        Err(error) => {
            findings.problem(format!("{shown}: {error}"), format!("ls -ld {shown}"));
            return findings.all;
        }
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let mebibytes = free >> 20;
    let find = format!("du -xh {shown} | sort -h | tail; journalctl --vacuum-size=200M");
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        findings.problem(format!("{shown} is mounted read-only"), format!("dmesg | tail; mount -o remount,rw {shown}"));
    } else if free < LITTLE {
        findings.problem(format!("{mebibytes} MiB are free in {shown}"), find);
    } else if free < SCARCE {
        findings.warning(format!("only {mebibytes} MiB are free in {shown}"), find);
    } else if space.f_files > 0 && space.f_favail <= space.f_files / 100 {
        findings.warning(format!("{} of {} inodes are free in {shown}", space.f_favail, space.f_files), find);
    } else {
        findings.ok(format!("{} are free in {shown}", size(free)));
    }
    findings.all
}

fn size(bytes: u64) -> String {
    let gibibytes = bytes >> 30;
    if gibibytes > 0 { format!("{gibibytes} GiB") } else { format!("{} MiB", bytes >> 20) }
}

/// A clock that is off makes TLS, signatures and the order of samples wrong.
fn clock(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("clock");
    if patient.units.is_none() {
        findings.add(Level::Skipped, "without systemd nobody can be asked whether the clock is synchronised", None);
        return findings.all;
    }
    let show = Command::new("timedatectl", ANSWER).args(["show", "--property=NTPSynchronized", "--value"]);
    match show.succeed().map(|output| output.text()) {
        Ok(word) if word == "yes" => findings.ok("the clock is synchronised"),
        Ok(word) if word == "no" => {
            findings.warning("the clock is not synchronised", "timedatectl set-ntp true   # or install chrony");
        }
        Ok(_) | Err(_) => {
            let what = "timedatectl does not show whether the clock is synchronised";
            findings.add(Level::Skipped, what, Some("timedatectl".to_owned()));
        }
    }
    findings.all
}

fn programs(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("programs");
    let repositories = patient.config.as_ref().map_or(&[][..], |config| &config.repositories);
    let signed = repositories.iter().any(|repository| repository.allowed_signers.is_some());
    let ssh = signed || repositories.iter().any(|repository| repository.remote.protocol() == "ssh");
    let git = if signed { OLDEST_GIT_FOR_SIGNERS } else { OLDEST_GIT };
    program(&mut findings, "git", &["--version"], git, "apt-get install git");
    if ssh {
        let oldest = if signed { OLDEST_SSH_FOR_SIGNERS } else { (0, 0) };
        program(&mut findings, "ssh", &["-V"], oldest, "apt-get install openssh-client");
    }
    if repositories.iter().any(|repository| repository.gpg_keyring.is_some()) {
        program(&mut findings, "gpg", &["--version"], (0, 0), "apt-get install gnupg");
    }
    program(&mut findings, "setpriv", &["--version"], (0, 0), "apt-get install util-linux");
    if patient.units.is_some() {
        program(&mut findings, "systemctl", &["--version"], OLDEST_SYSTEMD, "upgrade the distribution");
    }
    findings.all
}

fn program(findings: &mut Findings, name: &str, arguments: &[&str], oldest: (u32, u32), mend: &str) {
    let output = match Command::new(name, ANSWER).folder(Path::new("/")).args(arguments).run() {
        Ok(output) => output,
        Err(command::Error::NotFound(_)) => return findings.problem(format!("{name} is not installed"), mend),
        Err(error) => return findings.problem(error.to_string(), mend),
    };
    // ssh tells its version on standard error.
    let said = if output.stdout.is_empty() { crate::log::printable(&output.stderr) } else { output.text() };
    let Some((version, found)) = version(&said) else {
        let mend = format!("{name} {}", arguments.join(" "));
        return findings.warning(format!("the version of {name} is not understood: {said:.60}"), mend);
    };
    if found < oldest {
        findings.problem(format!("{name} is {version}; {}.{} or newer is needed", oldest.0, oldest.1), mend);
    } else {
        findings.ok(format!("{name} is {version}"));
    }
}

/// The first number with its parts in what a program says, such as `git version 2.39.5` or `OpenSSH_9.2p1`.
fn version(said: &str) -> Option<(String, (u32, u32))> {
    let start = said.find(|c: char| c.is_ascii_digit())?;
    let text: String = said[start..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let text = text.trim_end_matches('.').to_owned();
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let found = (parts.next()??, parts.next().flatten().unwrap_or(0));
    Some((text, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, text, number) in [
            ("git version 2.39.5 (Debian)", "2.39.5", (2, 39)),
            ("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15", "9.2", (9, 2)),
            ("systemd 252 (252.31-1~deb12u1)", "252", (252, 0)),
            ("setpriv from util-linux 2.38.1", "2.38.1", (2, 38)),
        ] {
            assert_eq!(version(said), Some((text.to_owned(), number)));
        }
        assert_eq!(version("no number"), None);
    }
}
