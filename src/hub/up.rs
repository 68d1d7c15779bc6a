use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::job::Job;
use super::schedule::Schedule;
use super::service::Service;
use super::supervisor::Supervisor;
use super::{Error, greeting};
use crate::config::{self, Config, Renewal};
use crate::program::{self, Exit};
use crate::reading::{inboxes, is_input};
use crate::state::{Folder, Lock};
use crate::store::Store;
use crate::{log, systemd};

/// Run everything on this host without systemd units, in the foreground. The proxy runs all the time, system-metrics and
/// hub watch every minute. gitops-sync runs at start, for each delivery, and every five minutes for what is due.
/// reading-sync runs at 10:00 and when an inbox gets a file. Ctrl-C or SIGTERM stops everything.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "up",
    note = "A changed configuration or credential is taken into use when it has not changed for two seconds, and at once on \
            SIGHUP, or refused with the reason. It does not start while the installed units are active.",
    example = "hub up\nhub up --config ./hub.toml\nhub up --check"
)]
pub(super) struct Arguments {
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// show whether the configuration is right, and start nothing
    #[argh(switch)]
    check: bool,
    /// run tailscale-gate as well, which opens Tailscale Funnel while the proxy is healthy
    #[argh(switch)]
    gate: bool,
    /// write JSON lines on a terminal too, as everywhere else
    #[argh(switch)]
    json: bool,
}

/// How often gitops-sync looks whether a repository is due that nobody announced: a forge does not deliver twice.
const BACKSTOP: Duration = Duration::from_secs(5 * 60);

/// How often the host is measured.
const SAMPLE: Duration = Duration::from_secs(60);

/// How often the host is judged, and speaks.
const LOOK: Duration = Duration::from_secs(60);

/// How long the programs have to start before the host is judged: a proxy that does not answer yet is no fault.
const SETTLED: Duration = Duration::from_secs(5);

/// When reading-sync moves what waits in the pipelines' sources, in local time; files in an inbox are moved at once.
const READING_HOUR: i8 = 10;

pub(super) fn main(arguments: &Arguments, services: &[Service]) -> Exit {
    let flag = arguments.config.as_deref();
    if !arguments.json {
        log::for_people();
    }
    let done = match check(flag, services) {
        Ok(renewal) if arguments.check => return check_addresses(renewal.config()),
        Ok(renewal) => run(renewal, flag, arguments.gate, services),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            // A person reads a sentence, a program reads a line.
            if log::is_for_people() {
                error.complain();
            } else if let Error::Config(error) = &error {
                return program::configuration_error(error);
            } else {
                log::error!("up_failed", error = error.to_string());
            }
            error.exit()
        }
    }
}

/// Ends `--check`: a service starts with an address that nothing can be found at, and the person who asks wants to know.
fn check_addresses(config: &Config) -> Exit {
    let database = Store::check_address(config).map_err(|error| error.to_string());
    program::checked(config, database.and_then(|()| config.check_mongo().map_err(|error| error.to_string())))
}

/// Reads the configuration and asks every service whether it would start with it.
fn check(flag: Option<&Path>, services: &[Service]) -> Result<Renewal, config::Error> {
    let renewal = Renewal::load(flag)?;
    services.iter().try_for_each(|service| (service.check)(renewal.config()))?;
    Ok(renewal)
}

/// `<state>/proxy/queue`
fn queue(state: &Path) -> PathBuf {
    state.join("proxy/queue")
}

fn run(mut renewal: Renewal, flag: Option<&Path>, gate: bool, services: &[Service]) -> Result<(), Error> {
    let config = renewal.config();
    if systemd::is_running() {
        let active = active_units()?;
        if !active.is_empty() {
            return Err(Error::UnitsActive(active));
        }
    }
    let state = make_state(&config.state_dir)?;
    let Some(_lock) = Lock::attempt(&state, "up.lock")? else {
        return Err(Error::AlreadyUp(config.state_dir.clone()));
    };
    // The proxy would say it too, again and again; a person who has just typed the command wants to hear it once.
    try_address("proxy.listen", config.proxy.listen)?;
    try_address("proxy.admin_listen", config.proxy.admin_listen)?;
    let mut reading = Job::new("reading-sync", Schedule::Daily(READING_HOUR), None);
    reading.set_inboxes(inboxes(config), is_input, Instant::now());
    let mut jobs = vec![
        Job::new("proxy", Schedule::Always, None),
        Job::new("gitops-sync", Schedule::Every(BACKSTOP), Some(queue(&config.state_dir))),
        Job::new("system-metrics", Schedule::Every(SAMPLE), None),
        Job::new("hub-watch", Schedule::Every(LOOK), None).after(SETTLED),
        reading,
    ];
    if gate {
        jobs.push(Job::new("tailscale-gate", Schedule::Always, None));
    }
    let supervisor = Supervisor::new(jobs, services, config, flag)?;
    greeting::greet(config, flag);
    supervisor.run(&mut renewal)
}

/// The state folder, readable by all where it is made: what is private has folders of its own in it.
fn make_state(path: &Path) -> Result<Folder, Error> {
    match Folder::open(path) {
        Err(error) if error.is_missing() => {
            let folder = Folder::open_or_make(path, 0o755)?;
            // Whatever the umask of the first person who started it was.
            rustix::fs::fchmod(folder.fd(), rustix::fs::Mode::from_raw_mode(0o755))
                .map_err(|error| Error::System { act: "set the mode of the state folder", source: error.into() })?;
            Ok(folder)
        }
        other => Ok(other?),
    }
}

fn try_address(key: &'static str, address: SocketAddr) -> Result<(), Error> {
    TcpListener::bind(address).map(drop).map_err(|source| Error::Listen { key, address, source })
}

fn active_units() -> Result<Vec<String>, Error> {
    let own = systemd::look(&[]).map_err(Error::Units)?.own;
    Ok(own.into_iter().filter(|(_, unit)| unit.is_active()).map(|(name, _)| name).collect())
}
