//! Which names the tables of pipelines may have: none that the hub, SQLite or PostgreSQL has, and none that comes with
//! another table.

use crate::kinds;

/// The hub's own tables and indexes, and what its database calls them; the views of metrics come to them.
const OWN: &[&str] = &[
    "dead_letters",
    "hub_events",
    "hub_events_time",
    "hub_empty",
    "hub_hours",
    "hub_keys",
    "hub_positions",
    "hub_rows",
    "hub_schema",
    "hub_unfilled",
    "hub_unsorted",
    "metric_views",
    "metrics_hourly",
    "metrics_hourly_hour",
    "metrics_hourly_pkey",
    "system_metrics",
    "system_metrics_host_time",
    "system_metrics_key",
    "system_metrics_new",
    "system_metrics_sorted",
    "system_metrics_time",
];

/// What is made along with a table: its view, indexes, keys and sequence.
const ALONG: [&str; 7] =
    ["_event_timestamp", "_id_seq", "_mongo_id_key", "_pkey", "_source_id", "_updated_at", "_view"];

/// A table's schema, where it is not the usual one, and its name in it.
fn parts(table: &str) -> (&str, &str) {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    (if schema == "public" { "" } else { schema }, name)
}

/// Why a pipeline cannot have a table of this name; none where it can.
pub(crate) fn refusal(table: &str) -> Option<String> {
    let (schema, name) = parts(table);
    let whose = match () {
        () if name.starts_with("pg_") || schema.starts_with("pg_") || schema == "information_schema" => "PostgreSQL's",
        () if name.starts_with("sqlite_") => "SQLite's",
        () if schema.is_empty() && (OWN.contains(&name) || is_view(name) || along("dead_letters", name)) => "the hub's",
        () => return None,
    };
    Some(format!("{table:?} is a name of {whose} own; write another one, such as \"reading_analytics\""))
}

/// Whether a name is that of a view of metrics.
fn is_view(name: &str) -> bool {
    kinds::ALL.iter().flat_map(|kind| kind.parts).any(|part| part.view.is_some_and(|(view, _)| view == name))
}

/// Whether a name is that of something that is made along with a table.
fn along(table: &str, name: &str) -> bool {
    name.strip_prefix(table).is_some_and(|rest| ALONG.contains(&rest))
}

/// Why two pipelines cannot have their tables side by side; none where they can.
pub(super) fn clash(one: &str, other: &str) -> Option<String> {
    let ((schema, name), (other_schema, other_name)) = (parts(one), parts(other));
    let clashes = schema == other_schema && (along(name, other_name) || along(other_name, name));
    clashes.then(|| format!("{one:?} and {other:?} clash: one of them is made along with the other"))
}
