use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::baseline::{Baseline, Counters, Moment, Past, Standing};
use super::disk::{self, Barred, StuckMounts};
use super::payload::{Payload, Put, Report, decimal};
use super::roots::{self, Roots};
use super::sensors::CpuTemperatures;
use super::{
    Error, array, block, btrfs, cpu, kernel, load, memory, network, power, pressure, sensors, swap, time, unit, units,
};

/// How long the collectors may take together; who has not answered then is left behind.
const LIMIT: Duration = Duration::from_secs(8);

use crate::kinds;
use crate::records::Look;
use crate::systemd::Looked;

/// How many sentences are remembered as told.
const TOLD: usize = 200;

/// What every collector may look at.
#[derive(Debug)]
pub(super) struct Context {
    /// Where the kernel's files are.
    pub roots: Roots,
    /// When this is.
    pub moment: Moment,
    /// The run before, where rates can be measured from it.
    pub past: Option<Past>,
    /// File systems that did not answer before.
    pub stuck: StuckMounts,
    /// True where the kernel counts with 32 bits.
    pub narrow: bool,
    /// The unit files that the hub installed, or why they are not known.
    pub deployed: Result<BTreeSet<String>, String>,
    /// What hub watch saw lately.
    pub look: Option<Look>,
    looked: OnceLock<Result<Looked, String>>,
    stat: Result<cpu::Stat, Arc<Error>>,
    meminfo: OnceLock<Result<HashMap<String, u64>, Arc<Error>>>,
    vmstat: OnceLock<Result<HashMap<String, u64>, Arc<Error>>>,
}

impl Context {
    /// Whether systemd knows anything of what is measured.
    pub fn asks_systemd(&self) -> bool {
        self.roots.is_live() && crate::systemd::is_running()
    }

    /// What systemd says of its units, asked once; the first to ask may name some.
    pub fn looked(&self, names: &[String]) -> Result<&Looked, Error> {
        let looked = self.looked.get_or_init(|| crate::systemd::look(names).map_err(|error| error.to_string()));
        looked.as_ref().map_err(|error| Error::Systemd(error.clone()))
    }

    /// `/proc/stat`, read once for all who need it.
    pub fn stat(&self) -> Result<&cpu::Stat, Error> {
        self.stat.as_ref().map_err(again)
    }

    /// `/proc/meminfo`, read once.
    pub fn meminfo(&self) -> Result<&HashMap<String, u64>, Error> {
        let read = || self.roots.proc("meminfo").map(|bytes| memory::parse(&bytes)).map_err(Arc::new);
        self.meminfo.get_or_init(read).as_ref().map_err(again)
    }

    /// `/proc/vmstat`, read once.
    pub fn vmstat(&self) -> Result<&HashMap<String, u64>, Error> {
        let read = || self.roots.proc("vmstat").map(|bytes| swap::parse(&bytes)).map_err(Arc::new);
        self.vmstat.get_or_init(read).as_ref().map_err(again)
    }
}

/// The same error for another reader of the same file.
fn again(error: &Arc<Error>) -> Error {
    match error.as_ref() {
        Error::Read { path, source } => {
            let source = source.raw_os_error().map_or_else(|| source.kind().into(), std::io::Error::from_raw_os_error);
            Error::Read { path: path.clone(), source }
        }
        Error::Format { path, reason } => Error::Format { path: path.clone(), reason: reason.clone() },
        other => Error::Format { path: std::path::PathBuf::new(), reason: other.to_string() },
    }
}

/// How one collector did.
#[derive(Debug)]
pub(super) struct Done {
    /// Its name.
    pub collector: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// What went wrong with all of it, or with a part.
    pub problems: Vec<String>,
    /// Those that were not told before in this boot.
    pub fresh: Vec<String>,
    /// False where nothing came of it.
    pub ok: bool,
}

/// Everything a run measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// The rows, in a fixed order.
    pub rows: Vec<(&'static str, Payload)>,
    /// How each collector did.
    pub done: Vec<Done>,
    /// What the next run measures from: this run, or the old baseline where that is to be kept.
    pub baseline: Baseline,
    /// File systems that this user cannot reach.
    pub barred: Barred,
    /// Seconds since the run before.
    pub interval: Option<f64>,
}

/// An answer on its way from a collector.
enum Part {
    Report(Report),
    Disk(Report, disk::Known),
    Sensors(Report, CpuTemperatures),
}

type Collector = fn(&Context) -> Result<Part, Error>;

/// The collectors, in lanes: those of one lane take turns in one thread, so that what hangs costs its lane only. The
/// first lane reads files that the kernel answers from memory; the others may wait for a disk, a bus or a daemon.
const LANES: [&[(&str, Collector)]; 4] = [
    &[
        ("cpu", |context| cpu::collect(context).map(Part::Report)),
        ("load", |context| load::collect(context).map(Part::Report)),
        ("memory", |context| memory::collect(context).map(Part::Report)),
        ("swap", |context| swap::collect(context).map(Part::Report)),
        ("pressure", |context| pressure::collect(context).map(Part::Report)),
        ("kernel", |context| kernel::collect(context).map(Part::Report)),
        ("network", |context| network::collect(context).map(Part::Report)),
        ("disk_io", |context| block::collect(context).map(Part::Report)),
        ("time", |context| time::collect(context).map(Part::Report)),
    ],
    &[("disk", |context| disk::collect(context).map(|(report, known)| Part::Disk(report, known)))],
    &[
        ("sensors", |context| {
            let (report, cpu) = sensors::collect(context);
            Ok(Part::Sensors(report, cpu))
        }),
        ("power", |context| Ok(Part::Report(power::collect(context)))),
        ("array", |context| Ok(Part::Report(array::collect(context)))),
        ("btrfs", |context| Ok(Part::Report(btrfs::collect(context)))),
    ],
    &[
        ("unit", |context| unit::collect(context).map(Part::Report)),
        ("systemd", |context| units::collect(context).map(Part::Report)),
    ],
];

/// Measures everything once. `deployed` are the unit files that the hub installed, or why they are not known; `look` is what
/// hub watch saw lately.
///
/// # Errors
/// When no thread can be started.
pub(super) fn measure(
    roots: Roots,
    before: Option<Baseline>,
    wall: jiff::Timestamp,
    deployed: Result<BTreeSet<String>, String>,
    look: Option<Look>,
) -> Result<Measured, Error> {
    let stat = roots.proc("stat").and_then(|bytes| cpu::parse(&bytes)).map_err(Arc::new);
    let moment = time::moment(&roots, stat.as_ref().ok(), wall);
    let old = before.clone().unwrap_or_default();
    let (stuck, told) = (old.stuck.clone(), old.told.clone());
    let (past, stuck, told, keep) = match before.map(|before| before.standing(&moment)) {
        Some(Standing::Since(past)) => (Some(past), stuck, told, false),
        Some(Standing::TooSoon) => (None, stuck, told, true),
        Some(Standing::New) | None => (None, StuckMounts::new(), BTreeSet::new(), false),
    };
    let interval = past.as_ref().map(|past| past.interval);
    let narrow = is_narrow(&roots);
    let (meminfo, vmstat) = (OnceLock::new(), OnceLock::new());
    let looked = OnceLock::new();
    let context =
        Arc::new(Context { roots, moment, past, stuck, narrow, deployed, look, looked, stat, meminfo, vmstat });
    let mut measured = run(&context, told)?;
    measured.interval = interval;
    measured.baseline.retention = old.retention;
    if keep {
        let Baseline { stuck, told, .. } = measured.baseline;
        measured.baseline = Baseline { stuck, told, ..old };
    }
    Ok(measured)
}

/// True where the kernel's counters have 32 bits.
fn is_narrow(roots: &Roots) -> bool {
    let stated = roots::value(&roots.proc.join("sys/kernel/arch"));
    let machine = stated.unwrap_or_else(|| rustix::system::uname().machine().to_string_lossy().into_owned());
    let narrow = ["arm", "i386", "i486", "i586", "i686", "mips", "ppc", "riscv32", "sh4"];
    !machine.ends_with("64") && !machine.ends_with("64le") && narrow.iter().any(|prefix| machine.starts_with(prefix))
}

fn run(context: &Arc<Context>, told: BTreeSet<String>) -> Result<Measured, Error> {
    let (sender, receiver) = mpsc::channel::<(&'static str, Duration, Result<Part, Error>)>();
    let deadline = Instant::now() + LIMIT;
    let lane = |lane: &'static [(&'static str, Collector)], context: Arc<Context>, sender: mpsc::Sender<_>| {
        for (name, collector) in lane {
            let started = Instant::now();
            let part = collector(&context);
            // Who listens no more has left this lane behind.
            if sender.send((*name, started.elapsed(), part)).is_err() {
                return;
            }
        }
    };
    for collectors in LANES {
        let (context, sender) = (context.clone(), sender.clone());
        let thread = std::thread::Builder::new().name("collect".to_owned());
        thread
            .spawn(move || lane(collectors, context, sender))
            .map_err(|source| Error::Start { act: "start a collector's thread", source })?;
    }
    drop(sender);
    let mut parts: BTreeMap<&'static str, (Duration, Result<Part, Error>)> = BTreeMap::new();
    while let Ok((name, duration, part)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        parts.insert(name, (duration, part));
    }
    Ok(gather(context, parts, told))
}

/// What the collectors answered, put together. `told` is what was told in this boot of what stays so for long.
fn gather(
    context: &Context,
    mut parts: BTreeMap<&'static str, (Duration, Result<Part, Error>)>,
    mut told: BTreeSet<String>,
) -> Measured {
    let mut rows: BTreeMap<&'static str, Payload> = BTreeMap::new();
    let mut counters = Counters::default();
    let mut known = disk::Known { stuck: context.stuck.clone(), ..disk::Known::default() };
    let mut done = Vec::new();
    let mut temperatures = CpuTemperatures::default();
    for (collector, _) in LANES.iter().flat_map(|lane| lane.iter()) {
        let late = || (LIMIT, Err(Error::Late { what: format!("collector {collector}"), seconds: LIMIT.as_secs() }));
        let (duration, part) = parts.remove(collector).unwrap_or_else(late);
        let (ok, problems, lasting) = match part {
            Ok(part) => {
                let report = match part {
                    Part::Report(report) => report,
                    Part::Disk(report, now) => {
                        known = now;
                        report
                    }
                    Part::Sensors(report, cpu) => {
                        temperatures = cpu;
                        report
                    }
                };
                rows.extend(report.rows);
                counters.merge(report.counters);
                (true, report.notes, report.lasting)
            }
            Err(error) => (false, vec![error.to_string()], Vec::new()),
        };
        let mut fresh = problems.clone();
        fresh.extend(lasting.iter().filter(|sentence| told.len() < TOLD && told.insert((*sentence).clone())).cloned());
        let problems = problems.into_iter().chain(lasting).collect();
        done.push(Done { collector, duration, problems, fresh, ok });
    }
    if let Some(cpu) = rows.get_mut("cpu") {
        put_temperatures(cpu, &temperatures);
    }
    let rows = kinds::ALL.iter().filter_map(|kind| Some((kind.name, rows.remove(kind.name)?))).collect();
    let disk::Known { stuck, barred } = known;
    let baseline = Baseline { moment: context.moment.clone(), counters, stuck, told, retention: 0.0 };
    Measured { rows, done, baseline, barred, interval: None }
}

fn put_temperatures(cpu: &mut Payload, temperatures: &CpuTemperatures) {
    cpu.put("package_temp", temperatures.package.map_or(Value::Null, |celsius| decimal(celsius, 3)));
    let cores = temperatures.cores.iter().map(|(core, celsius)| (core.clone(), decimal(*celsius, 3)));
    cpu.put("core_temps", cores.collect::<Map<_, _>>());
}
