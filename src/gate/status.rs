//! `tailscale-gate status`, and what `close` leaves in the run record.

use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use super::exposure::{Look, Seen};
use super::machine::State;
use super::report;
use super::tailscale::Tailscale;
use super::target::{Target, folder};
use crate::config::Config;
use crate::hint::hint;
use crate::log;
use crate::program::{self, Exit};
use crate::records::{Details, Door};
use crate::state::{Folder, Record, Run};

/// Prints what is public now, and what the gate's record says about it.
pub(super) fn show(config: &Config, target: &Target, as_json: bool) -> Exit {
    let looked = Tailscale::new(&config.gate, &target.url).look();
    let record = record(config);
    let door = record.as_ref().map(|record| Door::known(&record.last)).unwrap_or_default();
    let pid = running_gate(config);
    let (state, exposed, problem) = match looked {
        Ok(Look { seen: Seen::Nothing, .. }) => (State::Closed, None, None),
        Ok(Look { seen, away }) => {
            let by = if let Seen::Other(by) = seen { by } else { target.url.clone() };
            (if away.is_some() { State::Unreachable } else { State::Open }, Some(by), away)
        }
        Err(error) => (State::Unknown, None, Some(error.to_string())),
    };
    // The record speaks for the state that it was written for, and only while its gate lives.
    let fits = door.state == state.name();
    let reason = match (problem, pid) {
        (Some(problem), _) => problem,
        (None, Some(_)) if fits => door.reason,
        (None, Some(_)) => "the gate is about to notice".to_owned(),
        (None, None) if state == State::Open => {
            format!("public, and no gate runs; run: {}", hint("tailscale-gate", "close"))
        }
        (None, None) => "no gate runs".to_owned(),
    };
    let answer = json!({
        "state": state.name(),
        "reason": reason,
        "since": door.since.filter(|_| fits),
        "port": config.gate.port,
        "target": target.url,
        "url": door.url,
        "exposed": exposed,
        "running": pid.is_some(),
        "pid": pid,
        "tailscale_version": door.tailscale_version,
    });
    print(&answer, as_json);
    if state == State::Unknown { Exit::Error } else { Exit::Done }
}

fn print(answer: &Value, as_json: bool) {
    if as_json {
        return program::print(&crate::text::json(answer, true));
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let since = answer["since"].as_str().map_or_else(String::new, |since| format!(" since {since}"));
    let mut lines = vec![
        format!("{}{since}: {}", text("state"), text("reason")),
        format!("port {} for {}", answer["port"], text("target")),
    ];
    lines.extend(answer["url"].as_str().map(str::to_owned));
    lines.extend(answer["exposed"].as_str().map(|exposed| format!("exposed: {exposed}")));
    lines.push(match answer["pid"].as_u64() {
        Some(pid) => format!("the gate runs as process {pid}"),
        None => "no gate runs".to_owned(),
    });
    program::print(&lines.join("\n"));
}

fn record(config: &Config) -> Option<Record> {
    let read = |root: &Path| Record::read(&Folder::open(root)?.sub("gate")?);
    match read(&config.state_dir) {
        Ok(record) => record,
        Err(error) if error.is_missing() => None,
        Err(error) => {
            log::warn!("run_record_unreadable", error = error.to_string());
            None
        }
    }
}

/// The process of a gate that runs beside this one. The record is readable where the lock is not.
pub(super) fn running_gate(config: &Config) -> Option<u32> {
    Door::known(&record(config)?.last).writer().filter(|pid| *pid != std::process::id())
}

/// Leaves in the record what `close` found, so that a record of a gate that was killed does not go on saying `open`.
/// A user who may not write there closes all the same.
pub(super) fn record_close(config: &Config, result: &Result<bool, Error>) {
    let state = match result {
        Ok(_) => State::Closed,
        Err(Error::StillOpen { .. }) => State::Open,
        Err(_) => State::Unknown,
    };
    let now = log::now();
    let reason = result.as_ref().err().map_or_else(|| "closed by tailscale-gate close".to_owned(), Error::to_string);
    let run = Run {
        started: now.clone(),
        duration_ms: 0,
        status: state.name().to_owned(),
        counts: serde_json::Map::new(),
        error: result.as_ref().err().map(Error::to_string),
        details: Door {
            state: state.name().to_owned(),
            reason,
            since: Some(now.clone()),
            written: Some(now),
            port: config.gate.port,
            ended: true,
            ..Door::default()
        }
        .written(),
    };
    if running_gate(config).is_some() {
        return;
    }
    let add = |folder: Folder| {
        let before = Record::read(&folder).ok().flatten();
        let was = before.map(|record| (Door::known(&record.last), record));
        match was.filter(|(door, _)| state == State::Closed && door.state == state.name()) {
            // What was closed and is closed has been so since then.
            Some((door, _)) if door.ended => Ok(()),
            Some((door, mut record)) => {
                record.last.details = Door { ended: true, ..door }.written();
                folder.publish_json("run.json", &record)
            }
            None => report::add(&folder, run),
        }
    };
    if let Err(error) = folder(config).and_then(add) {
        log::warn!("run_record_failed", error = error.to_string());
    }
}
