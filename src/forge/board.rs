//! What is said of a commit at its forge: how the hub says its own word there, and what those of others mean. Which request
//! says or asks it is here, one implementation a forge; nothing here sends one.

use serde_json::{Value, json};

/// How a commit is, by somebody's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody knows yet.
    Pending,
    /// It is well.
    Success,
    /// It is not.
    Failure,
}

/// The hub's own word.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// Under which name it stands there.
    pub context: &'a str,
    /// How the commit is.
    pub state: State,
    /// Why, in one line; a forge takes so many characters.
    pub description: &'a str,
}

impl Said<'_> {
    /// The description, at most `longest` characters of it.
    pub(super) fn within(&self, longest: usize) -> String {
        if self.description.chars().count() <= longest {
            return self.description.to_owned();
        }
        self.description.chars().take(longest - 1).chain(['…']).collect()
    }
}

/// GitHub's way to say a word of a commit, which Gitea has taken over: the path below the API, and what is sent there. A
/// description has at most `longest` characters.
pub(super) fn said_as_status(repository: &str, commit: &str, said: &Said, longest: usize) -> (String, Value) {
    let body = json!({ "context": said.context, "state": said.state, "description": said.within(longest) });
    (format!("/repos/{repository}/statuses/{commit}"), body)
}

/// The word of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Under which name it stands there.
    pub name: String,
    /// How the commit is.
    pub state: State,
}

/// What the names of the hub's own words begin with, on each host.
pub const OWN: &str = "hub/";

/// One page of words.
#[derive(Debug, Default)]
pub struct Page {
    /// What others than the hub say.
    pub words: Vec<Word>,
    /// How many entries are on it, the hub's own included.
    pub count: usize,
    /// How many there are on all pages; none where the forge does not say.
    pub of: Option<usize>,
}

/// Where a forge keeps what is said of commits.
pub trait Board: Sync {
    /// What the addresses of its API end with.
    fn ending(&self) -> &'static str;

    /// The address of its API on a host, which may have a port.
    fn root(&self, host: &str) -> String {
        format!("https://{host}{}", self.ending())
    }

    /// The header that shows a token.
    fn authorization(&self, token: &str) -> (&'static str, String);

    /// The path below the API at which a word is said, and what is sent there.
    fn say(&self, repository: &str, commit: &str, said: &Said) -> (String, Value);

    /// Whether an answer that is no success means that the word stands there already.
    fn stands_already(&self, _status: u16, _answer: &str) -> bool {
        false
    }

    /// The paths below the API that list the words of all, to which `&page=NUMBER` is added.
    fn questions(&self, repository: &str, commit: &str) -> Vec<String>;

    /// What is on a page of one of these.
    ///
    /// # Errors
    /// When it is not what the forge's documentation says.
    fn read(&self, answer: &str) -> serde_json::Result<Page>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_cut_by_characters() {
        let said = |description| Said { context: "hub/a", state: State::Success, description };
        assert_eq!(said("äöü").within(3), "äöü");
        assert_eq!(said("äöüß").within(3), "äö…");
    }
}
