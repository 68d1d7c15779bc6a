//! The gateway: GitHub webhooks in, data pipelines started, status out.
//! Its HTTP engine knows nothing of routes; routes know nothing of sockets.
//! Nothing here runs git or moves data itself: that is other processes' work.

pub mod listener;
