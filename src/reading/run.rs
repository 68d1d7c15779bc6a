//! One run of a pipeline in a process of its own: everything that waits is moved, and the progress told on stdout.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::load::{Loaded, Loader};
use super::source::{self, Acknowledge, Batch, BatchLimits, Documents, Total};
use super::transform::Oddities;
use super::{Error, SERVICE};
use crate::config::{Config, Pipeline};
use crate::records::history::{Event, Kind};
use crate::records::{self, Details, Kept, Reading};
use crate::state::{self, Folder, Lock, Record, Run, become_owner};
use crate::{log, program};

/// The name under which the proxy's binary runs a pipeline; the pipeline's name follows.
pub const RUN: &str = "reading-run";

/// Names of files that are not read, in a record.
const MOST_NAMED: usize = 10;

/// Bytes of documents in a batch: with the next one being read, the memory of a run.
const BATCH_BYTES: usize = 4 << 20;
/// Held while the record is read and written anew: a run of another pipeline, or a person, may do the same.
const RECORD_LOCK: &str = "record.lock";

/// Moves everything that a pipeline's source has to its table. Its stdout is the protocol: JSON lines, the last one
/// the result.
///
/// Returns 0 when everything was moved, 1 when not, 75 while another run holds the lock, 78 for a wrong configuration.
pub fn run_main() -> ExitCode {
    if !program::begin_child(SERVICE) {
        return program::Exit::Error.into();
    }
    let name = std::env::args().nth(1).unwrap_or_default();
    let started = jiff::Timestamp::now();
    let begin = Instant::now();
    let mut counts = Counts::default();
    let outcome = Config::load(None).map_err(Error::from).and_then(|config| {
        let outcome = run(&config, &name, &mut counts);
        record(&config, &name, started, begin, &counts, outcome.as_ref().err());
        outcome
    });
    let code = outcome.as_ref().err().map_or(program::Exit::Done, Error::exit);
    say(result(&name, &counts, outcome.as_ref().err()));
    code.into()
}

/// What a run has done so far.
#[derive(Clone, Debug, Default)]
struct Counts {
    read: u64,
    processed: u64,
    loaded: Loaded,
    oddities: Oddities,
    /// Files that were put into `failed/`.
    damaged: u64,
    /// Rows that were older than they are kept.
    expired: u64,
    advanced: u64,
    total: u64,
    /// What is kept; none where it could not be counted.
    kept: Option<BTreeMap<String, Kept>>,
}

fn run(config: &Config, name: &str, counts: &mut Counts) -> Result<(), Error> {
    let pipeline = pipeline(config, name)?;
    let folder = folder(&config.state_dir)?;
    let Some(_lock) = Lock::attempt(&folder, &format!("{name}.lock"))? else {
        return Err(Error::Busy(name.to_owned()));
    };
    let limits = BatchLimits { documents: config.batch_size, bytes: BATCH_BYTES };
    let mut loader = Loader::open(config, pipeline)?;
    let rules = loader.rules()?;
    let open = || source::open(config, pipeline, &rules, loader.position());
    let (mut reader, mut receipts) = source::patiently(open)?;
    let total = source::patiently(|| reader.total())?;
    counts.total = total.amount;
    say(progress(name, "started", counts, total));
    let moved = drain(name, &mut *reader, &mut *receipts, &mut loader, limits, counts, total);
    let moved = moved.and_then(|()| {
        counts.expired = loader.delete_old()?;
        Ok(())
    });
    if counts.oddities.empty_rows > 0 {
        let note =
            "they have nothing but their key: no field of theirs has a column, or is left; look at map in hub.toml";
        log::warn!("rows_without_content", pipeline = name, count = counts.oddities.empty_rows, note = note);
    }
    counts.kept = match kept(pipeline, &mut loader) {
        Ok(kept) => kept,
        Err(error) => {
            log::warn!("kept_not_counted", pipeline = name, error = error.to_string());
            None
        }
    };
    moved
}

/// What is kept: the dead letters of every pipeline, configured or not, and the files that this one does not read.
fn kept(pipeline: &Pipeline, loader: &mut Loader<'_>) -> Result<Option<BTreeMap<String, Kept>>, Error> {
    let Some(letters) = loader.dead_letters()? else { return Ok(None) };
    let counted = log::now();
    let of = |dead_letters| Kept { dead_letters, damaged_files: 0, not_read: Vec::new(), counted: counted.clone() };
    let mut kept: BTreeMap<String, Kept> = letters.into_iter().map(|(name, count)| (name, of(count))).collect();
    let own = kept.entry(pipeline.name.clone()).or_insert_with(|| of(0));
    own.damaged_files = source::failed_files(pipeline)?;
    own.not_read = source::unread_files(pipeline)?;
    if !own.not_read.is_empty() {
        own.not_read.truncate(MOST_NAMED);
        log::warn!("files_not_read", pipeline = pipeline.name, note = records::not_read(&own.not_read));
    }
    Ok(Some(kept))
}

/// Passes over the source until one does nothing.
fn drain(
    name: &str,
    reader: &mut dyn Documents,
    receipts: &mut dyn Acknowledge,
    loader: &mut Loader<'_>,
    limits: BatchLimits,
    counts: &mut Counts,
    total: Total,
) -> Result<(), Error> {
    loop {
        let (before, read) = (counts.processed, counts.read);
        pass(reader, receipts, loader, limits, counts, &|counts| {
            say(progress(name, "progress", counts, total));
        })?;
        // What came meanwhile is taken too, until a pass does nothing.
        if counts.processed == before {
            if counts.read > read {
                let note =
                    "they change faster than they are stored and marked, or cannot be marked; the next run tries again";
                log::warn!("documents_left", pipeline = name, count = counts.read - read, note = note);
            }
            return Ok(());
        }
    }
}

/// The configured pipeline of a name.
pub(super) fn pipeline<'a>(config: &'a Config, name: &str) -> Result<&'a Pipeline, Error> {
    config.pipelines.iter().find(|pipeline| pipeline.name == name).ok_or_else(|| Error::UnknownPipeline {
        name: name.to_owned(),
        known: config.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect(),
    })
}

/// Reads the source to its end. While one batch is stored, the next is read and transformed.
fn pass(
    reader: &mut dyn Documents,
    receipts: &mut dyn Acknowledge,
    loader: &mut Loader<'_>,
    limits: BatchLimits,
    counts: &mut Counts,
    tell: &dyn Fn(&Counts),
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        // Without room: a batch waits in the reader's hand, not in the channel, so that two are in memory, not three.
        let (sender, batches) = sync_channel::<Batch>(0);
        let (receipt, receipts_given) = channel::<u64>();
        let reading = std::thread::Builder::new().name("reader".to_owned()).spawn_scoped(scope, move || {
            while let Some(batch) = source::patiently(|| reader.next(limits))? {
                if sender.send(batch).is_err() {
                    break;
                }
                if !reader.reads_ahead() && receipts_given.recv().unwrap_or(0) == 0 {
                    break;
                }
            }
            Ok(())
        });
        let reading = reading.map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))?;
        let stored = store(batches, receipts, loader, counts, &|counts, acknowledged| {
            // A reader that reads ahead does not listen, and one that has ended does not either.
            let _ = receipt.send(acknowledged);
            tell(counts);
        });
        drop(receipt);
        let lost = || Err(Error::Internal("the thread that reads the source panicked".to_owned()));
        let read = reading.join().unwrap_or_else(|_| lost());
        stored.and(read)
    })
}

fn store(
    batches: Receiver<Batch>,
    receipts: &mut dyn Acknowledge,
    loader: &mut Loader<'_>,
    counts: &mut Counts,
    tell: &dyn Fn(&Counts, u64),
) -> Result<(), Error> {
    // Documents that were acknowledged, and may have to be taken back.
    let mut unsettled = 0;
    for batch in batches {
        counts.read += batch.documents.len() as u64;
        let loaded = match loader.load(&batch) {
            Err(error @ Error::RefusedAlike { .. }) => {
                // The source first: what waits twice is stored once, what is nowhere is lost.
                receipts.take_back()?;
                counts.loaded.dead = counts.loaded.dead.saturating_sub(loader.take_back()?);
                counts.processed = counts.processed.saturating_sub(unsettled);
                return Err(error);
            }
            loaded => loaded?,
        };
        if loaded.took_any {
            receipts.settle();
            unsettled = 0;
        }
        counts.loaded.stored += loaded.stored;
        counts.loaded.unchanged += loaded.unchanged;
        counts.loaded.dead += loaded.dead;
        counts.oddities += batch.oddities;
        let acknowledged = source::patiently(|| receipts.acknowledge(&batch))?;
        unsettled += acknowledged;
        if !loader.is_refusing() {
            receipts.settle();
            unsettled = 0;
        }
        counts.processed += acknowledged;
        counts.damaged += batch.finished.iter().filter(|file| file.damage.is_some()).count() as u64;
        counts.advanced += batch.advanced;
        tell(counts, acknowledged);
    }
    Ok(())
}

fn progress(name: &str, event: &str, counts: &Counts, total: Total) -> Value {
    json!({
        "service": SERVICE, "status": "running", "event": event, "pipeline": name,
        "processed_count": counts.processed, "stored": counts.loaded.stored, "dead_letters": counts.loaded.dead,
        "done": counts.advanced, "total": counts.total.max(counts.advanced), "unit": total.unit,
        "timestamp": log::now(),
    })
}

fn result(name: &str, counts: &Counts, error: Option<&Error>) -> Value {
    let mut line = Map::new();
    line.insert("service".into(), SERVICE.into());
    line.insert("status".into(), if error.is_some() { "error" } else { "success" }.into());
    if let Some(error) = error {
        line.insert("side".into(), json!(error.side()));
        line.insert("reason".into(), error.to_string().into());
        line.insert("http_status".into(), error.http_status().into());
    }
    line.insert("processed_count".into(), counts.processed.into());
    line.insert("timestamp".into(), log::now().into());
    line.insert("pipeline".into(), name.into());
    line.append(&mut counted(counts));
    Value::Object(line)
}

fn counted(counts: &Counts) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, count) in
        [("stored", counts.loaded.stored), ("unchanged", counts.loaded.unchanged), ("dead_letters", counts.loaded.dead)]
    {
        map.insert(name.into(), count.into());
    }
    for (name, count) in [("damaged_files", counts.damaged), ("expired", counts.expired)] {
        if count > 0 {
            map.insert(name.into(), count.into());
        }
    }
    if let Value::Object(oddities) = json!(counts.oddities) {
        map.extend(oddities.into_iter().filter(|(_, count)| *count != json!(0)));
    }
    map
}

fn record(
    config: &Config,
    name: &str,
    started: jiff::Timestamp,
    begin: Instant,
    counts: &Counts,
    error: Option<&Error>,
) {
    if matches!(error, Some(Error::Busy(_) | Error::UnknownPipeline { .. })) {
        return;
    }
    let status = match error {
        Some(_) => "failed",
        None if counts.read == 0 => "nothing",
        None => "done",
    };
    let mut numbers = counted(counts);
    numbers.insert("processed_count".into(), counts.processed.into());
    let written = folder(&config.state_dir).and_then(|folder| {
        tell(&folder, name, status, &numbers, error.map(ToString::to_string));
        let _lock = Lock::wait(&folder, RECORD_LOCK)?;
        let details = details(&folder, name, counts.kept.as_ref());
        let run = Run {
            started: log::rfc3339(started),
            duration_ms: begin.elapsed().as_millis() as u64,
            status: status.to_owned(),
            counts: numbers,
            error: error.map(|error| format!("{name}: {error}")),
            details,
        };
        Record::add(&folder, SERVICE, run)
    });
    if let Err(error) = written {
        log::warn!("run_record_failed", error = error.to_string());
    }
}

/// Appends to the history what a run has moved, or that it failed where the run before did not.
fn tell(folder: &Folder, name: &str, status: &str, counts: &Map<String, Value>, reason: Option<String>) {
    // A damaged record is told of where it is replaced.
    let before = Record::read(folder).ok().flatten();
    let before = before.as_ref().and_then(|record| records::run_of(record, name)).map(|run| run.status.as_str());
    let kind = match status {
        "done" => Kind::Moved,
        "failed" if before != Some("failed") => Kind::Failed,
        _ => return,
    };
    Event::new(kind, name, status).because(reason).with("counts", counts).append(folder);
}

/// Leaves in the record that a run ended before it could write its own: `reason` says how.
///
/// # Errors
/// When the record cannot be written.
pub fn record_death(state_dir: &Path, name: &str, started: jiff::Timestamp, reason: &str) -> Result<(), state::Error> {
    let folder = folder(state_dir)?;
    tell(&folder, name, "failed", &Map::new(), Some(reason.to_owned()));
    let _lock = Lock::wait(&folder, RECORD_LOCK)?;
    let run = Run {
        started: log::rfc3339(started),
        duration_ms: jiff::Timestamp::now().duration_since(started).as_millis().try_into().unwrap_or(0),
        status: "failed".to_owned(),
        counts: Map::new(),
        error: Some(format!("{name}: {reason}")),
        details: details(&folder, name, None),
    };
    Record::add(&folder, SERVICE, run)
}

/// Puts into the record how many dead letters of each pipeline there are, for somebody has just dropped or stored some:
/// the next run may be a day away. Where there is no record, no run has counted any.
///
/// # Errors
/// When the record cannot be read or written.
pub(super) fn recount(state_dir: &Path, letters: &BTreeMap<String, u64>) -> Result<(), state::Error> {
    let folder = folder(state_dir)?;
    become_owner(folder.path())?;
    let _lock = Lock::wait(&folder, RECORD_LOCK)?;
    let Some(mut record) = Record::read(&folder)? else { return Ok(()) };
    let mut details = Reading::known(&record.last);
    let now = log::now();
    for (name, kept) in &mut details.kept {
        (kept.dead_letters, kept.counted) = (letters.get(name).copied().unwrap_or(0), now.clone());
    }
    details.kept.retain(|name, kept| letters.contains_key(name) || *name == details.pipeline || kept.damaged_files > 0);
    record.last.details = details.written();
    folder.publish_json("run.json", &record)
}

pub(super) fn folder(state_dir: &Path) -> Result<Folder, state::Error> {
    Folder::open_or_make(state_dir, 0o755)?.sub_or_make("reading", 0o750)
}

/// The pipeline of a run, and what every pipeline keeps: a run counts the dead letters of all, and its own files; other
/// pipelines' files come from the record before, and so does everything where it could not be counted.
fn details(folder: &Folder, name: &str, counted: Option<&BTreeMap<String, Kept>>) -> Value {
    // A damaged record is told of where it is replaced.
    let before = Record::read(folder).ok().flatten();
    let mut kept = before.map(|record| Reading::known(&record.last).kept).unwrap_or_default();
    if let Some(counted) = counted {
        kept.retain(|other, files| {
            files.dead_letters = 0;
            counted.contains_key(other) || files.damaged_files > 0
        });
        for (other, found) in counted {
            let entry = kept.entry(other.clone()).or_insert_with(|| found.clone());
            if other == name {
                *entry = found.clone();
            } else {
                entry.dead_letters = found.dead_letters;
            }
        }
    }
    Reading { pipeline: name.to_owned(), kept }.written()
}

fn say(line: Value) {
    let mut stdout = std::io::stdout().lock();
    // Whoever started the run reads this; where it is gone, the run ends with it.
    let _ = stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush());
}
