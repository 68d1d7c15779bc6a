//! What no sample tells: whether the host waits for a restart, and how long certificates hold.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::reading::Reading;
use crate::command::{self, Command};
use crate::config::{Config, Limits, Repository};
use crate::host::{MountLine, is_read_only, mount_lines};
use crate::log;
use crate::records::{seconds_between, span};
use crate::text::{exact, listed, unescaped};

/// How often systemd is asked for its version, and a server for its certificate.
const SYSTEMD_EVERY: SignedDuration = SignedDuration::from_hours(1);
#[cfg(feature = "tls")]
const CERTIFICATE_EVERY: SignedDuration = SignedDuration::from_hours(6);
/// How long each has to answer.
const LIMIT: Duration = Duration::from_secs(5);
const DAY: f64 = 86_400.0;

/// What was found when it was looked at last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Around {
    /// Why the host is to be started anew; empty where it is not.
    reboot: Vec<String>,
    systemd: Option<(Timestamp, Option<String>)>,
    /// Whether the root file system can be written; none where that is not known.
    is_writable: Option<bool>,
    /// It could be once: one that never could is meant to be so.
    was_writable: bool,
    /// Where file systems are mounted; none where that is not known.
    #[serde(skip)]
    mounted: Option<BTreeSet<String>>,
    certificates: BTreeMap<String, Certificate>,
}

/// The certificate of a `health.url`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Certificate {
    /// When it was asked for.
    at: Timestamp,
    server: String,
    /// Until when it is valid; none where that is not known.
    until: Option<Timestamp>,
}

impl Around {
    /// Looks around; one certificate at most.
    pub fn look(&mut self, config: &Config, root: &Path, now: Timestamp) {
        if config.limits.reboot_required {
            self.reboot = asked_for(root).into_iter().chain(newer_kernel(root)).collect();
            let is_due = |at: Timestamp| now.duration_since(at).abs() >= SYSTEMD_EVERY;
            if crate::systemd::is_running() && self.systemd.as_ref().is_none_or(|(at, _)| is_due(*at)) {
                self.take_systemd(newer_systemd(), now);
            }
            self.reboot.extend(self.systemd.iter().filter_map(|(_, newer)| newer.clone()));
        }
        // Not by a sample: nobody could leave one.
        let mounts = std::fs::read(root.join("proc/self/mountinfo")).ok();
        self.is_writable = mounts.as_deref().and_then(is_writable);
        self.mounted = mounts.as_deref().map(mounted);
        self.was_writable |= self.is_writable == Some(true);
        self.forget(config);
        if config.limits.certificate_days.is_some() {
            self.certificate(config, now);
        }
    }

    /// Forgets the certificates of servers that no `health.url` names any more.
    fn forget(&mut self, config: &Config) {
        let names = |repository: &Repository, known: &str| {
            asked(repository).is_some_and(|(host, port)| format!("{host}:{port}") == known)
        };
        self.certificates
            .retain(|name, known| config.repositories.iter().any(|one| one.name == *name && names(one, &known.server)));
    }

    /// Whether it sees this at each look.
    pub(super) fn sees(&self, key: &str) -> bool {
        key.starts_with("gitops/")
    }

    /// Whether this may be there although no sample has it: a file system that does not answer is mounted.
    pub(super) fn may_have(&self, key: &str) -> bool {
        let mount = key.strip_prefix("disk/").and_then(|rest| rest.rsplit_once('/')).map(|(mount, _)| mount);
        let is_mounted = |mount: &str| self.mounted.as_ref().is_none_or(|mounted| mounted.contains(mount));
        mount.is_some_and(|mount| mount.starts_with('/') && is_mounted(mount))
    }

    /// Where systemd did not answer, what it said before holds.
    fn take_systemd(&mut self, newer: Result<Option<String>, command::Error>, now: Timestamp) {
        let newer = newer.unwrap_or_else(|error| {
            log::warn!("systemd_version_not_known", error = error.to_string());
            self.systemd.take().and_then(|(_, newer)| newer)
        });
        self.systemd = Some((now, newer));
    }

    #[cfg(feature = "tls")]
    fn certificate(&mut self, config: &Config, now: Timestamp) {
        let due = config.repositories.iter().find_map(|repository| {
            let (host, port) = asked(repository)?;
            let server = format!("{host}:{port}");
            let is_known = self
                .certificates
                .get(&repository.name)
                .is_some_and(|known| known.server == server && now.duration_since(known.at).abs() < CERTIFICATE_EVERY);
            (!is_known).then_some((repository.name.clone(), host, port, server))
        });
        let Some((name, host, port, server)) = due else { return };
        let until = match crate::tls::expiry(&host, port, LIMIT) {
            Ok(until) => Some(until),
            // That it does not answer is what deployments fail by; the one that it had may be there still.
            Err(error) => {
                log::info!("certificate_not_seen", repo = name, error = error);
                self.certificates.remove(&name).filter(|known| known.server == server).and_then(|known| known.until)
            }
        };
        self.certificates.insert(name, Certificate { at: now, server, until });
    }

    #[cfg(not(feature = "tls"))]
    fn certificate(&mut self, _config: &Config, _now: Timestamp) {}

    pub(super) fn readings(&self, limits: &Limits, now: Timestamp) -> Vec<Reading> {
        let mut readings = vec![Reading {
            key: "host/reboot-required".to_owned(),
            about: "host".to_owned(),
            value: f64::from(u8::from(!self.reboot.is_empty())),
            bad: Some(1.0).filter(|_| limits.reboot_required),
            reason: format!("this host waits for a restart: {}", self.reboot.join("; ")),
            mend: "systemctl reboot   # when it suits".to_owned(),
            ..Reading::default()
        }];
        if let Some(is_writable) = self.is_writable.filter(|_| self.was_writable) {
            readings.push(Reading {
                key: "disk///read-only".to_owned(),
                about: "file system /".to_owned(),
                value: f64::from(u8::from(!is_writable)),
                bad: Some(1.0).filter(|_| limits.read_only_root),
                failed: Some(1.0).filter(|_| limits.read_only_root),
                reason: "the root file system cannot be written any more: the kernel found it damaged, or somebody mounted it \
                         so"
                .to_owned(),
                mend: "journalctl -k -g 'remount|error' -n 20".to_owned(),
                ..Reading::default()
            });
        }
        for (name, Certificate { server, until, .. }) in &self.certificates {
            let Some(until) = until else { continue };
            let left = (until.as_second() - now.as_second()) as f64 / DAY;
            readings.push(Reading {
                key: format!("gitops/{name}/certificate"),
                about: name.clone(),
                value: -left,
                bad: limits.certificate_days.map(|days| -days),
                failed: limits.certificate_days.map(|_| 0.0),
                reason: match seconds_between(now, *until) {
                    0 => format!("the certificate of {server} (health.url) has expired: no deployment is healthy"),
                    left => format!("the certificate of {server} (health.url) expires in {}", span(left)),
                },
                mend: format!("openssl s_client -connect {server} </dev/null | openssl x509 -noout -dates -issuer"),
                ..Reading::default()
            });
        }
        readings
    }
}

/// Whose certificate it is that a repository's `health.url` needs.
fn asked(repository: &Repository) -> Option<(String, u16)> {
    server(&repository.health.url.as_ref()?.0)
}

/// Host and port of an https URL.
fn server(url: &str) -> Option<(String, u16)> {
    let url: ureq::http::Uri = url.parse().ok()?;
    (url.scheme_str() == Some("https")).then_some(())?;
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(443)))
}

/// By the options of the file system itself (proc_pid_mountinfo(5)): those of the mount are what a sandbox makes of it.
fn is_writable(mountinfo: &[u8]) -> Option<bool> {
    let root = mount_lines(mountinfo).rfind(|line| line.point == b"/")?;
    Some(!is_read_only(root.super_options?))
}

/// The mount points as they stand in keys, but for what a sandbox puts in place of others.
fn mounted(mountinfo: &[u8]) -> BTreeSet<String> {
    let private = b"/systemd-private-";
    let is_real = |line: &MountLine<'_>| {
        line.kind != b"tmpfs" && !line.part.windows(private.len()).any(|window| window == private)
    };
    let real = mount_lines(mountinfo).filter(is_real);
    real.map(|line| exact(unescaped(line.point).as_os_str().as_bytes())).collect()
}

/// Debian's flag (debian-policy; Ubuntu's update-notifier): packages ask for a restart.
fn asked_for(root: &Path) -> Option<String> {
    if !root.join("run/reboot-required").exists() {
        return None;
    }
    let names = std::fs::read_to_string(root.join("run/reboot-required.pkgs")).unwrap_or_default();
    let names: BTreeSet<&str> = names.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    let who = if names.is_empty() { "packages".to_owned() } else { listed(names, ", ") };
    Some(format!("{who} ask for it"))
}

/// A kernel of the running one's kind that is newer than it, in /boot. A container has its host's.
fn newer_kernel(root: &Path) -> Option<String> {
    if root.join("run/systemd/container").exists() {
        return None;
    }
    let running = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease")).ok()?;
    let running = running.trim();
    let entries = std::fs::read_dir(root.join("boot")).ok()?;
    let names = entries.flatten().take(200).filter_map(|entry| entry.file_name().into_string().ok());
    let found = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    let newest = found.filter(|version| is_newer(version, running)).max_by_key(|version| numbers(version).0)?;
    Some(format!("{newest} is installed, and {running} runs"))
}

fn is_newer(version: &str, than: &str) -> bool {
    let ((one, kind), (other, other_kind)) = (numbers(version), numbers(than));
    kind == other_kind && one > other
}

/// The numbers of a kernel's version, and its kind: `amd64` of 6.1.0-28-amd64, `x86_64` of 6.11.7-300.fc41.x86_64.
fn numbers(version: &str) -> (Vec<u64>, &str) {
    let (rest, kind) = version.rsplit_once(['-', '.']).unwrap_or((version, ""));
    (rest.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect(), kind)
}

/// Another systemd on the disk than runs.
fn newer_systemd() -> Result<Option<String>, command::Error> {
    let said = |arguments: &[&str]| Ok(Command::new("systemctl", LIMIT).args(arguments).succeed()?.text());
    let runs = said(&["show", "--property=Version", "--value"])?;
    let disk = said(&["--version"])?;
    let (runs, disk) = (runs.trim(), disk.lines().next().and_then(|line| line.split_once('(')?.1.split(')').next()));
    let newer = disk.map(str::trim).filter(|disk| !runs.is_empty() && runs != *disk);
    Ok(newer.map(|disk| format!("systemd {disk} is installed, and {runs} runs")))
}

#[cfg(test)]
#[path = "around_tests.rs"]
mod tests;
