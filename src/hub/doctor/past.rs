use super::{Finding, Findings, Patient};
use crate::config::{self, Config, InForce, Pipeline, Repository, Source};
use crate::gate;
use crate::hub::greeting::url;
use crate::records::{self, Details, Metrics, Outcome, Reader, ago, ended_ago, short};
use crate::state::{Folder, Record};

/// Not `start`: that would wait for the next of the tries that its unit makes by itself.
const AGAIN: &str = "systemctl restart reading-sync";

/// Why the last look at a repository changed nothing, where it should have.
pub(super) fn repository(patient: &Patient<'_>, repository: &Repository, findings: &mut Findings) {
    let name = &repository.name;
    let known = read(patient, findings, |reader| reader.repository(name, &repository.branch));
    let Some(known) = known else { return };
    if let Some(bad) = known.bad.get() {
        let why = if bad.reason.is_empty() { "it does not say why" } else { &bad.reason };
        let commit = short(&bad.commit);
        let finding = format!("commit {commit} failed and is not tried again until the branch moves: {why}");
        return findings.problem(finding, patient.hub(&format!("retry {name}")));
    }
    let Some(checked) = known.checked.take().filter(|checked| Outcome::of_word(&checked.status) == Outcome::Failed)
    else {
        return;
    };
    let (when, word) = (ago(&checked.at, jiff::Timestamp::now()), checked.status.replace('_', " "));
    let why = checked.reason.as_deref().unwrap_or("the log says why");
    let mend = format!("{}   # once that is done", patient.hub(&format!("deploy {name}")));
    findings.problem(format!("the last look, {when}: {word}: {why}"), mend);
}

/// Repositories that own units and are not in hub.toml any more.
pub(super) fn gone(patient: &Patient<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    let (Some(config), mut unread) = (&patient.config, Findings::new("units")) else { return all };
    for (owner, files) in read(patient, &mut unread, |reader| reader.owners()).unwrap_or_default() {
        if !config.repositories.iter().any(|repository| repository.is_known_as(&owner)) {
            let mut findings = Findings::new(format!("repository {owner}"));
            findings.warning(records::gone(&files), patient.hub(&format!("remove {owner}")));
            all.append(&mut findings.all);
        }
    }
    all.append(&mut unread.all);
    all
}

/// Why the newest run of a pipeline failed, and what it keeps.
pub(super) fn pipeline(patient: &Patient<'_>, config: &Config, pipeline: &Pipeline) -> Vec<Finding> {
    let mut findings = Findings::new(format!("pipeline {}", pipeline.name));
    let services = read(patient, &mut findings, |reader| reader.services()).unwrap_or_default();
    let newest = services.iter().find(|record| record.service == "reading-sync");
    if let Some(run) = newest.and_then(|record| records::run_of(record, &pipeline.name))
        && Outcome::of(run) == Outcome::Failed
    {
        let why = run.error.as_deref().unwrap_or("the log says why");
        let finding = format!("the last run, begun {}, failed: {why}", ago(&run.started, jiff::Timestamp::now()));
        let again = if patient.is_system {
            AGAIN.to_owned()
        } else {
            format!("curl -X POST {}", url(config.proxy.admin_listen, &format!("/api/sync/{}", pipeline.name)))
        };
        findings.problem(finding, format!("{again}   # once that is done"));
    }
    let all = records::Pipeline::all([pipeline.name.clone()], &services);
    for known in all.into_iter().filter(|known| known.configured) {
        if let Some(what) = known.dead_letters() {
            findings.warning(what, patient.hub("dead-letters"));
        }
        if let (Some(what), Source::Folder(path)) = (known.damaged_files(), &pipeline.source) {
            findings.warning(what, records::look_into_failed(path));
        }
    }
    findings.all
}

/// Runs that failed as a whole, where nothing else is told of them.
pub(super) fn services(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("last runs");
    let records = read(patient, &mut findings, |reader| reader.services()).unwrap_or_default();
    for record in records.iter().filter(|record| matches!(record.service.as_str(), "gitops-sync" | "system-metrics")) {
        let run = &record.last;
        if Outcome::of(run) != Outcome::Failed || records::failed_repositories(run).is_some() {
            continue;
        }
        let when = ended_ago(&run.started, run.duration_ms, jiff::Timestamp::now());
        let why = run.error.as_deref().unwrap_or("the log says why");
        let again = if patient.is_system { format!("systemctl start {}", record.service) } else { patient.hub("up") };
        let finding = format!("{}, {when}: {}: {why}", record.service, run.status.replace('_', " "));
        findings.problem(finding, format!("{again}   # once that is done"));
    }
    findings.all
}

/// Whether the services that run for long go by the hub.toml that is on the disk, or refused it.
/// What is wrong with the disk's is told already where it is `known`.
pub(super) fn configuration_in_force(patient: &Patient<'_>, known: Option<&config::Error>) -> Vec<Finding> {
    let mut findings = Findings::new("configuration");
    let records = read(patient, &mut findings, |reader| reader.services()).unwrap_or_default();
    let runs = |record: &&Record| match record.service.as_str() {
        // One that was killed has said to the end that it runs.
        "proxy" => patient.state_dir.as_ref().is_ok_and(|state| gate::instance(state).is_ok_and(|own| own.is_some())),
        _ => gate::writer(record).is_some(),
    };
    for record in records.iter().filter(runs) {
        let service = &record.service;
        if let Some(reason) = records::refused_configuration(record) {
            if known.is_some_and(|error| error.to_string() == reason.reason) {
                continue;
            }
            let mend = format!("editor {}   # it is taken when it is right", patient.path.display());
            findings.problem(records::refused(service, &reason.reason), mend);
            continue;
        }
        let Some(in_force) = records::configuration(record) else { continue };
        let path = in_force.path.display();
        match InForce::on_disk(&in_force.path) {
            None => findings
                .skipped(format!("{path} cannot be read by this user, nor compared with what {service} goes by")),
            Some(disk) if disk == in_force => findings.ok(format!("{service} goes by {path} as it is on the disk")),
            Some(_) => {
                let finding =
                    format!("{service} does not go by {path} as it is on the disk; it takes it within seconds");
                let reload = format!("systemctl reload {service}");
                let mend = if patient.is_system { reload } else { patient.hub("doctor") };
                findings.warning(finding, format!("{mend}   # if this stays so"));
            }
        }
    }
    findings.all
}

/// File systems that system-metrics could not reach in its last run, each with the folder that bars the way.
pub(super) fn barred(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("system-metrics");
    let records = read(patient, &mut findings, |reader| reader.services()).unwrap_or_default();
    let newest = records.iter().find(|record| record.service == "system-metrics");
    for (mount, folder) in newest.map(|record| Metrics::known(&record.last).barred).unwrap_or_default() {
        let finding = format!("{mount} is not measured: the user of system-metrics may not enter {folder}");
        findings.warning(finding, LET_IN);
    }
    findings.all
}

/// What lets system-metrics pass through every folder, and read what is in it: with a user namespace of its own it could
/// not hold that capability.
const LET_IN: &str = "systemctl edit system-metrics   # [Service] AmbientCapabilities=CAP_DAC_READ_SEARCH \
                      CapabilityBoundingSet=CAP_DAC_READ_SEARCH PrivateUsers=no, each on a line of its own";

/// What the services left; none before the first run. What cannot be read is a finding.
fn read<T>(patient: &Patient<'_>, findings: &mut Findings, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
    // That the root cannot be opened is said under `state`.
    let root = Folder::open(patient.state_dir.as_deref().ok()?).ok()?;
    let mut reader = Reader::new(&root);
    let found = read(&mut reader);
    for trouble in reader.unreadable {
        let sentence = trouble.sentence;
        if trouble.is_denied {
            findings.skipped(sentence);
        } else {
            findings.problem(sentence, format!("ls -lR {}", root.path().display()));
        }
    }
    Some(found)
}
