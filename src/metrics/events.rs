//! What happened on this host, on its way to the database: lines of the services' histories go with the rows of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::log;
use crate::records::SERVICES;
use crate::records::history::{self, Event, Mark};
use crate::state::{self, Folder};
use crate::store::{EventRow, Shipped};

const FILE: &str = "events.json";
/// How much one run sends: a backlog must not make a transaction long.
const LINES: usize = 200;
const BYTES: usize = 1 << 20;
/// How long a table is left alone that the database refused to write to, in seconds.
const PAUSE: i64 = 3600;
/// The oldest instant that is sent, 0001-01-01 in seconds since 1970: what is older is no time, and PostgreSQL has none before
/// 4713 BC.
const OLDEST: i64 = -62_135_596_800;

/// What is kept from one run to the next. It is worth nothing more than time: where it is lost, everything is sent once more, and
/// what is there already stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// The last line of each service that was sent.
    marks: BTreeMap<String, Sent>,
    /// What was told of what is wrong.
    told: BTreeSet<String>,
    /// When the database refused to write to the table, in seconds since 1970.
    refused: Option<i64>,
}

/// A line that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sent {
    #[serde(flatten)]
    mark: Mark,
    /// Under which name of the host, which its row has in its key; none where an older hub kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// The database refuses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_refused: bool,
}

/// What a run sends.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The rows. The last one that was sent of each service is sent again: where it is new, the database is another one. One that
    /// was refused is not.
    pub rows: Vec<EventRow>,
    before: Kept,
    marks: BTreeMap<String, Sent>,
    /// The services of the rows that were sent before under this host's name, by place.
    again: BTreeMap<usize, &'static str>,
    /// The services of the rows that are their last ones, by place.
    last: BTreeMap<usize, &'static str>,
    /// Lines that say nothing, by service.
    skipped: BTreeMap<&'static str, u64>,
    problems: BTreeSet<String>,
    /// Nothing is sent, since the database refused a short while ago.
    is_paused: bool,
    now: i64,
}

impl Outgoing {
    /// Reads what is to be sent. `folder` is the service's own; without it nothing is sent, since nobody would know how far.
    pub fn gather(config: &Config, folder: Option<&Folder>, host: &str, now: jiff::Timestamp) -> Self {
        let Some(folder) = folder else { return Self::default() };
        let before: Kept = folder
            .read_json(FILE)
            .unwrap_or_else(|error| {
                log::warn!("events_kept_unreadable", error = error.to_string());
                None
            })
            .unwrap_or_default();
        let mut outgoing = Self { marks: before.marks.clone(), before, now: now.as_second(), ..Self::default() };
        // A clock that went back ends the pause, too.
        if outgoing.before.refused.is_some_and(|at| (0..PAUSE).contains(&(outgoing.now - at))) {
            (outgoing.problems, outgoing.is_paused) = (outgoing.before.told.clone(), true);
            return outgoing;
        }
        let mut left = (LINES, BYTES);
        // Each run another one comes first, so that a service with much to tell holds no other up for long.
        let first = usize::try_from(outgoing.now / 60).unwrap_or(0) % SERVICES.len();
        for (service, path) in SERVICES.into_iter().cycle().skip(first).take(SERVICES.len()) {
            if left.0 == 0 {
                break;
            }
            match outgoing.read(config, (service, path), host, left) {
                Ok((lines, bytes)) => left = (left.0 - lines, left.1.saturating_sub(bytes)),
                Err(error) if error.is_missing() => {}
                Err(error) => {
                    outgoing.problems.insert(format!("the history of {service} is not sent to the database: {error}"));
                }
            }
        }
        outgoing
    }

    /// Takes lines of a service; how many, and how many bytes.
    fn read(
        &mut self,
        config: &Config,
        (service, path): (&'static str, &str),
        host: &str,
        (lines, bytes): (usize, usize),
    ) -> Result<(usize, usize), state::Error> {
        let folder = history::folder(&config.state_dir, path)?;
        let sent = self.before.marks.get(service);
        let mark = sent.map(|sent| &sent.mark);
        let was_refused = sent.is_some_and(|sent| sent.is_refused);
        let is_renamed = sent.and_then(|sent| sent.host.as_ref()).is_some_and(|known| known != host);
        let tail = history::tail(&folder, mark, lines, bytes)?;
        if mark.is_some() && !tail.is_known && tail.last.is_none() {
            self.marks.remove(service);
        } else if mark.is_some() && !tail.is_known {
            self.problems.insert(format!(
                "the history of {service} has not any more what was sent last; it is sent from its oldest line on"
            ));
        }
        let count = tail.events.len();
        for (at, event) in tail.events.into_iter().enumerate() {
            let sent_before = at == 0 && tail.is_known;
            match event.and_then(|event| row(service, host, event)) {
                Some(_) if sent_before && was_refused => {}
                Some(row) => {
                    if sent_before && !is_renamed {
                        self.again.insert(self.rows.len(), service);
                    }
                    if at + 1 == count {
                        self.last.insert(self.rows.len(), service);
                    }
                    self.rows.push(row);
                }
                None if sent_before => {}
                None => *self.skipped.entry(service).or_default() += 1,
            }
        }
        if let Some(last) = tail.last {
            let is_refused = was_refused && tail.is_known && count == 1;
            self.marks.insert(service.to_owned(), Sent { mark: last, host: Some(host.to_owned()), is_refused });
        }
        Ok(tail.taken)
    }

    /// Keeps how far it is, and tells what is wrong, once. `shipped` is none where the database could not be used. Returns how
    /// many events are new in the database, and everything that is wrong.
    pub fn settle(mut self, folder: Option<&Folder>, shipped: Option<Shipped>) -> (u64, Vec<String>) {
        let Some(folder) = folder else { return Default::default() };
        let mut kept = Kept { refused: self.before.refused, ..Kept::default() };
        let mut new = 0;
        kept.marks = match shipped.filter(|_| !self.is_paused) {
            None => self.before.marks.clone(),
            Some(shipped) => {
                new = shipped.new.len() as u64;
                let marks = self.marks_after(&shipped);
                kept.refused = shipped.is_refused.then_some(self.now);
                self.problems.extend(shipped.unusable);
                marks
            }
        };
        for problem in self.problems.difference(&self.before.told) {
            log::warn!("events_not_stored", error = problem);
        }
        kept.told = self.problems;
        if kept != self.before
            // It need not reach the disk, see `Kept`.
            && let Err(error) = folder.note_json(FILE, &kept)
        {
            log::warn!("events_kept_not_saved", error = error.to_string());
        }
        (new, kept.told.into_iter().collect())
    }

    fn marks_after(&self, shipped: &Shipped) -> BTreeMap<String, Sent> {
        for (at, reason) in &shipped.refused {
            if let Some(EventRow { service, kind, about, .. }) = self.rows.get(*at) {
                log::error!("event_refused", about_service = service, kind = kind, about = about, error = reason);
            }
        }
        if shipped.unusable.is_some() {
            return self.before.marks.clone();
        }
        for (service, lines) in &self.skipped {
            log::warn!("history_lines_skipped", about_service = service, lines = lines, error = "they tell no event");
        }
        let mut marks = self.marks.clone();
        let mut anew: BTreeSet<&str> =
            self.again.iter().filter(|(at, _)| shipped.new.contains(at)).map(|(_, service)| *service).collect();
        if !anew.is_empty() {
            // Another database may take what was refused, and there is no other sign of it.
            anew.extend(self.marks.iter().filter(|(_, sent)| sent.is_refused).map(|(service, _)| service.as_str()));
        }
        for service in anew {
            log::info!("events_sent_anew", about_service = service);
            marks.remove(service);
        }
        for service in shipped.refused.iter().filter_map(|(at, _)| self.last.get(at)) {
            if let Some(sent) = marks.get_mut(*service) {
                sent.is_refused = true;
            }
        }
        marks
    }
}

/// As the database has it; none where it has no instant.
fn row(service: &str, host: &str, event: Event) -> Option<EventRow> {
    let time = event.time().filter(|time| time.as_second() >= OLDEST)?;
    let Event { kind, about, status, reason, more, .. } = event;
    let (host, service) = (host.to_owned(), service.to_owned());
    Some(EventRow { time, host, service, kind, about, status, reason, payload: Value::Object(more) })
}
