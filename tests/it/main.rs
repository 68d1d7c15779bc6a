//! Every test that needs no machine of its own, in one binary: the crate is linked once, and servers that tests share
//! (PostgreSQL, FerretDB) start once. `cargo test --test it gate::` runs a file of it. Those under a real systemd are in
//! `tests/systemd`; `tests/listener.rs` measures a process that is its own binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod command_line;
mod dashboards;
mod dashboards_month;
mod gate;
mod gate_load;
mod gate_node;
mod gate_reports;
mod gitops_checkout;
mod gitops_checks;
mod gitops_crash;
mod gitops_due;
mod gitops_fetch;
mod gitops_full_disk;
mod gitops_hanging;
mod gitops_isolation;
mod gitops_names;
mod gitops_private;
mod gitops_queue;
mod gitops_refusals;
mod gitops_rollback;
mod gitops_side_by_side;
mod gitops_signatures;
mod gitops_sync;
mod gitops_trees;
mod gitops_turns;
mod hidden_characters;
mod history;
mod hub_commands;
mod hub_database;
mod hub_doctor;
mod hub_doctor_data;
mod hub_doctor_repositories;
mod hub_log;
mod hub_mail;
mod hub_metrics;
mod hub_notices;
mod hub_results;
mod hub_status;
mod hub_status_damaged;
mod hub_status_pipelines;
mod hub_status_repositories;
mod hub_up;
mod hub_watch;
mod keys;
mod man_pages;
mod manual;
