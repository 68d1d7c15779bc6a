use thiserror::Error;

use crate::command;
use crate::hint::hint;

/// Why the gate cannot do or cannot know something.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration cannot be served: what is wrong and what would be right.
    #[error("{0}")]
    Config(String),
    /// The command line tool `tailscale` is missing.
    #[error("tailscale is not installed or not on PATH; install it from https://tailscale.com/download/linux")]
    NotInstalled,
    /// The tool is older than its present command line.
    #[error("tailscale {0} is too old: 1.52 or newer is needed; update it")]
    TooOld(String),
    /// The daemon `tailscaled` does not answer.
    #[error("tailscaled is not running; run: systemctl start tailscaled{ELSEWHERE}")]
    NotRunning,
    /// The node is not connected to its tailnet: its backend state (ipn.State).
    #[error("{}", not_connected(.0))]
    NotConnected(String),
    /// The daemon does not answer in time, in seconds.
    #[error("tailscaled does not answer within {0} s; see: systemctl status tailscaled{ELSEWHERE}")]
    NoAnswer(u64),
    /// The node's key has expired.
    #[error("this node's key has expired; run: tailscale up --force-reauth")]
    Expired,
    /// The node is in another tailnet than the one that it was published in.
    #[error(
        "this node is in the tailnet {now} now, and it was published in {first}; if that is meant, run: {}; else go back: \
         tailscale switch {first}",
        hint("tailscale-gate", "allow")
    )]
    OtherTailnet {
        /// Where it was published.
        first: String,
        now: String,
    },
    /// The tool is older than the daemon, and what it writes would lose what it does not know.
    #[error(
        "tailscale {client} is older than tailscaled {daemon}, and what it writes deletes settings that it does not know; \
         update the tailscale that is first on PATH, or restart tailscaled if that was updated"
    )]
    OldClient {
        /// The tool's version.
        client: String,
        /// The daemon's version.
        daemon: String,
    },
    /// The gate's own folder cannot be used.
    #[error("{}; if the file is damaged, run: {}", .0, hint("tailscale-gate", "allow"))]
    State(String),
    /// The tailnet has no HTTPS certificates.
    #[error("HTTPS is not enabled for the tailnet; enable it in the admin console, see https://tailscale.com/s/https")]
    NoHttps,
    /// The node may not use Funnel.
    #[error(
        "Funnel is not enabled for this node; add the node attribute \"funnel\" to the tailnet policy, see \
         https://tailscale.com/s/no-funnel"
    )]
    NoFunnel,
    /// Funnel is allowed, but not on this port.
    #[error(
        "port {port} is not allowed for Funnel by the tailnet, which allows: {allowed}; choose one of them as [gate] port"
    )]
    Port {
        /// The port that was asked for.
        port: u16,
        /// The ports that the tailnet allows, as its policy writes them.
        allowed: String,
    },
    /// Something else has the port, without being public.
    #[error(
        "port {port} of this node serves something else already: {by}; remove it with \"tailscale serve --https={port} \
         off\", or choose another [gate] port"
    )]
    Occupied {
        port: u16,
        /// What serves there.
        by: String,
    },
    /// tailscaled does not take changes from this user.
    #[error(
        "tailscaled does not take changes from this user; run the gate as root, or make its user the operator: tailscale set \
         --operator=NAME ({0})"
    )]
    Denied(String),
    /// The tool failed in another way.
    #[error(transparent)]
    Command(command::Error),
    /// The tool printed what is not its JSON.
    #[error("{command} did not print what was expected: {reason}")]
    Output {
        command: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Everything that closes was tried and the port is still public.
    #[error(
        "port {port} is STILL PUBLIC through {by}{}; look at \"tailscale funnel status --json\", try \"tailscale serve \
         --https={port} off\", and as a last resort stop it all: systemctl stop tailscaled",
        if .reason.is_empty() { String::new() } else { format!(" ({reason})") }
    )]
    StillOpen {
        port: u16,
        /// What exposes it.
        by: String,
        /// Why the last step failed, where it did.
        reason: String,
    },
}

impl From<command::Error> for Error {
    fn from(error: command::Error) -> Self {
        match &error {
            command::Error::NotFound(program) if program == "tailscale" => Self::NotInstalled,
            command::Error::Deadline { limit, output, .. } if output.is_empty() => Self::NoAnswer(limit.as_secs()),
            command::Error::Failed { output, .. } => Self::from_output(output).unwrap_or(Self::Command(error)),
            _ => Self::Command(error),
        }
    }
}

impl Error {
    /// What the tool said, as an error with advice. Its texts change between releases: an unknown one gives none, and
    /// no decision depends on this, only the sentence that a person reads.
    pub(super) fn from_output(output: &str) -> Option<Self> {
        let lower = output.to_ascii_lowercase();
        let has = |part: &str| lower.contains(part);
        if has("access denied") || has("must be root") {
            Some(Self::Denied(output.to_owned()))
        } else if has("local tailscaled") || has("local tailscale daemon") || has("doesn't appear to be running") {
            Some(Self::NotRunning)
        } else if has("tailscale is stopped") {
            Some(Self::NotConnected("Stopped".to_owned()))
        } else if has("logged out") {
            Some(Self::NotConnected("NeedsLogin".to_owned()))
        } else {
            None
        }
    }
}

/// Where the daemon listens elsewhere than the tool expects.
const ELSEWHERE: &str = " (if its socket is elsewhere, name it in hub.toml: [gate] socket = \"/path/tailscaled.sock\")";

/// By the backend state of the node.
fn not_connected(state: &str) -> String {
    let known = match state {
        "Stopped" => "tailscale is stopped; run: tailscale up",
        "NeedsLogin" => "tailscale is logged out; run: tailscale up",
        "NeedsMachineAuth" => "this machine is not approved in the tailnet; approve it in the admin console",
        "NoState" | "Starting" => "tailscale is starting",
        other => return format!("tailscale is not connected: its state is {other}; see: tailscale status"),
    };
    known.to_owned()
}
