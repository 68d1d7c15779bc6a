//! The operator's command. It carries every service, so that `cargo run --bin hub -- up` needs no other binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use observability_hub::hub::{self, Service};
use observability_hub::{gate, gitops, metrics, proxy, reading};

/// The services by the names of their binaries.
const SERVICES: &[Service] = &[
    Service { name: "proxy", main: proxy::main, check: proxy::check },
    Service { name: "gitops-sync", main: gitops::main, check: |_| Ok(()) },
    Service { name: "tailscale-gate", main: gate::main, check: |_| Ok(()) },
    Service { name: "system-metrics", main: metrics::main, check: |_| Ok(()) },
    Service { name: "reading-sync", main: reading::main, check: |_| Ok(()) },
    Service { name: "hub-watch", main: hub::watch_main, check: |_| Ok(()) },
];

fn main() -> ExitCode {
    let children = proxy::CHILDREN.map(|(name, main)| Service { name, main, check: |_| Ok(()) });
    hub::main(&[SERVICES, &children].concat())
}
