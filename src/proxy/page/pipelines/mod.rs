//! What each pipeline moved, and what it could not store.

mod draw;
mod read;

pub(super) use draw::page;
pub(in crate::proxy) use read::{Asked, read};
