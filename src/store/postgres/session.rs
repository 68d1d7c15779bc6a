use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{CancelToken, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, CONNECT_LIMIT};
use super::explain::{SSLROOTCERT, explain, quoted, said};
use crate::command::Backoff;
use crate::store::Error;
use crate::tls;

/// One look at the catalogs.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(3);

type Job = Box<dyn FnOnce(&mut Client) + Send>;

/// How long a request to cancel may take, and how long the farewell to the server.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A connection that lives in a thread of its own. The driver's calls wait for the server without a deadline, and a
/// server that accepts a connection and then stops would hold them for ever; so the caller waits here, and leaves the
/// thread behind when the time is over.
pub(super) struct Session {
    jobs: Option<Sender<Job>>,
    ended: Receiver<()>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    target: String,
    /// When whoever opened it has no more time.
    until: Option<Instant>,
}

impl Session {
    /// Connects and logs in within `CONNECT_LIMIT`, all hosts of the URL and all tries together, and not after `until`.
    ///
    /// # Errors
    /// When no server can be reached in time, or the login or the certificate is refused.
    pub(super) fn connect(address: &Address, until: Option<Instant>) -> Result<Self, Error> {
        let own = address.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let wants = tls::Wants { versions: address.versions, own };
        let tls = tls::client(address.trust, address.roots.as_deref(), SSLROOTCERT, wants);
        let tls = MakeRustlsConnect::new(tls.map_err(|reason| Error::Config(format!("database.url: {reason}")))?);
        let (jobs, queue) = mpsc::channel::<Job>();
        let (connected, connection) = mpsc::channel();
        let (alive, ended) = mpsc::channel::<()>();
        let (config, connector) = (address.config.clone(), tls.clone());
        let body = move || {
            let _alive = alive;
            match connect(&config, &connector) {
                Ok(mut client) => {
                    // Where nobody waits any more, the queue is closed too.
                    let _ = connected.send(Ok(client.cancel_token()));
                    for job in queue {
                        job(&mut client);
                    }
                }
                Err(error) => {
                    let _ = connected.send(Err(error));
                }
            }
        };
        let target = address.target.clone();
        let unavailable = |reason: String| Error::Unavailable { target: target.clone(), reason };
        std::thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(body)
            .map_err(|error| unavailable(format!("cannot start a thread: {error}")))?;
        let limit = left(CONNECT_LIMIT, until);
        let cancel = match connection.recv_timeout(limit) {
            Ok(Ok(cancel)) => cancel,
            Ok(Err(error)) => return Err(explain(address, "log in", &error)),
            Err(RecvTimeoutError::Timeout) => {
                return Err(unavailable(format!("no login within {:.0} s", limit.as_secs_f64())));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(unavailable("the driver gave up".to_owned())),
        };
        Ok(Self { jobs: Some(jobs), ended, cancel, tls, target, until })
    }

    /// Runs `job` on the connection and waits for it at most `limit`, and not after the session's own end. After a missed
    /// deadline the server is asked to cancel, and the session is of no more use.
    ///
    /// # Errors
    /// When the deadline is missed, or was missed before.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        limit: Duration,
        job: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |client| {
            let _ = done.send(job(client));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(self.unavailable("an earlier call was given up; open the database again".to_owned()));
        }
        let limit = left(limit, self.until);
        match result.recv_timeout(limit) {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Timeout) => {
                self.jobs = None;
                self.ask_to_cancel();
                Err(self.unavailable(format!("no answer within {:.0} s", limit.as_secs_f64())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.jobs = None;
                Err(self.unavailable("the driver gave up".to_owned()))
            }
        }
    }

    /// The same, with an error of the server explained: `act` is what was tried.
    ///
    /// # Errors
    /// As `call`, and when the server refuses.
    pub(super) fn explained<T: Send + 'static>(
        &mut self,
        address: &Address,
        limit: Duration,
        act: &str,
        job: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.call(limit, job)?.map_err(|error| explain_on(self, address, act, &error))
    }

    /// A statement that waits for a lock would otherwise go on after its client is gone.
    fn ask_to_cancel(&self) {
        let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
        let (done, asked) = mpsc::channel();
        let body = move || {
            let _ = done.send(cancel.cancel_query(tls).is_ok());
        };
        if std::thread::Builder::new().name("postgres-cancel".to_owned()).spawn(body).is_ok() {
            // A server that does not take it either is beyond help from here.
            let _ = asked.recv_timeout(LAST_WORDS);
        }
    }

    fn unavailable(&self, reason: String) -> Error {
        Error::Unavailable { target: self.target.clone(), reason }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // With time to say goodbye, the server's log does not complain about a lost client.
        if self.jobs.take().is_some() {
            let _ = self.ended.recv_timeout(LAST_WORDS);
        }
    }
}

/// What is left of a limit where there is an end to all of it.
fn left(limit: Duration, until: Option<Instant>) -> Duration {
    until.map_or(limit, |until| limit.min(until.saturating_duration_since(Instant::now())))
}

/// Connects; a server that is starting, or has all its connections in use, is asked again until the time is over.
fn connect(config: &postgres::Config, tls: &MakeRustlsConnect) -> Result<Client, postgres::Error> {
    let until = Instant::now() + CONNECT_LIMIT;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(800));
    loop {
        let error = match config.connect(tls.clone()) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let passing = [SqlState::TOO_MANY_CONNECTIONS, SqlState::CANNOT_CONNECT_NOW];
        let wait = backoff.next_wait();
        if !error.code().is_some_and(|code| passing.contains(code)) || Instant::now() + wait >= until {
            return Err(error);
        }
        std::thread::sleep(wait);
    }
}

/// As `explain`, where the session can be asked for more.
pub(super) fn explain_on(session: &mut Session, address: &Address, act: &str, error: &postgres::Error) -> Error {
    if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
        let is_standby = session.call(LOOK_LIMIT, |client| {
            client.query_typed_one("SELECT pg_is_in_recovery()", &[]).and_then(|row| row.try_get::<_, bool>(0))
        });
        // A standby may become the primary; this one would be read-only for ever.
        if let Ok(Ok(false)) = is_standby {
            let (role, database) = (quoted(&address.role), quoted(address.database()));
            return Error::Rights {
                target: address.target.clone(),
                reason: format!(
                    "cannot {act}: {}; it is no standby, so default_transaction_read_only is on",
                    said(error)
                ),
                remedy: format!(
                    "where the role or the database has it, run as a superuser: ALTER ROLE {role} RESET \
                     default_transaction_read_only; ALTER DATABASE {database} RESET default_transaction_read_only; else \
                     look at postgresql.conf"
                ),
            };
        }
    }
    explain(address, act, error)
}
