//! Child processes of this very binary, under other names: neither their memory nor their end touches the gateway.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::config::Config;
use crate::program;

/// How they find what the gateway works with.
#[derive(Clone, Debug)]
pub(super) struct Children {
    environment: Vec<(&'static str, PathBuf)>,
}

impl Children {
    /// With the state and the file of a configuration.
    pub fn of(config: &Config) -> Self {
        let mut environment = vec![("HUB_STATE_DIR", config.state_dir.clone())];
        let path = config.path.as_deref().and_then(|path| std::path::absolute(path).ok());
        environment.extend(path.map(|path| ("HUB_CONFIG", path)));
        Self { environment }
    }

    /// One that runs under a name, says on its standard output what it has to say, and does not outlive this process.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).stdin(Stdio::null()).stdout(Stdio::piped());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(program::SUPERVISOR, std::process::id().to_string());
        command
    }
}
