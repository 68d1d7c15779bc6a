//! system-metrics: measures the host once and stores the sample, or keeps it until the database can take it.
//! One file per collector, reading below `--procfs`, `--sysfs` and `--rootfs`, on the live host systemd and its clock, too; no
//! daemon, no HTTP, and no rate by waiting.
//! A rate that may be wrong is left out, a collector that fails costs its own row, and no value is ever made up.

mod baseline;
mod clock;
mod collect;
mod collectors;
mod context;
mod counters;
mod device;
mod error;
mod events;
mod flush;
mod identity;
mod interface;
mod jsonl;
mod mounts;
mod payload;
mod proc;
mod roots;
mod run;
mod sink;
mod space;
mod spool;
mod surroundings;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Config;
use crate::kinds;
use crate::log;
use crate::program::{self, CommandLine, Exit};
use crate::store::Store;
use argh::{ArgsInfo, FromArgs};

pub(crate) use error::Error;
use roots::Roots;

/// The longest a run may take, whatever hangs.
const LIMIT: Duration = Duration::from_secs(19);

/// Measure this host once and store the sample in the database; keep it in a bounded file while that is down.
#[derive(ArgsInfo, FromArgs)]
#[argh(
    example = "system-metrics --print",
    example = "system-metrics --print --format prometheus",
    error_code(0, "The sample is stored, or kept for when the database is back."),
    error_code(1, "Samples were lost."),
    error_code(2, "The command line is wrong."),
    error_code(75, "Another run is at work."),
    error_code(78, "The configuration is wrong.")
)]
struct Arguments {
    /// show the sample on stdout and write nothing; log lines go to stderr
    #[argh(switch)]
    print: bool,
    /// how --print shows it: json (default) or prometheus
    #[argh(option, arg_name = "FORMAT")]
    format: Option<Format>,
    /// where the host's /proc is (default: /proc)
    #[argh(option, arg_name = "FOLDER", default = "PathBuf::from(\"/proc\")")]
    procfs: PathBuf,
    /// where the host's /sys is (default: /sys)
    #[argh(option, arg_name = "FOLDER", default = "PathBuf::from(\"/sys\")")]
    sysfs: PathBuf,
    /// where the host's root folder is (default: /)
    #[argh(option, arg_name = "FOLDER", default = "PathBuf::from(\"/\")")]
    rootfs: PathBuf,
    /// configuration file (default: $HUB_CONFIG, else /etc/observability-hub/hub.toml)
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// check the configuration and exit
    #[argh(switch)]
    check: bool,
}

impl CommandLine for Arguments {
    const NAME: &'static str = "system-metrics";

    fn configuration(&self) -> (Option<&Path>, bool) {
        (self.config.as_deref(), self.check)
    }

    fn answers(&self) -> bool {
        self.print
    }

    fn nonsense(&self) -> Option<String> {
        let reason = "--format is how --print shows the sample; add --print, or leave --format out to store the sample";
        (self.format.is_some() && !self.print).then(|| reason.to_owned())
    }

    fn check(&self, config: &Config) -> Result<(), impl Display> {
        Store::check_address(config)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Prometheus,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "prometheus" => Ok(Self::Prometheus),
            _ => Err(format!("{text:?} is no format; write json or prometheus")),
        }
    }
}

/// The command line, for the manual.
pub fn described() -> argh::CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// The program `system-metrics`.
pub fn main() -> ExitCode {
    program::run(measure)
}

fn measure(arguments: Arguments, config: Config) -> Exit {
    let roots = Roots::new(&arguments.procfs, &arguments.sysfs, &arguments.rootfs);
    let roots = match roots.and_then(|roots| roots.has_procfs().map(|()| roots)) {
        Ok(roots) => roots,
        Err(error) => {
            log::error!("usage", error = error.to_string());
            return Exit::Usage;
        }
    };
    // While there is one thread only: the user changes for threads that are started later.
    if !arguments.print
        && let Err(error) = crate::state::become_owner(&config.state_dir.join("data"))
    {
        log::error!("owner_failed", error = error.to_string());
        return Exit::Error;
    }
    if let Err(source) = end_in_time() {
        log::error!(
            "start_failed",
            error = Error::Start { act: "start the thread that ends the run", source }.to_string()
        );
        return Exit::Error;
    }
    if arguments.print {
        print(&config, roots, arguments.format.unwrap_or(Format::Json))
    } else {
        run::store(&config, roots)
    }
}

/// Ends the process when the run takes too long: a state folder or a kernel file may hang too.
fn end_in_time() -> std::io::Result<()> {
    std::thread::Builder::new().name("deadline".to_owned()).spawn(|| {
        std::thread::sleep(LIMIT);
        let error = format!("the run did not end within {} s; its sample is lost", LIMIT.as_secs());
        log::error!("deadline", error = error);
        std::process::exit(Exit::Error as i32);
    })?;
    Ok(())
}

fn print(config: &Config, roots: Roots, format: Format) -> Exit {
    let sample = match run::show(config, roots) {
        Ok(sample) => sample,
        Err(error) => {
            log::error!("sample_failed", error = error.to_string());
            return Exit::Error;
        }
    };
    let text = match format {
        Format::Json => crate::text::json(&sample.stored().left(), true) + "\n",
        Format::Prometheus => {
            let left = sample.left();
            kinds::exposition(&left.host, &left.os, &left.metrics)
        }
    };
    program::print(&text);
    Exit::Done
}
