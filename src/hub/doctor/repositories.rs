use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::findings::{Finding, Findings};
use super::patient::Patient;
use crate::command::{self, Command};
use crate::config::{Config, Repository};
use crate::gitops::Error;
use crate::gitops::check::{Owned, check_access, check_checkout, check_known_hosts, check_signers};
use crate::hub::units;
use crate::records::{counted, short};
use crate::said::Forge;

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
    if has_credentials && (repository.status || repository.wait_for_checks) {
        forge(patient, config, repository, &mut findings);
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

/// The credentials that hub.toml names, each with the service that needs it.
fn named(repository: &Repository) -> Vec<(&str, &'static str)> {
    let of_forge = repository.status_token.as_ref().or(repository.token.as_ref());
    let mut named: Vec<(&str, &str)> = Vec::new();
    let fetches = [&repository.ssh_key, &repository.token].into_iter().flatten();
    for (name, service) in fetches
        .map(|name| (name, "gitops-sync"))
        .chain(of_forge.filter(|_| repository.wait_for_checks).map(|name| (name, "gitops-sync")))
        .chain(of_forge.filter(|_| repository.status).map(|name| (name, "hub-watch")))
    {
        if !named.contains(&(name, service)) {
            named.push((name, service));
        }
    }
    named
}

/// True where the keys and the tokens that hub.toml names can be used.
fn credentials(patient: &Patient<'_>, config: &Config, repository: &Repository, findings: &mut Findings) -> bool {
    let before = findings.all.len();
    let credentials = config.credentials();
    let named = named(repository);
    for (place, (name, service)) in named.iter().enumerate() {
        let (path, is_new) = (credentials.path(name), named[..place].iter().all(|(other, _)| other != name));
        match credentials.read(name) {
            Ok(Some(_)) => {}
            _ if !is_new => {}
            Ok(None) => {
                let finding = format!("the credential {name} is missing: {} is not there", path.display());
                findings.problem(finding, format!("install -m 600 FILE {}", path.display()));
            }
            Err(error) if !patient.is_root && error.is_denied() => {
                findings.skipped(format!("the remote needs the credential {name}, which this user cannot read"));
            }
            Err(error) => findings.problem(error.to_string(), format!("ls -l {}", path.display())),
        }
        let unit = format!("{service}.service");
        let worker = patient.units.as_ref().and_then(|units| units.get(&unit));
        if patient.is_system && worker.is_some_and(|worker| worker.is_installed()) {
            let mend = format!("systemctl edit {service}   # [Service], and below it LoadCredential={name}");
            match units::credentials(&unit) {
                Ok(loaded) if loaded.iter().any(|loaded| loaded == name) => {}
                Ok(_) => findings.problem(format!("{unit} does not load the credential {name}"), mend),
                Err(error) => findings.warning(error.to_string(), mend),
            }
        }
    }
    findings.all.len() == before
}

/// What the forge says of the live commit, which is all that can be asked without saying something there.
fn forge(patient: &Patient<'_>, config: &Config, repository: &Repository, findings: &mut Findings) {
    let edit = format!("editor {}", patient.path.display());
    let forge = match Forge::of(config, repository) {
        Ok(forge) => forge,
        Err(reason) => return findings.problem(reason, edit),
    };
    let Some(commit) = patient.past().live(&repository.name) else {
        return findings
            .ok(format!("{} gets results of commits, or is asked for checks, when there are some", forge.address()));
    };
    match forge.words(commit) {
        Ok(words) => {
            let checks = counted(words.len() as u64, "check");
            findings.ok(format!("{} answers, and has {checks} of {}", forge.address(), short(commit)));
        }
        // To say a word it need not be read.
        Err(unheard) if !repository.wait_for_checks => findings.warning(unheard.reason, edit),
        Err(unheard) => findings.problem(unheard.reason, edit),
    }
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
