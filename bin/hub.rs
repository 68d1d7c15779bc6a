//! The operator's command. It carries every service, so that `cargo run --bin hub -- up` needs no other binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use observability_hub::hub::{self, Service};

/// The services by the names of their binaries.
const SERVICES: &[Service] = &[];

fn main() -> ExitCode {
    hub::main(SERVICES)
}
