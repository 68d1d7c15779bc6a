/// How much a line matters; the names are those of the `level` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the developer.
    Debug,
    /// The normal course of things.
    Info,
    /// Something to look at, the work goes on.
    Warn,
    /// Work was not done.
    Error,
}

impl Level {
    /// The value of the `level` field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }

    /// The level of a name, in any letter case; `WARNING` and `ERR` are understood too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "DEBUG" => Some(Self::Debug),
            "INFO" => Some(Self::Info),
            "WARN" | "WARNING" => Some(Self::Warn),
            "ERROR" | "ERR" => Some(Self::Error),
            _ => None,
        }
    }

    /// The syslog priority that journald reads from the `<N>` prefix (sd-daemon(3)).
    pub(super) fn priority(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warn => 4,
            Self::Error => 3,
        }
    }
}
