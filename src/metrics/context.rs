use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use rustix::time::{ClockId, clock_gettime};

use super::Error;
use super::baseline::{Moment, Past};
use super::counters::StuckMounts;
use super::proc::{self, Stat};
use super::roots::{self, Roots};
use crate::records::Look;
use crate::systemd::Looked;

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
    looked: OnceLock<Result<Looked, Arc<Error>>>,
    stat: Result<Stat, Arc<Error>>,
    meminfo: OnceLock<Result<HashMap<String, u64>, Arc<Error>>>,
    vmstat: OnceLock<Result<HashMap<String, u64>, Arc<Error>>>,
}

impl Context {
    /// Of a tree at a moment, with no run before. `deployed` are the unit files that the hub installed, or why they are not
    /// known; `look` is what hub watch saw lately.
    pub fn new(
        roots: Roots,
        wall: jiff::Timestamp,
        deployed: Result<BTreeSet<String>, String>,
        look: Option<Look>,
    ) -> Self {
        let stat = roots.proc("stat").and_then(|bytes| proc::stat(&bytes)).map_err(Arc::new);
        Self {
            moment: moment(&roots, stat.as_ref().ok(), wall),
            past: None,
            stuck: StuckMounts::new(),
            narrow: is_narrow(&roots),
            deployed,
            look,
            looked: OnceLock::new(),
            stat,
            meminfo: OnceLock::new(),
            vmstat: OnceLock::new(),
            roots,
        }
    }

    /// Whether systemd knows anything of what is measured.
    pub fn asks_systemd(&self) -> bool {
        self.roots.is_live() && crate::systemd::is_running()
    }

    /// What systemd says of its units, asked once; the first to ask may name some.
    pub fn looked(&self, names: &[String]) -> Result<&Looked, Error> {
        let looked =
            self.looked.get_or_init(|| crate::systemd::look(names).map_err(|error| Arc::new(Error::Child(error))));
        looked.as_ref().map_err(again)
    }

    /// `/proc/stat`, read once for all who need it.
    pub fn stat(&self) -> Result<&Stat, Error> {
        self.stat.as_ref().map_err(again)
    }

    /// `/proc/meminfo`, read once.
    pub fn meminfo(&self) -> Result<&HashMap<String, u64>, Error> {
        let read = || self.roots.proc("meminfo").map(|bytes| proc::meminfo(&bytes)).map_err(Arc::new);
        self.meminfo.get_or_init(read).as_ref().map_err(again)
    }

    /// `/proc/vmstat`, read once.
    pub fn vmstat(&self) -> Result<&HashMap<String, u64>, Error> {
        let read = || self.roots.proc("vmstat").map(|bytes| proc::vmstat(&bytes)).map_err(Arc::new);
        self.vmstat.get_or_init(read).as_ref().map_err(again)
    }
}

fn again(error: &Arc<Error>) -> Error {
    Error::Shared(error.clone())
}

/// This moment on the clocks of a tree. On the live host the clock is read itself, because `/proc/uptime` has
/// hundredths of a second only; a recorded or foreign tree has its own uptime.
fn moment(roots: &Roots, stat: Option<&Stat>, wall: jiff::Timestamp) -> Moment {
    let boot_id = roots::value(&roots.proc.join("sys/kernel/random/boot_id")).filter(|id| !id.is_empty());
    let boot_time = stat.and_then(|stat| stat.values.get("btime")).and_then(|time| i64::try_from(*time).ok());
    let recorded =
        if roots.is_live() { None } else { roots.proc("uptime").and_then(|bytes| proc::uptime(&bytes)).ok() };
    let clock = recorded.unwrap_or_else(|| {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    });
    Moment { boot_id, boot_time, clock, wall: wall.as_millisecond() as f64 / 1000.0 }
}

/// True where the kernel's counters have 32 bits.
fn is_narrow(roots: &Roots) -> bool {
    let stated = roots::value(&roots.proc.join("sys/kernel/arch"));
    let machine = stated.unwrap_or_else(|| rustix::system::uname().machine().to_string_lossy().into_owned());
    let narrow = ["arm", "i386", "i486", "i586", "i686", "mips", "ppc", "riscv32", "sh4"];
    !machine.ends_with("64") && !machine.ends_with("64le") && narrow.iter().any(|prefix| machine.starts_with(prefix))
}
