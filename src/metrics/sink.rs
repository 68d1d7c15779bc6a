use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use crate::config::Config;
use crate::store::{self, EventRow, MetricRow, Shipped, Store};

/// The rows of one transaction.
pub(super) type Rows = Arc<Vec<MetricRow>>;
/// What happened, to go with them.
pub(super) type Events = Arc<Vec<EventRow>>;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database refuses one row for itself.
    Refused { index: usize, reason: String },
    /// The database cannot be used; everything waits.
    Unavailable(String),
}

/// What can store rows, each batch whole or not at all.
pub(super) trait Sink {
    /// Stores rows, and what happened with them; what became of that is told.
    ///
    /// # Errors
    /// When nothing of the rows is stored.
    fn insert(&mut self, rows: Rows, events: Events) -> Result<Shipped, Failure>;
}

/// The database behind a thread: whatever hangs in it is left behind when the run's time is over. A batch that the
/// thread still stores afterwards is stored again from the spool, which the table's unique key makes harmless.
pub(super) struct Database {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Result<Shipped, store::Error>>,
    deadline: Instant,
    given_up: Option<String>,
}

enum Request {
    Insert(Rows, Events),
    DeleteOld(u32),
}

impl Database {
    /// Starts the thread; the database is opened with the first request.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: &Config, deadline: Instant) -> Result<Self, std::io::Error> {
        let (requests, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let config = config.clone();
        std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut store = None;
            for request in inbox {
                let opened = match store.take() {
                    Some(open) => Ok(open),
                    None => Store::open(&config),
                };
                let answer = opened.and_then(|open| {
                    let open = store.insert(open);
                    match request {
                        Request::Insert(rows, events) => open.insert_metrics(&rows, &events),
                        Request::DeleteOld(days) => open.delete_old_metrics(days).map(|_| Shipped::default()),
                    }
                });
                if outbox.send(answer).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers, deadline, given_up: None })
    }

    /// Deletes rows older than these days.
    ///
    /// # Errors
    /// When the database cannot be used, or does not answer in time.
    pub fn delete_old(&mut self, days: u32) -> Result<(), Failure> {
        self.ask(Request::DeleteOld(days)).map(drop)
    }

    fn ask(&mut self, request: Request) -> Result<Shipped, Failure> {
        if let Some(reason) = &self.given_up {
            return Err(Failure::Unavailable(reason.clone()));
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let sent = self.requests.send(request).map_err(|_| RecvTimeoutError::Disconnected);
        let answer = sent.and_then(|()| self.answers.recv_timeout(left)).map_err(|error| match error {
            RecvTimeoutError::Timeout => "the database did not answer within the run's time".to_owned(),
            RecvTimeoutError::Disconnected => "the thread that speaks to the database has ended; see above".to_owned(),
        });
        match answer {
            Ok(Ok(shipped)) => Ok(shipped),
            Ok(Err(error)) => match error.is_row_refused() {
                Some(index) => Err(Failure::Refused { index, reason: error.to_string() }),
                None => Err(self.give_up(error.to_string())),
            },
            Err(reason) => Err(self.give_up(reason)),
        }
    }

    fn give_up(&mut self, reason: String) -> Failure {
        self.given_up = Some(reason.clone());
        Failure::Unavailable(reason)
    }
}

impl Sink for Database {
    fn insert(&mut self, rows: Rows, events: Events) -> Result<Shipped, Failure> {
        self.ask(Request::Insert(rows, events))
    }
}

/// A database that could not even be tried.
pub(super) struct Broken(pub String);

impl Sink for Broken {
    fn insert(&mut self, _: Rows, _: Events) -> Result<Shipped, Failure> {
        Err(Failure::Unavailable(self.0.clone()))
    }
}
