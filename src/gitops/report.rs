use super::Outcome;
use crate::program::{Exit, print};
use crate::records::short;
use crate::text;

/// Prints the result of a run as one JSON object.
pub(super) fn json(exit: Exit, outcomes: &[Outcome]) {
    print(&text::json(&serde_json::json!({ "exit": exit as u8, "repositories": outcomes }), false));
}

/// Prints what a run would do, for a person.
pub(super) fn table(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let commit = |commit: &Option<String>| commit.as_deref().map_or("nothing", short).to_owned();
        print(&format!(
            "{:<32} {:<10} {} -> {}",
            outcome.repository,
            outcome.status.word(),
            commit(&outcome.from),
            commit(&outcome.to)
        ));
        if let Some(reason) = &outcome.reason {
            print(&format!("    {reason}"));
        }
        for line in &outcome.units {
            print(&format!("    {:<6} {}: {}", line.action.word(), line.file, line.reason));
        }
        if let Some(reason) = &outcome.not_deployed {
            print(&format!("    units are not deployed: {reason}"));
        }
        for line in &outcome.plan {
            print(&format!("    {line}"));
        }
    }
}
