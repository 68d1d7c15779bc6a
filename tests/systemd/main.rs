//! Tests under a real systemd, in a Debian machine of their own.
//!
//! `make-root` makes a Debian root with debootstrap, once a host (about two minutes, 450 MB, kept in `HUB_TEST_CACHE`
//! or `~/.cache/observability-hub-tests`): Debian 12, or what `HUB_TEST_SUITE` says: `bookworm`, `trixie`, or `third-0`,
//! `third-1` and `third-2`, in each of which another third of the tests boots Debian 13 and the others Debian 12. `supervise` boots it as PID 1 systemd in systemd-nspawn, on an overlay
//! over that root, so no test can spoil it; a machine boots in about a second. `make-package` builds the Debian package
//! and installs it once, into a layer between the two: what is tested is what users install. [`machine::Machine`]
//! drives one from Rust:
//!
//! ```ignore
//! let Some(machine) = Machine::boot() else { return };   // None: skipped, and said so
//! machine.write("/etc/systemd/system/a.service", "[Service]\nExecStart=/usr/bin/true\n");
//! machine.ok(&["systemctl", "daemon-reload"]);
//! ```
//!
//! A machine has this build's package installed, as its maintainer scripts leave it (units not enabled), git, gpg, ssh, and
//! a network of its own with nothing but loopback. PostgreSQL, sshd and a web server are there and not started.
//! Its disk is an ext4 image: [`machine::Machine::pull_plug`] loses what was not fsynced, as a real one would.
//! Sandboxing directives of units are in force as on a host (see `sandbox`); MemoryMax=, TasksMax= and CPUQuota= only
//! where the host's cgroup v2 hierarchy has the controllers.
//!
//! Nothing outlives the test process, not even `kill -9` of it: see the head of `supervise`.
//!
//! Environment: `HUB_TEST_SEEDS` and `HUB_TEST_SEED` (see `whole`), `HUB_TEST_CRASHES` (see `crash`);
//! `HUB_TEST_PREVIOUS_DEB` names the package that `upgrade` starts from; `HUB_TEST_CACHE`, `HUB_TEST_MIRROR`; `HUB_TEST_REQUIRE=all` makes a skip a failure;
//! `HUB_TEST_WITHOUT_SYSTEMD=1` skips in any case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the harness reports by failing the test")]

mod along;
mod boot;
mod commands;
mod crash;
mod credentials;
mod deliveries;
mod deployment;
mod faults;
mod figures;
mod full_disk;
mod gate;
mod gitops;
mod going_back;
mod host;
mod hostile;
mod installing;
mod journal;
mod kinds;
mod leaving;
mod liars;
mod lists;
mod machine;
mod measured;
#[cfg(all(feature = "postgres", feature = "mongodb"))]
mod migration;
mod moved;
mod names;
mod operator;
mod own_units;
mod owners;
mod package;
mod packaged;
mod pages;
mod pipelines;
mod reach;
mod recovering;
mod refused;
mod remotes;
mod rollback;
mod sandbox;
mod sockets;
mod starts;
mod status;
mod timers;
mod traces;
mod turns;
mod unit_names;
mod units;
mod upgrade;
mod variants;
mod voice;
mod whole;
mod without_systemd;

#[path = "../support/mod.rs"]
mod support;
