//! The accept loop: one thread, any number of listeners, one `poll`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use super::answer::{Message, refusal};
use super::connection::Connection;
use super::counters::Counters;
use super::head::reject;
use super::slots::{Lease, Room, Slots};
use super::{ListenerLimits, Site};

/// Connections the kernel keeps until they are accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Accepted in one go, so that the caller gets its turn under a flood.
const BATCH: usize = 64;
const STACK: usize = 256 << 10;
/// How long a listener rests when threads are about to start or end.
const SHORT_REST: Duration = Duration::from_millis(5);
/// How long a listener rests when the process has no descriptor or thread left: the connection stays in the
/// kernel's queue, and `poll` would report it again at once.
const LONG_REST: Duration = Duration::from_millis(50);

/// What stops the engine.
#[derive(Debug, Error)]
pub enum Error {
    /// A listening socket could not be made ready.
    #[error("cannot listen on the socket: {0}; is it a listening TCP socket?")]
    Listen(io::Error),
    /// Waiting for the sockets failed.
    #[error("cannot wait for connections: {0}; restart the service")]
    Poll(io::Error),
    /// A listener gave an error that will not go away.
    #[error("cannot accept connections on {0}: {1}; restart the service")]
    Accept(SocketAddr, io::Error),
}

/// What the threads of a listener share.
struct Door {
    site: Arc<dyn Site>,
    limits: ListenerLimits,
    counters: Arc<Counters>,
    slots: Arc<Slots>,
}

struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
    resting: Option<Instant>,
}

/// The listeners of a process and their connections.
///
/// The caller's thread is the accept loop. Between two turns it looks after everything else:
/// ```no_run
/// # use observability_hub::proxy::listener::{Engine, Error};
/// # use std::{os::fd::AsFd, time::Duration};
/// # fn run(mut engine: Engine, signals: std::fs::File) -> Result<(), Error> {
/// loop {
///     // here: ping the watchdog
///     if engine.turn(Duration::from_secs(5), &[signals.as_fd()])?.contains(&0) {
///         break;
///     }
/// }
/// let cut = engine.stop(Duration::from_secs(10));
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Engine {
    listeners: Vec<Listener>,
    /// Connections that began within limits that hold no more.
    former: Vec<Arc<Slots>>,
}

impl Engine {
    /// An engine without listeners.
    pub fn new() -> Self {
        Engine::default()
    }

    /// Serves `site` on a bound socket. `counters` may be shown elsewhere meanwhile. No listener holds more
    /// connections than a third of the process's descriptors, whatever its limits say: handlers need some.
    ///
    /// # Errors
    /// [`Error::Listen`] when the socket does not do what a listening socket does.
    pub fn listen(
        &mut self,
        socket: TcpListener,
        limits: ListenerLimits,
        site: Arc<dyn Site>,
        counters: Arc<Counters>,
    ) -> Result<(), Error> {
        let address = make_ready(&socket)?;
        let slots = slots(&limits, &counters);
        let door = Arc::new(Door { site, limits, counters, slots });
        self.listeners.push(Listener { socket, address, door, resting: None });
        Ok(())
    }

    /// Serves `site` within `limits` from the next connection on; those that are there keep what they began with. `at` is
    /// the listener's place in the order of `listen`.
    pub fn renew(&mut self, at: usize, limits: ListenerLimits, site: Arc<dyn Site>) {
        self.former.retain(|slots| slots.open() > 0);
        let Some(listener) = self.listeners.get_mut(at) else { return };
        let Door { limits: before, counters, slots: held, .. } = &*listener.door;
        let is_same = before.connections == limits.connections && before.body_memory == limits.body_memory;
        let (counters, held) = (Arc::clone(counters), Arc::clone(held));
        let slots = if is_same { held } else { slots(&limits, &counters) };
        if !is_same {
            self.former.push(Arc::clone(&listener.door.slots));
        }
        listener.door = Arc::new(Door { site, limits, counters, slots });
    }

    /// Listens on another bound socket instead of the one that the listener has, once what waits in that is accepted. `at`
    /// is the listener's place in the order of `listen`.
    ///
    /// # Errors
    /// [`Error::Listen`] when the socket does not do what a listening socket does; the listener then keeps the one it has.
    pub fn rebind(&mut self, at: usize, socket: TcpListener) -> Result<(), Error> {
        let address = make_ready(&socket)?;
        let Some(listener) = self.listeners.get_mut(at) else { return Ok(()) };
        // One that does not listen any more has nobody waiting.
        let _ = listener.accept();
        (listener.socket, listener.address, listener.resting) = (socket, address, None);
        Ok(())
    }

    /// Waits for connections and starts them, at most `timeout` long and often shorter.
    /// Returns which of `others` (by position) can be read or have been hung up; often none.
    ///
    /// # Errors
    /// [`Error::Poll`] and [`Error::Accept`], after which the process should end with a failure.
    pub fn turn(&mut self, timeout: Duration, others: &[BorrowedFd<'_>]) -> Result<Vec<usize>, Error> {
        let now = Instant::now();
        let mut timeout = timeout;
        let mut polled = Vec::with_capacity(others.len() + self.listeners.len());
        polled.extend(others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        for listener in &mut self.listeners {
            listener.resting = listener.resting.filter(|until| *until > now);
            match listener.resting {
                Some(until) => timeout = timeout.min(until - now),
                None => polled.push(PollFd::new(&listener.socket, PollFlags::IN)),
            }
        }
        // A timeout beyond what the kernel can express is no timeout.
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(Error::Poll(error.into())),
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (others, awake) = ready.split_at(others.len());
        let mut exhausted = false;
        let up = self.listeners.iter_mut().filter(|listener| listener.resting.is_none());
        for (listener, _) in up.zip(awake).filter(|(_, ready)| **ready) {
            exhausted |= listener.accept()?;
        }
        if exhausted {
            self.give_back();
        }
        Ok((0..).zip(others).filter(|(_, ready)| **ready).map(|(at, _)| at).collect())
    }

    /// Makes the listener with the most connections hold fewer, whichever of them ran out.
    fn give_back(&self) {
        if let Some(fullest) = self.listeners.iter().max_by_key(|listener| listener.door.slots.open()) {
            fullest.door.slots.squeeze();
        }
    }

    /// Stops listening and gives requests in flight until `deadline` from now to be answered; then shuts the
    /// rest. Returns how many those were. Handlers that still run are not waited for.
    pub fn stop(mut self, deadline: Duration) -> usize {
        let end = Instant::now() + deadline;
        // Clients in the kernel's queue take themselves for connected. An error changes nothing any more.
        let _ = self.turn(Duration::ZERO, &[]);
        let now = self.listeners.drain(..).map(|listener| Arc::clone(&listener.door.slots));
        let all: Vec<_> = now.chain(self.former).collect();
        all.iter().map(|slots| slots.finish(end)).sum()
    }
}

/// Readies a socket for the loop; where it listens.
fn make_ready(socket: &TcpListener) -> Result<SocketAddr, Error> {
    socket.set_nonblocking(true).map_err(Error::Listen)?;
    // Allowed again on a listening socket: std asks for 128, which a flood fills between two turns.
    rustix::net::listen(socket, BACKLOG).map_err(|error| Error::Listen(error.into()))?;
    socket.local_addr().map_err(Error::Listen)
}

fn slots(limits: &ListenerLimits, counters: &Arc<Counters>) -> Arc<Slots> {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|count| usize::try_from(count).ok());
    let connections = limits.connections.min(descriptors.unwrap_or(usize::MAX) / 3).max(1);
    Arc::new(Slots::new(connections, limits.body_memory, Arc::clone(counters)))
}

impl Listener {
    /// Takes what is in the kernel's queue. True when the process is out of descriptors or threads.
    fn accept(&mut self) -> Result<bool, Error> {
        for _ in 0..BATCH {
            if self.door.slots.room() == Room::Soon {
                self.resting = Some(Instant::now() + SHORT_REST);
                return Ok(false);
            }
            let (stream, peer) = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(false),
                    Some(errno) if is_passing(errno) => continue,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                        self.resting = Some(Instant::now() + LONG_REST);
                        return Ok(true);
                    }
                    _ => return Err(Error::Accept(self.address, error)),
                },
            };
            let stream = Arc::new(stream);
            let Some(lease) = self.door.slots.enter(&stream) else {
                self.door.counters.count_accepted();
                self.door.counters.count_refused();
                turn_away(&stream);
                continue;
            };
            if start(Arc::clone(&self.door), stream, peer, lease).is_err() {
                self.door.counters.count_accepted();
                self.door.counters.count_refused();
                self.resting = Some(Instant::now() + LONG_REST);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn start(door: Arc<Door>, stream: Arc<TcpStream>, peer: SocketAddr, lease: Lease) -> io::Result<()> {
    let serve = move || {
        // Small pieces go out at once. Should it fail, the answer is late but not wrong.
        let _ = stream.set_nodelay(true);
        let Door { site, limits, counters, .. } = &*door;
        Connection { stream: &stream, peer, site: site.as_ref(), limits, counters, lease: &lease }.serve();
    };
    thread::Builder::new().name("http".to_owned()).stack_size(STACK).spawn(serve).map(drop)
}

/// Says 503 without a thread and without waiting. The client may miss it; it is gone either way.
fn turn_away(mut stream: &TcpStream) {
    let mut answer = Vec::new();
    let message = Message::new(refusal(reject(503, "too many requests at once")), true);
    if message.send(&mut answer).is_ok() && stream.set_nonblocking(true).is_ok() {
        // Bytes left unread would turn the close into a reset, which can overtake the answer.
        let _ = stream.read(&mut [0; 4 << 10]);
        let _ = stream.write(&answer);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// Errors that concern one connection and not the listener (accept(2), "Error handling").
fn is_passing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::PERM
            | Errno::TIMEDOUT
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}
