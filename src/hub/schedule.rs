use std::time::Duration;

/// When a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// From start to stop.
    Always,
    /// At start, this long after each run, and when there is something in its queue.
    Every(Duration),
    /// At this hour of the day, local time, and when there is something in its queue.
    Daily(i8),
}

impl Schedule {
    /// From the end of a run, or the start of the hub, to the next planned run.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Always => Duration::ZERO,
            Self::Every(pause) => pause,
            Self::Daily(hour) => until(hour, jiff::Timestamp::now(), &jiff::tz::TimeZone::system()),
        }
    }
}

/// From an instant to the next time that clocks show this hour; a day where the calendar has no answer.
fn until(hour: i8, now: jiff::Timestamp, zone: &jiff::tz::TimeZone) -> Duration {
    let clock = zone.to_datetime(now);
    let today = clock.date().at(hour, 0, 0, 0);
    let next = if clock < today { Ok(today) } else { today.tomorrow() };
    let next = next.and_then(|next| zone.to_timestamp(next));
    let left = next.ok().and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    left.unwrap_or(Duration::from_secs(24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_run_comes_at_its_hour() {
        // Central European time: an hour ahead, and two from the night before 29 March on.
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (now, seconds) in [
            ("2026-01-04T09:59:30+01:00", 30),
            ("2026-01-04T10:00:00+01:00", 24 * 3600),
            ("2026-03-28T12:00:00+01:00", 21 * 3600),
        ] {
            assert_eq!(until(10, now.parse().unwrap(), &zone).as_secs(), seconds, "{now}");
        }
    }
}
