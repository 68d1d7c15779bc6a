//! How the host was: a chart of each thing that is measured, and what happened meanwhile as marks on all of them.

mod course;
mod draw;
mod read;
mod scale;

pub(super) use draw::page;
pub(in crate::proxy) use read::{Asked, read};
