//! Child processes: an argument vector, never a shell, always a deadline, output capped, the whole group ended.
//! What a program's output means belongs to the capability that runs it; nothing here knows git or systemctl.
//! Each child has a session of its own and no terminal; it dies with the thread that started it (`setpriv --pdeathsig`),
//! so start it from one that stays.

mod account;
mod backoff;
mod conversation;
mod crowded;
mod end;
mod error;
mod guests;
mod hanging;
mod orphans;
mod output;
mod prepared;
mod process;
mod run;
mod served;

pub use account::{Account, caller, current};
pub use backoff::Backoff;
pub use conversation::Conversation;
pub use crowded::{scoped_thread, within};
pub use error::Error;
pub use hanging::{Hanging, hanging};
pub use orphans::{end_orphans, mark_children, note_sessions};
pub use output::Output;
pub(crate) use output::timespec;
pub use prepared::Prepared;
pub use process::{ended, is_alive, is_called, name_of};
pub use run::{Command, sees_terminal};
