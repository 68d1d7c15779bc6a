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
mod sender;
pub mod signature;

use board::Board;
use sender::first;
pub use sender::{Forge, Headers, Proof};

/// All forges, in the order in which they are asked whether a delivery is theirs.
const ALL: [&dyn Forge; 5] =
    [&github::GITHUB, &github::FORGEJO, &github::GITEA, &bitbucket::Bitbucket, &gitlab::GitLab];

/// The forge whose delivery this claims to be.
fn sender_of(headers: &Headers) -> Option<&'static dyn Forge> {
    ALL.into_iter().find(|forge| first(&[forge.proof().header()], headers).is_some() && forge.sends(headers))
}

/// Whether the forge at a host is one whose names may have more than two parts.
pub fn has_groups(host: &str) -> bool {
    ALL.into_iter().any(|forge| forge.has_groups() && is_at(forge, host))
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

/// The board of a repository and the address of the API it is reached at: by that address where hub.toml has one, else by the
/// host that the repository is fetched from. None where no forge is known to be there.
pub fn board(api: Option<&str>, url: &str, host: &str) -> Option<(&'static dyn Board, String)> {
    let mut boards = ALL.into_iter().filter_map(|forge| Some((forge, forge.board()?)));
    if let Some(api) = api.map(|api| api.trim_end_matches('/')) {
        let is_it = |board: &dyn Board| api.ends_with(board.ending()) || api == board.root("github.com");
        return boards.map(|(_, board)| board).find(|board| is_it(*board)).map(|board| (board, api.to_owned()));
    }
    let (_, board) = boards.find(|(forge, _)| is_at(*forge, host))?;
    // ssh has a port of its own.
    let authority = url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or(host);
    Some((board, board.root(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_found_by_host_or_address() {
        for (api, url, host, root) in [
            (None, "https://github.com/a/b.git", "github.com", Some("https://api.github.com")),
            (None, "git@github.com:a/b.git", "github.com", Some("https://api.github.com")),
            (None, "https://github.acme.org:8443/a/b", "github.acme.org", Some("https://github.acme.org:8443/api/v3")),
            (None, "ssh://git@gitlab.acme.org:22/a/b", "gitlab.acme.org", Some("https://gitlab.acme.org/api/v4")),
            (None, "https://codeberg.org/a/b", "codeberg.org", Some("https://codeberg.org/api/v1")),
            (None, "https://git.acme.org/a/b", "git.acme.org", None),
            (None, "https://bitbucket.org/a/b", "bitbucket.org", None),
            (Some("https://git.acme.org/x/api/v1/"), "/srv/b.git", "", Some("https://git.acme.org/x/api/v1")),
            (Some("https://api.github.com"), "/srv/b.git", "", Some("https://api.github.com")),
            (Some("https://git.acme.org/api"), "https://github.com/a/b", "github.com", None),
        ] {
            let found = board(api, url, host).map(|(_, root)| root);
            assert_eq!(found.as_deref(), root, "{api:?} {url}");
        }
    }

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
