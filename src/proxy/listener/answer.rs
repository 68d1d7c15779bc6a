//! Writing an answer: one response, then the connection ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rouille::Response;

use super::head::Rejection;

/// Fields that frame the message; the engine alone writes them.
const FRAMING: [&str; 6] = ["connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"];

/// The answer the engine itself gives to a request it does not pass on.
pub(super) fn refusal(rejection: Rejection) -> Response {
    let Rejection { status, reason } = rejection;
    let text = format!("{{\"status\":\"error\",\"reason\":\"{reason}\"}}");
    let response = Response::from_data("application/json", text).with_status_code(status);
    if status == 503 { response.with_unique_header("Retry-After", "5") } else { response }
}

/// The stream for writing, with an end to patience: all waits for the reader together are bounded.
pub(super) struct TimedWriter<'a> {
    stream: &'a TcpStream,
    left: Duration,
}

impl<'a> TimedWriter<'a> {
    pub fn new(stream: &'a TcpStream, patience: Duration) -> Self {
        TimedWriter { stream, left: patience }
    }
}

impl Write for TimedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_write_timeout(Some(self.left))?;
        let start = Instant::now();
        let written = self.stream.write(bytes);
        self.left = self.left.saturating_sub(start.elapsed());
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A response ready to be written.
pub(super) struct Message {
    pub status: u16,
    head: Vec<u8>,
    body: Box<dyn Read + Send>,
}

impl Message {
    /// Frames a response. One whose status or fields would break the framing becomes a 500.
    /// Without `with_body` (for `HEAD`) the fields are the same and the body is left out.
    pub fn new(response: Response, with_body: bool) -> Self {
        if !is_sound(&response) {
            return Message::new(refusal(super::head::reject(500, "internal error")), with_body);
        }
        let status = response.status_code;
        let mut head = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", phrase(status));
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        for (name, value) in &response.headers {
            if !FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                field(name, value);
            }
        }
        if !response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-content-type-options")) {
            field("X-Content-Type-Options", "nosniff");
        }
        let (mut body, size) = response.data.into_reader_and_size();
        let bare = matches!(status, 204 | 304);
        if let (Some(size), false) = (size, bare) {
            field("Content-Length", &size.to_string());
            body = Box::new(body.take(size as u64));
        }
        if bare || !with_body {
            body = Box::new(io::empty());
        }
        head.push_str("\r\n");
        Message { status, head: head.into_bytes(), body }
    }

    /// Writes it. Every piece the body's reader gives goes out before the next is asked for.
    pub fn send(mut self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        let mut buffer = [0; 8 << 10];
        loop {
            match self.body.read(&mut buffer) {
                Ok(0) => return out.flush(),
                Ok(count) => {
                    out.write_all(buffer.get(..count).unwrap_or_default())?;
                    out.flush()?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether status, names and values can be written without ending a line early (response splitting).
fn is_sound(response: &Response) -> bool {
    let is_token = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let is_value = |value: &str| value.bytes().all(|b| b == b'\t' || !b.is_ascii_control());
    (200..600).contains(&response.status_code)
        && response.headers.iter().all(|(name, value)| is_token(name) && is_value(value))
}

/// The reason phrase (RFC 9110, section 15); clients ignore it, people read it.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouille::ResponseBody;

    fn text(response: Response, with_body: bool) -> String {
        let mut out = Vec::new();
        Message::new(response, with_body).send(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_answer() {
        let response = || Response::from_data("text/plain", "hello").with_additional_header("X-A", "b");
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nX-A: b\r\n\
                    X-Content-Type-Options: nosniff\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(text(response(), true), format!("{head}hello"));
        assert_eq!(text(response(), false), head);
    }

    #[test]
    fn framing_belongs_to_the_engine() {
        let response = Response::from_data("text/plain", "hello")
            .with_additional_header("content-length", "99")
            .with_additional_header("Transfer-Encoding", "chunked")
            .with_additional_header("CONNECTION", "keep-alive");
        let text = text(response, true).to_ascii_lowercase();
        assert_eq!(text.matches("content-length").count(), 1);
        assert!(text.contains("content-length: 5\r\n") && !text.contains("chunked") && !text.contains("keep-alive"));
    }

    #[test]
    fn an_unsound_answer_is_a_500() {
        let unsound = [
            Response::text("x").with_additional_header("X-A", "b\r\nSet-Cookie: c"),
            Response::text("x").with_additional_header("X-A", "b\0"),
            Response::text("x").with_additional_header("X-A: b\r\nC", "d"),
            Response::text("x").with_additional_header("", "d"),
            Response::text("x").with_status_code(100),
            Response::text("x").with_status_code(1000),
        ];
        for response in unsound {
            let text = text(response, true);
            assert!(
                text.starts_with("HTTP/1.1 500 ")
                    && text.ends_with("{\"status\":\"error\",\"reason\":\"internal error\"}")
            );
            assert!(!text.contains("Cookie"));
        }
    }

    #[test]
    fn an_answer_of_unknown_size_has_no_length() {
        let mut response = Response::text("");
        response.data = ResponseBody::from_reader(&b"abc"[..]);
        let text = text(response, true);
        assert!(text.ends_with("\r\n\r\nabc") && !text.contains("Content-Length"));
    }

    #[test]
    fn no_content_has_neither_length_nor_body() {
        let text = text(Response::text("x").with_status_code(204), true);
        assert!(text.ends_with("nosniff\r\n\r\n") && !text.contains("Content-Length"));
    }
}
