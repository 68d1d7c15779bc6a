//! The life of the process: everything made ready, the accept loop on the main thread, the end.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Secrets;
use super::admin::Admin;
use super::alive::{self, Alive};
use super::deliveries::Deliveries;
use super::listener::{Counters, Engine, Limits};
use super::public::{self, Public};
use super::sockets::Sockets;
use super::status::Sources;
use super::sync::Syncs;
use crate::config::{Config, Error as ConfigError};
use crate::exit::{self, Exit};
use crate::random;
use crate::state::{Folder, Record, Run};
use crate::systemd::Watchdog;
use crate::webhook::queue::{Error as QueueError, Queue};
use crate::{log, systemd};

/// Connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 32;
const ADMIN_BODY_MEMORY: usize = 64 << 10;
/// How long requests in flight get when the process stops.
const GRACE: Duration = Duration::from_secs(5);
/// The longest turn of the accept loop; what it looks after besides is done at least as often.
const TURN: Duration = Duration::from_secs(1);

/// What the accept loop looks after.
struct Gateway {
    engine: Engine,
    alive: Alive,
    holders: Arc<AtomicUsize>,
    deliveries: Arc<Deliveries>,
    syncs: Arc<Syncs>,
    queue: Arc<Queue>,
    /// Why the queue takes nothing, as it was last told.
    trouble: Option<String>,
    stop: std::os::unix::net::UnixStream,
}

/// What the run record says of this process. One that was killed has said `running` to the end.
enum Life<'a> {
    Running,
    Stopped,
    Failed(&'a str),
}

/// Serves until a signal asks for the end.
pub(super) fn serve(config: &Config, secrets: Secrets) -> Exit {
    let started = jiff::Timestamp::now();
    let begin = Instant::now();
    let deliveries = Arc::new(Deliveries::default());
    let result = start(config, secrets, started, begin, Arc::clone(&deliveries)).and_then(Gateway::run);
    if let Err(error) = &result {
        log::error!("proxy_failed", error = error);
    }
    let end = result.as_ref().map_or_else(|error| Life::Failed(error), |()| Life::Stopped);
    record(config, started, begin, Some(&deliveries), end);
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
    exit::configuration_error(error)
}

fn record(config: &Config, started: jiff::Timestamp, begin: Instant, deliveries: Option<&Deliveries>, life: Life) {
    let (status, error) = match life {
        Life::Running => ("running", None),
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
        details: serde_json::Value::Null,
    };
    let folder = Folder::open_or_make(&config.state_dir, 0o755).and_then(|root| root.sub_or_make("proxy", 0o750));
    if let Err(error) = folder.and_then(|folder| Record::add(&folder, "proxy", run)) {
        log::warn!("run_record_failed", error = error.to_string());
    }
}

fn start(
    config: &Config,
    secrets: Secrets,
    started: jiff::Timestamp,
    begin: Instant,
    deliveries: Arc<Deliveries>,
) -> Result<Gateway, String> {
    let text = |error: &dyn Display| error.to_string();
    let instance = random::id().map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let stop = exit::stop_signals().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let queue = Arc::new(Queue::open(&config.state_dir).map_err(|error| text(&error))?);
    if let Err(error @ QueueError::ReadOnly(_)) = queue.check() {
        // Not to be waited out: the mounts of this process's own sandbox would stay read-only. A new start has new ones.
        return Err(text(&error));
    }
    let (listen, admin_listen) = (config.proxy.listen, config.proxy.admin_listen);
    let mut sockets = Sockets::take(&[listen, admin_listen]);
    let public_socket = sockets.bind("public", "proxy.listen", listen)?;
    let admin_socket = sockets.bind("admin", "proxy.admin_listen", admin_listen)?;
    let (public_address, admin_address) = (public_socket.address, admin_socket.address);
    let are_kept = public_socket.kept && admin_socket.kept;
    let alive =
        Alive::listen(&alive::folder(&config.state_dir), &config.state_dir, &instance).map_err(|error| text(&error))?;
    let holders = Arc::new(AtomicUsize::new(0));
    let (public_counters, admin_counters): (Arc<Counters>, Arc<Counters>) = Default::default();
    let branches = config.repositories.iter().map(|repository| (repository.name.clone(), repository.branch.clone()));
    let syncs = Arc::new(Syncs::new(config));
    let secret_missing = secrets.webhook.is_empty();
    let webhook = Arc::new(public::Secrets::new(secrets.credentials, secrets.webhook));
    let admin = Admin {
        syncs: Arc::clone(&syncs),
        hosts: config.proxy.admin_hosts.clone(),
        token: secrets.token,
        sources: Sources {
            folder: Folder::open(&config.state_dir).map_err(|error| text(&error))?,
            repositories: branches.collect(),
            pipelines: config.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect(),
            secrets: Arc::clone(&webhook),
            queue: Arc::clone(&queue),
            deliveries: Arc::clone(&deliveries),
            public: Arc::clone(&public_counters),
            admin: Arc::clone(&admin_counters),
            holders: Arc::clone(&holders),
            instance: instance.clone(),
            started,
        },
    };
    let public = Public {
        repositories: config.repositories.clone(),
        max_body: config.proxy.max_body,
        secrets: webhook,
        queue: Arc::clone(&queue),
        deliveries: Arc::clone(&deliveries),
        instance: instance.clone(),
    };
    let defaults = Limits::default();
    // A quarter of it is kept from large bodies, and the largest has to fit.
    let largest = usize::try_from(config.proxy.max_body).unwrap_or(usize::MAX).div_ceil(3).saturating_mul(4);
    let public_limits = Limits { body_memory: defaults.body_memory.max(largest), ..defaults.clone() };
    let admin_limits = Limits { connections: ADMIN_CONNECTIONS, body_memory: ADMIN_BODY_MEMORY, ..defaults };
    let mut engine = Engine::new();
    engine
        .listen(public_socket.socket, public_limits, Arc::new(public), public_counters)
        .map_err(|error| text(&error))?;
    engine.listen(admin_socket.socket, admin_limits, Arc::new(admin), admin_counters).map_err(|error| text(&error))?;
    if secret_missing {
        log::warn!(
            "secret_missing",
            reason = "no webhook secret: deliveries get 503 until the credential webhook-secret is there"
        );
    }
    log::info!(
        "listening",
        listen = public_address.to_string(),
        admin_listen = admin_address.to_string(),
        sockets_kept = are_kept,
        alive = alive.path().display().to_string(),
        instance = instance
    );
    record(config, started, begin, Some(&deliveries), Life::Running);
    systemd::ready(&format!("webhooks on {public_address}, status on http://{admin_address}/"));
    Ok(Gateway { engine, alive, holders, deliveries, syncs, queue, trouble: None, stop })
}

impl Gateway {
    /// Says when the queue can take nothing any more, and when it can again.
    fn watch_queue(&mut self) {
        let trouble = self.queue.check().err().map(|error| error.to_string());
        match (&trouble, &self.trouble) {
            (Some(error), None) => log::error!("queue_unusable", error = error),
            (None, Some(_)) => log::info!("queue_usable"),
            _ => {}
        }
        self.trouble = trouble;
    }

    /// The accept loop. It pings the watchdog itself, so that a loop that hangs is restarted.
    fn run(mut self) -> Result<(), String> {
        let mut watchdog = Watchdog::from_environment();
        let turn = watchdog.turn(TURN);
        let mut looked = Instant::now();
        loop {
            watchdog.attend(Instant::now());
            if looked.elapsed() >= TURN {
                self.deliveries.flush();
                self.holders.store(self.alive.prune(), Relaxed);
                self.watch_queue();
                looked = Instant::now();
            }
            let mut others = vec![self.stop.as_fd()];
            others.extend(self.alive.fd());
            let ready = self.engine.turn(turn, &others).map_err(|error| error.to_string())?;
            if ready.contains(&0) {
                break;
            }
            if ready.contains(&1) {
                self.alive.accept();
            }
        }
        systemd::stopping();
        log::info!("stopping");
        self.syncs.stop();
        let cut = self.engine.stop(GRACE);
        if cut > 0 {
            log::warn!("requests_cut", count = cut);
        }
        Ok(())
    }
}
