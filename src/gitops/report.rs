#![expect(clippy::print_stdout, reason = "the result is for the person or script that asked for it")]

use super::Outcome;
use super::git::short;
use crate::exit::Exit;

/// Prints the result of a run as one JSON object.
pub(super) fn json(exit: Exit, outcomes: &[Outcome]) {
    println!("{}", serde_json::json!({ "exit": exit as u8, "repositories": outcomes }));
}

/// Prints what a run would do, for a person.
pub(super) fn table(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let commit = |commit: &Option<String>| commit.as_deref().map_or("nothing", short).to_owned();
        println!(
            "{:<32} {:<10} {} -> {}",
            outcome.repository,
            outcome.status.word(),
            commit(&outcome.from),
            commit(&outcome.to)
        );
        if let Some(reason) = &outcome.reason {
            println!("    {reason}");
        }
        for line in &outcome.units {
            println!("    {:<6} {}: {}", line.action.word(), line.file, line.reason);
        }
        if let Some(reason) = &outcome.not_deployed {
            println!("    units are not deployed: {reason}");
        }
        for line in &outcome.plan {
            println!("    {line}");
        }
    }
}
