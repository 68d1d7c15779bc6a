//! Pipelines on request: a run is a child process of this very binary, so that neither its memory nor its end touches
//! the gateway. A client that goes away does not end it; the stop of the proxy does, and the next call resumes.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rouille::{Request, Response, ResponseBody};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::answer;
use super::children::Children;
use crate::command;
use crate::config::Config;
use crate::log;
use crate::reading::{RUN, record_death};

/// The media type of JSON lines.
const LINES: &str = "application/x-ndjson";
/// A run that says nothing for so long hangs: the database and the source have deadlines of their own below it.
const SILENCE: Duration = Duration::from_secs(300);
const LONGEST_LINE: usize = 64 << 10;

/// The pipelines and those of them that run.
pub(super) struct Syncs {
    names: Mutex<Vec<String>>,
    state_dir: PathBuf,
    children: Children,
    running: Mutex<HashMap<String, Arc<Ongoing>>>,
}

/// One run.
struct Ongoing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    /// The newest line and its number; a slow reader misses some.
    line: Option<Value>,
    number: u64,
    /// The last line, once the process has ended.
    result: Option<Value>,
    /// Why it was ended.
    ended: Option<&'static str>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Syncs {
    /// The configured pipelines; nothing runs yet.
    pub fn new(config: &Config) -> Self {
        let syncs = Self {
            names: Mutex::default(),
            state_dir: config.state_dir.clone(),
            children: Children::of(config),
            running: Mutex::default(),
        };
        syncs.renew(config);
        syncs
    }

    /// Answers for the pipelines of another configuration from now on; what runs goes on.
    pub fn renew(&self, config: &Config) {
        *locked(&self.names) = config.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
    }

    /// Answers a request for the pipeline `name`.
    pub fn answer(self: &Arc<Self>, request: &Request, name: &str) -> Response {
        let names = locked(&self.names).clone();
        if !names.iter().any(|known| known == name) {
            let known = if names.is_empty() { "no pipeline".to_owned() } else { names.join(", ") };
            return answer::error(404, &format!("no pipeline of this name is configured; hub.toml has {known}"));
        }
        if request.method() != "POST" {
            return answer::method_not_allowed("POST");
        }
        let Some(sync) = self.start(name) else {
            return answer::error(409, &format!("a run of {name} is going on already; it drains everything"));
        };
        let streams = request.header("Accept").is_some_and(|accept| {
            accept.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(LINES))
        });
        // Whether both sides can be reached is known before the first byte of the answer.
        let first = sync.wait(0);
        if !streams || first.is_result {
            return of_result(sync.result());
        }
        let mut response = Response::from_data(LINES, Vec::new()).with_additional_header("Cache-Control", "no-store");
        response.data = ResponseBody::from_reader(Progress { sync, number: 0, piece: Vec::new(), done: false });
        response
    }

    /// Starts a run; none where one is going on. Its thread lives as long as the process does, which dies with it.
    fn start(self: &Arc<Self>, name: &str) -> Option<Arc<Ongoing>> {
        let mut running = locked(&self.running);
        if running.contains_key(name) {
            return None;
        }
        let sync = Arc::new(Ongoing { state: Mutex::default(), changed: Condvar::new() });
        running.insert(name.to_owned(), Arc::clone(&sync));
        drop(running);
        let (syncs, thread_sync, name) = (Arc::clone(self), Arc::clone(&sync), name.to_owned());
        let body = {
            let name = name.clone();
            move || {
                let started = jiff::Timestamp::now();
                let result = thread_sync.attend(&name, syncs.children.command(RUN)).unwrap_or_else(|reason| {
                    // The run could not write its own record; without one, the last success would stand for it.
                    if let Err(error) = record_death(&syncs.state_dir, &name, started, &reason) {
                        log::warn!("run_record_failed", error = error.to_string());
                    }
                    failure(&name, &reason)
                });
                locked(&syncs.running).remove(&name);
                thread_sync.end(result);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("sync".to_owned()).spawn(body) {
            locked(&self.running).remove(&name);
            sync.end(failure(&name, &format!("cannot start a thread: {error}")));
        }
        Some(sync)
    }

    /// Ends what runs; what is committed stays.
    pub fn stop(&self) {
        let running: Vec<_> = locked(&self.running).values().cloned().collect();
        running.iter().for_each(|sync| sync.kill("the proxy stops"));
    }
}

/// A line, or the result.
struct Said {
    line: Value,
    number: u64,
    is_result: bool,
}

impl Ongoing {
    /// Runs the process to its end; returns its result, or how it ended without one.
    fn attend(&self, name: &str, mut command: Command) -> Result<Value, String> {
        let mut child = match command.arg(name).spawn() {
            Ok(child) => child,
            Err(error) => return Err(format!("cannot start the run: {error}")),
        };
        log::info!("sync_started", pipeline = name, pid = child.id());
        let stdout = child.stdout.take();
        {
            let mut state = locked(&self.state);
            if state.ended.is_some() {
                // Asked for before there was anything to end; an error means that it has ended already.
                let _ = child.kill();
            }
            state.child = Some(child);
        }
        let result = stdout.map_or(Ok(None), |stdout| self.read(stdout));
        if result.is_err() {
            self.kill("it could not be listened to");
        }
        let Some(mut child) = locked(&self.state).child.take() else { return Err("it was lost".to_owned()) };
        let status = child.wait();
        let ended = locked(&self.state).ended;
        match (result, status) {
            (Ok(Some(result)), _) => Ok(result),
            (Err(error), _) => Err(format!("the run was ended: {error}")),
            (_, Err(error)) => Err(format!("the run was lost: {error}")),
            (_, Ok(status)) => {
                let how = ended.map_or_else(|| command::ended(status), str::to_owned);
                Err(format!("the run ended early: {how}"))
            }
        }
    }

    /// Takes in the run's lines; the result, where one came.
    fn read(&self, mut stdout: ChildStdout) -> io::Result<Option<Value>> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        let mut result = None;
        loop {
            let limit = Timespec { tv_sec: SILENCE.as_secs().cast_signed(), tv_nsec: 0 };
            match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&limit)) {
                Ok(0) => return Err(io::Error::other(format!("it reported nothing for {} s", SILENCE.as_secs()))),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let count = stdout.read(&mut piece)?;
            if count == 0 {
                return Ok(result);
            }
            bytes.extend_from_slice(&piece[..count]);
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
                if line["status"] == "running" { self.tell(line) } else { result = Some(line) }
            }
            if bytes.len() > LONGEST_LINE {
                return Err(io::Error::other("its line is too long"));
            }
        }
    }

    fn tell(&self, line: Value) {
        let mut state = locked(&self.state);
        state.line = Some(line);
        state.number += 1;
        self.changed.notify_all();
    }

    fn end(&self, result: Value) {
        if result["status"] == "success" {
            log::info!("sync_ended", pipeline = result["pipeline"], processed_count = result["processed_count"]);
        } else {
            let error = &result["reason"];
            log::error!("sync_failed", pipeline = result["pipeline"], side = result["side"], error = error);
        }
        locked(&self.state).result = Some(result);
        self.changed.notify_all();
    }

    fn kill(&self, reason: &'static str) {
        let mut state = locked(&self.state);
        state.ended.get_or_insert(reason);
        if let Some(child) = &mut state.child {
            // An error means that it has ended already.
            let _ = child.kill();
        }
    }

    /// Waits for a line after `number`, or the result.
    fn wait(&self, number: u64) -> Said {
        let mut state = locked(&self.state);
        loop {
            if let Some(result) = &state.result {
                return Said { line: result.clone(), number: state.number, is_result: true };
            }
            if let (Some(line), true) = (&state.line, state.number > number) {
                return Said { line: line.clone(), number: state.number, is_result: false };
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn result(&self) -> Value {
        self.wait(u64::MAX).line
    }
}

fn failure(name: &str, reason: &str) -> Value {
    json!({
        "service": "reading-sync", "status": "error", "side": "pipeline",
        "reason": format!("{reason}; what is committed stays, and the next call goes on from there"),
        "http_status": 503, "processed_count": 0, "timestamp": log::now(), "pipeline": name,
    })
}

/// The one answer of a run that is not streamed. Its status is not part of the body.
fn of_result(mut result: Value) -> Response {
    let status = result.as_object_mut().and_then(|result| result.remove("http_status"));
    let status = status.and_then(|status| u16::try_from(status.as_u64()?).ok()).unwrap_or(200);
    answer::json(status, &result)
}

/// The lines of a run as the body of an answer.
struct Progress {
    sync: Arc<Ongoing>,
    number: u64,
    piece: Vec<u8>,
    done: bool,
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !self.done {
            let mut said = self.sync.wait(self.number);
            (self.number, self.done) = (said.number, said.is_result);
            if let Some(line) = said.line.as_object_mut() {
                line.remove("http_status");
            }
            self.piece = format!("{}\n", said.line).into_bytes();
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.drain(..count);
        Ok(count)
    }
}
