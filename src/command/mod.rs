//! Child processes: an argument vector, never a shell, always a deadline, output capped, the whole group ended.
//! What a program's output means belongs to the capability that runs it; nothing here knows git or systemctl.
//! Children die with the thread that started them (`setpriv --pdeathsig`), so start them from one that stays.

mod account;
mod backoff;
mod conversation;
mod error;
mod orphans;
mod output;
mod prepared;
mod run;

pub use account::{Account, current};
pub use backoff::Backoff;
pub use conversation::Conversation;
pub use error::{Error, is_full_disk};
pub use orphans::{end_orphans, mark_children};
pub use output::Output;
pub use prepared::Prepared;
pub use run::Command;
