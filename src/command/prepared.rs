use std::fs::File;
use std::io::Write;
use std::process::{Child, Stdio};

use super::run::{Input, Started};
use super::{Command, Error, Output, crowded};

/// A command that runs and waits for its input.
#[derive(Debug)]
pub struct Prepared {
    input: Option<File>,
    written: std::io::Result<()>,
    result: std::thread::JoinHandle<Option<Result<Output, Error>>>,
    name: String,
}

impl Command {
    /// Starts the command now and gives it its input later, so that it gets ready meanwhile. With a `consumer`, that one
    /// is started too and gets this one's output as its input.
    ///
    /// Dropping what is returned ends the input and leaves the commands to end by themselves. Their time runs from now on.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn prepare(mut self, consumer: Option<Self>) -> Result<Prepared, Error> {
        let name = self.display_name();
        let pipe = || {
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            pipe.map_err(|error| Error::Pipe { program: name.clone(), source: error.into() })
        };
        let (read, input) = pipe()?;
        self.input = Input::Pipe(read);
        let lost = |source| Error::Start { program: name.clone(), source };
        let result = match consumer {
            None => {
                let Started { mut child, guest, .. } = self.start(Stdio::piped())?;
                crowded::thread(move || {
                    let _guest = guest;
                    self.attend(&mut child, b"")?.require_success(&self.display_name())
                })
                .map_err(lost)?
            }
            Some(mut consumer) => {
                let (read, write) = pipe()?;
                let Started { child: mut producer, guest: first, .. } = self.start(Stdio::from(write))?;
                consumer.input = Input::Pipe(read);
                let Started { mut child, guest: second, .. } = consumer.start(Stdio::piped())?;
                crowded::thread(move || {
                    let _guests = (first, second);
                    self.attend_both(&mut producer, &consumer, &mut child)
                })
                .map_err(lost)?
            }
        };
        Ok(Prepared { input: Some(File::from(input)), written: Ok(()), result, name })
    }

    /// The error is that of the side that failed by itself, where the other only failed because of it.
    fn attend_both(&self, producer: &mut Child, consumer: &Self, child: &mut Child) -> Result<Output, Error> {
        let name = self.display_name();
        let (produced, consumed) = std::thread::scope(|scope| {
            let attending = crowded::scoped_thread(scope, || self.attend(producer, b""));
            let consumed = consumer.attend(child, b"");
            let lost = |source| Error::Pipe { program: name.clone(), source };
            let panicked = || lost(std::io::Error::other("its reader panicked"));
            let produced = attending
                .map_err(lost)
                .and_then(|thread| thread.join().ok().flatten().unwrap_or_else(|| Err(panicked())));
            (produced, consumed)
        });
        let consumed = consumed.and_then(|output| output.require_success(&consumer.display_name()));
        match (produced.and_then(|output| output.require_success(&name)), consumed) {
            (Err(error), Err(_)) if !error.is_broken_pipe() => Err(error),
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(_), Ok(output)) => Ok(output),
        }
    }
}

impl Prepared {
    /// Gives the command its input and does not wait for its end. It takes no more input then.
    pub fn feed(&mut self, input: &[u8]) {
        if let Some(mut pipe) = self.input.take() {
            self.written = pipe.write_all(input);
        }
    }

    /// Gives the command its input, where it has not been fed yet, and waits for its successful end.
    ///
    /// # Errors
    /// As `Command::succeed`; with a consumer, that of the side that failed by itself.
    pub fn finish(mut self, input: &[u8]) -> Result<Output, Error> {
        self.feed(input);
        let lost = |source: std::io::Error| Error::Pipe { program: self.name.clone(), source };
        let output = self.result.join().ok().flatten();
        let output = output.ok_or_else(|| lost(std::io::Error::other("its reader panicked")))??;
        // What the command said about it counts more.
        self.written.map_err(lost).map(|()| output)
    }
}
