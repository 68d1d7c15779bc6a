//! Reading hours series by series: an index that begins with the host, and has the hour last, leads to a time of one series
//! only.

use postgres::Client;
use postgres::types::Type;

use crate::kinds::Wanted;
use crate::store::hourly::HOURLY;

/// What has a course: kind, label and key of a number of one host.
#[derive(Default)]
pub(super) struct Series {
    kinds: Vec<String>,
    labels: Vec<String>,
    keys: Vec<String>,
    /// The oldest hour of each, in milliseconds since 1970.
    begins: Vec<i64>,
    /// The place of each among what is wanted.
    places: Vec<usize>,
    /// The oldest hour of all.
    pub oldest: i64,
}

/// An hour of a series, told by its number.
pub(super) struct Hour {
    pub series: i64,
    pub time: i64,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    pub samples: u64,
}

impl Series {
    /// What there is of some kinds: one seek each.
    pub(super) fn of(client: &mut Client, host: &str, kinds: Vec<&'static str>) -> Result<Self, postgres::Error> {
        let first = |after: &str| {
            format!(
                "LATERAL (SELECT label, key, hour FROM {HOURLY} AS h WHERE host = $1 AND h.kind = s.kind {after} \
                 ORDER BY label, key, hour LIMIT 1)"
            )
        };
        let sql = format!(
            "WITH RECURSIVE series AS ( \
                SELECT s.kind, f.* FROM unnest($2::text[]) AS s (kind) CROSS JOIN {} AS f \
                UNION ALL \
                SELECT s.kind, n.* FROM series AS s CROSS JOIN {} AS n \
             ) SELECT kind, label, key, (extract(epoch FROM hour) * 1000)::bigint FROM series",
            first(""),
            first("AND (h.label, h.key) > (s.label, s.key)")
        );
        let mut series = Self::default();
        for row in client.query_typed(&sql, &[(&host, Type::TEXT), (&kinds, Type::TEXT_ARRAY)])? {
            series.kinds.push(row.try_get(0)?);
            series.labels.push(row.try_get(1)?);
            series.keys.push(row.try_get(2)?);
            series.begins.push(row.try_get(3)?);
        }
        Ok(series)
    }

    /// Those that are wanted.
    pub(super) fn wanted(self, wanted: &Wanted) -> Self {
        let mut series = Self { oldest: i64::MAX, ..Self::default() };
        let all = self.kinds.into_iter().zip(self.labels).zip(self.keys).zip(self.begins);
        for (((kind, label), key), begin) in all {
            let Some(place) = wanted.place(&kind, &key) else { continue };
            series.kinds.push(kind);
            series.labels.push(label);
            series.keys.push(key);
            series.places.push(place);
            series.oldest = series.oldest.min(begin);
        }
        series
    }

    /// The place and the label of one.
    pub(super) fn get(&self, number: i64) -> Option<(usize, &str)> {
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        Some((*self.places.get(at)?, self.labels.get(at)?))
    }

    /// Their hours from one time up to another.
    pub(super) fn hours(
        &self,
        client: &mut Client,
        host: &str,
        (from, until): (i64, i64),
    ) -> Result<Vec<Hour>, postgres::Error> {
        let time = |parameter: u8| format!("TIMESTAMPTZ 'epoch' + ${parameter} * INTERVAL '1 millisecond'");
        // Without the limit the planner may read whole kinds.
        let sql = format!(
            "SELECT s.number, (extract(epoch FROM h.hour) * 1000)::bigint, h.min, h.avg, h.max, h.samples::bigint \
             FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS s (kind, label, key, number) \
             CROSS JOIN LATERAL (SELECT hour, min, avg, max, samples FROM {HOURLY} AS w \
                WHERE w.host = $1 AND w.kind = s.kind AND w.label = s.label AND w.key = s.key \
                AND w.hour >= {} AND w.hour < {} OFFSET 0) AS h",
            time(5),
            time(6)
        );
        let rows = client.query_typed(
            &sql,
            &[
                (&host, Type::TEXT),
                (&self.kinds, Type::TEXT_ARRAY),
                (&self.labels, Type::TEXT_ARRAY),
                (&self.keys, Type::TEXT_ARRAY),
                (&from, Type::INT8),
                (&until, Type::INT8),
            ],
        )?;
        let hour = |row: &postgres::Row| {
            Ok(Hour {
                series: row.try_get(0)?,
                time: row.try_get(1)?,
                min: row.try_get(2)?,
                mean: row.try_get(3)?,
                max: row.try_get(4)?,
                samples: row.try_get::<_, i64>(5)?.unsigned_abs(),
            })
        };
        rows.iter().map(hour).collect()
    }
}
