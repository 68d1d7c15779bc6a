//! The repository's systemd units: what the commit wants, what is installed, how the one becomes the other and back.
//! Only unit files, their enablement and their jobs are touched here; the checkout and git's history are not.
//! Content comes from the mirror by object id, and the host is asked through `systemctl` and `systemd-analyze` alone.

mod applied;
mod apply;
mod back;
mod compare;
mod desired;
mod diff;
mod disk;
mod enable;
mod host;
mod manager;
mod manifest;
mod mounts;
mod plan;
mod preview;
mod probe;
mod reach;
mod restart;
mod restore;
mod rule;
mod settle;
mod state;
mod taken;
mod unit_name;
mod validate;
mod verdict;

pub(super) use applied::{Applied, Restart};
pub(super) use desired::Desired;
pub(super) use host::Host;
pub(super) use manager::{Found, Manager};
pub(super) use manifest::digest;
pub(super) use plan::{Action, Line, Plan};
pub(super) use restore::Before;
pub(super) use validate::ignored;
