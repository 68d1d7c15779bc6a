use std::fmt;

use crate::command;
use crate::hint::hint;

/// Why the gate cannot do or cannot know something.
#[derive(Debug)]
pub enum Error {
    /// The configuration cannot be served: what is wrong and what would be right.
    Config(String),
    /// The command line tool `tailscale` is missing.
    NotInstalled,
    /// The tool is older than its present command line.
    TooOld(String),
    /// The daemon `tailscaled` does not answer.
    NotRunning,
    /// The node is not connected to its tailnet: its backend state (ipn.State).
    NotConnected(String),
    /// The daemon does not answer in time, in seconds.
    NoAnswer(u64),
    /// The node's key has expired.
    Expired,
    /// The node is in another tailnet than the one that it was published in.
    OtherTailnet {
        /// Where it was published.
        first: String,
        /// Where it is now.
        now: String,
    },
    /// The tool is older than the daemon, and what it writes would lose what it does not know.
    OldClient {
        /// The tool's version.
        client: String,
        /// The daemon's version.
        daemon: String,
    },
    /// The gate's own folder cannot be used.
    State(String),
    /// The tailnet has no HTTPS certificates.
    NoHttps,
    /// The node may not use Funnel.
    NoFunnel,
    /// Funnel is allowed, but not on this port.
    Port {
        /// The port that was asked for.
        port: u16,
        /// The ports that the tailnet allows, as its policy writes them.
        allowed: String,
    },
    /// Something else has the port, without being public.
    Occupied {
        /// The port.
        port: u16,
        /// What serves there.
        by: String,
    },
    /// tailscaled does not take changes from this user.
    Denied(String),
    /// The tool failed in another way.
    Command(command::Error),
    /// The tool printed what is not its JSON.
    Output {
        /// Which command.
        command: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Everything that closes was tried and the port is still public.
    StillOpen {
        /// The port.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(reason) => f.write_str(reason),
            Self::NotInstalled => f.write_str(
                "tailscale is not installed or not on PATH; install it from https://tailscale.com/download/linux",
            ),
            Self::TooOld(version) => write!(f, "tailscale {version} is too old: 1.52 or newer is needed; update it"),
            Self::NotRunning => write!(f, "tailscaled is not running; run: systemctl start tailscaled{ELSEWHERE}"),
            Self::NoAnswer(seconds) => {
                write!(f, "tailscaled does not answer within {seconds} s; see: systemctl status tailscaled{ELSEWHERE}")
            }
            Self::Expired => f.write_str("this node's key has expired; run: tailscale up --force-reauth"),
            Self::OtherTailnet { first, now } => write!(
                f,
                "this node is in the tailnet {now} now, and it was published in {first}; if that is meant, run: \
                 {}; else go back: tailscale switch {first}",
                hint("tailscale-gate", "allow")
            ),
            Self::OldClient { client, daemon } => write!(
                f,
                "tailscale {client} is older than tailscaled {daemon}, and what it writes deletes settings that it does \
                 not know; update the tailscale that is first on PATH, or restart tailscaled if that was updated"
            ),
            Self::State(reason) => write!(f, "{reason}; if the file is damaged, run: {}", hint("tailscale-gate", "allow")),
            Self::NotConnected(state) => match state.as_str() {
                "Stopped" => f.write_str("tailscale is stopped; run: tailscale up"),
                "NeedsLogin" => f.write_str("tailscale is logged out; run: tailscale up"),
                "NeedsMachineAuth" => {
                    f.write_str("this machine is not approved in the tailnet; approve it in the admin console")
                }
                "NoState" | "Starting" => f.write_str("tailscale is starting"),
                other => write!(f, "tailscale is not connected: its state is {other}; see: tailscale status"),
            },
            Self::NoHttps => f.write_str(
                "HTTPS is not enabled for the tailnet; enable it in the admin console, see https://tailscale.com/s/https",
            ),
            Self::NoFunnel => f.write_str(
                "Funnel is not enabled for this node; add the node attribute \"funnel\" to the tailnet policy, \
                 see https://tailscale.com/s/no-funnel",
            ),
            Self::Port { port, allowed } => {
                write!(
                    f,
                    "port {port} is not allowed for Funnel by the tailnet, which allows: {allowed}; \
                     choose one of them as [gate] port"
                )
            }
            Self::Occupied { port, by } => write!(
                f,
                "port {port} of this node serves something else already: {by}; remove it with \
                 \"tailscale serve --https={port} off\", or choose another [gate] port"
            ),
            Self::Denied(output) => write!(
                f,
                "tailscaled does not take changes from this user; run the gate as root, or make its user the \
                 operator: tailscale set --operator=NAME ({output})"
            ),
            Self::Command(error) => error.fmt(f),
            Self::Output { command, reason } => write!(f, "{command} did not print what was expected: {reason}"),
            Self::StillOpen { port, by, reason } => {
                write!(f, "port {port} is STILL PUBLIC through {by}")?;
                if !reason.is_empty() {
                    write!(f, " ({reason})")?;
                }
                write!(
                    f,
                    "; look at \"tailscale funnel status --json\", try \"tailscale serve --https={port} off\", \
                     and as a last resort stop it all: systemctl stop tailscaled"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
