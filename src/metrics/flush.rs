use std::time::Instant;

use super::sink::{Database, Failure, Sink};
use super::spool::{Losses, Spool};
use crate::config::Config;
use crate::log;
use crate::store::{EventRow, MetricRow, Shipped};

/// What became of a run's rows and of those that waited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flushed {
    /// Rows of this run in the database.
    pub stored: u64,
    /// Rows of this run in the spool.
    pub spooled: u64,
    /// Rows of earlier runs that reached the database now.
    pub replayed: u64,
    /// Rows of any run that are nowhere now: no room, too old, damaged, or not writable.
    pub dropped: u64,
    /// Rows that the database refuses for themselves, set aside.
    pub refused: u64,
    /// What became of the events that went with this run's rows; none where the rows did not reach the database.
    pub shipped: Option<Shipped>,
    /// Why the database or the spool could not be used.
    pub error: Option<String>,
}

impl Flushed {
    /// True where every sample is stored or waits.
    pub fn is_whole(&self) -> bool {
        self.dropped == 0 && self.refused == 0
    }
}

/// Stores what waits and then this run's rows, in this order, or adds them to what waits. `spool` is none where its
/// folder cannot be used; `events` go with this run's rows, or not yet; `retention` are the days to keep
/// rows and hours where old ones are to be deleted now.
pub(super) fn flush(
    config: &Config,
    spool: Option<&Spool>,
    (rows, events): (Vec<MetricRow>, Vec<EventRow>),
    now: jiff::Timestamp,
    deadline: Instant,
    retention: Option<(u32, u32)>,
) -> Flushed {
    let mut database = Database::new(config, deadline);
    let flushed = store_or_spool(&mut database, spool, rows, &events, now);
    if let Some((days, hourly)) = retention
        && flushed.error.is_none()
        && let Err(Failure::Unavailable(error) | Failure::Refused { reason: error, .. }) =
            database.delete_old(days, hourly)
    {
        log::warn!("retention_failed", error = error);
    }
    flushed
}

fn store_or_spool(
    sink: &mut impl Sink,
    spool: Option<&Spool>,
    rows: Vec<MetricRow>,
    events: &[EventRow],
    now: jiff::Timestamp,
) -> Flushed {
    let mut flushed = Flushed::default();
    let replayed = spool.map_or(Ok(()), |spool| replay(sink, spool, now, &mut flushed));
    let unavailable = match replayed {
        Ok(()) => match insert(sink, rows, events, spool, &mut flushed) {
            Ok((stored, shipped)) => {
                (flushed.stored, flushed.shipped) = (stored, shipped);
                None
            }
            Err((rows, reason)) => Some((rows, reason)),
        },
        Err(reason) => Some((rows, reason)),
    };
    if let Some((rows, reason)) = unavailable {
        flushed.error = Some(reason);
        keep(spool, &rows, now, &mut flushed);
    }
    if let Some(spool) = spool
        && let Err(error) = spool.lose(Losses { dropped: flushed.dropped, refused: flushed.refused })
    {
        log::warn!("losses_not_counted", error = error.to_string());
    }
    flushed
}

/// Stores every segment that waits, the oldest first; the reason where that ends early.
fn replay(sink: &mut impl Sink, spool: &Spool, now: jiff::Timestamp, flushed: &mut Flushed) -> Result<(), String> {
    loop {
        let segment = match spool.oldest(now) {
            Ok(Some(segment)) => segment,
            Ok(None) => return Ok(()),
            // What waits cannot be read; that must not stop today's rows.
            Err(error) => {
                log::error!("spool_unreadable", error = error.to_string());
                return Ok(());
            }
        };
        let rows = segment.rows.clone();
        let inserted = insert(sink, rows, &[], Some(spool), flushed);
        let (stored, _) = inserted.map_err(|(_, reason)| reason)?;
        if let Err(error) = spool.remove(&segment) {
            // It would be stored again and again, and never removed.
            log::error!("spool_not_emptied", error = error.to_string());
            return Ok(());
        }
        flushed.replayed += stored;
        flushed.dropped += segment.lost;
    }
}

/// Stores rows, without those that the database refuses for themselves. Returns how many were stored and what became of the
/// events, or the rows that are left and the reason.
fn insert(
    sink: &mut impl Sink,
    mut rows: Vec<MetricRow>,
    events: &[EventRow],
    spool: Option<&Spool>,
    flushed: &mut Flushed,
) -> Result<(u64, Option<Shipped>), (Vec<MetricRow>, String)> {
    let mut refused: Vec<(MetricRow, String)> = Vec::new();
    let mut shipped = None;
    while !rows.is_empty() {
        match sink.insert(&rows, events) {
            Ok(done) => {
                shipped = Some(done);
                break;
            }
            Err(Failure::Refused { index, reason }) if index < rows.len() => {
                refused.push((rows.remove(index), reason));
            }
            Err(Failure::Refused { reason, .. } | Failure::Unavailable(reason)) => {
                // All of them come again, so what was refused is set aside then, and not twice.
                rows.extend(refused.into_iter().map(|(row, _)| row));
                return Err((rows, reason));
            }
        }
    }
    for (row, reason) in refused {
        log::error!("row_refused", metric_type = row.metric_type, time = log::rfc3339(row.time), error = reason);
        flushed.refused += 1;
        if let Some(Err(error)) = spool.map(|spool| spool.refuse(&row, &reason)) {
            log::error!("refused_row_not_kept", error = error.to_string());
        }
    }
    Ok((rows.len() as u64, shipped))
}

fn keep(spool: Option<&Spool>, rows: &[MetricRow], now: jiff::Timestamp, flushed: &mut Flushed) {
    let count = rows.len() as u64;
    let Some(spool) = spool else {
        flushed.dropped += count;
        return;
    };
    match spool.append(rows, now) {
        Ok(dropped) => {
            flushed.spooled = count;
            flushed.dropped += dropped;
        }
        Err(error) => {
            log::error!("spool_failed", error = error.to_string());
            flushed.dropped += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool;
    use super::*;
    use crate::state::Folder;

    /// A database that can be down, and refuses rows whose payload says so.
    #[derive(Default)]
    struct Memory {
        down: bool,
        /// Goes down when it has refused a row.
        weak: bool,
        stored: Vec<i64>,
        batches: usize,
    }

    impl Sink for Memory {
        fn insert(&mut self, rows: &[MetricRow], _: &[EventRow]) -> Result<Shipped, Failure> {
            self.batches += 1;
            if self.down {
                return Err(Failure::Unavailable("down".into()));
            }
            if let Some(index) = rows.iter().position(|row| row.payload["poison"] == true) {
                self.down = self.weak;
                return Err(Failure::Refused { index, reason: "poison".into() });
            }
            self.stored.extend(rows.iter().map(|row| row.time.as_second()));
            Ok(Shipped::default())
        }
    }

    fn rows(second: i64, poison: bool) -> Vec<MetricRow> {
        vec![MetricRow {
            time: jiff::Timestamp::from_second(second).unwrap(),
            host: "host".into(),
            os: "os".into(),
            metric_type: "cpu".into(),
            payload: serde_json::json!({ "poison": poison }),
        }]
    }

    fn run(sink: &mut Memory, spool: Option<&Spool>, second: i64, poison: bool) -> Flushed {
        store_or_spool(sink, spool, rows(second, poison), &[], jiff::Timestamp::from_second(second).unwrap())
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&Folder::open(dir.path()).unwrap(), spool::LIMIT).unwrap();
        (dir, spool)
    }

    #[test]
    fn an_outage_is_replayed_in_order_before_the_new_rows() {
        let (_dir, spool) = spool();
        let mut sink = Memory { down: true, ..Memory::default() };
        for second in 1..=5 {
            let flushed = run(&mut sink, Some(&spool), second, false);
            assert_eq!((flushed.spooled, flushed.is_whole()), (1, true));
        }
        sink.down = false;
        let flushed = run(&mut sink, Some(&spool), 6, false);
        assert_eq!((flushed.replayed, flushed.stored, flushed.spooled), (5, 1, 0));
        assert_eq!(sink.stored, [1, 2, 3, 4, 5, 6]);
        sink.batches = 0;
        run(&mut sink, Some(&spool), 7, false);
        assert_eq!((sink.batches, sink.stored.last()), (1, Some(&7)), "one round trip");
    }

    #[test]
    fn a_refused_row_is_set_aside_once_and_the_rest_is_stored() {
        let (dir, spool) = spool();
        let mut sink = Memory { down: true, ..Memory::default() };
        run(&mut sink, Some(&spool), 1, true);
        sink.down = false;
        let flushed = run(&mut sink, Some(&spool), 2, false);
        assert_eq!((flushed.refused, flushed.stored, flushed.is_whole()), (1, 1, false));
        assert_eq!(run(&mut sink, Some(&spool), 3, false).refused, 0);
        assert_eq!(sink.stored, [2, 3]);
        let refused = std::fs::read_to_string(dir.path().join("spool/refused.jsonl")).unwrap();
        assert_eq!((refused.lines().count(), spool.losses().refused), (1, 1));
    }

    #[test]
    fn what_was_refused_before_the_database_went_away_is_set_aside_once() {
        let (dir, spool) = spool();
        let mut sink = Memory { weak: true, ..Memory::default() };
        let poisoned = [rows(1, true), rows(1, false)].concat();
        let flushed = store_or_spool(&mut sink, Some(&spool), poisoned, &[], jiff::Timestamp::from_second(1).unwrap());
        assert_eq!((flushed.spooled, flushed.refused, flushed.is_whole()), (2, 0, true));
        for second in 2..=3 {
            sink.down = false;
            let flushed = run(&mut sink, Some(&spool), second, false);
            assert_eq!((flushed.spooled, flushed.refused, flushed.replayed), (1, 0, 0));
        }
        (sink.down, sink.weak) = (false, false);
        let flushed = run(&mut sink, Some(&spool), 4, false);
        assert_eq!((flushed.refused, flushed.replayed, flushed.stored), (1, 3, 1));
        assert_eq!(sink.stored, [1, 2, 3, 4]);
        assert_eq!(std::fs::read_to_string(dir.path().join("spool/refused.jsonl")).unwrap().lines().count(), 1);
    }

    #[test]
    fn without_database_and_spool_the_rows_are_lost_and_said_to_be() {
        let mut sink = Memory { down: true, ..Memory::default() };
        let flushed = run(&mut sink, None, 1, false);
        assert_eq!((flushed.dropped, flushed.is_whole()), (1, false));
        sink.down = false;
        assert_eq!(run(&mut sink, None, 2, false).stored, 1);
    }
}
