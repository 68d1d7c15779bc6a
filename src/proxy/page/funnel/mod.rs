//! When the gateway was public, and when it was not.

mod draw;
mod read;

pub(super) use draw::page;
pub(in crate::proxy) use read::{Asked, read};
