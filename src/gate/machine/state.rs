use std::fmt;

/// What is known about the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) enum State {
    /// It was seen to be public.
    Open,
    /// It is published, and nobody reaches it: the node is not connected.
    Unreachable,
    /// It was seen not to be.
    Closed,
    /// tailscale could not be asked, or did not say.
    Unknown,
}

impl State {
    /// The word in records, logs and `status --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

/// Why the state is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gate) enum Cause {
    /// Something is on its way and will be over in a moment.
    Change(String),
    /// It stays so until something or somebody changes it.
    Lasting(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Change(text) | Self::Lasting(text)) = self;
        f.write_str(text)
    }
}
