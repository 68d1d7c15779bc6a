use std::time::Duration;

use crate::gate::exposure::{Look, Seen};
use crate::gate::health::Failure;

/// What happens to the gate.
#[derive(Debug)]
pub(in crate::gate) enum Event {
    /// Time has passed.
    Tick,
    /// The proxy named its instance on `alive.sock`.
    Alive(String),
    /// There is no connection to `alive.sock`, or no longer.
    NotAlive(String),
    /// `GET /healthz`: the instance that answered 200, or what was wrong.
    Health(Result<String, Failure>),
    /// Whether the proxy's other listener answers anything.
    Probed(bool),
    /// Whether the proxy refuses unsigned deliveries, or why that is not known.
    Guarded(Result<bool, Failure>),
    /// The funnel's process said something.
    Spoke,
    /// The funnel's process has ended or could not be started; the text says why, where the gate did not end it.
    Ended(String),
    /// A job is done.
    Done(Report),
    /// The gate is to end.
    Stop,
}

/// What the worker found.
#[derive(Debug)]
pub(in crate::gate) enum Report {
    Looked(Result<Look, String>),
    /// Of `Prepare`; `Nothing` means that the funnel can be opened.
    Prepared(Result<Seen, String>),
    /// Of `Close`: it is verified that nothing is public, or not.
    Closed(Result<(), String>),
}

/// What the gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) enum Action {
    /// Connect to `alive.sock`; answered with `Alive` or `NotAlive`.
    Connect,
    /// Ask for the proxy's health within this time; answered with `Health`.
    Check(Duration),
    /// Ask the proxy's admin listener for anything; answered with `Probed`.
    Probe,
    /// Ask whether it refuses unsigned deliveries; answered with `Guarded`.
    Ask,
    /// Start the funnel's process; answered with `Ended` at its end.
    Start,
    /// Kill the funnel's process.
    Kill,
    /// Give the worker a job; answered with `Done`.
    Run(Job),
}

/// Work on the command line tool, which may take seconds. One at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) enum Job {
    /// Read what is public, and where something is, how the node is.
    Look,
    /// Find out whether the funnel can be opened.
    Prepare,
    /// Close whatever is public on the port, and verify.
    Close,
}
