use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report, decimal};
use crate::metrics::{Error, roots};

/// The files of `/proc/pressure`; `irq` came with Linux 6.1.
const RESOURCES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// Reads a file of `/proc/pressure` (Documentation/accounting/psi.rst): the share of time in percent that some or all
/// tasks waited, over 10, 60 and 300 seconds, and the total in microseconds. Linux before 5.13 has no `full` for CPUs.
///
/// # Errors
/// When a line of it cannot be read, or there is none.
pub(super) fn parse(resource: &str, bytes: &[u8]) -> Result<Payload, Error> {
    let wrong = |line: &str| Error::format(format!("pressure/{resource}"), format!("line {line:?}"));
    let mut shares = Map::new();
    for line in roots::text(bytes).lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name @ ("some" | "full")) = words.next() else { continue };
        // Without a group to look at, all tasks waiting for a CPU means nothing; the kernel reports 0.
        if resource == "cpu" && name == "full" {
            continue;
        }
        let mut share = Map::new();
        for word in words {
            let (key, number) = word.split_once('=').ok_or_else(|| wrong(line))?;
            let value = if key == "total" {
                number.parse::<u64>().ok().map(Value::from)
            } else {
                number.parse::<f64>().ok().map(|number| decimal(number, 2))
            };
            share.put(key, value.filter(|value| !value.is_null()).ok_or_else(|| wrong(line))?);
        }
        shares.put(name, share);
    }
    if shares.is_empty() { Err(wrong("")) } else { Ok(shares) }
}

/// Collects the `pressure` row; there is none where the kernel has no pressure stall information.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let mut row = Map::new();
    let mut notes = Vec::new();
    for resource in RESOURCES {
        let read = context.roots.proc(&format!("pressure/{resource}"));
        match read.and_then(|bytes| parse(resource, &bytes)) {
            Ok(shares) => row.put(resource, shares),
            Err(error) if error.is_absent() => {}
            Err(error) => notes.push(error.to_string()),
        }
    }
    let rows = if row.is_empty() { Vec::new() } else { vec![(kinds::pressure::KIND.name, row)] };
    Ok(Report { rows, notes, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_some_only_is_whole() {
        let shares = parse("cpu", b"some avg10=0.50 avg60=1.25 avg300=0.00 total=14036781\n").unwrap();
        let expected = serde_json::json!({"some": {"avg10": 0.5, "avg60": 1.25, "avg300": 0.0, "total": 14036781}});
        assert_eq!(Value::Object(shares), expected);
    }

    #[test]
    fn full_of_cpus_means_nothing() {
        let text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert!(!parse("cpu", text).unwrap().contains_key("full"));
        assert!(parse("io", text).unwrap().contains_key("full"));
        assert!(parse("irq", b"full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n").is_ok());
    }

    #[test]
    fn damaged_lines_are_refused() {
        for text in ["", "some avg10=nan total=1", "some avg10", "some avg10=0.1 total=-1"] {
            assert!(parse("io", text.as_bytes()).is_err(), "{text}");
        }
    }
}
