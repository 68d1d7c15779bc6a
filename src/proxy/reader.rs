//! What pages show of the database and of histories is read by a short-lived child, with a deadline: what is long to read
//! takes no memory of the gateway, and a database that is away or slow costs its pictures only.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, ExitCode};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::children::Children;
use super::page::{deployments, funnel, host, pipelines, units, uses};
use crate::command::{self, timespec};
use crate::config::Config;
use crate::{program, text};

/// The name of the child.
pub(super) const NAME: &str = "hub-page";
/// How long a page waits for a place, and then for what it asks.
const LIMIT: Duration = Duration::from_secs(2);
/// Children at a time.
const MOST: usize = 2;
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;
/// How long a child that was killed takes to go, but for one that hangs in the kernel.
const PARTING: Duration = Duration::from_millis(200);

/// What pages ask.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Host(host::Asked),
    /// All but so many of the newest.
    Deployments(usize),
    /// One, by its name in links.
    Deployment(String),
    Units,
    /// What these units used over the day.
    UsesOfDay(BTreeSet<String>),
    /// And before and after something, with its begin and its end in milliseconds since 1970.
    UsesAround(BTreeSet<String>, i64, i64),
    Pipelines(pipelines::Asked),
    Funnel(funnel::Asked),
}

/// Starts children and hears what they say.
pub(super) struct Readers {
    children: Children,
    busy: Mutex<Busy>,
    freed: Condvar,
}

#[derive(Default)]
struct Busy {
    asked: usize,
    /// Killed, and there still: a disk does not answer.
    stuck: Vec<Child>,
}

/// One of the places for children.
struct Seat<'a>(&'a Readers);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.busy().asked -= 1;
        self.0.freed.notify_one();
    }
}

impl Readers {
    pub fn new(config: &Config) -> Self {
        Self { children: Children::of(config), busy: Mutex::default(), freed: Condvar::new() }
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// A sentence for whoever looks at the page: why there is none.
    pub fn ask<T: DeserializeOwned>(&self, question: &Question) -> Result<T, String> {
        let question = serde_json::to_string(question).map_err(|error| error.to_string())?;
        let _seat = self.seat(Instant::now() + LIMIT)?;
        // A reader always has all of its time: it asks a server to give up before it is killed.
        let end = Instant::now() + LIMIT;
        let mut command = self.children.command(NAME);
        let mut child = command.arg(question).spawn().map_err(|error| format!("no reader can be started: {error}"))?;
        let said = hear(&mut child, end);
        let ended = self.part(child);
        let said = said?;
        match (serde_json::from_slice::<Result<T, String>>(&said), ended) {
            (Ok(answer), _) => answer,
            (Err(_), Some(how)) if said.is_empty() => Err(format!("the reader ended early: {how}")),
            (Err(error), _) => Err(format!("the reader printed what no page understands: {error}")),
        }
    }

    /// Waits for a place.
    fn seat(&self, end: Instant) -> Result<Seat<'_>, String> {
        let mut busy = self.busy();
        loop {
            busy.stuck.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
            if busy.asked + busy.stuck.len() < MOST {
                busy.asked += 1;
                return Ok(Seat(self));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{MOST} other pages are being read for already; look again in a moment"));
            }
            busy = self.freed.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sees a child off; how it ended, where it did not end well.
    fn part(&self, mut child: Child) -> Option<String> {
        // An error means that it has ended already.
        let _ = child.kill();
        let gone = Pid::from_raw(child.id().cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(gone) = gone {
            // What comes of the wait is seen below.
            let _ = poll(&mut [PollFd::new(&gone, PollFlags::IN)], Some(&timespec(PARTING)));
        }
        match child.try_wait() {
            Ok(Some(status)) => (!status.success()).then(|| command::ended(status)),
            Ok(None) => {
                self.busy().stuck.push(child);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        // Nothing panics while it holds the lock half-way through a change.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a child says up to its end.
fn hear(child: &mut Child, end: Instant) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the reader cannot be read: {error}");
    let Some(mut stdout) = child.stdout.take() else { return Err(failed(&"it has no voice")) };
    let (mut said, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&timespec(left))) {
            Ok(0) => return Err(format!("it could not be read within {} s", LIMIT.as_secs())),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(&error)),
        }
        match stdout.read(&mut piece) {
            Ok(0) => return Ok(said),
            Ok(count) => said.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error)),
        }
        if said.len() > LONGEST {
            return Err("it is more than a page can show".to_owned());
        }
    }
}

/// The child: answers the question on its command line.
pub(super) fn main() -> ExitCode {
    if !program::begin_child("proxy") {
        return program::Exit::Error.into();
    }
    let question = std::env::args().nth(1).unwrap_or_default();
    program::print(&answer(&question));
    program::Exit::Done.into()
}

fn answer(question: &str) -> String {
    let config = Config::load(None).map_err(|error| error.to_string());
    let said = config.and_then(|config| match serde_json::from_str(question).map_err(|error| error.to_string())? {
        Question::Host(asked) => json(&host::read(&config, &asked)),
        Question::Deployments(newer) => json(&deployments::read_list(&config, newer)),
        Question::Deployment(id) => json(&deployments::read_one(&config, &id)),
        Question::Units => json(&units::read(&config)),
        Question::UsesOfDay(units) => json(&uses::read_day(&config, &units)),
        Question::UsesAround(units, begin, end) => json(&uses::read_around(&config, &units, (begin, end))),
        Question::Pipelines(asked) => json(&pipelines::read(&config, &asked)),
        Question::Funnel(asked) => json(&funnel::read(&config, &asked)),
    });
    said.or_else(|error| json::<()>(&Err(error))).unwrap_or_default()
}

/// An answer, as the other side takes it.
fn json<T: Serialize>(answer: &Result<T, String>) -> Result<String, String> {
    serde_json::to_value(answer).map(|answer| text::json(&answer, false)).map_err(|error| error.to_string())
}
