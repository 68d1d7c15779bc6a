use std::fmt;
use std::time::Duration;

/// True for what programs say when a file system takes nothing more (strerror(3)).
pub fn is_full_disk(said: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|part| said.contains(part))
}

/// Why a child process did not do its work.
#[derive(Debug)]
pub enum Error {
    /// The program is not installed, or not on `PATH`.
    NotFound(String),
    /// The program could not be started.
    Start {
        /// Which program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its input or output could not be moved.
    Pipe {
        /// Which program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran longer than it may; its process group was killed.
    Deadline {
        /// Which command.
        command: String,
        /// How long it was given.
        limit: Duration,
        /// The end of what it had written, printable.
        output: String,
    },
    /// It wrote more than its caller accepts.
    TooMuchOutput {
        /// Which command.
        command: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// It ended without success.
    Failed {
        /// Which command.
        command: String,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The end of what it wrote, printable.
        output: String,
    },
}

impl Error {
    /// True where the child was ended because nobody read what it wrote.
    pub(super) fn is_broken_pipe(&self) -> bool {
        const SIGPIPE: i32 = 13;
        match self {
            // A shell reports a child's signal as 128 + its number.
            Self::Failed { code, signal, output, .. } => {
                *signal == Some(SIGPIPE) || *code == Some(128 + SIGPIPE) || output.contains("Broken pipe")
            }
            Self::Deadline { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |output: &str| if output.is_empty() { String::new() } else { format!(": {output}") };
        match self {
            Self::NotFound(program) => {
                write!(f, "{program} is not installed or not on PATH; install it and try again")
            }
            Self::Start { program, source } => write!(f, "cannot start {program}: {source}"),
            Self::Pipe { program, source } => write!(f, "lost contact with {program}: {source}"),
            Self::Deadline { command, limit, output } => {
                write!(f, "{command} did not end within {} s and was killed{}", limit.as_secs_f32(), said(output))
            }
            Self::TooMuchOutput { command, limit } => write!(f, "{command} wrote more than {limit} bytes"),
            Self::Failed { command, code: Some(code), output, .. } => {
                write!(f, "{command} ended with exit code {code}{}", said(output))
            }
            Self::Failed { command, signal, output, .. } => {
                let signal = signal.map_or_else(|| "a signal".to_owned(), |number| format!("signal {number}"));
                write!(f, "{command} was ended by {signal}{}", said(output))
            }
        }
    }
}

impl std::error::Error for Error {}
