use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::findings::{Finding, Findings};
use super::patient::Patient;
use crate::command::{Account, current};
use crate::config::{self, Config, Credentials, DEFAULT_PATH};
use crate::state::require_roots;

const TMPFILES: &str = "systemd-tmpfiles --create observability-hub.conf";
const SYSUSERS: &str = "systemd-sysusers observability-hub.conf";

/// The file, who could change it, and whether it says anything.
pub(super) fn configuration(patient: &Patient<'_>, error: Option<&config::Error>) -> Vec<Finding> {
    let mut findings = Findings::new("configuration");
    let path = patient.path.display();
    match error {
        None => {}
        Some(error) if error.is_denied() => {
            findings.skipped(format!("{path} cannot be read by this user"));
        }
        Some(error) => findings.problem(error.to_string(), mend(patient, error)),
    }
    let config = patient.config.as_ref();
    match config.map(|config| &config.path) {
        Some(Some(_)) => findings.ok(format!("{path} is valid")),
        Some(None) => findings.ok(format!("there is no {path}; the defaults are in force")),
        None => {}
    }
    if let (Some(sentence), None | Some(config::Error::Line { .. })) = (distrust(patient), error) {
        let mend = format!("chown root: {path} && chmod go-w {path}");
        if patient.is_system {
            findings.problem(sentence, mend);
        } else {
            findings.warning(sentence, format!("chmod go-w {path}"));
        }
    }
    if config.is_some_and(|config| config.repositories.is_empty() && config.pipelines.is_empty()) {
        let example =
            if patient.is_system { "/usr/share/doc/observability-hub/examples/hub.toml" } else { "contrib/hub.toml" };
        let finding = format!("no [[repository]] is configured, so nothing is deployed; {example} shows how");
        // What is not this user's to write is not this user's to edit.
        let is_own = patient.is_root || patient.flag.is_some() || patient.path != Path::new(DEFAULT_PATH);
        findings.warning(finding, if is_own { format!("editor {path}") } else { patient.hub("init --user") });
    }
    findings.all
}

/// Why somebody else than those who should could change the file.
fn distrust(patient: &Patient<'_>) -> Option<String> {
    let found = std::fs::metadata(&patient.path).ok()?;
    let path = patient.path.display();
    if patient.is_system || patient.path == Path::new(DEFAULT_PATH) {
        return require_roots(&patient.path).err().map(|error| {
            format!("{path}, or a folder above it, can be changed by others than root, and root obeys it: {error}")
        });
    }
    (found.mode() & 0o022 != 0)
        .then(|| format!("{path} can be written by group or others, who would decide what runs here"))
}

fn mend(patient: &Patient<'_>, error: &config::Error) -> String {
    let path = patient.path.display();
    match error {
        config::Error::Line { line, .. } => format!("editor +{line} {path}"),
        config::Error::Untrusted { .. } => format!("chown root: {path} && chmod go-w {path}"),
        config::Error::Environment { name, .. } => format!("unset {name}"),
        config::Error::Missing(_) => format!("editor {path}, or name another file with --config or HUB_CONFIG"),
        _ => format!("ls -l {path}"),
    }
}

/// The users that an installation has.
pub(super) fn users(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("users");
    let name = patient.service_user();
    let (git, checkout) = (Account::by_name("hub-git"), Account::by_name("hub-checkout"));
    if patient.is_system && checkout.is_none() {
        findings.problem("there is no user hub-checkout, whom new checkouts belong to", SYSUSERS);
    }
    if patient.is_system && Account::by_name("hub-verify").is_none() {
        findings.problem("there is no user hub-verify, so hub-git checks signatures, which fetches too", SYSUSERS);
    }
    if patient.is_system {
        match Account::by_name(&name) {
            Some(_) => {
                findings.ok(format!("the user {name} of the services is there"));
                for other in [&git, &checkout]
                    .into_iter()
                    .flatten()
                    .filter(|other| hub_group().is_some_and(|group| other.is_in_group(group)))
                {
                    let finding =
                        format!("{} is in the group hub, and can read what the services leave there", other.name);
                    findings.problem(finding, format!("gpasswd --delete {} hub", other.name));
                }
            }
            None => findings.problem(format!("there is no user {name}, and the services run as it"), SYSUSERS),
        }
    }
    let fetches = patient.config.as_ref().is_some_and(|config| !config.repositories.is_empty());
    match git {
        Some(_) if patient.is_system => findings.ok("the user hub-git, which fetches and owns nothing else, is there"),
        None if patient.is_system => findings.problem("there is no user hub-git, so git fetches as root", SYSUSERS),
        None if patient.is_root && fetches => {
            let mend = "useradd --system --no-create-home --shell /usr/sbin/nologin hub-git";
            findings.warning("there is no user hub-git, so git fetches as root", mend);
        }
        _ => {}
    }
    let me = current();
    let is_in = || hub_group().is_some_and(|group| me.is_in_group(group));
    if patient.is_system && !patient.is_root && !is_in() {
        let finding = format!("{} is not in the group hub, so hub status cannot read the records", me.name);
        findings.warning(finding, format!("sudo usermod -aG hub {}", me.name));
    }
    findings.all
}

fn hub_group() -> Option<u32> {
    uzers::get_group_by_name("hub").map(|group| group.gid())
}

/// The state folders of an installation: owner, and nobody else may write. As systemd/observability-hub.tmpfiles makes them.
pub(super) fn state(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("state");
    let root = match &patient.state_dir {
        Ok(root) => root,
        Err(error) => {
            findings.problem(format!("no state folder is known: {error}"), "export HUB_STATE_DIR=/a/folder");
            return findings.all;
        }
    };
    if !patient.is_system {
        let me = current();
        match std::fs::metadata(root) {
            Ok(found) if found.is_dir() && (patient.is_root || found.uid() == me.uid) => {
                findings.ok(format!("the state folder is {}", root.display()));
            }
            Ok(found) if found.is_dir() => {
                let finding = format!("the state folder {} belongs to another user than {}", root.display(), me.name);
                findings
                    .warning(finding, format!("sudo {}, or HUB_STATE_DIR=/a/folder/of/yours", patient.hub("doctor")));
            }
            Ok(_) => findings.problem(format!("{} is not a folder", root.display()), format!("rm {}", root.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                findings.ok(format!("there is no state yet; the first start makes {}", root.display()));
            }
            Err(error) => {
                findings.problem(format!("{}: {error}", root.display()), format!("ls -ld {}", root.display()))
            }
        }
        return findings.all;
    }
    let user = patient.service_user();
    let folders = [
        ("", "root"),
        ("proxy", &user),
        ("proxy/queue", &user),
        ("data", &user),
        ("reading", &user),
        ("gate", "root"),
        ("gitops", "root"),
        ("gitops/mirror", "hub-git"),
    ];
    for (folder, owner) in folders {
        let path = root.join(folder);
        let shown = path.display().to_string();
        let shown = shown.trim_end_matches('/');
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_dir() => {
                findings.problem(format!("{shown} is not a folder"), format!("rm {shown} && {TMPFILES}"));
            }
            Ok(found) => {
                let owns = Account::by_name(owner).is_none_or(|account| account.uid == found.uid());
                if !owns || found.mode() & 0o022 != 0 {
                    let finding = format!("{shown} must belong to {owner}, and nobody else may write it");
                    findings.problem(finding, format!("chown {owner} {shown} && chmod go-w {shown}"));
                } else if folder == "gitops" && found.mode() & 0o001 == 0 {
                    findings.problem(format!("hub-git cannot pass through {shown} to its mirrors"), TMPFILES);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                findings.problem(format!("{shown} is missing"), TMPFILES);
            }
            Err(_) => findings.skipped(format!("{shown} cannot be looked at by this user")),
        }
    }
    if findings.all.is_empty() {
        findings.ok(format!("the folders in {} belong to whom they should", root.display()));
    }
    findings.all
}

/// The secrets of the gateway. None is shown.
pub(super) fn secrets(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("secrets");
    let Some(credentials) = patient.credentials() else { return findings.all };
    let folder = credentials.folder().to_owned();
    let found = credentials.webhook_secrets();
    // Whether the gateway would start with them is its own to say: short secrets, a token that is missing.
    let checks = patient.services.iter().filter_map(|service| Some((service.check)(patient.config.as_ref()?)));
    let found_check = found.as_ref().err().filter(|_| patient.config.is_none()).map(ToString::to_string);
    for error in checks.filter_map(Result::err) {
        if error.is_denied() {
            findings.skipped(format!("the credentials in {} cannot be read by this user", folder.display()));
            return findings.all;
        }
        findings.problem(error.to_string(), credential_mend(&error, &credentials, patient.config.as_ref()));
    }
    if let Some(error) = found_check {
        findings.problem(error, format!("ls -l {}", folder.display()));
    }
    match found {
        Ok(secrets) if secrets.is_empty() => {
            let finding = "there is no webhook secret, so the proxy takes no deliveries and the gate stays closed";
            findings.warning(finding, format!("{}   # makes one", patient.hub("webhook-test")));
        }
        Ok(secrets) => {
            let lengths: Vec<String> = secrets.iter().map(|secret| secret.bytes().len().to_string()).collect();
            let what = if secrets.len() == 1 { "the webhook secret is there" } else { "the webhook secrets are there" };
            findings.ok(format!("{what} ({} bytes)", lengths.join(", ")));
        }
        // Said above already.
        Err(_) => {}
    }
    for name in ["webhook-secret", "admin-token", "database-url", "mongo-uri"] {
        let path = credentials.path(name);
        let open = std::fs::symlink_metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
        if open {
            let finding = format!("{} can be read by other users", path.display());
            findings.warning(finding, format!("chmod 600 {}", path.display()));
        }
    }
    findings.all
}

fn credential_mend(error: &config::Error, credentials: &Credentials, config: Option<&Config>) -> String {
    let name = match error {
        config::Error::Environment { name, .. } => return format!("unset {name}"),
        config::Error::Credential { name, .. } | config::Error::Unreadable { name, .. } => name.as_str(),
        _ => return format!("ls -l {}", credentials.folder().display()),
    };
    let path = credentials.path(name);
    let path = path.display();
    let make = format!("(umask 077; openssl rand -hex 32 > {path})");
    match (name, config) {
        ("webhook-secret", _) => format!("{make}   # and enter it on the forge"),
        ("admin-token", Some(config)) if config::is_exposed(config.proxy.admin_listen) => make,
        _ => format!("ls -l {path}"),
    }
}
