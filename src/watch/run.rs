//! One look: what it found becomes what is open, and what is to be told leaves, or waits for its turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::past::{self, Past};
use super::results::{self, All, Results};
use super::{Book, Causes, Change, Heartbeat, News, Notice, Outbox, Sent, Thresholds, Unseen, Unsent, Way, ways};
use crate::config::{Config, Notify, Repository};
use crate::health::{Level, Reason};
use crate::host;
use crate::log;
use crate::records::{Details as _, Look, Reader, Unheard, Watch, history};
use crate::said::Forge;
use crate::state::{self, Folder, Lock, Record, Run, roomy};
use crate::systemd;

/// The service's name in logs and in its record.
pub const SERVICE: &str = "hub-watch";
/// The key of what gitops-sync's last run says as a whole.
const LAST_RUN: &str = "gitops/last-run";
const STATE: &str = "state.json";
const LIMITS: &str = "limits.json";
/// Longer is no state: a hundred notices for each way, of twenty events each.
const LONGEST: usize = 8 << 20;
/// New tries begin no later than this after the first, so that a look ends before the next one.
const SENDING: Duration = Duration::from_secs(20);

/// Why a look did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another look goes on.
    #[error("another hub watch runs")]
    Busy,
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The system has no random bytes.
    #[error("cannot get random bytes: {0}")]
    Random(std::io::Error),
}

/// What is kept from one look to the next.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    book: Book,
    outboxes: BTreeMap<String, Outbox>,
    heartbeat: Heartbeat,
    past: Past,
    results: All,
    journal: Journal,
    causes: Causes,
    unseen: Unseen,
    /// What is wrong with credentials, at this look.
    #[serde(skip)]
    wrong: Vec<String>,
}

/// How this host speaks at one look.
struct Saying<'a> {
    config: &'a Notify,
    zone: &'a TimeZone,
    now: Timestamp,
    /// The names of the ways out; none where it is not known which there are.
    ways: Option<Vec<&'static str>>,
}

impl State {
    /// Takes in what is wrong; returns what appeared and what went.
    fn hear(&mut self, reasons: &[Reason], saying: &Saying<'_>) -> Vec<News> {
        let repeat = SignedDuration::from_hours(i64::from(saying.config.repeat_hours));
        let speaks = saying.ways.as_ref().is_none_or(|ways| !ways.is_empty());
        let merged = self.causes.merge(worth_telling(reasons));
        self.book.look(&merged, saying.now, repeat, speaks)
    }

    /// Makes the notice that is due, and lets it wait for each way out. What cannot be told now is told when it can.
    fn speak(&mut self, saying: &Saying<'_>) -> Result<(), Error> {
        let Some(ways) = &saying.ways else { return Ok(()) };
        self.outboxes.retain(|name, _| ways.iter().any(|way| way == name));
        let time = saying.now.to_zoned_datetime(saying.zone.clone()).time();
        let is_quiet = saying.config.quiet.is_some_and(|quiet| quiet.holds(time));
        if let Some((events, more)) = self.book.tell(saying.now, is_quiet) {
            let notice = Notice::new(&host::name(), events, more, saying.now, saying.zone).map_err(Error::Random)?;
            for way in ways {
                self.outboxes.entry((*way).to_owned()).or_default().put(notice.clone());
            }
        }
        Ok(())
    }

    /// Sends what waits for a way, the oldest first, until it does not go on. `send` returns where to; `keep` is called
    /// after each try.
    fn deliver(
        &mut self,
        way: &str,
        now: Timestamp,
        in_time: impl Fn() -> bool,
        mut send: impl FnMut(&Notice) -> Result<String, Unsent>,
        mut keep: impl FnMut(&Self),
    ) -> u64 {
        let (mut sent, mut is_first) = (0, true);
        loop {
            let outbox = self.outboxes.entry(way.to_owned()).or_default();
            // Each way is tried once, however long the ones before it took: it may be the only one that works.
            let Some(notice) = outbox.next(now).filter(|_| std::mem::take(&mut is_first) || in_time()) else {
                return sent;
            };
            let result = send(&notice);
            match &result {
                Ok(to) => log::info!("notice_sent", id = notice.id, to = to, title = notice.title),
                Err(unsent) => {
                    let waiting = outbox.waiting() as u64;
                    log::warn!("notice_not_sent", id = notice.id, waiting = waiting, error = unsent.reason);
                }
            }
            let outcome = outbox.tried(result.map(drop), now);
            keep(self);
            match outcome {
                Sent::Taken => sent += 1,
                Sent::Lost => log::error!("notice_lost", id = notice.id, title = notice.title),
                Sent::Waits => return sent,
            }
        }
    }
}

/// Takes a look, which `judge` makes of what is known of limits: what appeared and what went is noted and told, what
/// waited is sent, and the heartbeat goes out.
///
/// # Errors
/// When the folder `watch/` cannot be used, or another look goes on.
pub fn run(
    config: &Config,
    now: Timestamp,
    judge: impl FnOnce(&mut Thresholds) -> (Vec<Reason>, Look),
) -> Result<(), Error> {
    let begin = Instant::now();
    // What is wrong with one credential must not silence the others.
    let (ways, heartbeat) = (ways(config), Heartbeat::url(config));
    // Root's look by hand is to leave what the service can go on with.
    state::become_owner(&config.state_dir.join("watch"))?;
    let root = Folder::open_or_make(&config.state_dir, 0o755)?;
    let (folder, lock, state) = place(&root)?;
    let Some(_lock) = lock else { return Err(Error::Busy) };
    let wrong: Vec<String> =
        ways.as_ref().err().into_iter().chain(heartbeat.as_ref().err()).map(ToString::to_string).collect();
    let can_tell = ways.is_ok();
    let (ways, heartbeat) = (ways.unwrap_or_default(), heartbeat.unwrap_or_default());
    let mut state: State = match state {
        Ok(state) => state.unwrap_or_default(),
        Err(error) => {
            log::warn!("watch_state_replaced", error = error.to_string());
            State::default()
        }
    };
    state.wrong = wrong;
    let before = bytes(&state);
    let mut limits: Thresholds = folder.read_json(LIMITS).map(Option::unwrap_or_default).unwrap_or_else(|error| {
        log::warn!("limits_replaced", error = error.to_string());
        Thresholds::default()
    });
    let (reasons, mut look) = judge(&mut limits);
    let reasons = state.unseen.add(reasons);
    let reasons = reasons.as_slice();
    // They change each minute: a disk is spared that with what must not be lost.
    if let Err(error) = folder.renew_json(LIMITS, &limits) {
        log::warn!("limits_not_kept", error = error.to_string());
    }
    let zone = TimeZone::system();
    let names = can_tell.then(|| ways.iter().map(Way::name).collect());
    let saying = Saying { config: &config.notify, zone: &zone, now, ways: names };
    let changes = state.hear(reasons, &saying);
    changes.iter().for_each(|event| note(&folder, event));
    look.since = state.book.since();
    // Who reads it can do without it for a while.
    if let Err(error) = folder.renew_json(Look::FILE, &look) {
        log::warn!("look_not_left", error = error.to_string());
    }
    take_past(&mut state, config, &root, now, !ways.is_empty());
    state.speak(&saying)?;
    let mut kept = Kept { folder: &folder, bytes: before };
    // Before anything leaves: what is sent must not be made anew by the next look, with another id.
    kept.keep(&state, true);
    if let Some(url) = &heartbeat {
        let every = SignedDuration::from_mins(i64::from(config.notify.heartbeat_minutes));
        if state.heartbeat.is_due(now, every) {
            state.heartbeat.send(config, url, reasons, now);
            kept.keep(&state, false);
        }
    }
    // From here on: what is slow to be looked at must not keep what is found from leaving.
    let sending = Instant::now();
    let in_time = || sending.elapsed() < SENDING;
    let send = |way: &Way| {
        let sent = |notice: &Notice| way.send(notice).map(|_| way.shown());
        state.deliver(way.name(), now, in_time, sent, |state| kept.keep(state, true))
    };
    let sent = ways.iter().map(send).sum::<u64>();
    let sending = Instant::now();
    results::wanted(config).for_each(|repository| say(&mut kept, repository, config, &mut state, now, sending));
    if systemd::is_running() {
        read_journal(&folder, &mut state.journal, &changes, now);
        kept.keep(&state, false);
    }
    record(&folder, &state, &changes, sent, reasons, now, begin)?;
    Ok(())
}

/// What was kept, or why it cannot be read.
type Before = Result<Option<State>, state::Error>;

/// The folder `watch/`, its lock, and what is kept there. On a disk that cannot be written it is the unit's folder in /run,
/// which begins with what `watch/` has: what is wrong with the disk must leave the host, and once.
fn place(root: &Folder) -> Result<(Folder, Option<Lock>, Before), Error> {
    let folder = root.sub_or_make("watch", 0o750)?;
    let runtime = std::env::var_os("HUB_WATCH_RUN").and_then(|path| Folder::open(Path::new(&path)).ok());
    let away = runtime.as_ref().and_then(|runtime| runtime.read_json_within::<State>(STATE, LONGEST).ok().flatten());
    match Lock::attempt(&folder, "lock") {
        Ok(lock) => {
            let state = match away {
                None => folder.read_json_within(STATE, LONGEST),
                Some(state) => {
                    if let (Some(runtime), true) = (runtime, lock.is_some())
                        && let Err(error) = come_back(&runtime, &folder, &state)
                    {
                        // It is full now, which is to be told as well.
                        log::warn!("watch_state_not_moved", error = error.to_string());
                        return Ok((runtime, lock, Ok(Some(state))));
                    }
                    Ok(Some(state))
                }
            };
            Ok((folder, lock, state))
        }
        Err(error) => {
            let Some(runtime) = runtime.filter(|_| is_read_only(&error)) else { return Err(error.into()) };
            let lock = Lock::attempt(&runtime, "lock")?;
            let state = away.map_or_else(|| folder.read_json_within(STATE, LONGEST), |state| Ok(Some(state)));
            if let (Ok(None), Ok(limits)) =
                (runtime.read_json::<Thresholds>(LIMITS), folder.read_json::<Thresholds>(LIMITS))
            {
                runtime.renew_json(LIMITS, &limits.unwrap_or_default())?;
            }
            Ok((runtime, lock, state))
        }
    }
}

/// Takes what was kept in /run back to where it belongs.
fn come_back(runtime: &Folder, folder: &Folder, state: &State) -> Result<(), state::Error> {
    put(folder, &bytes(state), true)?;
    let limits = runtime.read_json::<Thresholds>(LIMITS)?;
    limits.map_or(Ok(()), |limits| folder.renew_json(LIMITS, &limits))?;
    history::read(runtime)?.iter().for_each(|event| event.append(folder));
    // The state last: while it is there, this is done again.
    for name in [LIMITS, Look::FILE, history::OLDER, history::FILE, STATE] {
        runtime.forget(name.as_ref())?;
    }
    Ok(())
}

/// Writes the state; where there is no room for a second one, over the old one.
fn put(folder: &Folder, bytes: &[u8], durably: bool) -> Result<(), state::Error> {
    let put = if durably { Folder::publish } else { Folder::replace };
    put(folder, STATE, bytes, 0o640).or_else(|error| match folder.overwrite(STATE, bytes) {
        Ok(true) => {
            log::warn!("watch_state_overwritten", error = error.to_string());
            Ok(())
        }
        Ok(false) | Err(_) => Err(error),
    })
}

fn is_read_only(error: &state::Error) -> bool {
    let read_only = rustix::io::Errno::ROFS.raw_os_error();
    matches!(error, state::Error::Io { source, .. } if source.raw_os_error() == Some(read_only))
}

/// Takes in what happened to repositories: what forges are to be told, and people.
fn take_past(state: &mut State, config: &Config, root: &Folder, now: Timestamp, speaks: bool) {
    state.results.retain(|name, _| results::wanted(config).any(|repository| repository.name == *name));
    let mut reader = Reader::new(root);
    // Before the history, which has the end of what is at work here.
    let known: Vec<_> =
        results::wanted(config).map(|repository| reader.repository(&repository.name, &repository.branch)).collect();
    let tells = config.notify.deployments && speaks;
    if known.is_empty() && !tells {
        // Who asks for it later is not told what happened meanwhile.
        state.past = Past::default();
        return;
    }
    let news = state.past.news(&reader.folder("gitops"));
    for known in &known {
        state.results.entry(known.repository.clone()).or_default().look(&news, known, now);
    }
    if tells {
        state.book.news(past::deployments(&news, now));
    }
}

/// Tells a forge what waits for it, until it does not go on.
fn say(kept: &mut Kept, repository: &Repository, config: &Config, state: &mut State, now: Timestamp, sending: Instant) {
    let name = &repository.name;
    let mut forge = None;
    while sending.elapsed() < SENDING
        && let Some(results) = state.results.get_mut(name).filter(|results| results.waiting() > 0)
        && results.is_due(now)
    {
        results.say(repository, forge.get_or_insert_with(|| Forge::of(config, repository)), now);
        kept.keep(state, true);
    }
}

/// The state as it is on the disk, which is spared what changes nothing.
struct Kept<'a> {
    folder: &'a Folder,
    bytes: Vec<u8>,
}

impl Kept<'_> {
    /// Keeps the state; `durably` where a power cut must not take it. A disk that is full must not silence the host, which
    /// would tell of it: the old state is written over.
    fn keep(&mut self, state: &State, durably: bool) {
        let bytes = bytes(state);
        if bytes == self.bytes {
            return;
        }
        if let Err(error) = put(self.folder, &bytes, durably) {
            log::error!("watch_state_not_kept", error = error.to_string());
        }
        self.bytes = bytes;
    }
}

fn bytes(state: &State) -> Vec<u8> {
    // None of its types can fail to be JSON.
    roomy(serde_json::to_vec(state).unwrap_or_default())
}

/// The reasons that people are told.
fn worth_telling(reasons: &[Reason]) -> Vec<Reason> {
    let of_repository = |reason: &Reason| reason.key.starts_with("gitops/") && reason.key != LAST_RUN;
    let is_worth = |reason: &&Reason| match reason.key.as_str() {
        // That nothing arrives cannot be told by what does not arrive.
        key if key.starts_with("watch/") => false,
        // It sums up what each repository says itself.
        LAST_RUN => !reasons.iter().any(of_repository),
        _ => true,
    };
    reasons.iter().filter(is_worth).cloned().collect()
}

/// Takes down what the journal knows.
fn read_journal(folder: &Folder, journal: &mut Journal, changes: &[News], now: Timestamp) {
    let calls = changes.iter().any(|event| event.key.starts_with("unit"));
    match journal.read(now, calls) {
        Ok(events) => events.iter().for_each(|event| event.append(folder)),
        Err(error) => log::warn!("journal_not_read", error = error.to_string()),
    }
}

/// Takes down what appeared and what went.
fn note(folder: &Folder, event: &News) {
    let kind = if event.kind == Change::Cleared {
        log::info!("reason_cleared", key = event.key, about = event.about, since = log::rfc3339(event.since));
        history::Kind::Cleared
    } else {
        log::warn!("reason_raised", key = event.key, about = event.about, reason = event.reason);
        history::Kind::Raised
    };
    let happened = history::Event::new(kind, &event.about, event.level.word()).because(Some(event.reason.as_str()));
    happened.with("key", &event.key).with("since", log::rfc3339(event.since)).append(folder);
}

fn record(
    folder: &Folder,
    state: &State,
    changes: &[News],
    sent: u64,
    reasons: &[Reason],
    now: Timestamp,
    begin: Instant,
) -> Result<(), state::Error> {
    let cleared = changes.iter().filter(|event| event.kind == Change::Cleared).count();
    let waiting: usize = state.outboxes.values().map(Outbox::waiting).sum();
    let words: usize = state.results.values().map(Results::waiting).sum();
    let notices = state.outboxes.values().filter_map(Outbox::failing).map(|(_, reason)| format!("notice: {reason}"));
    let heartbeat = state.heartbeat.failing().map(|(_, reason)| format!("heartbeat: {reason}"));
    let failing: Vec<String> = state.wrong.iter().cloned().chain(notices).chain(heartbeat).collect();
    let status = match (failing.is_empty(), changes.is_empty() && sent == 0) {
        (false, _) => "failed",
        (true, false) => "told",
        (true, true) => "nothing",
    };
    let counts = [
        ("open", state.book.open() as u64),
        ("raised", (changes.len() - cleared) as u64),
        ("cleared", cleared as u64),
        ("sent", sent),
        ("waiting", waiting as u64),
        ("statuses_waiting", words as u64),
    ];
    let unheard = state.results.iter().filter_map(|(name, results)| {
        let (since, reason) = results.failing(now)?;
        Some((name.clone(), Unheard { since: log::rfc3339(since), reason: reason.to_owned() }))
    });
    let details = Watch { health: Level::of(reasons).word().to_owned(), unheard: unheard.collect() };
    let run = Run {
        started: log::rfc3339(now),
        duration_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        status: status.to_owned(),
        counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect(),
        error: (!failing.is_empty()).then(|| failing.join("; ")),
        details: details.written(),
    };
    Record::add_lazily(folder, SERVICE, run)
}

#[cfg(test)]
#[path = "week.rs"]
mod week;
