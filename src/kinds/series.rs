//! The numbers of a row that have a course worth keeping for years: each with what it belongs to and its key.

use serde_json::Value;

use super::{ALL, Each, Measure, Part};

/// Calls `each` with label, key and value of every number of a row. The label is what the number belongs to, such as the mount,
/// and empty where that is the row; of a sensor it is chip and sensor with a space between. The key is the one in the row, with
/// the name of the object that its owner lies in before it; of a temperature and a fan it is the column of the view.
/// Left out are counters whose rate is beside them, what no view shows, and how collectors did.
pub fn each_number(kind: &str, row: &Value, each: &mut impl FnMut(&str, &str, f64)) {
    let parts = ALL.iter().filter(|known| known.name == kind).flat_map(|kind| kind.parts);
    for Part { each: of, table, .. } in parts {
        match of {
            Each::Row => of_object("", "", row, table, each),
            Each::Object("collectors", _) | Each::Number("stuck", _) => {}
            Each::Object(within, _) => {
                let object = if within.is_empty() { Some(row) } else { row.get(within) };
                for (label, owner) in members(object) {
                    of_object(label, within, owner, table, each);
                }
            }
            Each::Number(within, _) => {
                for (label, value) in members(row.get(within)) {
                    number(value).into_iter().for_each(|value| each(label, within, value));
                }
            }
            Each::Nested(..) => {
                let key = table.first().map_or("", |measure| measure.column);
                for (outer, sensors) in members(Some(row)) {
                    for (inner, value) in members(Some(sensors)) {
                        number(value).into_iter().for_each(|value| each(&format!("{outer} {inner}"), key, value));
                    }
                }
            }
        }
    }
}

fn of_object(label: &str, within: &str, object: &Value, table: &[Measure], each: &mut impl FnMut(&str, &str, f64)) {
    for measure in table.iter().filter(|measure| is_kept(measure, table)) {
        let value = measure.key.split('.').try_fold(object, |value, step| value.get(step));
        let Some(value) = value.and_then(number) else { continue };
        if within.is_empty() {
            each(label, measure.key, value);
        } else {
            each(label, &format!("{within}.{}", measure.key), value);
        }
    }
}

fn is_kept(measure: &Measure, table: &[Measure]) -> bool {
    let has_rate = |end: &str| table.iter().any(|other| other.key.strip_suffix(end) == Some(measure.key));
    !measure.is_text && !measure.column.is_empty() && !has_rate("_per_second") && !has_rate("_new")
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// A number, or what is true or false as 1 or 0.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|flag| if flag { 1.0 } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: &str, row: Value) -> Vec<String> {
        let mut found = Vec::new();
        each_number(kind, &row, &mut |label, key, value| found.push(format!("{label}|{key}|{value}")));
        found
    }

    #[test]
    fn numbers_have_their_owner_and_their_key() {
        let cpu = json!({"usage": 12.5, "modes": {"user": 1}, "core_temps": {"core_0": 40, "x": "hot"},
            "cpus": {"0": {"usage": 3, "seconds": {"user": 9}}}, "package_temp": null});
        assert_eq!(of("cpu", cpu), ["|usage|12.5", "|modes.user|1", "core_0|core_temps|40", "0|cpus.usage|3"]);
        let network = json!({"eth0": {"rx_bytes": 7, "rx_bytes_per_second": 0.5, "up": true, "kind": "x"}, "odd": 3});
        assert_eq!(of("network", network), ["eth0|rx_bytes_per_second|0.5", "eth0|up|1"]);
        assert_eq!(of("temperature", json!({"k10temp": {"Tctl": 51.25}})), ["k10temp Tctl|celsius|51.25"]);
        assert_eq!(of("kernel", json!({"oom_kills": 1, "oom_kills_new": 0})), ["|oom_kills_new|0"]);
        assert_eq!(of("run", json!({"collectors": {"cpu": {"ms": 1}}, "dropped": 2})), ["|dropped|2"]);
        for odd in [json!(null), json!([1]), json!({"usage": "x", "cpus": [1]})] {
            assert_eq!(of("cpu", odd), [""; 0]);
        }
        assert_eq!(of("somebody's own", json!({"usage": 1})), [""; 0]);
    }
}
