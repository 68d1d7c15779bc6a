//! The life of the process: everything made ready, the accept loop on the main thread, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::json;

use super::alive::{self, Alive};
use super::deliveries::Deliveries;
use super::listener::Engine;
use super::reader::Readers;
use super::secrets::{Secrets, secrets};
use super::sites::{Served, Shared};
use super::sockets::{self, Next, Sockets};
use super::sync::Syncs;
use crate::config::{Config, Error as ConfigError, LOOK_EVERY, Look, Refused, Renew, Renewal};
use crate::program::{self, Asked, Exit, Signals};
use crate::random;
use crate::records::history::{Event, Kind};
use crate::records::{self, Details};
use crate::state::{Error, Folder, Record, Run};
use crate::systemd::Watchdog;
use crate::webhook::queue::{Error as QueueError, Queue};
use crate::{log, systemd};

/// How long requests in flight get when the process stops.
const GRACE: Duration = Duration::from_secs(5);
/// The longest turn of the accept loop; what it looks after besides is done at least as often.
const TURN: Duration = LOOK_EVERY;

/// What the accept loop looks after.
struct Gateway {
    engine: Engine,
    sockets: Sockets,
    alive: Alive,
    shared: Shared,
    begin: Instant,
    /// Why the queue takes nothing, as it was last told.
    trouble: Option<String>,
    signals: Signals,
}

/// What the run record says of this process. One that was killed has said `running` to the end.
enum Life<'a> {
    Running(&'a Renewal),
    Stopped,
    Failed(&'a str),
}

/// Serves until a signal asks for the end.
pub(super) fn serve(mut renewal: Renewal, secrets: Secrets) -> Exit {
    let started = jiff::Timestamp::now();
    let begin = Instant::now();
    let deliveries = Arc::new(Deliveries::default());
    let result = start(&renewal, secrets, started, begin, Arc::clone(&deliveries));
    let result = result.and_then(|gateway| gateway.run(&mut renewal));
    if let Err(error) = &result {
        log::error!("proxy_failed", error = error);
    }
    deliveries.end();
    let end = result.as_ref().map_or_else(|error| Life::Failed(error), |()| Life::Stopped);
    record(renewal.config(), started, begin, Some(&deliveries), end);
    if result.is_ok() {
        log::info!("stopped", duration_ms = begin.elapsed().as_millis() as u64);
        Exit::Done
    } else {
        Exit::Error
    }
}

/// Does not serve, because of the configuration.
pub(super) fn refuse(config: &Config, error: &ConfigError) -> Exit {
    record(config, jiff::Timestamp::now(), Instant::now(), None, Life::Failed(&error.to_string()));
    program::configuration_error(error)
}

fn record(config: &Config, started: jiff::Timestamp, begin: Instant, deliveries: Option<&Deliveries>, life: Life) {
    let (status, error) = match life {
        Life::Running(_) => ("running", None),
        Life::Stopped => ("stopped", None),
        Life::Failed(error) => ("failed", Some(error.to_owned())),
    };
    let counts = deliveries.map(Deliveries::counts).map(|counts| json!(counts));
    let run = Run {
        started: log::rfc3339(started),
        duration_ms: begin.elapsed().as_millis() as u64,
        status: status.to_owned(),
        counts: counts.and_then(|counts| counts.as_object().cloned()).unwrap_or_default(),
        error,
        details: match life {
            Life::Running(renewal) => {
                let (configuration, configuration_refused) = (renewal.in_force(), renewal.refused().cloned());
                records::Gateway { configuration, configuration_refused }.written()
            }
            _ => serde_json::Value::Null,
        },
    };
    if let Err(error) = folder(config).and_then(|folder| Record::add(&folder, "proxy", run)) {
        log::warn!("run_record_failed", error = error.to_string());
    }
}

fn folder(config: &Config) -> Result<Folder, Error> {
    Folder::open_or_make(&config.state_dir, 0o755)?.sub_or_make("proxy", 0o750)
}

fn start(
    renewal: &Renewal,
    secrets: Secrets,
    started: jiff::Timestamp,
    begin: Instant,
    deliveries: Arc<Deliveries>,
) -> Result<Gateway, String> {
    let config = renewal.config();
    let instance = random::id().map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let signals = Signals::watch().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let queue = Arc::new(Queue::open(&config.state_dir).map_err(|error| error.to_string())?);
    if let Err(error @ QueueError::ReadOnly(_)) = queue.check() {
        // Not to be waited out: the mounts of this process's own sandbox would stay read-only. A new start has new ones.
        return Err(error.to_string());
    }
    let sockets = Sockets::start(sockets::wanted(config))?;
    let alive = Alive::listen(&alive::folder(&config.state_dir), &config.state_dir, &instance)
        .map_err(|error| error.to_string())?;
    let shared = Shared {
        queue,
        deliveries,
        syncs: Arc::new(Syncs::new(config)),
        readers: Arc::new(Readers::new(config)),
        counters: Default::default(),
        holders: Arc::default(),
        instance,
        started,
        refused: Arc::default(),
    };
    let mut engine = Engine::new();
    let sites = shared.sites(config, secrets).map_err(|error| error.to_string())?;
    for (at, (Served { limits, site }, counters)) in sites.into_iter().zip(&shared.counters).enumerate() {
        let socket = sockets.descriptor(at)?;
        engine.listen(socket, limits, site, Arc::clone(counters)).map_err(|error| error.to_string())?;
    }
    let gateway = Gateway { engine, sockets, alive, shared, begin, trouble: None, signals };
    // Whoever reads that it listens finds its record.
    gateway.record(renewal);
    log::info!(
        "listening",
        listen = gateway.sockets.addresses()[0].to_string(),
        admin_listen = gateway.sockets.addresses()[1].to_string(),
        sockets_kept = gateway.sockets.are_kept(),
        alive = gateway.alive.path().display().to_string(),
        instance = gateway.shared.instance
    );
    match folder(config) {
        Ok(folder) => Event::new(Kind::Started, "", "started").with("version", crate::VERSION).append(&folder),
        Err(error) => log::warn!("history_not_written", error = error.to_string()),
    }
    systemd::ready(&gateway.status(None));
    Ok(gateway)
}

impl Renew for Gateway {
    type Prepared = (Secrets, [Next; 2]);

    fn prepare(&self, config: &Config) -> Result<Self::Prepared, String> {
        let secrets = secrets(config).map_err(|error| error.to_string())?;
        Ok((secrets, self.sockets.prepare(sockets::wanted(config))?))
    }

    fn renew(&mut self, config: &Config, (secrets, next): Self::Prepared) -> Result<(), String> {
        let sites = self.shared.sites(config, secrets).map_err(|error| error.to_string())?;
        let before = self.sockets.addresses();
        self.sockets.renew(&mut self.engine, sockets::wanted(config), next)?;
        for (at, Served { limits, site }) in sites.into_iter().enumerate() {
            self.engine.renew(at, limits, site);
        }
        self.shared.syncs.renew(config);
        let [listen, admin] = self.sockets.addresses();
        if before != [listen, admin] {
            log::info!("listening", listen = listen.to_string(), admin_listen = admin.to_string());
        }
        Ok(())
    }
}

impl Gateway {
    /// The sentence of `systemctl status`.
    fn status(&self, refused: Option<&Refused>) -> String {
        let [listen, admin] = self.sockets.addresses();
        format!("webhooks on {listen}, status on http://{admin}/{}", Refused::suffix(refused))
    }

    fn record(&self, renewal: &Renewal) {
        let Shared { started, deliveries, .. } = &self.shared;
        record(renewal.config(), *started, self.begin, Some(deliveries), Life::Running(renewal));
    }

    /// Looks whether hub.toml or a credential is another one.
    fn look_at_configuration(&mut self, renewal: &mut Renewal, now: Instant) -> Result<(), String> {
        let look = renewal.look(now, self);
        if let Some(lost) = &self.sockets.lost {
            return Err(lost.clone());
        }
        if look != Look::Nothing {
            let refused = renewal.refused();
            self.shared.set_refused(refused.cloned());
            systemd::status(&self.status(refused));
            self.record(renewal);
        }
        Ok(())
    }

    /// Says when the queue can take nothing any more, and when it can again.
    fn watch_queue(&mut self) {
        let trouble = self.shared.queue.check().err().map(|error| error.to_string());
        match (&trouble, &self.trouble) {
            (Some(error), None) => log::error!("queue_unusable", error = error),
            (None, Some(_)) => log::info!("queue_usable"),
            _ => {}
        }
        self.trouble = trouble;
    }

    /// The accept loop. It pings the watchdog itself, so that a loop that hangs is restarted.
    fn run(mut self, renewal: &mut Renewal) -> Result<(), String> {
        let mut watchdog = Watchdog::from_environment();
        let turn = watchdog.turn(TURN);
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            watchdog.attend(now);
            if now >= renewal.due(looked) {
                self.look_at_configuration(renewal, now)?;
                self.shared.deliveries.flush();
                self.shared.holders.store(self.alive.prune(), Relaxed);
                self.watch_queue();
                looked = now;
            }
            let mut others = self.signals.fds().to_vec();
            let signals = others.len();
            others.extend(self.alive.fd());
            let left = renewal.due(looked).saturating_duration_since(Instant::now()).min(turn);
            let ready = self.engine.turn(left, &others).map_err(|error| error.to_string())?;
            match self.signals.asked().map_err(|error| format!("cannot watch for signals: {error}"))? {
                Some(Asked::Stop) => break,
                Some(Asked::Reload) => {
                    log::info!("reload_asked");
                    renewal.ask();
                }
                None => {}
            }
            if ready.contains(&signals) {
                self.alive.accept();
            }
        }
        systemd::stopping();
        log::info!("stopping");
        self.shared.syncs.stop();
        // Or who comes now would wait for nobody.
        drop(self.sockets);
        let cut = self.engine.stop(GRACE);
        if cut > 0 {
            log::warn!("requests_cut", count = cut);
        }
        Ok(())
    }
}
