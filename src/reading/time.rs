//! The time of an event, from every shape that producers wrote.

use super::bson::Raw;
use super::decimal;

/// A number below this is no time: it is a year, a date in digits or a counter. As seconds it is March 1973.
const FIRST: f64 = 1e8;
/// Numbers below this are seconds since 1970 (until the year 5138), others milliseconds (since 1973).
const FIRST_MILLISECOND: f64 = 1e11;

/// From the beginning of the year 1 to the end of 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Milliseconds since 1970 of a date, of RFC 3339 (without an offset: UTC), of seconds and milliseconds as numbers or
/// digits. None for what is no time between the years 1 and 9999.
pub(super) fn milliseconds(value: Raw<'_>) -> Option<i64> {
    let milliseconds = match value {
        Raw::DateTime(milliseconds) => milliseconds,
        Raw::Timestamp { seconds, .. } => i64::from(seconds) * 1000,
        Raw::Int32(value) => of_number(f64::from(value))?,
        Raw::Int64(value) => of_number(value as f64)?,
        Raw::Double(value) => of_number(value)?,
        Raw::Decimal128(bits) => of_number(decimal::to_text(bits).parse().ok()?)?,
        Raw::String(text) => of_text(text.trim())?,
        _ => return None,
    };
    TIMES.contains(&milliseconds).then_some(milliseconds)
}

fn of_number(value: f64) -> Option<i64> {
    let size = value.abs();
    // A double has 53 bits, more than a time between the years 1 and 9999 takes; farther out no time is.
    if !(FIRST..1e15).contains(&size) || is_calendar(size) {
        return None;
    }
    if size >= FIRST_MILLISECOND {
        return Some(value.floor() as i64);
    }
    if value.fract() == 0.0 {
        return Some(value as i64 * 1000);
    }
    // The digits that were written: 1091956195.393 times 1000 is 1091956195392.9999 for doubles.
    let digits = size.to_string();
    let (seconds, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let (thousandths, rest) = fraction.split_at(fraction.len().min(3));
    let milliseconds: i64 = format!("{seconds}{thousandths:0<3}").parse().ok()?;
    // Always the millisecond before, of what lies before 1970 too.
    Some(if value < 0.0 { -milliseconds - i64::from(!rest.is_empty()) } else { milliseconds })
}

/// Whether a number is a date in digits, `202401011230` or `20240101123000`: as milliseconds it would be a day of 1976,
/// or of the 26th century.
fn is_calendar(size: f64) -> bool {
    let number = size as u64;
    let minutes = match number {
        190_000_000_000..=209_999_999_999 => number,
        19_000_000_000_000..=20_999_999_999_999 if number % 100 < 60 => number / 100,
        _ => return false,
    };
    let part = |divisor: u64| minutes / divisor % 100;
    let is_date = (1..=12).contains(&part(1_000_000)) && (1..=31).contains(&part(10_000));
    size.fract() == 0.0 && is_date && part(100) < 24 && part(1) < 60
}

fn of_text(text: &str) -> Option<i64> {
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // Ten digits are seconds from 2001 to 2286, thirteen are milliseconds: no date in digits has so many.
    if matches!(whole.len(), 10 | 13) && whole.bytes().chain(fraction.bytes()).all(is_digit) {
        return text.parse().ok().and_then(of_number);
    }
    // A number is no date, although 20240101 could be read as one.
    if !text.contains('-') && !text.contains(':') {
        return None;
    }
    instant(text)
}

/// RFC 3339, its offset also without a colon or left out, which is UTC; a date alone is its midnight.
pub(super) fn instant(text: &str) -> Option<i64> {
    // The name of a zone would not be looked at below.
    if text.contains('[') {
        return None;
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return milliseconds_before(instant.as_nanosecond());
    }
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    // An offset would not be looked at either; what has one and is no instant lies beyond the years that there are.
    if text.split_once(['T', 't', ' ']).is_some_and(|(_, time)| time.contains(['+', '-'])) {
        return None;
    }
    let local = text.parse::<jiff::civil::DateTime>().ok()?;
    let since = local.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    milliseconds_before(since.as_nanos())
}

/// The whole milliseconds before a moment, of one before 1970 too.
fn milliseconds_before(nanoseconds: i128) -> Option<i64> {
    i64::try_from(nanoseconds.div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_are_no_time_are_none() {
        for text in [
            "20240101",
            "2024",
            "202401",
            "202401011230",
            "20240101123000",
            "0",
            "1",
            "42",
            "-5",
            "1.5",
            "12:30",
            "12",
            "999999999",
            "17675280000",
            "1767528000000000",
            "1e9",
            "",
            "-",
            "2024-13-01",
            "1767528000.1.2",
            "+1767528000",
            "9999-12-31T23:59:59-04:00",
            "2026-01-04T12:00:00+99:00",
            "2026-01-04T12:00:00[Europe/Prague]",
        ] {
            assert_eq!(milliseconds(Raw::String(text)), None, "{text}");
        }
        for number in [0, 1, 2024, 20_240_101, 99_999_999, -5, 202_401_011_230, 20_240_101_123_000, i64::MAX, i64::MIN]
        {
            assert_eq!(milliseconds(Raw::Int64(number)), None, "{number}");
            assert_eq!(milliseconds(Raw::Double(number as f64)), None, "{number}");
        }
        assert_eq!(milliseconds(Raw::Int32(20_240_101)), None);
        for number in [f64::NAN, f64::INFINITY, 0.5, 2024.5] {
            assert_eq!(milliseconds(Raw::Double(number)), None, "{number}");
        }
    }

    #[test]
    fn what_is_a_time_is_taken() {
        for (text, expected) in [
            ("1767528000", 1_767_528_000_000),
            ("1767528000.25", 1_767_528_000_250),
            (" 1767528000123 ", 1_767_528_000_123),
            ("2026-01-04", 1_767_484_800_000),
            ("2026-01-04T12:00:00+0000", 1_767_528_000_000),
            ("2026-01-04T07:00:00.5-0500", 1_767_528_000_500),
            ("20260104T12:00:00Z", 1_767_528_000_000),
            ("9999-12-31", 253_402_214_400_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("1969-12-31T23:59:59.999", -1),
            ("1091956195.393", 1_091_956_195_393),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("1969-12-31T23:59:59.9995", -1),
            ("1969-12-31T23:59:59.9985+00:00", -2),
            ("2026-01-04T12:00:00.1239999Z", 1_767_528_000_123),
        ] {
            assert_eq!(milliseconds(Raw::String(text)), Some(expected), "{text}");
        }
        for (number, expected) in [
            (1_767_528_000, 1_767_528_000_000),
            (-300_000_000, -300_000_000_000),
            (1_767_528_000_123, 1_767_528_000_123),
            (202_499_991_230, 202_499_991_230),
        ] {
            assert_eq!(milliseconds(Raw::Int64(number)), Some(expected), "{number}");
        }
        let decimal = decimal::from_text("1767528000.25").unwrap();
        assert_eq!(milliseconds(Raw::Decimal128(decimal)), Some(1_767_528_000_250));
        assert_eq!(milliseconds(Raw::Decimal128(decimal::from_text("NaN").unwrap())), None);
    }

    #[test]
    fn seconds_with_a_fraction_are_the_millisecond_that_they_say() {
        for seconds in [100_000_000_i64, 999_999_999, 1_091_956_195, 1_767_528_000, 4_102_444_800, 62_000_000_000] {
            for thousandth in 0..1000 {
                let expected = seconds * 1000 + thousandth;
                for (text, before) in
                    [(format!("{seconds}.{thousandth:03}"), 0), (format!("{seconds}.{thousandth:03}5"), 1)]
                {
                    let value: f64 = text.parse().unwrap();
                    assert_eq!(milliseconds(Raw::Double(value)), Some(expected), "{text}");
                    assert_eq!(milliseconds(Raw::Double(-value)), Some(-expected - before), "-{text}");
                }
            }
        }
    }
}
