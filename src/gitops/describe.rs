use super::Error;
use super::git::Change;
use super::plan::Plan;
use crate::config::Repository;
use crate::records::short;
use crate::text;

/// More changed files than this are counted only.
const SHOWN: usize = 20;

/// A plan in words, for a dry run: each thing that would be done, with the reason. `not_deployed` is why the commit's units
/// stay where they are.
pub(super) fn plan(plan: &Plan, not_deployed: Option<&str>) -> Result<Vec<String>, Error> {
    let mut lines = steps(plan, not_deployed);
    if let Some((host, units)) = &plan.units {
        lines.extend(host.preview(units)?);
        match host.validate(units, &plan.repository.name) {
            Ok(warnings) => lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}"))),
            // The commit's files and what the build makes may be what the units miss now.
            Err(Error::Refused(reason)) if !plan.is_live() => {
                lines.push(format!("before the commit's files are in place: {reason}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

/// The same as far as the host need not be asked.
pub(super) fn steps(plan: &Plan, not_deployed: Option<&str>) -> Vec<String> {
    let mut lines = plan.lines.clone();
    lines.extend(plan.changes.iter().take(SHOWN).map(|change| {
        let unit = not_deployed.filter(|_| is_in_units(plan.repository, &change.path));
        let unit =
            unit.map_or_else(String::new, |reason| format!("; in the checkout only, units are not deployed: {reason}"));
        format!("{}{unit}", file(change, &plan.to))
    }));
    if plan.changes.len() > SHOWN {
        lines.push(format!("and {} more files that differ in {}", plan.changes.len() - SHOWN, short(&plan.to)));
    }
    if plan.changes.is_empty() && !plan.is_live() {
        lines.push(format!("take {} for deployed: the checkout has its files already", short(&plan.to)));
    }
    for (step, argv) in [("build", &plan.repository.build), ("after", &plan.repository.after)] {
        if !argv.is_empty() && !plan.is_live() {
            lines.push(format!("{step}: {} ({} is not live yet)", argv.join(" "), short(&plan.to)));
        }
    }
    for rule in &plan.repository.restart {
        if let Some(file) = rule.matching(plan.code_changes()) {
            lines.push(format!("restart where running: {} ({file} changes)", rule.units.join(" ")));
        }
    }
    lines
}

/// A file's line, with git's letter for what happens to it.
fn file(change: &Change, to: &str) -> String {
    let (path, to) = (text::name(&change.path), short(to));
    match change.kind {
        b'A' => format!("A {path}: new in {to}"),
        b'D' => format!("D {path}: not in {to} any more"),
        kind => format!("{} {path}: differs in {to}", char::from(kind)),
    }
}

fn is_in_units(repository: &Repository, path: &[u8]) -> bool {
    path.strip_prefix(repository.units.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}
