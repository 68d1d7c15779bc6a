use std::path::PathBuf;
use std::sync::OnceLock;

use uzers::os::unix::UserExt;

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

impl Account {
    /// The user of a name (getpwnam(3)); none where there is no such user.
    pub fn by_name(name: &str) -> Option<Self> {
        uzers::get_user_by_name(name).map(|user| Self::from_user(&user))
    }

    /// The user of a numeric id (getpwuid(3)); none where the id has no entry.
    pub fn by_uid(uid: u32) -> Option<Self> {
        uzers::get_user_by_uid(uid).map(|user| Self::from_user(&user))
    }

    /// The ids of the user's primary and supplementary groups (getgrouplist(3)).
    pub fn groups(&self) -> Vec<u32> {
        let groups = uzers::get_user_groups(&self.name, self.gid).unwrap_or_default();
        std::iter::once(self.gid).chain(groups.iter().map(uzers::Group::gid)).collect()
    }

    /// True where one of the user's groups has this id.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.groups().contains(&gid)
    }

    fn from_user(user: &uzers::User) -> Self {
        Self {
            name: user.name().to_string_lossy().into_owned(),
            uid: user.uid(),
            gid: user.primary_group_id(),
            home: user.home_dir().to_owned(),
        }
    }
}

/// The user this process runs as; one without an entry in the user database gets its number for a name and `/` for a
/// home.
pub fn current() -> Account {
    // It does not change, and is asked for with every child.
    static CURRENT: OnceLock<Account> = OnceLock::new();
    CURRENT.get_or_init(find_current).clone()
}

/// Who runs this command: where that is root by sudo(8), the user who called it. For people to read, and to decide nothing by.
pub fn caller() -> String {
    let current = current();
    let called = std::env::var("SUDO_USER").ok().filter(|_| current.uid == 0);
    let is_name = |name: &String| (1..=64).contains(&name.len()) && !name.chars().any(crate::text::is_hidden);
    called.filter(is_name).unwrap_or(current.name)
}

fn find_current() -> Account {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Account::by_uid(uid).unwrap_or_else(|| Account { name: uid.to_string(), uid, gid, home: PathBuf::from("/") })
}
