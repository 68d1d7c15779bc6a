//! Children that run as another user: what they may do to this process and to other children, and the end of what they leave.
//!
//! A repository's settings say what its git starts, and that may leave its process group. Nothing of it is to stay, and take
//! the memory and the places for processes of whoever comes next. So this process adopts what such children leave behind
//! (PR_SET_CHILD_SUBREAPER, prctl(2)) and ends it when the last of them is done.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use super::Account;

/// How long what goes on starting itself anew is hunted.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);
/// Of 1000: who is ended first where there is no memory left (proc_pid_oom_score_adj(5)).
const EXPENDABLE: i32 = 500;
const OWN_SCORE: &str = "/proc/self/oom_score_adj";

/// How many children of each user are at work.
static AT_WORK: Mutex<Option<HashMap<u32, usize>>> = Mutex::new(None);

/// Children that were killed and do not end, in a file system that does not answer for instance: each was hunted once.
static STUCK: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A child of another user is at work; dropped when it has ended and was waited for.
#[derive(Debug)]
pub(super) struct Guest {
    uid: u32,
}

fn at_work() -> MutexGuard<'static, Option<HashMap<u32, usize>>> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// Before the child is started. Nobody of the user is ended from now on.
    pub fn invite(user: &Account) -> Self {
        static ADOPTING: Once = Once::new();
        ADOPTING.call_once(|| {
            if let Err(error) = set_child_subreaper(Some(getpid())) {
                crate::log::warn!("left_processes_not_adopted", error = error.to_string());
            }
        });
        *at_work().get_or_insert_default().entry(user.uid).or_default() += 1;
        Self { uid: user.uid }
    }
}

/// Starts a child; one of another user inherits that it is to be ended first, so that no moment is left in which it is not,
/// and `inherited` is a descriptor for this child alone.
///
/// One child at a time: what this process is and has open meanwhile is inherited by whatever else it starts. It may go back,
/// without CAP_SYS_RESOURCE too (proc_pid_oom_score_adj(5): not below what was set with it, and that was where it came from).
///
/// # Errors
/// When it cannot be started, or the descriptor not be lent.
pub(super) fn start_one(
    command: &mut std::process::Command,
    guest: bool,
    inherited: Option<&UnixStream>,
) -> std::io::Result<Child> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(inherited) = inherited {
        fcntl_setfd(inherited, FdFlags::empty())?;
    }
    let own = if guest { become_expendable() } else { None };
    let child = command.spawn();
    if let Some(own) = own
        && let Err(error) = std::fs::write(OWN_SCORE, &own)
    {
        crate::log::warn!("oom_score_not_set", error = error.to_string());
    }
    if let Some(inherited) = inherited {
        fcntl_setfd(inherited, FdFlags::CLOEXEC)?;
    }
    child
}

/// What this process was before, where it is another thing now.
fn become_expendable() -> Option<String> {
    let own = std::fs::read_to_string(OWN_SCORE).and_then(|own| {
        let already = own.trim().parse::<i32>().is_ok_and(|own| own >= EXPENDABLE);
        let other = (!already).then_some(own);
        other.map(|own| std::fs::write(OWN_SCORE, EXPENDABLE.to_string()).map(|()| own)).transpose()
    });
    own.unwrap_or_else(|error| {
        crate::log::line!(crate::log::Level::Debug, "child_not_expendable", error = error.to_string());
        None
    })
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Held all the time, so that no child is started meanwhile that would be taken for one that was left.
        let mut guests = at_work();
        let Some(count) = guests.as_mut().and_then(|guests| guests.get_mut(&self.uid)) else { return };
        *count -= 1;
        if *count == 0 {
            end_left(self.uid);
        }
    }
}

/// Ends this process's children of a user, and what they leave in their turn. A child that was not waited for keeps its
/// number, so that no other process can be hit.
fn end_left(uid: u32) {
    let until = Instant::now() + PATIENCE;
    let (mut ended, mut was_there) = (0, false);
    let mut stuck = STUCK.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that have ended by now are gone with this question.
    stuck.retain(|child| matches!(waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
    loop {
        let of_user = |all: Vec<Pid>| -> Vec<Pid> {
            all.into_iter().filter(|child| !stuck.contains(child) && is_of(*child, uid)).collect()
        };
        let mut left = of_user(children());
        if left.is_empty() && was_there {
            left = of_user(all_children());
        }
        if left.is_empty() {
            break;
        }
        was_there = true;
        for child in &left {
            // One that is gone already only waits for its parent.
            let _ = kill_process(*child, Signal::KILL);
        }
        ended += left.iter().filter(|child| matches!(waitpid(Some(**child), WaitOptions::NOHANG), Ok(Some(_)))).count();
        if Instant::now() >= until {
            crate::log::warn!("left_processes_not_ended", user = uid, processes = left.len());
            stuck.extend(left);
            break;
        }
        std::thread::sleep(PAUSE);
    }
    if ended > 0 {
        crate::log::line!(crate::log::Level::Debug, "left_processes_ended", user = uid, processes = ended);
    }
}

/// The children of all threads of this process; empty where the kernel does not say (proc_tid_children(5)). It may leave some
/// out while others end.
fn children() -> Vec<Pid> {
    let mut all = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(text.split_ascii_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)));
    }
    all
}

/// The same from a look at every process, which takes longer and leaves none out.
fn all_children() -> Vec<Pid> {
    let mut all = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = process.file_name().to_str().and_then(|name| name.parse().ok());
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // proc_pid_stat(5): after the name in parentheses come state and parent.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        all.extend(number.filter(|_| parent == Some(getpid().as_raw_nonzero().get())).and_then(Pid::from_raw));
    }
    all
}

/// Whether a process's real user has this id.
fn is_of(process: Pid, uid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()) == Some(uid)
}
