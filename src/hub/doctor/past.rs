//! What the services left that is not well: the reasons that `health` gives, as findings of what they are about.

use super::findings::{Finding, Findings, Level};
use super::patient::{Past, Patient};
use crate::config::{self, Config, InForce, Pipeline, Repository};
use crate::gate;
use crate::health::{Answer, Seen, judge};
use crate::hub::greeting::url;
use crate::hub::status::ways;
use crate::records::{self, Details, Found, Left, Metrics, Wanted, ago, run_of};
use crate::state::{Folder, Record};

/// Not `start`: that would wait for the next of the tries that its unit makes by itself.
const AGAIN: &str = "systemctl restart reading-sync";

/// What lets system-metrics pass through every folder, and read what is in it: with a user namespace of its own it could
/// not hold that capability.
const LET_IN: &str = "systemctl edit system-metrics   # [Service] AmbientCapabilities=CAP_DAC_READ_SEARCH \
                      CapabilityBoundingSet=CAP_DAC_READ_SEARCH PrivateUsers=no, each on a line of its own";

/// These are worth a look, and hold up nothing.
const WARNINGS: [&str; 3] = ["/gone", "/dead-letters", "/damaged-files"];

impl Past {
    /// Reads and judges it.
    pub fn new(patient: &Patient<'_>) -> Self {
        let now = jiff::Timestamp::now();
        // That the root cannot be opened is said under `state`.
        let root = patient.state_dir.as_deref().ok().and_then(|path| Folder::open(path).ok());
        let left = Left::read(&root.map_or(Found::Missing, Found::There), &Wanted::of(patient.config.as_ref()), now);
        let state = patient.state_dir.as_deref().ok();
        // One that was killed has said to the end that it runs.
        let lives = state.is_some_and(|state| gate::instance(state).is_ok_and(|own| own.is_some()));
        let seen = Seen {
            now,
            config: patient.config.as_ref().ok_or("reported by itself"),
            last_valid: None,
            ways: &ways(patient.flag.as_deref(), &patient.path, state, patient.units.as_ref()),
            left: &left,
            units: patient.units.as_ref(),
            units_error: None,
            failed: None,
            up: None,
            proxy: &Answer::NotAsked,
            lives,
            waits: &[],
        };
        Self { lives, reasons: judge(&seen), left }
    }

    /// The commit of a repository that is live.
    pub fn live(&self, repository: &str) -> Option<&str> {
        let known = self.left.repositories.iter().find(|known| known.repository == repository)?;
        known.deployed.get().map(|deployed| deployed.commit.as_str())
    }

    fn findings(&self, about: impl Into<String>, is_of: impl Fn(&str) -> bool) -> Findings {
        let mut findings = Findings::new(about);
        for reason in self.reasons.iter().filter(|reason| is_of(&reason.key)) {
            let is_warning = WARNINGS.iter().any(|end| reason.key.ends_with(end));
            let level = if is_warning { Level::Warning } else { Level::Problem };
            findings.add(level, &reason.reason, reason.mend.clone());
        }
        findings
    }

    /// Why the last look at a repository changed nothing, where it should have.
    pub fn repository(&self, repository: &Repository, findings: &mut Findings) {
        let key = format!("gitops/{}/", repository.name);
        let ends = ["rolled-back", "refused", "failed", "rollback-failed"];
        let is_of = |known: &str| known.strip_prefix(&key).is_some_and(|end| ends.contains(&end));
        let mut found = self.findings(&findings.about, is_of).all;
        // `hub status` sends people here; from here they go on.
        for mend in
            found.iter_mut().filter_map(|finding| finding.mend.as_mut()).filter(|mend| mend.contains("hub doctor"))
        {
            *mend = mend.replace("hub doctor", &format!("hub deploy {}", repository.name)) + "   # once that is done";
        }
        findings.all.append(&mut found);
    }

    /// Why the newest run of a pipeline failed, and what it keeps.
    pub fn pipeline(&self, patient: &Patient<'_>, config: &Config, pipeline: &Pipeline) -> Vec<Finding> {
        let key = format!("reading/{}/", pipeline.name);
        let mut findings = self.findings(format!("pipeline {}", pipeline.name), |known| known.starts_with(&key)).all;
        let again = if patient.is_system {
            AGAIN.to_owned()
        } else {
            format!("curl -X POST {}", url(config.proxy.admin_listen, &format!("/api/sync/{}", pipeline.name)))
        };
        let record = self.left.service("reading-sync").get().copied();
        let begun = record.and_then(|record| run_of(record, &pipeline.name)).map(|run| run.started.as_str());
        let begun = begun.map(|begun| format!("the last run, begun {}, failed: ", ago(begun, jiff::Timestamp::now())));
        for finding in findings.iter_mut().filter(|finding| finding.level == Level::Problem) {
            finding.finding.insert_str(0, begun.as_deref().unwrap_or_default());
            finding.mend = Some(format!("{again}   # once that is done"));
        }
        findings
    }

    /// What is told of no repository and no pipeline: runs that failed as a whole, repositories that are gone, file systems that are not measured, files that cannot be read.
    pub fn rest(&self, patient: &Patient<'_>) -> Vec<Finding> {
        let is_whole = |key: &str| matches!(key, "metrics/lost" | "reading/last-run");
        let mut all = self.findings("last runs", is_whole).all;
        let looks = self.left.repositories.iter().all(|known| !self.has(&format!("gitops/{}/", known.repository)));
        all.append(&mut self.findings("last runs", |key| key == "gitops/last-run" && looks).all);
        for finding in &mut all {
            let again = if patient.is_system { finding.mend.take() } else { Some(patient.hub("up")) };
            finding.mend = again.map(|again| format!("{again}   # once that is done"));
        }
        for owner in self.left.owners.keys() {
            let key = format!("gitops/{owner}/gone");
            all.append(&mut self.findings(format!("repository {owner}"), |known| known == key).all);
        }
        let mut metrics = Findings::new("system-metrics");
        let record = self.left.service("system-metrics");
        let Metrics { barred, not_sent } = record.get().map(|record| Metrics::known(&record.last)).unwrap_or_default();
        for (mount, folder) in barred {
            let finding = format!("{mount} is not measured: the user of system-metrics may not enter {folder}");
            metrics.warning(finding, LET_IN);
        }
        for reason in not_sent {
            metrics.warning(reason, "hub timeline   # shows what happened here all the same");
        }
        all.append(&mut metrics.all);
        let mut files = Findings::new("last runs");
        for trouble in &self.left.unreadable {
            if trouble.is_denied {
                files.skipped(&trouble.sentence);
            } else {
                let state = patient.state_dir.as_deref().unwrap_or(std::path::Path::new(""));
                files.problem(&trouble.sentence, format!("ls -lR {}", state.display()));
            }
        }
        all.append(&mut files.all);
        all
    }

    /// Whether the services that run for long go by the hub.toml that is on the disk, or refused it.
    /// What is wrong with the disk's is told already where it is `known`.
    pub fn configuration(&self, patient: &Patient<'_>, known: Option<&config::Error>) -> Vec<Finding> {
        let mut findings = self.findings("configuration", |key| key.ends_with("/older-configuration"));
        let known = known.map(ToString::to_string);
        findings.all.retain(|told| known.as_ref().is_none_or(|known| !told.finding.ends_with(known.as_str())));
        let runs = |record: &&&Record| match record.service.as_str() {
            "proxy" => self.lives,
            _ => self.left.gate == Some(true),
        };
        for record in self.left.records().collect::<Vec<_>>().iter().filter(runs) {
            let Some(in_force) = records::configuration(record) else { continue };
            if records::refused_configuration(record).is_some() {
                continue;
            }
            let (service, path) = (&record.service, in_force.path.display());
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

    fn has(&self, start: &str) -> bool {
        self.reasons.iter().any(|reason| reason.key.starts_with(start))
    }
}
