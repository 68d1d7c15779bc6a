use super::Error;

/// The table of metrics, as installations of the Go version named it.
pub const METRICS_TABLE: &str = "system_metrics";

/// One row of `system_metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// When it was measured; stored in milliseconds, what is finer is cut off.
    pub time: jiff::Timestamp,
    /// The host's name.
    pub host: String,
    /// The host's operating system.
    pub os: String,
    /// What was measured, such as `cpu`.
    pub metric_type: String,
    /// The measured values.
    pub payload: serde_json::Value,
}

/// Rows as columns, checked for what only one of the two databases would refuse, so that both hold the same.
#[cfg_attr(not(any(feature = "postgres", feature = "sqlite")), expect(dead_code, reason = "no engine reads it"))]
#[derive(Clone)]
pub(super) struct Batch {
    /// Milliseconds since 1970.
    pub times: Vec<i64>,
    pub hosts: Vec<String>,
    pub systems: Vec<String>,
    pub types: Vec<String>,
    /// JSON texts.
    pub payloads: Vec<String>,
}

impl Batch {
    /// # Errors
    /// `Error::Row` for the first row with a NUL character, which PostgreSQL cannot store ("8.3. Character Types").
    pub(super) fn new(rows: &[MetricRow]) -> Result<Self, Error> {
        let texts = |field: fn(&MetricRow) -> &String| -> Vec<String> { rows.iter().map(field).cloned().collect() };
        let batch = Self {
            times: rows.iter().map(|row| row.time.as_millisecond()).collect(),
            hosts: texts(|row| &row.host),
            systems: texts(|row| &row.os),
            types: texts(|row| &row.metric_type),
            payloads: rows.iter().map(|row| row.payload.to_string()).collect(),
        };
        for index in 0..rows.len() {
            let texts = [("host", &batch.hosts), ("os", &batch.systems), ("metric_type", &batch.types)];
            let field = texts.iter().find(|(_, column)| column[index].contains('\0')).map(|(name, _)| *name);
            let field = field.or_else(|| nuls(&batch.payloads[index]).next().map(|_| "payload"));
            if let Some(field) = field {
                return Err(Error::Row {
                    index,
                    code: "22021".to_owned(),
                    reason: format!("{field} has a NUL character, which cannot be stored"),
                });
            }
        }
        Ok(batch)
    }
}

/// Where a JSON text has an escaped NUL (RFC 8259, section 7); an escaped backslash before `u0000` is none.
pub(super) fn nuls(json: &str) -> impl Iterator<Item = usize> + '_ {
    let escapes = std::iter::successors(json.find('\\'), |at| {
        let from = at + 2;
        json.get(from..)?.find('\\').map(|next| from + next)
    });
    escapes.filter(|at| json[at + 1..].starts_with("u0000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_anywhere_names_its_row_and_a_backslash_is_no_nul() {
        let row = |host: &str, payload: serde_json::Value| MetricRow {
            time: jiff::Timestamp::UNIX_EPOCH,
            host: host.into(),
            os: "linux".into(),
            metric_type: "cpu".into(),
            payload,
        };
        let fine = [row("a", json!({"\\u0000": "\\\\u0000 é\u{1}"}))];
        assert!(Batch::new(&fine).is_ok());
        for bad in
            [row("a\0", json!({})), row("a", json!({"k": ["\0"]})), row("a", json!({"\0": 1})), row("a", json!("\\\0"))]
        {
            assert_eq!(Batch::new(&[fine[0].clone(), bad]).err().unwrap().is_row_refused(), Some(1));
        }
    }
}
