use super::{Lines, Window};
use crate::kinds::{HOUR, MINUTE, hour_of};
use crate::store::{Error, Look};

/// Fills lines with what a host has of their window: by hours where a point is of an hour and more, else by samples. A window
/// that begins before there is anything costs no more than what there is.
///
/// # Errors
/// When the database cannot be read.
pub fn read(database: &mut Look, host: &str, lines: &mut Lines) -> Result<(), Error> {
    let (window, wanted) = (lines.window(), lines.wanted().clone());
    for (from, until, by_hours) in pieces(window, database.counted_from(host)?) {
        let take = |found: crate::kinds::Found<'_>| lines.add(&found);
        if by_hours {
            database.hours(host, &wanted, (from, until), take)?;
        } else {
            database.samples(host, &wanted, (from, until), take)?;
        }
    }
    if let Some(near) = window.near() {
        database.samples(host, &wanted, near, |found| lines.add_instant(&found))?;
    }
    Ok(())
}

/// What is read by hours, and what by rows: by hours where a point is of an hour and more and hours are counted, but for the
/// newest.
fn pieces(window: Window, counted_from: Option<i64>) -> Vec<(i64, i64, bool)> {
    let Window { from, until, parts, .. } = window;
    let Some(counted) = counted_from.filter(|_| (until - from) / parts as i64 >= HOUR) else {
        return vec![(from, until, false)];
    };
    // Each hour is read one way, so that nothing counts twice.
    let first = hour_of(from.max(counted).saturating_add(HOUR - 1));
    let newest = hour_of(until - MINUTE);
    if first >= newest {
        return vec![(from, until, false)];
    }
    let mut pieces = vec![(from, first, false), (first, newest, true), (newest, until, false)];
    pieces.retain(|(from, until, _)| from < until);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_is_read_one_way() {
        let window = |from: i64, until: i64| Window { from: from * MINUTE, until: until * MINUTE, parts: 2, at: None };
        let read = |window, counted: Option<i64>| {
            let pieces = pieces(window, counted.map(|counted| counted * MINUTE));
            let minutes = pieces.into_iter().map(|(from, until, by_hours)| (from / MINUTE, until / MINUTE, by_hours));
            minutes.collect::<Vec<_>>()
        };
        let all = Some(-1_000_000);
        assert_eq!(read(window(0, 60), all), [(0, 60, false)], "a point is of half an hour");
        assert_eq!(read(window(0, 630), None), [(0, 630, false)], "no hours are kept");
        assert_eq!(read(window(0, 630), all), [(0, 600, true), (600, 630, false)]);
        assert_eq!(read(window(30, 630), all), [(30, 60, false), (60, 600, true), (600, 630, false)]);
        assert_eq!(read(window(0, 630), Some(300)), [(0, 300, false), (300, 600, true), (600, 630, false)]);
        assert_eq!(read(window(0, 630), Some(900)), [(0, 630, false)], "nothing is counted yet");
    }
}
