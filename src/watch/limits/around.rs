//! What no sample tells: whether the host waits for a restart, and how long certificates hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Reading;
use crate::command::Command;
use crate::config::{Config, Limits};
use crate::log;
use crate::records::{seconds_between, span};
use crate::text::listed;

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
    certificates: BTreeMap<String, Certificate>,
}

/// The certificate of a `health.url`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Certificate {
    /// When it was asked for.
    at: Timestamp,
    /// Of which server.
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
                self.systemd = Some((now, newer_systemd()));
            }
            self.reboot.extend(self.systemd.iter().filter_map(|(_, newer)| newer.clone()));
        }
        // Not by a sample: nobody could leave one.
        self.is_writable = is_writable(root);
        self.was_writable |= self.is_writable == Some(true);
        self.certificates.retain(|name, _| config.repositories.iter().any(|repository| repository.name == *name));
        if config.limits.certificate_days.is_some() {
            self.certificate(config, now);
        }
    }

    #[cfg(feature = "tls")]
    fn certificate(&mut self, config: &Config, now: Timestamp) {
        let due = config.repositories.iter().find_map(|repository| {
            let (host, port) = server(&repository.health.url.as_ref()?.0)?;
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
            // That it does not answer is what deployments fail by; until when it holds is not known.
            Err(error) => {
                log::info!("certificate_not_seen", repo = name, error = error);
                None
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

/// Host and port of an https URL.
#[cfg(any(feature = "tls", test))]
fn server(url: &str) -> Option<(String, u16)> {
    let url: ureq::http::Uri = url.parse().ok()?;
    (url.scheme_str() == Some("https")).then_some(())?;
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(443)))
}

/// By the options of the file system itself (proc_pid_mountinfo(5)): those of the mount are what a sandbox makes of it.
fn is_writable(root: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let of_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let options = text.lines().rfind(of_root)?.split_once(" - ")?.1.split(' ').nth(2)?;
    Some(options.split(',').all(|option| option != "ro"))
}

/// Debian's flag (debian-policy; Ubuntu's update-notifier): packages ask for a restart.
fn asked_for(root: &Path) -> Option<String> {
    if !root.join("run/reboot-required").exists() {
        return None;
    }
    let names = std::fs::read_to_string(root.join("run/reboot-required.pkgs")).unwrap_or_default();
    let names: std::collections::BTreeSet<&str> =
        names.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
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
fn newer_systemd() -> Option<String> {
    let said = |arguments: &[&str]| {
        let output = Command::new("systemctl", LIMIT).args(arguments).succeed();
        output.map(|output| output.text()).inspect_err(|error| {
            log::warn!("systemd_version_not_known", error = error.to_string());
        })
    };
    let runs = said(&["show", "--property=Version", "--value"]).ok()?;
    let disk = said(&["--version"]).ok()?;
    let disk = disk.lines().next()?.split_once('(')?.1.split(')').next()?.trim().to_owned();
    (!runs.is_empty() && runs.trim() != disk).then(|| format!("systemd {disk} is installed, and {} runs", runs.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_kernel_of_the_same_kind_is_seen() {
        for (version, running, newer) in [
            ("6.1.0-29-amd64", "6.1.0-28-amd64", true),
            ("6.1.0-28-amd64", "6.1.0-28-amd64", false),
            ("6.1.0-9-amd64", "6.1.0-28-amd64", false),
            ("6.12.0-1-cloud-amd64", "6.1.0-28-amd64", true),
            ("6.8.0-50-generic", "6.8.0-49-lowlatency", false),
            ("6.12.1+rpt-rpi-2712", "6.6.51+rpt-rpi-v8", false),
            ("6.12.1+rpt-rpi-v8", "6.6.51+rpt-rpi-v8", true),
            ("6.11.8-300.fc41.x86_64", "6.11.7-300.fc41.x86_64", true),
            ("0-rescue-7a1b", "6.11.7-300.fc41.x86_64", false),
            ("linux", "6.11.7-arch1-1", false),
            ("", "", false),
        ] {
            assert_eq!(is_newer(version, running), newer, "{version} {running}");
        }
    }

    #[test]
    fn the_flag_and_the_kernel_are_read_below_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");
        write("boot/vmlinuz-6.1.0-28-amd64", "");
        write("boot/vmlinuz-6.1.0-28-amd64.old", "");
        assert_eq!((asked_for(dir.path()), newer_kernel(dir.path())), (None, None));
        write("run/reboot-required", "*** System restart required ***\n");
        assert_eq!(asked_for(dir.path()).as_deref(), Some("packages ask for it"));
        write("run/reboot-required.pkgs", "linux-image-6.1.0-30-amd64\nlibc6\nlibc6\n");
        write("boot/vmlinuz-6.1.0-30-amd64", "");
        write("boot/vmlinuz-6.1.0-29-amd64", "");
        assert_eq!(asked_for(dir.path()).as_deref(), Some("libc6, linux-image-6.1.0-30-amd64 ask for it"));
        assert_eq!(newer_kernel(dir.path()).as_deref(), Some("6.1.0-30-amd64 is installed, and 6.1.0-28-amd64 runs"));
        write("run/systemd/container", "lxc");
        assert_eq!(newer_kernel(dir.path()), None);
    }

    #[test]
    fn a_root_that_became_read_only_is_seen_and_one_that_always_was_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = |options: &str| {
            std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
            let text = format!(
                "21 1 0:18 / /proc rw - proc proc rw\n29 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 {options}\n"
            );
            std::fs::write(dir.path().join("proc/self/mountinfo"), text).unwrap();
        };
        let config = Config::of_text(Path::new("hub.toml"), "").unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut around = Around::default();
        let is_told = |around: &mut Around| {
            around.look(&config, dir.path(), now);
            around.readings(&config.limits, now).iter().any(|one| one.key == "disk///read-only" && one.value == 1.0)
        };
        assert!(!is_told(&mut around), "not known");
        for (options, told) in
            [("ro,errors=remount-ro", false), ("rw,errors=remount-ro", false), ("ro", true), ("rw", false)]
        {
            mounts(options);
            assert_eq!(is_told(&mut around), told, "{options}");
        }
    }

    #[test]
    fn servers_are_those_of_https() {
        assert_eq!(server("https://a.example/x"), Some(("a.example".to_owned(), 443)));
        assert_eq!(server("https://[::1]:8443/"), Some(("[::1]".to_owned(), 8443)));
        assert_eq!(server("http://a.example/"), None);
    }
}
