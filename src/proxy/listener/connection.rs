//! The life of one connection: head, admission, body, answer, end. Runs in the connection's own thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rouille::{Request, Response};

use super::answer::{Message, TimedWriter, refusal};
use super::head::{self, Head, Length, Rejection, reject};
use super::slots::{Denied, Lease, Phase, SLOWEST};
use super::{Admission, Counters, ListenerLimits, Site};

/// The head is read in pieces of this size: most fit one.
const HEAD_PIECE: usize = 2 << 10;

/// The body's memory grows, and is charged to the budget, in pieces of this size.
const BODY_PIECE: usize = 16 << 10;

/// Room for bodies beyond one piece, in address space: pages take memory only as bytes arrive. glibc keeps
/// freed blocks of up to 32 MiB for reuse (`M_MMAP_THRESHOLD` in mallopt(3)), in every thread's arena; a
/// block beyond that goes back to the kernel at once.
#[cfg(target_pointer_width = "64")]
const BODY_ROOM: usize = 33 << 20;
#[cfg(not(target_pointer_width = "64"))]
const BODY_ROOM: usize = 0;

/// After an answer, what the client still sends is taken, so that the answer is not lost to a reset.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(1);

const BUSY: Rejection = reject(503, "too many bodies at once");

/// Why a request is not passed on.
enum Stop {
    /// Nobody is there to be answered: the client left, or the connection was evicted.
    Gone,
    Refused(Rejection),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Stop::Refused(rejection)
    }
}

/// One accepted connection and what it may use.
pub(super) struct Connection<'a> {
    pub stream: &'a TcpStream,
    pub peer: SocketAddr,
    pub site: &'a dyn Site,
    pub limits: &'a ListenerLimits,
    pub counters: &'a Counters,
    pub lease: &'a Lease,
}

impl Connection<'_> {
    /// Serves the one request of the connection.
    pub fn serve(&self) {
        let (mut with_body, mut own) = (true, false);
        let head = self.read_head();
        match &head {
            Ok((head, _)) if self.site.is_own(head) => {
                own = true;
                self.counters.count_own();
            }
            _ => self.counters.count_accepted(),
        }
        let outcome = head.and_then(|(head, rest)| {
            with_body = head.method != "HEAD";
            self.respond(head, &rest)
        });
        let response = match outcome {
            Ok(response) => response,
            Err(Stop::Refused(rejection)) => refusal(rejection),
            Err(Stop::Gone) => return,
        };
        if !self.lease.enter(Phase::Answering) {
            return;
        }
        let message = Message::new(response, with_body);
        if !own {
            self.counters.count_answered(message.status);
        }
        match message.send(&mut TimedWriter::new(self.stream, self.limits.answer_deadline)) {
            Ok(()) => self.drain(),
            Err(error) if is_timeout(&error) => self.counters.count_timed_out(),
            // The client left, or the answer's source failed: closing early is the only way left to say so.
            Err(_) => {}
        }
    }

    /// Reads to the end of the head. Also returns the bytes after it that came with it.
    fn read_head(&self) -> Result<(Head, Vec<u8>), Stop> {
        let deadline = Instant::now() + self.limits.head_deadline;
        if !self.lease.enter(Phase::Silent) {
            return Err(Stop::Gone);
        }
        let mut bytes = Vec::new();
        loop {
            let filled = bytes.len();
            bytes.resize(filled + HEAD_PIECE, 0);
            let count = self.read(bytes.get_mut(filled..).unwrap_or_default(), deadline)?;
            bytes.truncate(filled + count);
            if count == 0 && filled == 0 {
                return Err(Stop::Gone);
            }
            if count == 0 {
                return Err(reject(400, "the head ends early").into());
            }
            if filled == 0 && !self.lease.enter(Phase::Reading) {
                return Err(Stop::Gone);
            }
            self.lease.received(count, SLOWEST);
            match head::end(&bytes, filled) {
                Some(end) if end <= self.limits.head_bytes => {
                    self.lease.has_head();
                    let rest = bytes.split_off(end);
                    return Ok((head::parse(&bytes, self.limits.head_fields)?, rest));
                }
                None if bytes.len() < self.limits.head_bytes => {}
                _ => return Err(reject(431, "the request line and header fields are too large").into()),
            }
        }
    }

    fn respond(&self, head: Head, rest: &[u8]) -> Result<Response, Stop> {
        let admission = catch_unwind(AssertUnwindSafe(|| self.site.admit(&head)));
        let body = match admission {
            Err(_) => return Ok(internal_error()),
            Ok(Admission::Answer(response)) => return Ok(response),
            Ok(Admission::NoBody) if head.length == Length::Chunked => return Err(unframed()),
            Ok(Admission::NoBody) => Vec::new(),
            Ok(Admission::Body { limit }) => {
                self.read_body(&head, rest, limit).inspect_err(|_| self.lease.release())?
            }
        };
        if !self.lease.enter(Phase::Answering) {
            return Err(Stop::Gone);
        }
        let request = Request::fake_http_from(self.peer, head.method, head.target, head.headers, Vec::new());
        let response = catch_unwind(AssertUnwindSafe(|| self.site.answer(&request, &body)));
        drop(body);
        self.lease.release();
        Ok(response.unwrap_or_else(|_| internal_error()))
    }

    fn read_body(&self, head: &Head, rest: &[u8], limit: u64) -> Result<Vec<u8>, Stop> {
        let length = match head.length {
            Length::None => 0,
            Length::Known(length) if length <= limit => length,
            Length::Known(_) => return Err(reject(413, "the body is too large").into()),
            Length::Chunked => return Err(unframed()),
        };
        let too_large = |_| reject(413, "the body is too large");
        let length = usize::try_from(length).map_err(too_large)?;
        let room = BODY_ROOM.max(usize::try_from(limit).unwrap_or(length));
        let deadline = Instant::now() + self.limits.body_deadline;
        // Slower than this it cannot end in time.
        let pace = (length as u64 / self.limits.body_deadline.as_secs().max(1)).max(SLOWEST);
        self.lease.expect(length).map_err(|denied| self.busy(&denied))?;
        if head.expects_continue && rest.is_empty() && length > 0 {
            let go_on =
                TimedWriter::new(self.stream, self.limits.body_deadline).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            go_on.map_err(|_| Stop::Gone)?;
        }
        let mut rest = rest;
        let mut body = Vec::new();
        let mut filled = 0;
        while filled < length {
            if filled == body.len() {
                self.grow(&mut body, BODY_PIECE.min(length - filled), room, deadline)?;
            }
            let space = body.get_mut(filled..).unwrap_or_default();
            let count = if rest.is_empty() { self.read(space, deadline)? } else { rest.read(space).unwrap_or(0) };
            if count == 0 {
                return Err(reject(400, "the body ends early").into());
            }
            filled += count;
            self.lease.received(count, pace);
        }
        Ok(body)
    }

    /// Makes the body `piece` bytes longer.
    fn grow(&self, body: &mut Vec<u8>, piece: usize, room: usize, deadline: Instant) -> Result<(), Stop> {
        self.lease.hold(piece, deadline).map_err(|denied| self.busy(&denied))?;
        let reserved = if body.is_empty() {
            body.try_reserve_exact(piece)
        } else {
            body.try_reserve_exact(room.saturating_sub(body.len()).max(piece))
        };
        reserved.map_err(|_| BUSY)?;
        body.resize(body.len() + piece, 0);
        Ok(())
    }

    /// There is no room for a body, or for more of it.
    fn busy(&self, denied: &Denied) -> Stop {
        match denied {
            Denied::Evicted => return Stop::Gone,
            Denied::Full => self.counters.count_evicted(),
            Denied::Late => {}
        }
        BUSY.into()
    }

    /// Reads what is there, waiting no longer than `deadline`. 0 at the end.
    fn read(&self, space: &mut [u8], deadline: Instant) -> Result<usize, Stop> {
        match read_before(self.stream, space, deadline) {
            Ok(count) => Ok(count),
            Err(error) if is_timeout(&error) => {
                self.counters.count_timed_out();
                Err(reject(408, "the request took too long to arrive").into())
            }
            Err(_) => Err(Stop::Gone),
        }
    }

    fn drain(&self) {
        if self.stream.shutdown(Shutdown::Write).is_err() || !self.lease.enter(Phase::Draining) {
            return;
        }
        let deadline = Instant::now() + DRAIN_TIME;
        let mut buffer = [0; 4 << 10];
        let mut taken = 0;
        while taken < DRAIN_BYTES {
            match read_before(self.stream, &mut buffer, deadline) {
                Ok(0) | Err(_) => return,
                Ok(count) => taken += count,
            }
        }
    }
}

/// A body in `Transfer-Encoding` is not read, whether the route wants one or not.
fn unframed() -> Stop {
    reject(411, "Content-Length is needed").into()
}

fn internal_error() -> Response {
    refusal(reject(500, "internal error"))
}

/// The timeout is set before every read, from the time left: one alone would start anew with every byte.
fn read_before(mut stream: &TcpStream, space: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(space) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
