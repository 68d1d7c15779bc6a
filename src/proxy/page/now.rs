//! How the host is, by the newest sample.

use maud::{Markup, html};
use serde_json::Value;

use super::cards::tile;
use crate::proxy::status::Status;
use crate::records::{Sample, ago};
use crate::text::size;

/// A tile for each thing that was measured; nothing where nothing was.
pub(super) fn tiles(status: &Status) -> Markup {
    let Some(sample) = status.sample.get() else { return html! {} };
    let found: Vec<_> =
        [cpu(sample), memory(sample), space(sample), temperature(sample)].into_iter().flatten().collect();
    html! {
        @if !found.is_empty() {
            h2 { "Host" }
            section.tiles aria-label="Host" { @for (name, value, more) in &found { (tile(name, value, more)) } }
            p.more { "measured " (ago(&sample.time, status.now)) " · " a href="/host" { "how it was" } }
        }
    }
}

type Tile = (&'static str, String, String);

fn number(sample: &Sample, kind: &str, key: &str) -> Option<f64> {
    sample.metrics.get(kind)?.get(key)?.as_f64()
}

fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

fn cpu(sample: &Sample) -> Option<Tile> {
    let load = number(sample, "load", "load1").map(|load| format!("load {load:.2}"));
    Some(("CPU", percent(number(sample, "cpu", "usage")?), load.unwrap_or_default()))
}

fn memory(sample: &Sample) -> Option<Tile> {
    let bytes = |key: &str| number(sample, "memory", key).map(|bytes| size(bytes.max(0.0)));
    let of = bytes("used").zip(bytes("total")).map(|(used, total)| format!("{used} of {total}"));
    Some(("Memory", percent(number(sample, "memory", "used_percent")?), of.unwrap_or_default()))
}

/// The fullest file system.
fn space(sample: &Sample) -> Option<Tile> {
    let all = sample.metrics.get("disk")?.as_object()?;
    // What cannot be written is full from the beginning.
    let is_written = |one: &Value| one.get("read_only").and_then(Value::as_bool) != Some(true);
    let used = |one: &Value| one.get("used_percent")?.as_f64();
    let all = all.iter().filter(|(_, one)| is_written(one)).filter_map(|(name, one)| Some((name, used(one)?)));
    let (name, used) = all.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(("Fullest file system", percent(used), name.clone()))
}

/// The hottest sensor.
fn temperature(sample: &Sample) -> Option<Tile> {
    let all = sample.metrics.get("temperature")?.as_object()?;
    let sensors = all.iter().flat_map(|(chip, sensors)| {
        let sensors = sensors.as_object().into_iter().flatten();
        sensors.filter_map(move |(sensor, value)| Some((format!("{chip} {sensor}"), value.as_f64()?)))
    });
    let (name, value) = sensors.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(("Temperature", format!("{value:.0} °C"), name))
}
