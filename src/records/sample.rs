use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kinds::unit;

/// More are not told of.
const MOST_SERVICES: usize = 50;

/// `data/metrics/sample.json`: the newest sample of the host, written over by each run of system-metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, RFC 3339.
    pub time: String,
    /// The host's name.
    pub host: String,
    /// Its operating system.
    pub os: String,
    /// The rows, by their `metric_type`. What could not be measured has no key, or null.
    pub metrics: Map<String, Value>,
}

impl Sample {
    /// Its name in the folder `data/metrics`.
    pub const FILE: &str = "sample.json";

    /// The services whose use it tells.
    pub fn services(&self) -> Vec<String> {
        let units = self.metrics.get(unit::KIND.name).and_then(Value::as_object).into_iter().flatten();
        units.map(|(name, _)| name.clone()).filter(|name| name.ends_with(".service")).take(MOST_SERVICES).collect()
    }
}
