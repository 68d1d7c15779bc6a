use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{self, Command, Error};
use crate::systemd;

/// A job may wait for a slow service to start or stop (DefaultTimeoutStartSec is 90 s).
const JOB: Duration = Duration::from_secs(300);
/// A question to the manager.
const QUESTION: Duration = Duration::from_secs(30);

/// The systemd manager that units are deployed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gitops) enum Manager {
    /// The host's, as root.
    System,
    /// The caller's own.
    User,
}

/// What the manager says of a unit (`systemctl show`).
#[derive(Clone, Debug, Default)]
pub(in crate::gitops) struct UnitState {
    pub load: String,
    pub active: String,
    pub sub: String,
    /// `Type=` of a service; empty for other units.
    pub kind: String,
    pub file_state: String,
    pub result: String,
    pub restarts: u64,
    /// Changes with every start.
    pub invocation: String,
    /// The units that are restarted with it, because they require it or are part of it (systemd.unit(5)).
    pub pulled: Vec<String>,
}

impl UnitState {
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "activating")
    }

    pub fn is_failed(&self) -> bool {
        self.active == "failed" || self.sub == "auto-restart"
    }

    pub fn is_oneshot(&self) -> bool {
        self.kind == "oneshot"
    }
}

/// A manager that answered.
#[derive(Clone, Debug)]
pub(in crate::gitops) struct Found {
    pub manager: Manager,
    /// The folders that it loads units from.
    pub unit_path: Vec<PathBuf>,
}

impl Manager {
    /// The manager that this caller can deploy to.
    ///
    /// # Errors
    /// The reason why units are not deployed here.
    pub fn find(user_units: bool) -> Result<Found, String> {
        let manager = if user_units { Self::User } else { Self::System };
        if !user_units && !rustix::process::geteuid().is_root() {
            return Err("not run as root (--user-units deploys to your own manager)".to_owned());
        }
        if !user_units && !systemd::is_running() {
            return Err("systemd does not run on this host".to_owned());
        }
        match manager.systemctl(QUESTION, &["show", "--property=UnitPath", "--value"]).succeed() {
            Ok(output) => {
                Ok(Found { manager, unit_path: output.text().split_whitespace().map(PathBuf::from).collect() })
            }
            Err(Error::NotFound(_)) => Err("systemctl is not installed".to_owned()),
            Err(error) => Err(format!("the systemd manager does not answer: {error}")),
        }
    }

    /// True where the manager is on its way out, or gone.
    pub fn is_leaving(self) -> bool {
        let answer = self.systemctl(QUESTION, &["show", "--property=SystemState", "--value"]).succeed();
        answer.map_or(true, |output| output.text() == "stopping")
    }

    fn systemctl(self, limit: Duration, arguments: &[&str]) -> Command {
        self.command("systemctl", limit).args(["--no-pager", "--no-ask-password"]).args(arguments)
    }

    /// A command of systemd's that talks about this manager.
    pub(super) fn command(self, program: &str, limit: Duration) -> Command {
        let mut command = Command::new(program, limit);
        if self == Self::User {
            command = command.args(["--user"]);
            for name in ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"] {
                if let Some(value) = std::env::var_os(name) {
                    command = command.env(name, value);
                }
            }
        }
        command
    }

    /// The folder that the user's own units are installed into (systemd.unit(5), "Unit File Load Path").
    pub fn user_folder() -> PathBuf {
        let configured = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        configured.unwrap_or_else(|| command::current().home.join(".config")).join("systemd/user")
    }

    /// The state of each of these units.
    pub fn show(self, units: &[String]) -> Result<HashMap<String, UnitState>, Error> {
        if units.is_empty() {
            return Ok(HashMap::new());
        }
        let properties = "--property=Id,LoadState,ActiveState,SubState,Type,UnitFileState,Result,NRestarts,\
                          InvocationID,RequiredBy,RequisiteOf,BoundBy,ConsistsOf";
        let mut found = HashMap::new();
        for batch in units.chunks(200) {
            let command = self.systemctl(QUESTION, &["show", properties, "--"]).args(batch).output_limit(4 << 20);
            let text = command.succeed()?.text();
            // One block a unit, in the order of the arguments; an alias has another Id than its name.
            for (unit, block) in batch.iter().zip(text.split("\n\n")) {
                let mut state = UnitState::default();
                for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
                    match key {
                        "LoadState" => state.load = value.to_owned(),
                        "InvocationID" => state.invocation = value.to_owned(),
                        "ActiveState" => state.active = value.to_owned(),
                        "SubState" => state.sub = value.to_owned(),
                        "Type" => state.kind = value.to_owned(),
                        "UnitFileState" => state.file_state = value.to_owned(),
                        "Result" => state.result = value.to_owned(),
                        "NRestarts" => state.restarts = value.parse().unwrap_or(0),
                        "RequiredBy" | "RequisiteOf" | "BoundBy" | "ConsistsOf" => {
                            state.pulled.extend(value.split_whitespace().map(str::to_owned));
                        }
                        _ => {}
                    }
                }
                found.insert(unit.clone(), state);
            }
        }
        Ok(found)
    }

    /// True where a unit file or template is enabled; it need not be loaded.
    pub fn is_enabled(self, unit: &str) -> Result<bool, Error> {
        // The exit code tells other states apart too.
        let output = self.systemctl(QUESTION, &["is-enabled", "--", unit]).run()?;
        Ok(output.text() == "enabled")
    }

    /// The units that a socket, timer or path starts.
    pub fn triggered(self, unit: &str) -> Result<Vec<String>, Error> {
        let output = self.systemctl(QUESTION, &["show", "--property=Triggers", "--value", "--", unit]).succeed()?;
        Ok(output.text().split_whitespace().map(str::to_owned).collect())
    }

    /// The loaded instances of a template that are not inactive.
    pub fn instances(self, template: &str) -> Result<Vec<String>, Error> {
        let pattern = template.replacen("@.", "@*.", 1);
        let arguments = ["list-units", "--plain", "--no-legend", "--full", "--all", "--", &pattern];
        let text = self.systemctl(QUESTION, &arguments).succeed()?.text();
        let columns = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // UNIT LOAD ACTIVE SUB DESCRIPTION
        let up = columns.filter(|columns| columns.len() > 3 && columns[2] != "inactive");
        Ok(up.map(|columns| columns[0].to_owned()).collect())
    }

    /// Stops those of these units that are active.
    pub fn stop_active(self, units: &[String]) -> Result<(), Error> {
        let states = self.show(units)?;
        let active = |unit: &&String| states.get(*unit).is_some_and(UnitState::is_active);
        let active: Vec<String> = units.iter().filter(active).cloned().collect();
        self.act(&["stop"], &active)
    }

    /// Forgets a failure of a unit and starts it; done where it had not failed.
    pub fn revive(self, unit: &str) -> Result<bool, Error> {
        let this = [unit.to_owned()];
        if self.show(&this)?.get(unit).is_none_or(|state| state.active != "failed") {
            return Ok(false);
        }
        self.act(&["reset-failed"], &this)?;
        self.act(&["start", "--no-block"], &this).map(|()| true)
    }

    /// Makes the manager read all unit files again.
    pub fn reload(self) -> Result<(), Error> {
        self.systemctl(JOB, &["daemon-reload"]).succeed().map(|_| ())
    }

    /// Runs one verb (`start`, `try-restart`, `enable --no-reload` …) on units and waits for it.
    pub fn act(self, verb: &[&str], units: &[String]) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        self.systemctl(JOB, verb).args(["--"]).args(units).succeed().map(|_| ())
    }
}
