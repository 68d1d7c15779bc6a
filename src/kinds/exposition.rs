use std::fmt::Write;

use serde_json::{Map, Value};

use super::{ALL, Each, Kind, Measure, Part};
use crate::text;

/// More samples of one metric are left out: a host with thousands of interfaces must not become thousands of series.
const MOST: usize = 1000;

/// A sample in the Prometheus text format (prometheus.io/docs/instrumenting/exposition_formats), without timestamps,
/// as node_exporter's textfile collector wants it.
pub fn exposition(host: &str, os: &str, metrics: &Map<String, Value>) -> String {
    let mut text = String::new();
    head(&mut text, "hub_host_info", "gauge", "The host's name and operating system.");
    line(&mut text, "hub_host_info", &[("host", host), ("os", os)], &Value::from(1), 1.0);
    for family in families() {
        let mut found = Vec::new();
        if let Some(payload) = metrics.get(family.kind).and_then(Value::as_object) {
            find(payload, &family.path, &family.texts, &mut Vec::new(), &mut found);
        }
        if found.is_empty() {
            continue;
        }
        head(&mut text, family.name, if family.name.ends_with("_total") { "counter" } else { "gauge" }, family.help);
        for (labels, value) in found.into_iter().take(MOST) {
            line(&mut text, family.name, &labels, value, family.scale);
        }
    }
    text
}

/// How a number in a row becomes a metric.
struct Family {
    kind: &'static str,
    /// The way to the number; `{name}` stands for every key and becomes the label `name`.
    path: Vec<String>,
    name: &'static str,
    help: &'static str,
    scale: f64,
    /// Keys whose texts become labels, where `path` leads to an object: the metric is 1 then.
    texts: Vec<&'static str>,
}

/// Every metric, each name once.
fn families() -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for Kind { name: kind, parts, .. } in ALL.iter().copied() {
        for Part { each, table, .. } in parts {
            for Measure { key, is_text, metric, help, .. } in *table {
                let Some((name, scale)) = *metric else { continue };
                let text = is_text.then_some(*key);
                if let Some(family) = families.iter_mut().find(|family| family.name == name) {
                    family.texts.extend(text);
                    continue;
                }
                let mut path = way(each);
                if text.is_none() && !key.is_empty() {
                    path.extend(key.split('.').map(str::to_owned));
                }
                families.push(Family { kind, path, name, help, scale, texts: text.into_iter().collect() });
            }
        }
    }
    families
}

/// The way to what the values of a part belong to.
fn way(each: &Each) -> Vec<String> {
    let label = |label: &str| format!("{{{label}}}");
    match each {
        Each::Row => Vec::new(),
        Each::Object("", name) => vec![label(name.label)],
        Each::Object(within, name) | Each::Number(within, name) => vec![(*within).to_owned(), label(name.label)],
        Each::Nested(outer, inner) => vec![label(outer.label), label(inner.label)],
    }
}

/// The value of a metric that only carries labels.
static ONE: Value = Value::Bool(true);

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// The numbers at the end of a path, with the keys on the way that are labels; where `texts` are to be labels, the objects
/// there that have any of them.
fn find<'a>(
    object: &'a Map<String, Value>,
    path: &'a [String],
    texts: &[&'a str],
    labels: &mut Labels<'a>,
    found: &mut Vec<(Labels<'a>, &'a Value)>,
) {
    let Some((step, rest)) = path.split_first() else { return };
    let label = step.strip_prefix('{').and_then(|step| step.strip_suffix('}'));
    for (key, value) in object.iter().filter(|(key, _)| label.is_some() || *key == step) {
        if let Some(label) = label {
            labels.push((label, key));
        }
        match value {
            Value::Object(inner) if rest.is_empty() => {
                let known = |text: &&'a str| Some((*text, inner.get(*text)?.as_str()?));
                let before = labels.len();
                labels.extend(texts.iter().filter_map(known));
                if labels.len() > before {
                    found.push((labels.clone(), &ONE));
                }
                labels.truncate(before);
            }
            Value::Object(inner) => find(inner, rest, texts, labels, found),
            Value::Number(_) | Value::Bool(_) if rest.is_empty() => found.push((labels.clone(), value)),
            _ => {}
        }
        if label.is_some() {
            labels.pop();
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: &Value, scale: f64) {
    let number = match value {
        Value::Bool(yes) => u64::from(*yes).to_string(),
        Value::Number(number) if scale == 1.0 => number.to_string(),
        // Nine digits after the point: what the scale adds beyond them is no measurement.
        other => format!("{}", (other.as_f64().unwrap_or(0.0) * scale * 1e9).round() / 1e9),
    };
    let labels: Vec<String> =
        labels.iter().map(|(label, value)| format!("{label}=\"{}\"", text::label(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(text, "{name}{labels} {number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(host: &str, os: &str, metrics: Value) -> String {
        exposition(host, os, metrics.as_object().unwrap())
    }

    #[test]
    fn labels_come_from_keys_and_are_escaped() {
        let disk = serde_json::json!({"/a \"b\"\n": {"total": 5, "read_only": true, "device": "/dev/x"}});
        let text = text("host", "Debian \\ 12", serde_json::json!({"disk": disk}));
        assert!(text.contains("hub_host_info{host=\"host\",os=\"Debian \\\\ 12\"} 1\n"), "{text}");
        assert!(text.contains("hub_filesystem_size_bytes{mountpoint=\"/a \\\"b\\\"\\n\"} 5\n"), "{text}");
        assert!(text.contains("hub_filesystem_readonly{mountpoint=\"/a \\\"b\\\"\\n\"} 1\n"), "{text}");
    }

    #[test]
    fn units_are_base_units_and_what_is_unknown_is_left_out() {
        let pressure = serde_json::json!({"io": {"some": {"total": 14_036_781}}});
        let cpu = serde_json::json!({"usage": null, "modes": {"user": 12.5}});
        let text = text("h", "o", serde_json::json!({"pressure": pressure, "cpu": cpu}));
        assert!(text.contains("hub_pressure_waiting_seconds_total{resource=\"io\"} 14.036781\n"), "{text}");
        assert!(text.contains("hub_cpu_mode_ratio{mode=\"user\"} 0.125\n") && !text.contains("usage"), "{text}");
    }

    #[test]
    fn texts_become_labels_where_there_are_any() {
        let disks = serde_json::json!({
            "dm-0": {"kind": "mapped", "name": "vg-a\"b", "reads": 5}, "sda": {"kind": "disk"}, "sdb": {"reads": 6}
        });
        let arrays = serde_json::json!({"md0": {"level": "raid1", "state": "clean", "degraded": 1, "sync": null}});
        let text = text("h", "o", serde_json::json!({"disk_io": disks, "array": arrays}));
        for line in [
            "hub_disk_info{device=\"dm-0\",kind=\"mapped\",name=\"vg-a\\\"b\"} 1\n",
            "hub_disk_info{device=\"sda\",kind=\"disk\"} 1\n",
            "hub_disk_reads_completed_total{device=\"sdb\"} 6\n",
            "hub_array_info{device=\"md0\",level=\"raid1\",state=\"clean\"} 1\n",
            "hub_array_degraded{device=\"md0\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("hub_disk_info{device=\"sdb\"") && !text.contains("sync"), "{text}");
    }

    #[test]
    fn every_name_stands_once_and_has_a_help_text() {
        let families = families();
        let mut names: Vec<&str> = families.iter().map(|family| family.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(families.iter().all(|family| family.help.ends_with('.') && family.name.starts_with("hub_")));
    }
}
