//! A command that talks with another one over a socket, each with the rights of its own user.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStderr, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::end::Serving;
use super::run::{Input, Server, Started};
use super::{Command, Error, crowded};

impl Command {
    /// Starts `server` together with this command. It serves on its standard input and output; what it says goes where this
    /// command's standard error goes. `complete` gets this command and the number of the descriptor that is the socket's
    /// other end for it.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn served_by(self, server: Self, complete: impl FnOnce(Self, i32) -> Self) -> Result<Self, Error> {
        let failed = |source| Error::Pipe { program: server.display_name(), source };
        let (near, far) = UnixStream::pair().map_err(failed)?;
        let mut command = complete(self, near.as_raw_fd());
        command.server = Some(Server { command: Box::new(server), near, far });
        Ok(command)
    }

    /// Starts the server, where there is one. Returns what this command inherits, and where both will say what is wrong.
    pub(super) fn start_server(&mut self) -> Result<Option<(UnixStream, ChildStderr)>, Error> {
        let Some(Server { mut command, near, far }) = self.server.take() else { return Ok(None) };
        let name = command.display_name();
        let failed = |source| Error::Pipe { program: name.clone(), source };
        let (read, write) = std::io::pipe().map_err(failed)?;
        command.errors = Some(write.try_clone().map_err(failed)?.into());
        let ends = || far.try_clone().map(OwnedFd::from).map_err(failed);
        command.input = Input::Pipe(ends()?);
        let Started { child, guest, .. } = command.start(Stdio::from(ends()?))?;
        let serving = Serving { child, name: name.clone(), _guest: guest };
        let child = Pid::from_child(&serving.child);
        let ended = pidfd_open(child, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        // A socket whose end is closed with something unread is reset, and git-remote-fd(1) then waits for ever.
        crowded::thread(move || {
            while poll(&mut [PollFd::new(&ended, PollFlags::IN)], None) == Err(Errno::INTR) {}
            // What was not read then is read now: nobody waits for it any more.
            far.shutdown(Shutdown::Both).and_then(|()| std::io::copy(&mut &far, &mut std::io::sink()))
        })
        .map_err(failed)?;
        self.serving = Some(serving);
        self.errors = Some(write.into());
        Ok(Some((near, ChildStderr::from(OwnedFd::from(read)))))
    }
}
