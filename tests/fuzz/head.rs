//! The head of a request, whatever bytes come in whatever pieces.

use super::{Length, MAX_FIELDS, end, parse};
use crate::fuzz::fuzz;

const SEEDS: &[&[u8]] = &[
    b"POST /api/webhook/gitops HTTP/1.1\r\nHost: localhost:8085\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nHost: [::1]:8085\r\nExpect: 100-continue\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\r\nHEAD /a%20b?c=/d HTTP/1.1\r\nHost: a\r\nX-A:\r\nx-a: \xff\r\n\r\nbody",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"\n\r\n",
    b": ",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b" HTTP/2.0",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"18446744073709551616",
    b"0x5",
    b"+5",
    b"-1",
    b"Transfer-Encoding: chunked\r\n",
    b"chunked",
    b"Expect: 100-continue\r\n",
    b" folded\r\n",
    b"CONNECT a:1",
    b"http://a/",
    b"*",
    b"A: b\r\n",
    b"\0",
    b"\x0b",
    b"\xc2\xa0",
];

#[test]
fn fuzz_heads() {
    fuzz("heads", SEEDS, WORDS, |input| {
        // Wherever the reads are split, the end is the same.
        let whole = end(input, 0);
        for split in [input.len() / 3, input.len() / 2, input.len().saturating_sub(1)] {
            let first = end(&input[..split], 0);
            let found = first.or_else(|| end(input, split));
            assert_eq!(found, whole, "split at {split}");
        }
        let Some(length) = whole else { return (0, 0, "") };
        assert!(length <= input.len() && input[..length].ends_with(b"\n"));
        let head = &input[..length];
        match parse(head, MAX_FIELDS) {
            Err(rejection) => {
                assert!((400..500).contains(&rejection.status));
                (rejection.status, 0, rejection.reason)
            }
            Ok(parsed) => {
                // Nothing that a second parser could read otherwise gets through.
                assert!(parsed.headers.len() <= MAX_FIELDS && parsed.values("host").count() == 1);
                assert!(parsed.target.starts_with('/') || parsed.target == "*");
                assert!(parsed.target.bytes().chain(parsed.method.bytes()).all(|byte| byte.is_ascii_graphic()));
                assert!(!head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
                assert!(parsed.headers.iter().all(|(name, value)| {
                    !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
                        && !value.contains(['\r', '\n', '\0'])
                }));
                let framing =
                    parsed.values("content-length").count() + parsed.values("transfer-encoding").count().min(1);
                assert_eq!(framing, usize::from(parsed.length != Length::None));
                if let Length::Known(number) = parsed.length {
                    let digits = parsed.values("content-length").next().unwrap_or_default();
                    assert_eq!(digits.trim_start_matches('0').parse::<u64>().unwrap_or(0), number);
                }
                (200, parsed.headers.len(), "")
            }
        }
    });
}
