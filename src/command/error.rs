use std::time::Duration;

use thiserror::Error;

/// Why a child process did not do its work.
#[derive(Debug, Error)]
pub enum Error {
    /// The program is not installed, or not on `PATH`.
    #[error("{0} is not installed or not on PATH; install it and try again")]
    NotFound(String),
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its input or output could not be moved.
    #[error("lost contact with {program}: {source}")]
    Pipe {
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran longer than it may; its process group was killed.
    #[error("{command} did not end within {} s and was killed{}", .limit.as_secs_f32(), said(.output))]
    Deadline {
        command: String,
        /// How long it was given.
        limit: Duration,
        /// The end of what it had written, printable.
        output: String,
    },
    /// It wrote more than its caller accepts.
    #[error("{command} wrote more than {limit} bytes")]
    TooMuchOutput {
        command: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// It ended without success.
    #[error("{command} {}{}", ending(*.code, *.signal), said(.output))]
    Failed {
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

/// How a child ended.
fn ending(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "was ended by a signal".to_owned(),
    }
}

/// What it wrote, as the end of a sentence.
fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}
