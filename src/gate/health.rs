//! One question to the proxy over HTTP, without blocking and with an absolute deadline.
//!
//! ureq would block the loop that has to notice the end of the proxy, and a thread for it would have to be waited for;
//! the whole conversation is one small request and one small answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;
use thiserror::Error;

use crate::records::ASKS_ITSELF;

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 8 * 1024;
const HEADERS: usize = 32;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// `GET /healthz`: who are you, and can you take work?
    Health,
    /// The same to the listener that nobody outside reaches: are you there at all?
    Probe,
    /// An unsigned delivery: would you refuse it?
    Guard,
}

/// Why there is no answer to judge.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Failure {
    /// It did not come within this time.
    #[error("the proxy did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The text says what came instead.
    #[error("{0}")]
    Wrong(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The `instance` of the JSON body; none where there is no such thing.
    pub instance: Option<String>,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Check {
    pub question: Question,
    stream: TcpStream,
    unsent: Vec<u8>,
    answer: Vec<u8>,
    deadline: Instant,
    limit: Duration,
}

impl Check {
    /// Opens a fresh connection and asks.
    ///
    /// # Errors
    /// A sentence, where nobody takes the connection.
    pub fn start(question: Question, address: SocketAddr, now: Instant, limit: Duration) -> Result<Self, Failure> {
        let dial = || -> rustix::io::Result<_> {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            match connect(&socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
                Err(error) => Err(error),
            }
        };
        let stream = dial().map_err(|error| refused(address, &error.into()))?;
        let request = match question {
            Question::Health | Question::Probe => format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n"),
            Question::Guard => format!(
                "POST /api/webhook/gitops HTTP/1.1\r\nHost: {address}\r\nX-GitHub-Event: ping\r\n\
                 Content-Type: application/json\r\nContent-Length: 0\r\n"
            ),
        };
        let unsent = format!("{request}User-Agent: {ASKS_ITSELF}\r\nConnection: close\r\n\r\n").into_bytes();
        Ok(Self { question, stream, unsent, answer: Vec::new(), deadline: now + limit, limit })
    }

    /// What to poll, and for what.
    pub fn fd(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.stream.as_fd(), if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::OUT })
    }

    /// When it is over, answered or not.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as possible without waiting; none while there is something to wait for.
    pub fn advance(&mut self, now: Instant) -> Option<Result<Answer, Failure>> {
        match self.exchange() {
            Ok(true) => Some(parse(&self.answer)),
            Ok(false) if now >= self.deadline => Some(Err(Failure::Late(self.limit))),
            Ok(false) => None,
            Err(error) => {
                let address = self.stream.peer_addr();
                Some(Err(Failure::Wrong(match address {
                    Ok(_) => format!("the proxy broke off: {error}"),
                    Err(_) => format!("nobody listens on the proxy's port: {error}"),
                })))
            }
        }
    }

    /// True when the answer is complete.
    fn exchange(&mut self) -> std::io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_early(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(error) if is_early(&error) => return Ok(is_complete(&self.answer)),
                Err(error) => return Err(error),
            }
            if is_complete(&self.answer) || self.answer.len() > LONGEST_ANSWER {
                return Ok(true);
            }
        }
    }
}

fn refused(address: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::Wrong(format!("nobody listens on {address}: {error}"))
}

/// True where the kernel is not ready yet; `NotConnected` while the connection is being made.
fn is_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

/// Status, announced length of the body, and where the body begins (RFC 9112, sections 3 to 6).
fn head(bytes: &[u8]) -> Result<Option<(u16, Option<usize>, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes)? else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    Ok(Some((response.code.unwrap_or_default(), length, start)))
}

fn is_complete(bytes: &[u8]) -> bool {
    match head(bytes) {
        Ok(Some((_, Some(length), start))) => bytes.len() - start >= length,
        Ok(_) => false,
        Err(_) => true,
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, Failure> {
    let stranger =
        |reason: &str| Failure::Wrong(format!("what answers on the proxy's port is not the proxy: {reason}"));
    let (status, length, start) = match head(bytes) {
        Ok(Some(head)) => head,
        Ok(None) if bytes.is_empty() => {
            return Err(Failure::Wrong("the proxy closed the connection without an answer".to_owned()));
        }
        Ok(None) => return Err(stranger("its answer breaks off")),
        Err(error) => return Err(stranger(&error.to_string())),
    };
    let body = &bytes[start..];
    let body = &body[..length.unwrap_or(body.len()).min(body.len())];
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let instance = json.as_ref().and_then(|json| json.get("instance")).and_then(Value::as_str).map(str::to_owned);
    Ok(Answer { status, instance })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    /// Asks a server that receives the request and sends these pieces, the connection open until the answer is judged.
    fn ask(pieces: &[&str]) -> Result<Answer, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_millis(400);
        let mut check = Check::start(Question::Health, address, Instant::now(), limit).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(check.advance(Instant::now()).is_none());
        let mut request = [0; 512];
        let count = server.read(&mut request).unwrap();
        assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
        for piece in pieces {
            server.write_all(piece.as_bytes()).unwrap();
            let (fd, flags) = check.fd();
            poll(&mut [PollFd::new(&fd, flags)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
            if let Some(result) = check.advance(Instant::now()) {
                return result;
            }
        }
        check.advance(check.deadline()).unwrap()
    }

    #[test]
    fn the_instance_is_found_in_an_answer_of_any_pieces() {
        let body = r#"{"status":"ok","instance":"a1"}"#;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        for pieces in [vec![head.as_str(), body], vec![&head[..5], &head[5..], &body[..3], &body[3..]]] {
            assert_eq!(ask(&pieces), Ok(Answer { status: 200, instance: Some("a1".to_owned()) }));
        }
    }

    #[test]
    fn silence_and_slow_answers_end_at_the_deadline() {
        for pieces in [vec![], vec!["HTTP/1.1 200 OK\r\n"], vec!["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]] {
            assert_eq!(ask(&pieces), Err(Failure::Late(Duration::from_millis(400))));
        }
    }

    #[test]
    fn what_is_not_the_proxy_is_an_error() {
        assert!(ask(&["SSH-2.0-OpenSSH_9.2\r\n"]).unwrap_err().to_string().contains("not the proxy"));
        let answer = ask(&["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]).unwrap();
        assert_eq!(answer, Answer { status: 404, instance: None });
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let now = Instant::now();
        let refused = Check::start(Question::Guard, closed, now, Duration::from_secs(9))
            .and_then(|mut check| check.advance(now).unwrap_or(Ok(Answer { status: 0, instance: None })).map(drop));
        assert!(refused.unwrap_err().to_string().contains("nobody listens"));
    }
}
