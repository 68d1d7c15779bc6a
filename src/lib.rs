//! Observability Hub: the library behind its small binaries.
//!
//! Arrows run one way: `bin` → capability (`proxy`, `gitops`, `metrics`, `gate`, `reading`, `hub`, `webhook`) → `store` →
//! ground floor (`config`, `log`, `state`, `records`, `kinds`, `exit`, `systemd`, `http`, `random`, `command`, `text`).

pub mod command;
pub mod config;
pub mod exit;
pub mod gate;
pub mod gitops;
mod http;
pub mod hub;
mod kinds;
pub mod log;
pub mod metrics;
pub mod proxy;
mod random;
pub mod reading;
pub mod records;
pub mod state;
pub mod store;
pub mod systemd;
pub mod text;
pub mod webhook;

#[cfg(test)]
#[path = "../tests/fuzz/engine.rs"]
mod fuzz;
