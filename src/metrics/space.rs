use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

use super::Error;
use crate::command::{self, Command};

/// How long a file system may take to say how full it is.
const LIMIT: Duration = Duration::from_secs(2);
/// How many are asked at the same time.
const AT_ONCE: usize = 16;
/// What stat(1) says where it may not look: a FUSE mount of another user refuses even root (fuse(8), allow_other).
const NOT_ALLOWED: &str = "Permission denied";

/// How full a file system is (statvfs(3)), in units of `unit` bytes. What is free is below 0 where more is used than there
/// is: file systems that reserve space for root, and servers that share theirs, say so in numbers near 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes of one block.
    pub unit: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: i64,
    /// Free blocks that users without privileges may take.
    pub available: i64,
    /// All inodes; 0 where the file system makes them as needed.
    pub inodes: u64,
    pub inodes_free: i64,
}

/// What became of a question that may hang.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was answered.
    Space(Space),
    /// This user may not look.
    NotAllowed,
    /// It was not answered in time.
    Stuck,
    Failed(Error),
}

/// Asks a file system that answers from this host's memory.
///
/// # Errors
/// When the path is gone or not accessible.
pub(super) fn ask(path: &Path) -> Result<Space, Error> {
    let stat = statvfs(path).map_err(|error| Error::read(path, error))?;
    Ok(Space {
        unit: stat.f_frsize,
        blocks: stat.f_blocks,
        free: stat.f_bfree.cast_signed(),
        available: stat.f_bavail.cast_signed(),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree.cast_signed(),
    })
}

/// Asks file systems that may hang, each from a child process of its own: one that hangs costs itself only, and this
/// process can end while the child waits in the kernel, where not even SIGKILL ends it.
///
/// Returns the answer of each path that was asked within `budget`.
pub(super) fn ask_isolated(paths: &[PathBuf], budget: Duration) -> HashMap<PathBuf, Answer> {
    let deadline = Instant::now() + budget;
    let mut answers = HashMap::new();
    for group in paths.chunks(AT_ONCE) {
        if deadline.saturating_duration_since(Instant::now()) < LIMIT {
            break;
        }
        let (sender, receiver) = mpsc::channel();
        for path in group {
            let (sender, path) = (sender.clone(), path.clone());
            let thread = std::thread::Builder::new().name("space".to_owned());
            let spawned = thread.spawn(move || {
                let answer = ask_child(&path);
                // Nobody listens any more where the answer came too late.
                let _ = sender.send((path, answer));
            });
            if let Err(source) = spawned {
                crate::log::warn!("thread_not_started", error = source.to_string());
            }
        }
        drop(sender);
        // A child that SIGKILL does not end is still waited for in its thread; nobody waits for that thread.
        let end = Instant::now() + LIMIT + Duration::from_millis(500);
        while let Ok((path, answer)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            answers.insert(path, answer);
        }
        for path in group {
            answers.entry(path.clone()).or_insert(Answer::Stuck);
        }
    }
    answers
}

/// coreutils' or busybox' stat(1): this program may run under another name, or its file may be gone.
fn ask_child(path: &Path) -> Answer {
    let command = Command::new("stat", LIMIT)
        .name(format!("stat -f {}", path.display()))
        .args(["-f", "-c", "%S %b %f %a %c %d", "--"])
        .args([path])
        .output_limit(4096);
    match command.succeed() {
        Ok(output) => match parse(&output.text()) {
            Some(space) => Answer::Space(space),
            None => Answer::Failed(Error::format(path, format!("stat printed {:?}", output.text()))),
        },
        Err(command::Error::Deadline { .. }) => Answer::Stuck,
        Err(command::Error::Failed { output, .. }) if output.contains(NOT_ALLOWED) => Answer::NotAllowed,
        Err(error) => Answer::Failed(Error::Child(error)),
    }
}

/// coreutils print what is free with its sign, busybox as the number near 2^64 that stands for it.
fn parse(line: &str) -> Option<Space> {
    let number = |text: &str| text.parse().or_else(|_| text.parse().map(u64::cast_signed)).ok();
    let numbers: Option<Vec<i64>> = line.split(' ').map(number).collect();
    let [unit, blocks, free, available, inodes, inodes_free] = numbers?.try_into().ok()?;
    let (blocks, inodes) = (blocks.cast_unsigned(), inodes.cast_unsigned());
    Some(Space { unit: unit.try_into().ok()?, blocks, free, available, inodes, inodes_free })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_s_line_is_six_numbers() {
        let space = Space { unit: 4096, blocks: 10, free: 5, available: 4, inodes: 0, inodes_free: 0 };
        assert_eq!(parse("4096 10 5 4 0 0"), Some(space));
        let over = Space { available: -4, inodes_free: -1, ..space };
        assert_eq!(parse("4096 10 5 -4 0 -1"), Some(over));
        assert_eq!(parse("4096 10 5 18446744073709551612 0 18446744073709551615"), Some(over));
        for line in ["", "4096 10 5 4 0", "4096 10 5 4 0 0 0", "4096 10 5 4 0 x", "-1 10 5 4 0 0"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
