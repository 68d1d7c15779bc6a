use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use super::state::UnitState;
use crate::command::{self, Command, Error};
use crate::systemd;

/// What changes links or makes the manager read its files: its generators may take their time.
const CHANGE: Duration = Duration::from_secs(300);
/// A question to the manager.
const QUESTION: Duration = Duration::from_secs(30);
/// Of the relations of some thousand units.
const MOST_OUTPUT: usize = 32 << 20;
/// Bytes of names in one command; the kernel takes 2 MiB of arguments and environment.
const LONGEST_NAMES: usize = 1 << 20;

/// The systemd manager that units are deployed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gitops) enum Manager {
    /// The host's, as root.
    System,
    /// The caller's own.
    User,
}

/// A manager that answered.
#[derive(Clone, Debug)]
pub(in crate::gitops) struct Found {
    pub manager: Manager,
    pub unit_path: Vec<PathBuf>,
}

/// How the whole host was at one moment: every loaded unit, by its own name and by the one that was asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::gitops) struct Snapshot {
    pub units: HashMap<String, UnitState>,
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
    pub fn command(self, program: &str, limit: Duration) -> Command {
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

    /// Looks at the whole host, in two questions: the loaded units, and `more` that may not be loaded.
    pub fn snapshot<'a>(self, more: impl IntoIterator<Item = &'a String>) -> Result<Snapshot, Error> {
        let text = self.list(&["--all"])?;
        let loaded = text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
        let names: BTreeSet<String> = loaded.chain(more.into_iter().cloned()).collect();
        let mut units = self.show(&names.into_iter().collect::<Vec<_>>())?;
        let by_id: Vec<UnitState> =
            units.iter().filter(|(name, state)| **name != state.id).map(|(_, state)| state.clone()).collect();
        units.extend(by_id.into_iter().map(|state| (state.id.clone(), state)));
        Ok(Snapshot { units })
    }

    /// Lists units: UNIT LOAD ACTIVE SUB DESCRIPTION.
    fn list(self, arguments: &[&str]) -> Result<String, Error> {
        let command = self.systemctl(QUESTION, &["list-units", "--plain", "--no-legend", "--full"]).args(arguments);
        command.output_limit(MOST_OUTPUT).succeed().map(|output| output.text())
    }

    pub fn failed(self) -> Result<BTreeSet<String>, Error> {
        let text = self.list(&["--state=failed"])?;
        Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// The state of each of these units, by the name that was asked for.
    pub fn show<'a>(self, units: impl IntoIterator<Item = &'a String>) -> Result<HashMap<String, UnitState>, Error> {
        let mut found = HashMap::new();
        let mut left: Vec<&String> = units.into_iter().collect();
        while !left.is_empty() {
            // One question, but for what no command line holds.
            let mut length = 0;
            let fits = left.iter().take_while(|unit| {
                length += unit.len() + 1;
                length < LONGEST_NAMES
            });
            let rest = left.split_off(fits.count().max(1));
            let batch = std::mem::replace(&mut left, rest);
            let systemctl = self.systemctl(QUESTION, &[]).output_limit(MOST_OUTPUT);
            let shown = systemd::show(systemctl, &UnitState::PROPERTIES, &batch)?;
            // One block a unit, in the order of the arguments; an alias has another Id than its name.
            found.extend(batch.into_iter().cloned().zip(shown.blocks().map(UnitState::read)));
        }
        Ok(found)
    }

    /// Units with a job that is not done.
    pub fn busy(self) -> Result<BTreeSet<String>, Error> {
        let text = self.systemctl(QUESTION, &["list-jobs", "--plain", "--no-legend", "--full"]).succeed()?.text();
        // JOB UNIT TYPE STATE
        Ok(text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect())
    }

    /// True where a unit file or template is enabled; it need not be loaded.
    pub fn is_enabled(self, unit: &str) -> Result<bool, Error> {
        // The exit code tells other states apart too.
        let output = self.systemctl(QUESTION, &["is-enabled", "--", unit]).run()?;
        Ok(output.text() == "enabled")
    }

    /// The loaded instances of a template that are not inactive.
    pub fn instances(self, template: &str) -> Result<Vec<String>, Error> {
        let pattern = template.replacen("@.", "@*.", 1);
        let text = self.list(&["--all", "--", &pattern])?;
        let columns = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // UNIT LOAD ACTIVE SUB DESCRIPTION
        let up = columns.filter(|columns| columns.len() > 3 && columns[2] != "inactive");
        Ok(up.map(|columns| columns[0].to_owned()).collect())
    }

    pub fn stop_active(self, units: &[String]) -> Result<(), Error> {
        let states = self.show(units)?;
        let active = |unit: &&String| states.get(*unit).is_some_and(UnitState::is_active);
        let active: Vec<String> = units.iter().filter(active).cloned().collect();
        self.act(&["stop"], &active, CHANGE)
    }

    /// Forgets a failure of a unit and starts it; done where it had not failed.
    pub fn revive(self, unit: &str) -> Result<bool, Error> {
        let this = [unit.to_owned()];
        if self.show(&this)?.get(unit).is_none_or(|state| state.active != "failed") {
            return Ok(false);
        }
        self.set(&["reset-failed"], &this)?;
        self.set(&["start", "--no-block"], &this).map(|()| true)
    }

    pub fn reload(self) -> Result<(), Error> {
        self.systemctl(CHANGE, &["daemon-reload"]).succeed().map(|_| ())
    }

    /// Runs one verb that starts no job (`enable --no-reload`, `reset-failed`), or does not wait for it.
    pub fn set(self, verb: &[&str], units: &[String]) -> Result<(), Error> {
        self.act(verb, units, CHANGE)
    }

    /// Runs one verb (`start`, `restart` …) on units and waits for it.
    pub fn act(self, verb: &[&str], units: &[String], limit: Duration) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        self.systemctl(limit, verb).args(["--"]).args(units).succeed().map(|_| ())
    }
}
