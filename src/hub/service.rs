use std::process::ExitCode;

use crate::config::{self, Config};
use crate::program::{self, Exit};

/// A service that the program carries.
#[derive(Clone, Copy)]
pub struct Service {
    /// The name of its binary.
    pub name: &'static str,
    /// Its main function.
    pub main: fn() -> ExitCode,
    /// What it looks at before it starts with a configuration, its credentials for instance.
    pub check: fn(&Config) -> Result<(), config::Error>,
}

impl Service {
    /// Runs it, as what `hub up` starts.
    pub(super) fn run(&self) -> ExitCode {
        // What ps(1) and pkill(1) call it; started through /proc/self/exe it would be "exe". Cosmetic, so it may fail.
        let _ = std::fs::write("/proc/self/comm", self.name);
        match program::follow_supervisor() {
            Ok(true) => (self.main)(),
            // The hub that wanted it has gone; nothing has been begun.
            Ok(false) => Exit::Error.into(),
            Err(error) => {
                crate::log::start(self.name);
                crate::log::error!("start_failed", error = format!("cannot follow hub up: {error}"));
                Exit::Error.into()
            }
        }
    }
}
