//! Observability Hub: the library behind its small binaries.
//!
//! Arrows run one way: `bin` → capability (`proxy`, `gitops`, `metrics`, `gate`, `reading`, `hub`, `watch`, `webhook`) → `said` → `charts` → `forge`, `store`, `health` →
//! ground floor (`config`, `log`, `state`, `records`, `kinds`, `program`, `systemd`, `http`, `listeners`, `tls`, `random`, `command`,
//! `hint`, `host`, `text`).

/// The version, with the day and the commit that this was built from where they are known: `0.1.0+20261129.891e73b`.
pub const VERSION: &str = env!("HUB_VERSION");

mod charts;
mod command;
pub mod config;
mod forge;
pub mod gate;
pub mod gitops;
mod health;
mod hint;
mod host;
mod http;
pub mod hub;
mod kinds;
mod listeners;
mod log;
pub mod metrics;
mod program;
pub mod proxy;
mod random;
pub mod reading;
mod records;
mod said;
mod state;
pub mod store;
mod systemd;
mod text;
#[cfg(feature = "tls")]
mod tls;
mod watch;
mod webhook;

// What the tests and the manual need of the ground floor.
pub use log::rfc3339;
pub use program::Exit;
pub use records::history;
pub use state::Folder;
pub use systemd::install;

#[cfg(test)]
#[path = "../tests/fuzz/engine.rs"]
mod fuzz;
