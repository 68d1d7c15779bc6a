//! What runs, beside what is installed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::findings::{Finding, Findings};
use super::patient::Patient;
use crate::hint::command_line;
use crate::hub::units;
use crate::state::{Folder, lock_holder};

/// Programs that were replaced while they run, and services that read another configuration than this look did.
pub(super) fn running(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("what runs");
    let lasting = patient.units.iter().flatten().filter(|(_, unit)| unit.main_pid > 0);
    let mut all: Vec<(String, u32, String)> =
        lasting.map(|(name, unit)| (name.clone(), unit.main_pid, format!("systemctl restart {name}"))).collect();
    let root = patient.state_dir.as_ref().ok().and_then(|state| Folder::open(state).ok());
    if let Some(Ok(Some(pid))) = root.map(|root| lock_holder(&root, "up.lock")) {
        all.push(("hub up".to_owned(), pid, format!("kill {pid}, then: {}", patient.hub("up"))));
    }
    for (name, pid, restart) in all {
        match std::fs::read_link(format!("/proc/{pid}/exe")) {
            Ok(program) => replaced(&name, &program, restart.clone(), &mut findings),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                findings.skipped(format!("which program {name} runs cannot be seen by this user"));
                continue;
            }
            // It has just ended.
            Err(_) => continue,
        }
        if let Some(other) = other_configuration(pid, &patient.path) {
            let finding =
                format!("{name} reads {}, and this look is about {}", other.display(), patient.path.display());
            findings.warning(finding, command_line("hub", "doctor", Some(&other)));
        }
    }
    findings.all
}

/// Another one lies at the path of a program that runs: proc_pid_exe(5).
fn replaced(name: &str, program: &Path, restart: String, findings: &mut Findings) {
    let shown = program.to_string_lossy();
    match shown.strip_suffix(" (deleted)") {
        Some(path) if Path::new(path).exists() => {
            findings.warning(format!("{name} runs an older program than {path} is now"), restart);
        }
        Some(path) => findings.warning(format!("{name} runs {path}, which has been removed"), restart),
        None => findings.ok(format!("{name} runs the program that is installed, {shown}")),
    }
}

/// The configuration that a process was started with, where it is named and is another one.
fn other_configuration(pid: u32, own: &Path) -> Option<PathBuf> {
    let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let named = named_configuration(&read("cmdline"), &read("environ"))?;
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    // What cannot be resolved is not judged.
    let (named, own) = (folder.join(named).canonicalize().ok()?, own.canonicalize().ok()?);
    (named != own).then_some(named)
}

/// The path after `--config`, else that of `HUB_CONFIG`; both texts have their words ended by a null.
fn named_configuration(cmdline: &[u8], environ: &[u8]) -> Option<PathBuf> {
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let flag = words.windows(2).find(|pair| pair[0] == b"--config").map(|pair| path(pair[1]));
    let variable = || environ.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"HUB_CONFIG=")).map(path);
    flag.or_else(variable).filter(|path| !path.as_os_str().is_empty())
}

/// Why the proxy, which takes the files out of an inbox, cannot write there although its user may: the sandbox of its unit
/// (systemd.exec(5)); with the lines that let it. None where it can, or systemd does not say.
pub(super) fn sandboxed(patient: &Patient<'_>, inbox: &Path) -> Option<(String, String)> {
    if !patient.units.as_ref()?.get("proxy.service")?.is_installed() || !patient.is_system {
        return None;
    }
    let shown = units::properties("proxy.service", &SANDBOX).ok()?;
    let inbox = inbox.canonicalize().unwrap_or_else(|_| inbox.to_owned());
    let (by, lines) = barred(&shown, &inbox)?;
    let finding = format!("proxy.service has {by}: the proxy cannot take files out of {}", inbox.display());
    Some((finding, format!("systemctl edit proxy   # [Service] {lines}, then: systemctl restart proxy")))
}

const SANDBOX: [&str; 7] =
    ["ProtectSystem", "ProtectHome", "PrivateTmp", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths"];

/// What of the sandbox is in the way of an inbox, and which lines of the unit would let it pass.
fn barred(unit: &BTreeMap<String, String>, inbox: &Path) -> Option<(String, String)> {
    let word = |name: &str| unit.get(name).map_or("", String::as_str);
    // How many folders of the path the nearest entry of a list names; `-` and `+` before it, and what follows `:`, are no part of it.
    let nearest = |name: &str| {
        let paths = word(name).split(' ').map(|one| one.trim_start_matches(['-', '+']).split(':').next().unwrap_or(""));
        let depths = paths.filter(|path| !path.is_empty() && inbox.starts_with(path));
        depths.map(|path| Path::new(path).components().count()).max().unwrap_or(0)
    };
    let is_in = |folders: &[&str]| folders.iter().any(|folder| inbox.starts_with(folder));
    let shown = inbox.display();
    let (writable, bound) = (nearest("ReadWritePaths"), nearest("BindPaths"));
    let is_home = is_in(&["/home", "/root", "/run/user"]);
    if bound > 0 {
        return None;
    }
    if is_home && matches!(word("ProtectHome"), "yes" | "tmpfs") {
        let lines = format!("ProtectHome=no ReadWritePaths={shown}, each on a line of its own");
        return Some((format!("ProtectHome={}", word("ProtectHome")), lines));
    }
    if is_in(&["/tmp", "/var/tmp"]) && !matches!(word("PrivateTmp"), "" | "no") {
        return Some(("PrivateTmp=yes, a /tmp of its own".to_owned(), format!("BindPaths={shown}")));
    }
    for name in ["InaccessiblePaths", "ReadOnlyPaths"] {
        if nearest(name) > writable {
            return Some((format!("{name}={}", word(name)), format!("ReadWritePaths={shown}")));
        }
    }
    let is_shut = match word("ProtectSystem") {
        "strict" => !is_in(&["/dev", "/proc", "/sys"]),
        "full" => is_in(&["/usr", "/boot", "/efi", "/etc"]),
        "yes" => is_in(&["/usr", "/boot", "/efi"]),
        _ => false,
    };
    let by = if is_shut {
        format!("ProtectSystem={}", word("ProtectSystem"))
    } else if is_home && word("ProtectHome") == "read-only" {
        "ProtectHome=read-only".to_owned()
    } else {
        return None;
    };
    (writable == 0).then(|| (format!("{by} and no ReadWritePaths={shown}"), format!("ReadWritePaths={shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_of_the_proxy_is_read_as_systemd_does() {
        let ours = "ProtectSystem=strict ProtectHome=yes PrivateTmp=yes";
        for (unit, inbox, by) in [
            (ours, "/srv/inbox", "ProtectSystem=strict"),
            (ours, "/home/a/inbox", "ProtectHome=yes"),
            (ours, "/tmp/inbox", "PrivateTmp=yes"),
            ("ProtectSystem=strict ReadWritePaths=-/srv", "/srv/inbox", ""),
            ("ProtectSystem=strict ReadWritePaths=/srv/in", "/srv/inbox", "ProtectSystem=strict"),
            ("ProtectSystem=strict BindPaths=/home/a:/home/a:rbind ProtectHome=yes", "/home/a/inbox", ""),
            ("ProtectSystem=no ReadOnlyPaths=/srv", "/srv/inbox", "ReadOnlyPaths=/srv"),
            ("ProtectSystem=no ReadOnlyPaths=/srv ReadWritePaths=/srv/inbox", "/srv/inbox", ""),
            ("ProtectSystem=full ProtectHome=read-only", "/srv/inbox", ""),
            ("ProtectSystem=full ProtectHome=read-only", "/root/inbox", "ProtectHome=read-only"),
            ("ProtectSystem=full", "/etc/inbox", "ProtectSystem=full"),
        ] {
            let pairs = unit.split(' ').filter_map(|one| one.split_once('='));
            let unit = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let found = barred(&unit, Path::new(inbox)).map_or(String::new(), |(by, _)| by);
            assert!(found.starts_with(by) && found.is_empty() == by.is_empty(), "{unit:?} {inbox}: {found}");
        }
    }

    #[test]
    fn the_configuration_of_a_process_is_its_flag_or_its_variable() {
        let named = |cmdline: &[u8], environ: &[u8]| named_configuration(cmdline, environ);
        assert_eq!(named(b"hub\0up\0--config\0/a.toml\0", b"HUB_CONFIG=/b.toml\0"), Some("/a.toml".into()));
        assert_eq!(named(b"proxy\0", b"A=1\0HUB_CONFIG=/b.toml\0"), Some("/b.toml".into()));
        assert_eq!(named(b"proxy\0", b"HUB_CONFIG=\0"), None);
        assert_eq!(named(b"hub\0up\0--config\0a.toml\0", b""), Some("a.toml".into()));
    }
}
