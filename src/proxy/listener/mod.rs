//! The HTTP engine: turns bytes from hostile strangers into whole requests for a [`Site`], within bounds.
//! It holds sockets, threads, deadlines and limits, and takes `rouille` for its `Request` and `Response` only.
//! No route, configuration, log or database may enter here.

mod accept;
mod answer;
mod connection;
mod counters;
mod head;
mod slots;

use std::time::Duration;

use rouille::{Request, Response};

pub use accept::{Engine, Error};
pub use counters::Counters;
pub use head::{Head, Length};

/// What one listening socket may spend. Every listener has its own.
///
/// Resident memory stays below `body_memory` + 45 KiB for each of `connections` + what the program itself
/// takes (measured: 44 KiB with the largest heads, 14 KiB for a silent connection).
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// Connections held at once, a thread each. At this number the incomplete request that is furthest behind its pace
    /// makes way.
    /// For a moment a quarter more threads exist: those that were evicted and are ending.
    pub connections: usize,
    /// Bytes of request line and header fields together.
    pub head_bytes: usize,
    /// Header fields in a request, at most 64.
    pub head_fields: usize,
    /// From accepting the connection to the end of the head.
    pub head_deadline: Duration,
    /// From the end of the head to the end of the body.
    pub body_deadline: Duration,
    /// Bytes of request bodies in memory, all connections of the listener together. A quarter is kept from bodies over
    /// 64 KiB, so it must be at least 4/3 of the largest limit in an [`Admission::Body`], or a body of that size cannot
    /// be taken.
    pub body_memory: usize,
    /// How long a client may keep the writing of its answer waiting, all waits added up. Time the [`Site`]
    /// takes to produce the answer does not count, so a slow stream is not cut while it is being read.
    pub answer_deadline: Duration,
}

impl Default for ListenerLimits {
    /// Limits for a listener that faces the internet on a small host.
    fn default() -> Self {
        ListenerLimits {
            connections: 192,
            head_bytes: 16 << 10,
            head_fields: 64,
            head_deadline: Duration::from_secs(5),
            body_deadline: Duration::from_secs(10),
            body_memory: 16 << 20,
            answer_deadline: Duration::from_secs(10),
        }
    }
}

/// What a [`Site`] decides when it has seen a request's head and nothing of its body.
pub enum Admission {
    /// Answer now; the body is not read.
    Answer(Response),
    /// Call [`Site::answer`] with an empty body; a body that was sent all the same is not read.
    NoBody,
    /// Read the body if it has at most `limit` bytes (else 413), then call [`Site::answer`].
    Body {
        /// Bytes.
        limit: u64,
    },
}

/// The routes behind one listener. Called from many threads at once.
pub trait Site: Send + Sync + 'static {
    /// Decides about a request by its head. Must not block: until it returns, the request may be evicted.
    fn admit(&self, head: &Head) -> Admission;

    /// Whether a request is a question of the product's own programs, which is counted apart.
    fn is_own(&self, _head: &Head) -> bool {
        false
    }

    /// Answers an admitted request. The body is `body`, not `request.data()`, which is empty: a reader would
    /// make every handler copy it, and two copies of the largest body do not fit the process's memory.
    /// A panic becomes a 500. For `HEAD` the engine leaves out the body of the answer.
    fn answer(&self, request: &Request, body: &[u8]) -> Response;
}
