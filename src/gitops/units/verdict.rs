//! What systemd-analyze(1) says of units, and which of it counts.

use super::Plan;
use super::desired::UnitFile;
use super::unit_name::{is_template, template_of, unit_of};
use crate::gitops::Error;

/// Priorities of syslog(3) up to this are errors.
const ERROR: u8 = 3;
/// With these a program is looked for elsewhere than systemd-analyze does (systemd.exec(5)).
const OTHER_ROOTS: [&str; 8] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "ExecSearchPath",
    "ExtensionDirectories",
    "ExtensionImages",
    "MountImages",
    "RootDirectory",
    "RootImage",
];

/// A verification that has ended.
pub(super) struct Verdict<'a> {
    pub plan: &'a Plan,
    /// The units of the commit.
    pub units: &'a [String],
    /// Units that stay and cannot start without one that goes.
    pub dependents: &'a [String],
    /// The lines, each with its priority in front.
    pub said: &'a str,
}

impl Verdict<'_> {
    /// The warnings, one a line.
    ///
    /// # Errors
    /// `Refused` with the lines that count.
    pub fn read(&self, success: bool) -> Result<Vec<String>, Error> {
        let lines: Vec<(u8, &str)> = self.said.split(" | ").map(priority).collect();
        let is_error = |line: &&(u8, &str)| line.0 <= ERROR;
        let about = |units: &[String], text: &str| units.iter().any(|unit| text.contains(stem(unit)));
        let refused = |reason: String| Err(Error::Refused(format!("units refused: {reason}")));
        for (_, text) in lines.iter().filter(is_error).filter(|line| about(self.dependents, line.1)) {
            if let Some(gone) = missing(text).filter(|unit| self.plan.takes_away(unit)) {
                return refused(format!("{gone} is not in the commit any more, and is still required: {text}"));
            }
        }
        let ours: Vec<&(u8, &str)> = lines.iter().filter(|line| about(self.units, line.1)).collect();
        let warnings = || ours.iter().map(|line| line.1.to_owned()).collect();
        if success {
            return Ok(warnings());
        }
        let errors: Vec<&str> = ours.iter().copied().filter(is_error).map(|line| line.1).collect();
        let counting: Vec<&str> = errors.iter().copied().filter(|text| !self.is_false_alarm(text)).collect();
        if counting.is_empty() && (!errors.is_empty() || !self.dependents.is_empty()) {
            return Ok(warnings());
        }
        let said = if counting.is_empty() { self.said.to_owned() } else { counting.join("; ") };
        refused(format!("they do not verify: {said}"))
    }

    /// True where a program is missing for systemd-analyze and may be there for the unit; the start shows that.
    fn is_false_alarm(&self, text: &str) -> bool {
        let Some((name, rest)) = text.split_once(": Command ") else { return false };
        let Some((program, _)) = rest.split_once(" is not executable") else { return false };
        let template = template_of(name);
        let of_unit = |file: &str| unit_of(file) == name || template.as_deref() == Some(unit_of(file));
        let files: Vec<&UnitFile> =
            self.plan.desired.files.iter().filter(|(file, _)| of_unit(file)).map(|(_, unit)| unit).collect();
        let keys = |section: &str, is_meant: &dyn Fn(&str) -> bool| {
            files.iter().any(|file| file.assignments().iter().any(|one| one.section == section && is_meant(&one.key)))
        };
        let is_conditional = |key: &str| key.starts_with("Condition") || key.starts_with("Assert");
        // systemd-analyze gives a template an instance of its own.
        let takes_instance = |file: &&UnitFile| {
            let found = file.assignments();
            found.iter().any(|one| one.section == "Service" && one.key.starts_with("Exec") && one.value.contains('%'))
        };
        let is_per_instance = template.is_some() && files.iter().any(takes_instance);
        is_per_instance
            || keys("Unit", &is_conditional)
            || keys("Unit", &|key| key == "RequiresMountsFor")
            || keys("Service", &|key| key == "ExecCondition" || OTHER_ROOTS.contains(&key))
            || self.is_on_new_mount(program)
    }

    /// True for a program on a file system that the commit itself mounts.
    fn is_on_new_mount(&self, program: &str) -> bool {
        let mounts = self.plan.desired.files.iter().filter(|(file, _)| file.ends_with("mount"));
        mounts
            .filter_map(|(_, unit)| unit.value("Mount", "Where").or_else(|| unit.value("Automount", "Where")))
            .any(|place| program.strip_prefix(place.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')))
    }
}

/// A line's priority and its text; a line without one counts as an error.
fn priority(line: &str) -> (u8, &str) {
    let parts = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match parts.and_then(|(number, text)| Some((number.parse::<u8>().ok()?, text))) {
        // The facility is in the upper bits.
        Some((number, text)) => (number & 7, text),
        None => (ERROR, line),
    }
}

/// The unit that a job cannot do without and that does not exist.
fn missing(text: &str) -> Option<&str> {
    text.rsplit_once(": Unit ")?.1.strip_suffix(" not found.")
}

/// systemd-analyze speaks of a template as one of its instances.
fn stem(unit: &str) -> &str {
    if is_template(unit) { unit.find('@').map_or(unit, |at| &unit[..=at]) } else { unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        assert_eq!(priority("<28>a.service:5: Odd, ignoring."), (4, "a.service:5: Odd, ignoring."));
        assert_eq!(priority("a.service: no priority"), (ERROR, "a.service: no priority"));
        let text = "b.service: Failed to create b.service/start: Unit a@x.service not found.";
        assert_eq!(missing(text), Some("a@x.service"));
        assert_eq!(missing("b.service: Command /x is not executable"), None);
    }
}
