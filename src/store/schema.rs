use super::Error;
use super::batch::METRICS_TABLE;
use super::events::EVENTS_TABLE;
use super::hourly::HOURLY;
use super::readings::POSITIONS;
use crate::config::{Config, Select};

/// The table that says which steps a database has seen: one row an object.
pub(super) const SCHEMA_TABLE: &str = "hub_schema";

/// What is said of an object that was made before and is gone.
pub(super) const DROPPED: &str = "it was made before and is gone; somebody dropped it with its rows";

/// What is to be known of objects that were gone and are made again.
pub(super) fn again(target: &str, names: &[String]) -> Vec<String> {
    let note = || format!("{target}: was there before, was gone, and is made again: {}", names.join(", "));
    (!names.is_empty()).then(note).into_iter().collect()
}

/// What the hub makes in a database. Each has its own version, so that a pipeline added later brings its tables then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// The table of metrics.
    Metrics,
    /// The views with typed columns over it.
    MetricViews,
    /// The course of every number, hour by hour.
    Hourly,
    /// The table of what happened.
    Events,
    /// The table of a pipeline, by its name in hub.toml.
    Readings(String),
    /// The documents that no pipeline could store.
    DeadLetters,
    /// How far pipelines with a cursor are.
    Positions,
}

/// Tables of pipelines that are this old or newer, by the oldest version that may write to them, have one key for an
/// integer and a double of one value.
pub(super) const KEYS_OF_VALUES: i64 = 2;

impl Object {
    /// Its name in `hub_schema`.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Metrics => METRICS_TABLE,
            Self::MetricViews => "metric_views",
            Self::Hourly => HOURLY,
            Self::Events => EVENTS_TABLE,
            Self::Readings(table) => table,
            Self::DeadLetters => "dead_letters",
            Self::Positions => POSITIONS,
        }
    }

    /// The number of its last step. A new step raises it, and gets its place in each engine's `steps`.
    pub(super) fn version(&self) -> i64 {
        match self {
            Self::MetricViews => 3,
            Self::Readings(_) | Self::DeadLetters => 2,
            // The second version is for SQLite alone; on PostgreSQL the first is as good.
            Self::Metrics => 2,
            Self::Hourly | Self::Events | Self::Positions => 1,
        }
    }

    /// The oldest version that a program must know to write to what this program makes: with many hosts on one
    /// database, those that are updated later go on until a step really shuts them out.
    /// `made`: it was not there before, so that nothing in it has to go on as it was.
    pub(super) fn oldest(&self, made: bool) -> i64 {
        match self {
            Self::Readings(_) if made => KEYS_OF_VALUES,
            Self::Metrics
            | Self::MetricViews
            | Self::Hourly
            | Self::Events
            | Self::Readings(_)
            | Self::DeadLetters
            | Self::Positions => 1,
        }
    }
}

/// What a configuration needs.
pub(super) fn needed(config: &Config) -> Vec<Object> {
    let mut objects = vec![Object::Metrics, Object::MetricViews, Object::Hourly, Object::Events];
    if !config.pipelines.is_empty() {
        objects.push(Object::DeadLetters);
    }
    for pipeline in &config.pipelines {
        let table = Object::Readings(pipeline.table.clone());
        if !objects.contains(&table) {
            objects.push(table);
        }
    }
    if config.pipelines.iter().any(|pipeline| matches!(pipeline.select, Select::Cursor { .. })) {
        objects.push(Object::Positions);
    }
    objects
}

/// A row of `hub_schema`.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub object: String,
    pub version: i64,
    pub oldest: i64,
}

/// The error for a database with an object that this program is too old for.
pub(super) fn newer(target: &str, needed: &[Object], found: Version) -> Error {
    Error::Newer {
        target: target.to_owned(),
        known: needed.iter().find(|object| object.name() == found.object).map_or(0, Object::version),
        object: found.object,
        found: found.version,
    }
}

/// The objects whose steps are still to be run, each with the version it has now.
///
/// # Errors
/// The first object that this program is too old for.
pub(super) fn missing<'a>(needed: &'a [Object], found: &[Version]) -> Result<Vec<(&'a Object, i64)>, Version> {
    let mut missing = Vec::new();
    for object in needed {
        match found.iter().find(|version| version.object == object.name()) {
            Some(version) if version.oldest > object.version() => return Err(version.clone()),
            Some(version) if version.version >= object.version() => {}
            Some(version) => missing.push((object, version.version)),
            None => missing.push((object, 0)),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pipeline_may_have_a_table_with_a_name_of_the_hub_s_own() {
        let objects = [
            Object::Metrics,
            Object::MetricViews,
            Object::Hourly,
            Object::Events,
            Object::DeadLetters,
            Object::Positions,
        ];
        let names = objects.iter().map(Object::name).chain([SCHEMA_TABLE]);
        for name in names.chain(crate::store::views::all().map(|view| view.name)) {
            assert!(crate::config::tables::refusal(name).is_some(), "{name}");
        }
    }

    #[test]
    fn newer_schemas_are_used_as_long_as_they_allow_it() {
        let needed = [Object::Metrics, Object::Readings("r".into())];
        let version = |object: &str, version, oldest| Version { object: object.into(), version, oldest };
        assert_eq!(missing(&needed, &[]).unwrap().len(), 2);
        let found = [version("system_metrics", 9, 1), version("r", 2, 2)];
        assert!(missing(&needed, &found).unwrap().is_empty());
        assert_eq!(missing(&needed, &[version("system_metrics", 2, 1), version("r", 1, 1)]).unwrap().len(), 1);
        assert_eq!(missing(&needed, &[version("r", 9, 9)]).unwrap_err().object, "r");
    }
}
