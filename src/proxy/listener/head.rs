//! The head of a request: from bytes to [`Head`], or to the status that says what is wrong with them.
//! Stricter than RFC 9112 asks where being lenient lets two parsers disagree about where a request ends.

use httparse::Status;

/// The most header fields the parser has room for, whatever the limits say.
pub(super) const MAX_FIELDS: usize = 64;

/// How long the body of a request is, as far as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Neither `Content-Length` nor `Transfer-Encoding`.
    None,
    /// `Content-Length`, in bytes.
    Known(u64),
    /// Any `Transfer-Encoding`. The engine never reads such a body; the fitting answer is 411.
    Chunked,
}

/// Request line and header fields, well-formed.
#[derive(Clone, Debug)]
pub struct Head {
    /// As sent: methods are case-sensitive.
    pub method: String,
    /// As sent: path and query, visible ASCII that starts with `/` (or `*`, for `OPTIONS`).
    pub target: String,
    /// Names as sent and values, in order of arrival. Bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Length of the body.
    pub length: Length,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl Head {
    /// The target without its query, still percent-encoded.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// All values of a header field, whatever the case of its name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Why a request is not passed on: the status to answer with, and the reason in plain words without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub status: u16,
    pub reason: &'static str,
}

pub(super) const fn reject(status: u16, reason: &'static str) -> Rejection {
    Rejection { status, reason }
}

/// Finds the blank line. Returns the number of bytes of the head with it.
/// `searched` is how many of the bytes an earlier call has already seen in vain.
pub(super) fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    let tail = bytes.get(from..)?;
    (0..tail.len()).find_map(|at| match tail.get(at..)? {
        [b'\n', b'\n', ..] => Some(from + at + 2),
        [b'\n', b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Parses the bytes up to and with the blank line (RFC 9112, sections 2 to 6).
/// `fields` is the most header fields allowed.
pub(super) fn parse(bytes: &[u8], fields: usize) -> Result<Head, Rejection> {
    let mut previous = 0;
    for &byte in bytes {
        if byte == b'\n' && previous != b'\r' {
            return Err(reject(400, "lines must end with CR LF"));
        }
        previous = byte;
    }
    let mut room = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let room = room.get_mut(..fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut request = httparse::Request::new(room);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(reject(400, "the head ends early")),
        Err(httparse::Error::TooManyHeaders) => return Err(reject(431, "too many header fields")),
        Err(httparse::Error::Version) => return Err(reject(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")),
        Err(_) => return Err(reject(400, "the request line or a header field is malformed")),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(reject(400, "the request line is malformed"));
    };
    let in_form = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if !in_form || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(reject(400, "the target must be a path of visible ASCII"));
    }
    let headers = request
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).trim().to_owned()))
        .collect();
    let mut head = Head {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        length: Length::None,
        expects_continue: false,
    };
    check_host(&head)?;
    head.length = body_length(&head)?;
    head.expects_continue = expectation(&head, version)?;
    Ok(head)
}

fn check_host(head: &Head) -> Result<(), Rejection> {
    let mut hosts = head.values("host");
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        _ => return Err(reject(400, "exactly one Host is needed")),
    };
    if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_~:[]%".contains(&byte)) {
        Ok(())
    } else {
        Err(reject(400, "Host is not a host and port"))
    }
}

fn body_length(head: &Head) -> Result<Length, Rejection> {
    let mut lengths = head.values("content-length");
    let encoded = head.values("transfer-encoding").next().is_some();
    match (lengths.next(), lengths.next(), encoded) {
        (None, _, false) => Ok(Length::None),
        (None, _, true) => Ok(Length::Chunked),
        (Some(_), _, true) => Err(reject(400, "Content-Length and Transfer-Encoding exclude each other")),
        (Some(_), Some(_), _) => Err(reject(400, "more than one Content-Length")),
        (Some(digits), None, false) => {
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(reject(400, "Content-Length is not a number"));
            }
            // All digits, so the only way to fail is to be larger than any body can be.
            digits.parse().map(Length::Known).map_err(|_| reject(413, "the body is too large"))
        }
    }
}

fn expectation(head: &Head, version: u8) -> Result<bool, Rejection> {
    let mut expected = false;
    for value in head.values("expect") {
        if !value.eq_ignore_ascii_case("100-continue") {
            return Err(reject(417, "only the expectation 100-continue can be met"));
        }
        // RFC 9110, 10.1.1: an HTTP/1.0 client does not know 100 Continue, whatever it sent.
        expected = version == 1;
    }
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Head, u16> {
        let bytes = head.as_bytes();
        assert_eq!(end(bytes, 0), Some(bytes.len()), "{head:?}");
        parse(bytes, MAX_FIELDS).map_err(|rejection| rejection.status)
    }

    fn with(fields: &str) -> Result<Head, u16> {
        parsed(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn a_good_head() {
        let head = with("Content-Length:  12 \r\nX-A: 1\r\nx-a: zwei\r\nExpect: 100-Continue\r\n").unwrap();
        assert_eq!((head.method.as_str(), head.path(), head.length), ("POST", "/x", Length::Known(12)));
        assert_eq!(head.values("X-a").collect::<Vec<_>>(), ["1", "zwei"]);
        assert!(head.expects_continue);
        let head = parsed("GET /a%20b?c=/d?e HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").unwrap();
        assert_eq!((head.path(), head.target.as_str()), ("/a%20b", "/a%20b?c=/d?e"));
        assert_eq!((head.length, head.expects_continue), (Length::None, false));
        assert!(parsed("\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
        assert!(parsed("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    }

    #[test]
    fn lengths() {
        let length = |fields: &str| with(fields).map(|head| head.length);
        assert_eq!(length("Transfer-Encoding: identity\r\n"), Ok(Length::Chunked));
        assert_eq!(length("Content-Length: 18446744073709551615\r\n"), Ok(Length::Known(u64::MAX)));
        assert_eq!(length("Content-Length: 18446744073709551616\r\n"), Err(413));
        assert_eq!(length("Content-Length: 000000000000000000000000005\r\n"), Ok(Length::Known(5)));
        for bad in ["5x", "+5", "-5", "", "5, 5", "0x5", "5 5", "5.0", "\u{0665}"] {
            assert_eq!(length(&format!("Content-Length: {bad}\r\n")), Err(400), "{bad:?}");
        }
        assert_eq!(length("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(400));
        assert_eq!(length("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Err(400));
    }

    #[test]
    fn malformed_heads() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
        ] {
            assert_eq!(parsed(bad).err(), Some(400), "{bad:?}");
        }
        assert_eq!(with("Expect: 200-ok\r\n").err(), Some(417));
        assert!(with(&"A: b\r\n".repeat(MAX_FIELDS - 1)).is_ok());
        assert_eq!(with(&"A: b\r\n".repeat(MAX_FIELDS)).err(), Some(431));
    }

    #[test]
    fn the_end_is_found_wherever_the_reads_were_split() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n\n";
        for split in 0..27 {
            assert_eq!(end(&bytes[..split], 0), None);
            assert_eq!(end(bytes, split), Some(27), "{split}");
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/head.rs"]
mod heads;
