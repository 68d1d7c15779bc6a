//! Certificates of version 1, as `openssl x509 -req` makes them (RFC 5280, section 4.1).

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
/// The field `version` of version 3: `[0] EXPLICIT INTEGER 2`.
const VERSION_3: [u8; 5] = [0xa0, 0x03, 0x02, 0x01, 0x02];

/// The same certificate, but of version 3 by its own words, so that its key can be read; its authority's signature does
/// not hold any more. None where it is of that version, or is no certificate.
pub(super) fn as_version_3(certificate: &CertificateDer<'_>) -> Option<CertificateDer<'static>> {
    let (whole, _) = value(certificate)?;
    let (content, signature) = value(whole)?;
    let content = match content {
        [0xa0, ..] if content.starts_with(&VERSION_3) => return None,
        [0xa0, length, ..] => content.get(2 + usize::from(*length)..)?,
        _ => content,
    };
    let content = sequence(&[&VERSION_3, content].concat());
    Some(CertificateDer::from(sequence(&[&content, signature].concat())))
}

/// The value of the sequence that the bytes begin with, and what comes after it.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = element(bytes)?;
    (tag == SEQUENCE).then_some((value, rest))
}

/// The tag and the value that the bytes begin with, and what comes after them (X.690, section 8.1).
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (
                digits
                    .iter()
                    .try_fold(0usize, |length, digit| length.checked_mul(256)?.checked_add((*digit).into()))?,
                rest,
            )
        }
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

fn sequence(value: &[u8]) -> Vec<u8> {
    let digits = value.len().to_be_bytes();
    let digits = &digits[value.len().leading_zeros() as usize / 8..];
    let mut bytes = vec![SEQUENCE];
    match u8::try_from(value.len()) {
        Ok(short @ 0..0x80) => bytes.push(short),
        _ => {
            // At most eight of them.
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend(digits);
        }
    }
    bytes.extend(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_put_before_the_rest_and_rubbish_is_none() {
        let of = |content: &[u8]| CertificateDer::from(sequence(&[&sequence(content)[..], &[5, 0]].concat()));
        for length in [3, 100, 125, 200, 300, 70_000] {
            let content = vec![2; length];
            let expected = of(&[&VERSION_3[..], &content].concat());
            assert_eq!(as_version_3(&of(&content)), Some(expected.clone()), "version 1 of {length} bytes");
            let second = [&[0xa0, 0x03, 0x02, 0x01, 0x01][..], &content].concat();
            assert_eq!(as_version_3(&of(&second)), Some(expected.clone()));
            assert_eq!(as_version_3(&expected), None);
        }
        for rubbish in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 255, 255, 255, 255], &[0x31, 0], &[0x30, 2, 0x30, 9]]
        {
            assert_eq!(as_version_3(&CertificateDer::from(rubbish)), None);
        }
    }
}
