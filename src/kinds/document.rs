//! contrib/doc/metrics.md, made from the tables, and whether the tables know all that is measured.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::{ALL, Each, Kind, Measure, Part};

const FILE: &str = "contrib/doc/metrics.md";
const HEAD: &str = "# What system-metrics measures

Made from `src/kinds` by `UPDATE_GOLDEN=1 cargo test --lib kinds`; a test fails when it is old.

A row of `system_metrics` has one kind in `metric_type`, and its values by these keys in `payload`. Where a view shows it, *column* is its name there; \
what is true or false is 1 or 0 in views and metrics. A value for Prometheus is in the base unit that its name ends with. What is not known has no key, or is null, \
and has no series.
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for Kind { name, help, parts } in ALL.iter().copied() {
        let _ = writeln!(text, "\n## {name}\n\n{help}");
        for part in parts {
            describe(&mut text, part);
        }
    }
    text
}

fn describe(text: &mut String, Part { each, view, table }: &Part) {
    let view = view.map(|(name, _)| format!(", in the view `{name}`")).unwrap_or_default();
    let labelled = |column: &str, label: &str| {
        if column == label { format!("`{column}`") } else { format!("`{column}` (in metrics `{label}`)") }
    };
    let what = match each {
        Each::Row => "The row itself".to_owned(),
        Each::Object("", name) => format!("Each {}", labelled(name.column, name.label)),
        Each::Object(within, name) | Each::Number(within, name) => {
            format!("Each {} in `{within}`", labelled(name.column, name.label))
        }
        Each::Nested(outer, inner) => {
            format!("Each {} of each {}", labelled(inner.column, inner.label), labelled(outer.column, outer.label))
        }
    };
    let _ =
        writeln!(text, "\n{what}{view}:\n\n| key | column | unit | Prometheus | what it is |\n|---|---|---|---|---|");
    for Measure { key, column, is_text, metric, unit, help } in *table {
        let code = |name: &str| if name.is_empty() { String::new() } else { format!("`{name}`") };
        let column = if view.is_empty() { "" } else { column };
        let metric = match metric {
            Some((name, _)) if *is_text => format!("label of `{name}`"),
            Some((name, _)) => code(name),
            None => String::new(),
        };
        let unit = if *is_text { "text" } else { unit };
        let _ = writeln!(text, "| {} | {} | {unit} | {metric} | {help} |", code(key), code(column));
    }
}

#[test]
fn the_document_is_of_these_tables() {
    let found = document();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(FILE).unwrap(), "UPDATE_GOLDEN=1 cargo test --lib kinds writes it anew");
}

/// Whether a key has an entry below a part's objects.
fn is_known(table: &[Measure], path: &[&str]) -> bool {
    table.iter().any(|measure| {
        let steps: Vec<&str> = measure.key.split('.').filter(|step| !step.is_empty()).collect();
        steps.len() == path.len() && steps.iter().zip(path).all(|(step, key)| step.starts_with('{') || step == key)
    })
}

fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                path.push(key.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
        _ => found.push(path.clone()),
    }
}

#[test]
fn every_key_of_the_recorded_hosts_is_in_a_table() {
    let mut seen = 0;
    for file in std::fs::read_dir(Path::new("tests/fixtures/metrics")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let sample: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (kind, row) in sample["metrics"].as_object().into_iter().flatten() {
            // The golden files have the collectors of the run alone.
            let Some(known) = ALL.iter().find(|known| known.name == kind) else { continue };
            let mut found = Vec::new();
            leaves(row, &mut Vec::new(), &mut found);
            for leaf in found {
                let leaf: Vec<&str> = leaf.iter().map(String::as_str).collect();
                let fits = |part: &Part| match part.each {
                    Each::Row => is_known(part.table, &leaf),
                    Each::Object("", _) => is_known(part.table, &leaf[1..]),
                    Each::Object(within, _) => leaf[0] == within && leaf.len() > 2 && is_known(part.table, &leaf[2..]),
                    Each::Number(within, _) => leaf[0] == within,
                    Each::Nested(..) => leaf.len() == 2,
                };
                assert!(known.parts.iter().any(fits), "{}: {kind} has {leaf:?}, and src/kinds has not", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 300, "{seen}");
}
