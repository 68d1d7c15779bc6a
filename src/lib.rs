//! Observability Hub: the library behind its small binaries.
//!
//! Arrows run one way: `bin` → capability (`proxy`, `gitops`, `metrics`, `gate`, `reading`, `hub`, `watch`, `webhook`) → `said` → `forge`, `store`, `health` →
//! ground floor (`config`, `log`, `state`, `records`, `kinds`, `program`, `systemd`, `http`, `listeners`, `tls`, `random`, `command`,
//! `hint`, `host`, `text`).

/// The version, with the day and the commit that this was built from where they are known: `0.1.0+20261129.891e73b`.
pub const VERSION: &str = env!("HUB_VERSION");

pub mod command;
pub mod config;
pub mod forge;
pub mod gate;
pub mod gitops;
pub mod health;
pub mod hint;
mod host;
mod http;
pub mod hub;
mod kinds;
mod listeners;
pub mod log;
pub mod metrics;
pub mod program;
pub mod proxy;
mod random;
pub mod reading;
pub mod records;
mod said;
pub mod state;
pub mod store;
pub mod systemd;
pub mod text;
#[cfg(feature = "tls")]
mod tls;
pub mod watch;
pub mod webhook;

#[cfg(test)]
#[path = "../tests/fuzz/engine.rs"]
mod fuzz;
