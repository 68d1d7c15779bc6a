use std::path::Path;

use serde_json::{Map, Value};

use crate::kinds;
use crate::metrics::context::Context;
use crate::metrics::payload::{Payload, Put, Report};
use crate::metrics::{Error, roots};

/// The lines of `error_stats`, and the keys of their sums.
const ERRORS: [(&str, &str); 5] = [
    ("write_errs", "write_errors"),
    ("read_errs", "read_errors"),
    ("flush_errs", "flush_errors"),
    ("corruption_errs", "corruption_errors"),
    ("generation_errs", "generation_errors"),
];

/// What is known of the devices of a file system, by `/sys/fs/btrfs/UUID/devinfo` (Linux 5.14). `each` names those that
/// have errors, by their number in `btrfs device usage`.
fn file_system(folder: &Path) -> Option<Payload> {
    let devices = folder.join("devinfo");
    let names = roots::names(&devices);
    let (mut missing, mut sums, mut each) = (0u64, [None::<u64>; ERRORS.len()], Map::new());
    for name in &names {
        let device = devices.join(name);
        missing += u64::from(roots::number::<u8>(&device.join("missing")) == Some(1));
        let Some(text) = roots::value(&device.join("error_stats")) else { continue };
        let mut errors = Map::new();
        for ((line, key), sum) in ERRORS.iter().zip(&mut sums) {
            let count = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<u64>().ok());
            let Some(count) = count else { continue };
            *sum = Some(sum.unwrap_or(0).saturating_add(count));
            if count > 0 {
                errors.put(key, count);
            }
        }
        if !errors.is_empty() {
            each.put(&name.to_string_lossy(), errors);
        }
    }
    let mut row = Map::new();
    row.put("devices", names.len());
    row.put("missing", missing);
    for ((_, key), sum) in ERRORS.iter().zip(sums) {
        row.put_some(key, sum);
    }
    if !each.is_empty() {
        row.put("each", each);
    }
    (!names.is_empty()).then_some(row)
}

/// Collects the `btrfs` row; there is none where no such file system is mounted.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let all = context.roots.sys.join("fs/btrfs");
    let mut payload = Map::new();
    for number in roots::names(&all) {
        let folder = all.join(&number);
        let Some(row) = file_system(&folder) else { continue };
        let label = roots::value(&folder.join("label")).filter(|label| !label.is_empty());
        let number = number.to_string_lossy().into_owned();
        let key = label.filter(|label| !payload.contains_key(label)).unwrap_or(number);
        payload.put(&key, Value::Object(row));
    }
    let rows = if payload.is_empty() { Vec::new() } else { vec![(kinds::btrfs::KIND.name, payload)] };
    Ok(Report { rows, ..Report::default() })
}
