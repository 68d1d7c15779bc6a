use std::io::{ErrorKind, Write};

use super::Exit;
use crate::text;

/// Prints an answer for a person or a script on standard output, with a newline at its end. A reader that has enough and
/// goes away is no error; where the answer cannot be written, the program ends with 1 and says so.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let text = text::screen(text);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
    if let Err(error) = written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
    {
        // Where not even this can be said, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "the answer cannot be written: {error}");
        std::process::exit(Exit::Error as i32);
    }
}
