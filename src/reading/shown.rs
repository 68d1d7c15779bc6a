//! How a run looks to whoever called it: a bar and sentences on a terminal, JSON log lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::hint::hint;
use crate::log;
use crate::program::{self, Exit};

/// Between two log lines about progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What a person or a log sees of a run.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    name: String,
    told: Instant,
}

impl Shown {
    pub fn new(name: &str) -> Self {
        Self { bar: None, name: name.to_owned(), told: Instant::now() }
    }

    pub fn show(&mut self, line: &Value) {
        if line["status"] != "running" {
            return;
        }
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        let (done, total, unit) = (number("done"), number("total"), line["unit"].as_str().unwrap_or("documents"));
        let (documents, dead) = (number("processed_count"), number("dead_letters"));
        if is_persons(&std::io::stderr()) {
            let bar = self.bar.get_or_insert_with(|| bar(&self.name, total, unit));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{documents} documents, {dead} dead letters"));
        } else if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            log::info!(
                "sync_progress",
                pipeline = self.name,
                processed_count = documents,
                dead_letters = dead,
                done = done,
                total = total,
                unit = unit
            );
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// True where a person called this and watches. Under `hub up` the lines of all services stand on one terminal, and a bar
/// would be in the middle of them.
fn is_persons(stream: &impl IsTerminal) -> bool {
    std::env::var_os(program::SUPERVISOR).is_none() && stream.is_terminal()
}

fn bar(name: &str, total: u64, unit: &str) -> ProgressBar {
    let amount = if unit == "bytes" { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len}" };
    let template = format!("{{prefix}} [{{wide_bar}}] {amount} {{msg}} {{eta}}");
    // The template is one of two fixed ones; without it the bar has another look.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style);
    bar.set_prefix(name.to_owned());
    bar
}

/// Tells the end of a run by its last line; none where that tells no end.
pub(super) fn finish(name: &str, status: u16, last: &Value, begin: Instant) -> Option<Exit> {
    let text = |key: &str| last[key].as_str().unwrap_or_default();
    let exit = match (status, text("status")) {
        (200, "success") => {
            let count = |key: &str| last[key].as_u64().unwrap_or(0);
            let seconds = begin.elapsed().as_secs_f64();
            let (dead, damaged) = (count("dead_letters"), count("damaged_files"));
            if is_persons(&std::io::stdout()) {
                let look = hint("hub", "dead-letters");
                let look = if dead > 0 { format!("; look at them with: {look}") } else { String::new() };
                let (moved, stored) = (count("processed_count"), count("stored"));
                program::print(&format!(
                    "{name}: {moved} documents moved in {seconds:.1} s ({stored} new or changed rows, {dead} dead letters{look})"
                ));
                if damaged > 0 {
                    program::print(&format!(
                        "{damaged} damaged files were put into failed/ of the inbox; the proxy's log has the reasons"
                    ));
                }
            } else {
                let mut fields = last.as_object().cloned().unwrap_or_default();
                for standard in ["service", "status", "timestamp"] {
                    fields.remove(standard);
                }
                fields.insert("duration_ms".to_owned(), (begin.elapsed().as_millis() as u64).into());
                log::write(log::Level::Info, "sync_done", fields);
                if dead > 0 {
                    log::warn!("dead_letters", pipeline = name, count = dead, look = "hub dead-letters list");
                }
                if damaged > 0 {
                    log::warn!("damaged_files", pipeline = name, count = damaged, look = "failed/ of the inbox");
                }
            }
            Exit::Done
        }
        (409, _) => failed(name, "pipeline", text("reason"), Exit::Busy),
        (404, _) => {
            let reason = format!("{}; is it the admin listener, and has the proxy read this hub.toml?", text("reason"));
            failed(name, "pipeline", &reason, Exit::Usage)
        }
        (_, "error") => {
            let side = if text("side").is_empty() { "proxy" } else { text("side") };
            failed(name, side, text("reason"), Exit::Error)
        }
        _ => return None,
    };
    Some(exit)
}

/// Says once that a proxy that does not answer yet is waited for.
pub(super) fn tell_unreachable(base: &str, left: Duration) {
    let seconds = left.as_secs_f64().ceil() as u64;
    if is_persons(&std::io::stdout()) {
        complain(&format!("reading-sync: the proxy does not answer on {base}; trying again for {seconds} s"));
    } else {
        let note = "nobody listens there; it is tried again, as at boot the proxy may be later";
        log::warn!("proxy_unreachable", url = base, seconds = seconds, note = note);
    }
}

pub(super) fn failed(name: &str, side: &str, reason: &str, exit: Exit) -> Exit {
    if is_persons(&std::io::stdout()) {
        complain(&format!("reading-sync: {name}: {side}: {reason}"));
    } else {
        log::error!("sync_failed", pipeline = name, side = side, error = reason);
    }
    exit
}

#[expect(clippy::print_stderr, reason = "the reason is for the person at the terminal")]
pub(super) fn complain(text: &str) {
    eprintln!("{}", crate::text::shown_lines(text));
}
