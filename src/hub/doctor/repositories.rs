use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Finding, Findings, Patient};
use crate::command::{self, Command};
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::gitops::check::{Owned, check_access, check_checkout, check_known_hosts, check_signers};
use crate::hub::units;

/// How long a look into a local file may take.
const LOCAL: Duration = Duration::from_secs(10);

/// Everything that a repository needs to be deployed.
pub(super) fn repository(patient: &Patient<'_>, config: &Config, repository: &Repository) -> Vec<Finding> {
    let mut findings = Findings::new(format!("repository {}", repository.name));
    let has_credentials = credentials(patient, config, repository, &mut findings);
    let has_host = known_host(config, repository, &mut findings);
    if has_credentials && has_host {
        access(patient, config, repository, &mut findings);
    }
    checkout(patient, config, repository, &mut findings);
    match check_signers(repository) {
        Ok(lists) if lists.is_empty() => {}
        Ok(lists) => findings.ok(format!("only signed commits are taken: {}", lists.join(", "))),
        Err(error) if !patient.is_root && error.is_denied() => findings.skipped(error.to_string()),
        Err(error) => {
            let mend = signers_mend(repository, &error.to_string());
            findings.problem(error.to_string(), mend);
        }
    }
    patient.past().repository(repository, &mut findings);
    findings.all
}

/// True where the key and the token that hub.toml names can be used.
fn credentials(patient: &Patient<'_>, config: &Config, repository: &Repository, findings: &mut Findings) -> bool {
    let before = findings.all.len();
    let credentials = config.credentials();
    let worker = patient.units.as_ref().and_then(|units| units.get("gitops-sync.service"));
    let is_installed = patient.is_system && worker.is_some_and(|unit| unit.is_installed());
    for name in [&repository.ssh_key, &repository.token].into_iter().flatten() {
        let path = credentials.path(name);
        match credentials.read(name) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let finding = format!("the credential {name} is missing: {} is not there", path.display());
                findings.problem(finding, format!("install -m 600 FILE {}", path.display()));
            }
            Err(error) if !patient.is_root && error.is_denied() => {
                findings.skipped(format!("the remote needs the credential {name}, which this user cannot read"));
            }
            Err(error) => findings.problem(error.to_string(), format!("ls -l {}", path.display())),
        }
        if is_installed {
            let mend = format!("systemctl edit gitops-sync   # [Service], and below it LoadCredential={name}");
            match units::credentials("gitops-sync.service") {
                Ok(loaded) if loaded.contains(name) => {}
                Ok(_) => findings.problem(format!("gitops-sync.service does not load the credential {name}"), mend),
                Err(error) => findings.warning(error.to_string(), mend),
            }
        }
    }
    findings.all.len() == before
}

/// True where the host's key is pinned, or nobody needs it.
fn known_host(config: &Config, repository: &Repository, findings: &mut Findings) -> bool {
    if repository.remote.protocol() != "ssh" {
        return true;
    }
    let (hosts, host) = match check_known_hosts(config) {
        Ok(hosts) => (hosts, repository.remote.host()),
        Err(error) => {
            findings.problem(error.to_string(), format!("ls -l {}", config.gitops.known_hosts.display()));
            return false;
        }
    };
    let port = repository.remote.url().split("://").nth(1).and_then(|rest| rest.split('/').next()?.rsplit_once(':'));
    let port =
        port.map(|(_, port)| port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && *port != "22");
    let name = port.map_or_else(|| host.to_owned(), |port| format!("[{host}]:{port}"));
    let scan = port.map_or_else(String::new, |port| format!("-p {port} "));
    let mend = format!("ssh-keyscan {scan}{host} >> {}   # and compare with what the forge publishes", hosts.display());
    let look = Command::new("ssh-keygen", LOCAL).args(["-F", &name, "-f"]).args([hosts]).run();
    match look {
        Ok(output) if output.status.success() => {
            findings.ok(format!("the key of {name} is pinned in {}", hosts.display()));
            return true;
        }
        Ok(_) if !hosts.exists() => {
            findings.problem(format!("{} is missing, and ssh trusts no other key", hosts.display()), mend)
        }
        Ok(_) => findings.problem(format!("the key of {name} is not in {}", hosts.display()), mend),
        Err(command::Error::NotFound(_)) => {
            findings.problem("ssh is not installed, and the remote needs it", "apt-get install openssh-client");
        }
        Err(error) => findings.problem(error.to_string(), mend),
    }
    false
}

fn access(patient: &Patient<'_>, config: &Config, repository: &Repository, findings: &mut Findings) {
    let url = repository.remote.url();
    match check_access(config, repository) {
        Ok(()) => findings.ok(format!("{url} answers and has the branch {}", repository.branch)),
        // It may be this user only whom it does not let in.
        Err(error) if !patient.sees_all() => findings.skipped(format!("not for this user: {error}")),
        // Its sentence says what to do.
        Err(error @ Error::Refused(_)) => {
            findings.problem(error.to_string(), format!("editor {}", patient.path.display()))
        }
        Err(error) => findings.problem(error.to_string(), format!("git ls-remote {url}")),
    }
}

fn checkout(patient: &Patient<'_>, config: &Config, repository: &Repository, findings: &mut Findings) {
    let path = repository.path.display();
    let edit = format!("editor {}", patient.path.display());
    let make_user =
        |user: &str| format!("useradd --system --no-create-home --shell /usr/sbin/nologin {user}, or {edit}");
    match check_checkout(config, repository) {
        Ok(Owned { user, .. }) if user == "root" && repository.user.is_none() => findings.warning(
            format!(
                "there is no user hub-checkout: git and the commands of {path} run as root, as user = \"root\" would have it"
            ),
            make_user("hub-checkout"),
        ),
        Ok(Owned { user, is_services: true }) => findings.warning(
            format!(
                "the checkout {path} belongs to {user}, as earlier versions made it: the commands of {} see the secrets \
                 of the services, and they its files. Have it made anew for hub-checkout, and bring over from {path}.old \
                 by hand what git does not track",
                repository.name
            ),
            format!("mv {path} {path}.old && {}", patient.hub(&format!("deploy {}", repository.name))),
        ),
        Ok(Owned { user, .. }) if repository.path.exists() => {
            findings.ok(format!("the checkout {path} belongs to {user}"));
        }
        Ok(Owned { user, .. }) => findings.ok(format!("the checkout {path} will be made, for {user}")),
        Err(error) if !patient.sees_all() => findings.skipped(format!("the checkout {path}: {error}")),
        Err(error) => {
            let user = repository.user.as_deref().unwrap_or("hub-checkout");
            let is_roots = std::fs::metadata(&repository.path).is_ok_and(|found| found.uid() == 0);
            let mend = if repository.user.is_none() && is_roots {
                edit.clone()
            } else if command::Account::by_name(user).is_none() {
                make_user(user)
            } else {
                format!("ls -la {path}")
            };
            findings.problem(error.to_string(), mend);
        }
    }
}

/// Of two lists the one that the reason is about.
fn signers_mend(repository: &Repository, reason: &str) -> String {
    let lists = [&repository.allowed_signers, &repository.gpg_keyring].into_iter().flatten();
    let named = lists.clone().find(|path| reason.contains(&*path.to_string_lossy())).or(lists.clone().next());
    format!("ls -l {}", named.map_or_else(String::new, |path| path.display().to_string()))
}
