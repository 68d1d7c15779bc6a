//! The forges: how each proves that a delivery is its own, what its payloads say, and where it keeps what is said of commits. One
//! file a forge, behind one trait.
//! No socket, route, configuration but secrets, or git may enter here. A payload is only a hint that something changed.
//!
//! Which forge sent a delivery is told by the header that proves it, and by nothing else.

mod bitbucket;
pub mod board;
pub mod event;
mod gitea;
mod github;
mod gitlab;
pub mod signature;

use board::Board;
use event::{Error, Event};

/// Header fields of a request, names in any letter case.
pub type Headers<'a> = [(&'a str, &'a str)];

/// How a delivery proves where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// HMAC-SHA256 of the body under the secret: `prefix` and 64 lower-case hex digits in `header`.
    Mac {
        /// The header's name.
        header: &'static str,
        /// What stands before the digits.
        prefix: &'static str,
    },
    /// The secret itself in `header`, so that whoever reads one delivery can make others.
    Token {
        /// The header's name.
        header: &'static str,
    },
}

impl Proof {
    /// The name of the header that proves it.
    pub fn header(&self) -> &'static str {
        match self {
            Self::Mac { header, .. } | Self::Token { header } => header,
        }
    }
}

/// A forge that sends deliveries.
pub trait Forge: Sync {
    /// How its deliveries prove themselves.
    fn proof(&self) -> Proof;

    /// Whether a delivery with its proof's header is this forge's: another one's header may have the same name.
    fn sends(&self, _: &Headers) -> bool {
        true
    }

    /// The headers of which the first that is there names the event.
    fn event_headers(&self) -> &'static [&'static str];

    /// The headers of which the first that is there is the delivery's id. It is not signed.
    fn id_headers(&self) -> &'static [&'static str];

    /// The name of a delivery's event.
    fn event<'a>(&self, headers: &Headers<'a>) -> Option<&'a str> {
        first(self.event_headers(), headers)
    }

    /// The id of a delivery.
    fn delivery<'a>(&self, headers: &Headers<'a>) -> Option<&'a str> {
        first(self.id_headers(), headers)
    }

    /// What the names of its hosts have in them.
    fn hosts(&self) -> &'static [&'static str];

    /// What stands between a repository's page and the name of a commit in the address of that commit's page.
    fn commit_path(&self) -> &'static str {
        "commit"
    }

    /// Where it keeps what is said of commits; none where the hub says nothing there.
    fn board(&self) -> Option<&'static dyn Board> {
        None
    }

    /// What the event `name` with the payload `text` asks for.
    ///
    /// # Errors
    /// When `text` is not JSON, or lacks a key that the event has.
    fn read(&self, name: &str, text: &str) -> Result<Event, Error>;
}

/// All forges, in the order in which they are asked whether a delivery is theirs.
const ALL: [&dyn Forge; 5] =
    [&github::GITHUB, &github::FORGEJO, &github::GITEA, &bitbucket::Bitbucket, &gitlab::GitLab];

/// The forge whose delivery this claims to be.
fn sender(headers: &Headers) -> Option<&'static dyn Forge> {
    ALL.into_iter().find(|forge| first(&[forge.proof().header()], headers).is_some() && forge.sends(headers))
}

/// Whether a forge is known to be at a host.
fn is_at(forge: &dyn Forge, host: &str) -> bool {
    forge.hosts().iter().any(|name| host.to_ascii_lowercase().contains(name))
}

/// The page of a commit, by where its repository is fetched from and what the forge calls it; none where no forge is known to
/// be there. Most forges that are not known by name have it where GitHub has it.
pub fn commit_link(url: &str, host: &str, full_name: &str, commit: &str) -> Option<String> {
    let forge = ALL.into_iter().find(|forge| is_at(*forge, host));
    // Only GitLab has groups in groups.
    let has_groups = full_name.split('/').count() > 2;
    let path = match forge {
        Some(forge) => forge.commit_path(),
        None if has_groups => gitlab::GitLab.commit_path(),
        None => github::GITHUB.commit_path(),
    };
    let page = if url.starts_with("https://") {
        let page = url.trim_end_matches('/');
        page.strip_suffix(".git").unwrap_or(page).to_owned()
    } else {
        forge.filter(|_| !host.is_empty()).map(|_| format!("https://{host}/{full_name}"))?
    };
    Some(format!("{page}/{path}/{commit}"))
}

/// The value of the first of `names` that is there.
fn first<'a>(names: &[&str], headers: &Headers<'a>) -> Option<&'a str> {
    let value = |wanted: &&str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    names.iter().find_map(value).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_has_its_page_where_its_forge_has_it() {
        for (url, host, name, page) in [
            ("https://github.com/a/b.git", "github.com", "a/b", Some("https://github.com/a/b/commit/1f")),
            ("git@github.com:a/b.git", "github.com", "a/b", Some("https://github.com/a/b/commit/1f")),
            ("https://gitlab.com/a/b/c.git", "gitlab.com", "a/b/c", Some("https://gitlab.com/a/b/c/-/commit/1f")),
            ("https://code.acme.org/a/b/c", "code.acme.org", "a/b/c", Some("https://code.acme.org/a/b/c/-/commit/1f")),
            ("ssh://git@bitbucket.org/a/b", "bitbucket.org", "a/b", Some("https://bitbucket.org/a/b/commits/1f")),
            ("https://codeberg.org/a/b/", "codeberg.org", "a/b", Some("https://codeberg.org/a/b/commit/1f")),
            ("https://git.acme.org:3000/x/b", "git.acme.org", "a/b", Some("https://git.acme.org:3000/x/b/commit/1f")),
            ("ssh://git@git.acme.org/b.git", "git.acme.org", "a/b", None),
            ("/srv/git/b.git", "", "a/b", None),
        ] {
            assert_eq!(commit_link(url, host, name, "1f").as_deref(), page, "{url}");
        }
    }
}
