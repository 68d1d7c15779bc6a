use serde::{Serialize, Serializer};

/// What came of looking for a file that another program leaves. That it is not there, that it is damaged and that this user
/// may not see it are three different answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Found<T> {
    #[default]
    Missing,
    There(T),
    /// It is there, and is not what its writer left. A sentence says why.
    Damaged(String),
    /// Whether it is there is not known. A sentence says why.
    Unreadable(String),
}

impl<T> Found<T> {
    pub fn get(&self) -> Option<&T> {
        if let Self::There(found) = self { Some(found) } else { None }
    }

    /// The same, taken out.
    pub fn take(self) -> Option<T> {
        if let Self::There(found) = self { Some(found) } else { None }
    }

    /// The same by reference.
    pub fn as_ref(&self) -> Found<&T> {
        if let Self::There(found) = self { Found::There(found) } else { self.likewise() }
    }

    /// It, made into something else.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Found<U> {
        if let Self::There(found) = self { Found::There(make(found)) } else { self.likewise() }
    }

    /// The answer about what lies in this, where this is not there: as little is known of it.
    pub fn likewise<U>(&self) -> Found<U> {
        match self {
            Self::Missing | Self::There(_) => Found::Missing,
            Self::Damaged(why) => Found::Damaged(why.clone()),
            Self::Unreadable(why) => Found::Unreadable(why.clone()),
        }
    }

    /// False where nobody can tell what it says, or whether it is there.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::There(_) | Self::Missing)
    }

    /// What is said in its place where it cannot be told.
    pub fn unknown(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::There(_) => None,
            Self::Damaged(_) => Some("damaged"),
            Self::Unreadable(_) => Some("not known"),
        }
    }
}

/// As the thing itself, `null` where there is none, else as an object with one key, `damaged` or `unreadable`.
impl<T: Serialize> Serialize for Found<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing => serializer.serialize_none(),
            Self::There(found) => found.serialize(serializer),
            Self::Damaged(why) => serializer.collect_map([("damaged", why)]),
            Self::Unreadable(why) => serializer.collect_map([("unreadable", why)]),
        }
    }
}
