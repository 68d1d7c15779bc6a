use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
}
