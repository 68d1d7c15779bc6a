//! Observability Hub: the library behind its small binaries.

pub mod proxy;
