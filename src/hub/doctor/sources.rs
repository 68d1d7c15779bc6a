use std::path::Path;

use super::findings::{Finding, Findings};
use super::patient::Patient;
use super::running;
use crate::config::{Config, Pipeline};
use crate::reading::{self, check_source};
use crate::state::become_owner;
use crate::store::{self, Store};

/// Whether the database takes the login, has the schema, and lets the hub write.
///
/// Call it on a thread of its own: as root it becomes the owner of the SQLite file's folder, for good.
pub(super) fn database(patient: &Patient<'_>, config: &Config) -> Vec<Finding> {
    let mut findings = Findings::new("database");
    let url = match config.database_url() {
        Ok(url) => url,
        Err(error) if !patient.is_root && error.is_denied() => {
            findings.skipped("the credential database-url cannot be read by this user");
            return findings.all;
        }
        Err(error) => {
            findings.problem(
                error.to_string(),
                format!(
                    "editor {}, or {}",
                    config.credentials().path("database-url").display(),
                    patient.path.display()
                ),
            );
            return findings.all;
        }
    };
    if let Some(path) = url.sqlite_path() {
        let data = config.state_dir.join("data");
        let file = data.join(path);
        match std::fs::symlink_metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                findings.ok(format!("{url}: {} is made by the first run of system-metrics", file.display()));
                return findings.all;
            }
            Err(_) if !patient.sees_all() => {
                findings.skipped(format!("{url}: {} is the services' own", file.display()));
                return findings.all;
            }
            _ if !patient.sees_all() => {
                findings.skipped(format!("{url}: opening it takes the services' user"));
                return findings.all;
            }
            _ => {}
        }
        if let Err(error) = become_owner(file.parent().unwrap_or(&data)) {
            findings.problem(error.to_string(), format!("ls -ld {}", data.display()));
            return findings.all;
        }
    }
    let mut config = config.clone();
    config.database.url = url.clone();
    if url.sqlite_path().is_some() {
        // The URL is known; whose thread this is now may not read credentials any more.
        config = config.with_credentials(Path::new("/nonexistent"));
    }
    let opened = Store::open(&config).and_then(|mut store| store.check().map(|()| store.notes()));
    match opened {
        Ok(notes) if !notes.is_empty() => {
            for note in notes {
                findings.warning(note, patient.hub("database check"));
            }
        }
        Ok(_) => findings.ok(format!("{url}: the login, the schema and the right to write are there")),
        // The statements are what mends it, and are not a sentence.
        Err(store::Error::Rights { target, reason, remedy }) => findings.problem(format!("{target}: {reason}"), remedy),
        Err(error) => {
            let mend = match &error {
                store::Error::Config(_) => format!("editor {}", patient.path.display()),
                store::Error::Damaged { target, .. } => patient.hub(&format!("database recover {target}.recovered")),
                _ if url.sqlite_path().is_some() => format!("ls -la {}", config.state_dir.join("data").display()),
                _ => format!("psql '{url}' -c 'select 1'   # with the user and password of the credential"),
            };
            findings.problem(error.to_string(), mend);
        }
    }
    findings.all
}

/// Whether a pipeline's source can be read.
///
/// Call it on a thread of its own: as root it becomes the user of an inbox's readers, for good.
pub(super) fn pipeline(patient: &Patient<'_>, config: &Config, pipeline: &Pipeline) -> Vec<Finding> {
    let mut findings = Findings::new(format!("pipeline {}", pipeline.name));
    let inbox = pipeline.source.inbox();
    if inbox.is_some() && patient.is_system {
        let reader = config.state_dir.join("reading");
        if let Err(error) = become_owner(&reader) {
            findings.problem(error.to_string(), format!("ls -ld {}", reader.display()));
            return findings.all;
        }
    }
    match check_source(config, pipeline) {
        Ok(sentence) => match inbox.and_then(|inbox| running::sandboxed(patient, inbox)) {
            Some((finding, mend)) => findings.problem(finding, mend),
            None => findings.ok(sentence),
        },
        Err(error) if !patient.sees_all() && (inbox.is_some() || error.is_denied()) => {
            findings.skipped(format!("the source is for the user of the services: {error}"));
        }
        Err(error) => {
            let mend = match (&error, inbox) {
                (reading::Error::Config(_) | reading::Error::SourceAddress(_), _) => {
                    format!("editor {}", config.credentials().path("mongo-uri").display())
                }
                (_, Some(path)) => {
                    let (user, path) = (patient.service_user(), path.display());
                    let make = format!("install -d -o {user} -g {user} -m 750 {path}");
                    if inbox.is_some_and(|inbox| inbox.is_dir()) { format!("chown -R {user}: {path}") } else { make }
                }
                (_, None) => "mongosh \"$MONGO_URI\" --eval 'db.runCommand({ping: 1})'".to_owned(),
            };
            findings.problem(error.to_string(), mend);
        }
    }
    findings.all
}
