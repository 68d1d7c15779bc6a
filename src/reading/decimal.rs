//! Decimal128 as text and back (IEEE 754-2008 in BID form, as in the BSON Decimal128 specification).

const BIAS: i32 = 6176;
const SMALLEST: i32 = -6176;
const LARGEST: i32 = 6111;
const DIGITS: usize = 34;
/// 10^34 - 1
const MOST: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;

const SIGN: u128 = 1 << 127;
const NAN: u128 = 0b11111 << 122;
const INFINITY: u128 = 0b11110 << 122;

/// The text form, which keeps trailing zeros and tells `-0` from `0`.
pub(super) fn to_text(bytes: [u8; 16]) -> String {
    let bits = u128::from_le_bytes(bytes);
    let sign = if bits & SIGN == 0 { "" } else { "-" };
    match bits & NAN {
        NAN => return "NaN".to_owned(),
        INFINITY => return format!("{sign}Infinity"),
        _ => {}
    }
    // With the two bits set the coefficient would be larger than 34 digits; it counts as 0 then.
    let wide = bits >> 125 & 3 == 3;
    let exponent = (if wide { bits >> 111 } else { bits >> 113 }) & 0x3fff;
    let coefficient = if wide { 0 } else { bits & ((1 << 113) - 1) };
    let coefficient = if coefficient > MOST { 0 } else { coefficient };
    let exponent = i32::try_from(exponent).unwrap_or(0) - BIAS;
    let digits = coefficient.to_string();
    let count = i32::try_from(digits.len()).unwrap_or(0);
    let scientific = exponent + count - 1;
    if exponent > 0 || scientific < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}E{scientific:+}");
    }
    if exponent == 0 {
        return format!("{sign}{digits}");
    }
    let places = usize::try_from(-exponent).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    format!("{sign}{whole}.{fraction}")
}

/// The value of a text; none where it is no number or has no exact form.
pub(super) fn from_text(text: &str) -> Option<[u8; 16]> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let sign = if negative { SIGN } else { 0 };
    let bits = match body.to_ascii_lowercase().as_str() {
        "nan" => NAN,
        "inf" | "infinity" => sign | INFINITY,
        number => sign | finite(number)?,
    };
    Some(bits.to_le_bytes())
}

fn finite(number: &str) -> Option<u128> {
    let (mantissa, exponent) = match number.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let mut digits = digits.trim_start_matches('0').to_owned();
    let mut exponent = exponent - i64::try_from(fraction.len()).ok()?;
    if digits.is_empty() {
        // A zero keeps its exponent as far as there is room for it.
        return Some(encode(0, exponent.clamp(SMALLEST.into(), LARGEST.into())));
    }
    // Only zeros may be cut off or added: everything else would be another number.
    while digits.len() > DIGITS || (exponent < SMALLEST.into() && digits.len() > 1) {
        if digits.pop() != Some('0') {
            return None;
        }
        exponent += 1;
    }
    while exponent > LARGEST.into() && digits.len() < DIGITS {
        digits.push('0');
        exponent -= 1;
    }
    let fits = (i64::from(SMALLEST)..=i64::from(LARGEST)).contains(&exponent);
    if fits { Some(encode(digits.parse().ok()?, exponent)) } else { None }
}

fn encode(coefficient: u128, exponent: i64) -> u128 {
    let exponent = u128::try_from(exponent + i64::from(BIAS)).unwrap_or(0);
    exponent << 113 | coefficient
}

fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Far beyond what is representable, so that a longer one only has to be large.
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000_000);
    Some(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive() {
        for text in [
            "0",
            "-0",
            "1.10",
            "0.001234",
            "1E+3",
            "-1.23E-7",
            "NaN",
            "-Infinity",
            "9999999999999999999999999999999999",
            "0E-6176",
            "1E-6176",
        ] {
            assert_eq!(to_text(from_text(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_number_or_not_exact_is_refused() {
        for text in
            ["", "-", ".", "e5", "1e", "1.2.3", "0x1", "10000000000000000000000000000000001", "1E+99999", "1E-6177"]
        {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
