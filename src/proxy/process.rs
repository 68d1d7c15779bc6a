//! What the gateway's own process uses, by the names that Prometheus' client libraries give it
//! (prometheus.io/docs/instrumenting/writing_clientlibs, "Process metrics").

use rustix::process::{Resource, getrlimit};

/// What a process uses at a moment; what cannot be seen is none.
pub(super) struct Process {
    /// Seconds of CPU time since its start, in the kernel and out of it.
    pub cpu_seconds: Option<f64>,
    pub threads: Option<f64>,
    /// Bytes of address space, and of memory.
    pub virtual_memory: Option<f64>,
    pub resident_memory: Option<f64>,
    pub open_files: Option<f64>,
    /// None where there is no limit.
    pub most_files: Option<f64>,
}

impl Process {
    /// Of this process.
    pub fn own() -> Self {
        let process = procfs::process::Process::myself().ok();
        let stat = process.as_ref().and_then(|process| process.stat().ok());
        let ticks = procfs::ticks_per_second() as f64;
        let stat = stat.as_ref();
        Self {
            cpu_seconds: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks),
            threads: stat.map(|stat| stat.num_threads as f64),
            virtual_memory: stat.map(|stat| stat.vsize as f64),
            resident_memory: stat.map(|stat| (stat.rss * procfs::page_size()) as f64),
            open_files: process.and_then(|process| process.fd_count().ok()).map(|count| count as f64),
            most_files: getrlimit(Resource::Nofile).current.map(|most| most as f64),
        }
    }
}
