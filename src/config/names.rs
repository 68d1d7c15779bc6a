//! What tells the repositories of one file apart: names, branches, checkouts.

use std::path::PathBuf;

use super::Repository;
use super::repository::{at_forge, real_path};
use crate::state::repository_file_name;

/// Where a repository is on disk; found once, for a file of hundreds of them.
pub(super) struct Place {
    /// On disk names differ in more than letter case only on some file systems.
    file: String,
    path: PathBuf,
}

impl Place {
    pub(super) fn of(repository: &Repository) -> Self {
        Self { file: repository_file_name(&repository.name).to_lowercase(), path: real_path(&repository.path) }
    }
}

/// Checks the last of `repositories` against those before it; `lines` are where each begins in the file, `places` where
/// each is on disk.
///
/// # Errors
/// The key that clashes, and why.
pub(super) fn check(
    repositories: &[Repository],
    lines: &[usize],
    places: &[Place],
) -> Result<(), (&'static str, String)> {
    let (Some((last, earlier)), Some(place)) = (repositories.split_last(), places.last()) else { return Ok(()) };
    for ((other, line), other_place) in earlier.iter().zip(lines).zip(places) {
        if other.full_name.eq_ignore_ascii_case(&last.full_name) {
            let (name, branch) = (&last.full_name, &last.branch);
            if other.full_name != *name {
                let reason =
                    format!("the repository in line {line} is {}, which is the same to a forge", other.full_name);
                return Err(("name", format!("{reason}; write both alike, and give one an id")));
            }
            if other.branch == *branch {
                let reason = format!("the repository in line {line} deploys {branch} of {name} too");
                return Err((
                    "branch",
                    format!("{reason}; twice the same name takes two branches, two paths and an id"),
                ));
            }
            if other.name.eq_ignore_ascii_case(&last.name) {
                let reason = format!("the repository in line {line} is called {} too", last.name);
                return Err(("id", format!("{reason}; give one of the two another, such as id = \"{name}@{branch}\"")));
            }
        }
        if other_place.file == place.file {
            let file = repository_file_name(&last.name);
            let reason = format!("{} in line {line} would keep its state in the same file, {file}.json", other.name);
            let own = format!("id = \"{}@{}\"", last.name, last.branch);
            return Err(("name", format!("{reason}; give one of the two an id, such as {own}")));
        }
        if other_place.path == place.path {
            let reason = format!("the repository in line {line} has the path {} too", other.path.display());
            return Err(("path", format!("{reason}; every repository needs its own")));
        }
    }
    Ok(())
}

/// Checks that every former name belongs to one repository, and is no other's present one.
///
/// # Errors
/// The index of the repository, and why.
pub(super) fn check_former(repositories: &[Repository], lines: &[usize]) -> Result<(), (usize, String)> {
    for (index, repository) in repositories.iter().enumerate() {
        for (number, former) in repository.formerly.iter().enumerate() {
            if repository.name.eq_ignore_ascii_case(former) {
                return Err((index, format!("{former} is what it is called now; name what it was called before")));
            }
            let again = repository.formerly[..number].iter().any(|other| other.eq_ignore_ascii_case(former));
            let is_taken = |other: &Repository| {
                other.is_known_as(former)
                    || !repository.full_name.eq_ignore_ascii_case(at_forge(former)) && other.is_called(at_forge(former))
            };
            let taken =
                repositories.iter().zip(lines).enumerate().find(|(at, (other, _))| *at != index && is_taken(other));
            if let Some((_, (_, line))) = taken {
                return Err((
                    index,
                    format!("{former} names the repository in line {line}; a name belongs to one repository"),
                ));
            }
            if again {
                return Err((index, format!("{former} stands there twice")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    const ONE: &str = "[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/git/infra.git\"\npath = \"/srv/infra\"\n";

    fn read(text: &str) -> Result<Vec<super::Repository>, String> {
        let parsed = super::super::file::parse(Path::new("hub.toml"), text);
        parsed.and_then(|file| file.repositories()).map_err(|error| error.to_string())
    }

    fn error(text: &str) -> String {
        read(text).expect_err("the text is wrong")
    }

    /// Two repositories: one as it is, and one with another name and path and these lines.
    fn two(name: &str, more: &str) -> String {
        ONE.to_owned() + &ONE.replace("acme/infra", name).replace("/srv/infra\"", "/srv/other\"") + more
    }

    #[test]
    fn repositories_do_not_share_names_branches_or_paths() {
        let file = two("a/b__c", "").replace("acme/infra", "a__b/c");
        assert!(error(&file).ends_with(
            "repository[1].name: a__b/c in line 1 would keep its state in the same file, a__b__c.json; give one of the \
                 two an id, such as id = \"a/b__c@main\""
        ));
        for (text, expected) in [
            (
                two("acme/Infra", "branch = \"staging\"\nid = \"acme/infra@staging\"\n"),
                "name: the repository in line 1 is acme/infra, which is the same",
            ),
            (two("acme/infra", ""), "branch: the repository in line 1 deploys main of acme/infra too"),
            (two("acme/infra", "id = \"acme/infra@two\"\n"), "branch: the repository in line 1 deploys main"),
            (
                two("acme/infra", "branch = \"staging\"\n"),
                "id: the repository in line 1 is called acme/infra too; give one of the two another, such as id = \"acme/infra@staging\"",
            ),
            (
                two("acme/other", "id = \"ACME/infra\"\n"),
                "name: acme/infra in line 1 would keep its state in the same file, ACME__infra.json; give",
            ),
            (
                two("other/infra", "").replace("/srv/other\"", "/srv/infra/\""),
                "path: the repository in line 1 has the path /srv/infra too",
            ),
            (two("acme/new", "formerly = [\"acme/infra\"]\n"), "formerly: acme/infra names the repository in line 1"),
            (
                two("acme/new", "formerly = [\"acme/Infra@x\"]\n"),
                "formerly: acme/Infra@x names the repository in line 1",
            ),
            (two("acme/new", "formerly = [\"acme/NEW\"]\n"), "formerly: acme/NEW is what it is called now"),
            (two("acme/new", "formerly = [\"a/b\", \"A/b\"]\n"), "formerly: A/b stands there twice"),
        ] {
            let error = error(&text);
            assert!(error.starts_with(&format!("hub.toml:5: repository[1].{expected}")), "{text}\n  gave     {error}");
        }
        let former = "formerly = [\"a/b\"]\n";
        assert!(
            error(&(ONE.to_owned() + former + &two("acme/x", former)[ONE.len()..]))
                .contains("repository[0].formerly: a/b names")
        );
    }

    #[test]
    fn two_branches_of_one_repository_are_two_repositories() {
        let all = read(&two("acme/infra", "branch = \"staging\"\nid = \"acme/infra@staging\"\n")).unwrap();
        let names: Vec<_> = all.iter().map(|repository| (&*repository.name, &*repository.full_name)).collect();
        assert_eq!(names, [("acme/infra", "acme/infra"), ("acme/infra@staging", "acme/infra")]);
        assert!(all.iter().all(|repository| repository.is_called("ACME/Infra")));
        assert!(all[1].is_known_as("acme/infra@Staging") && !all[1].is_known_as("acme/infra"));
        // An id that is given later takes over what was there under the name.
        let both = two("acme/infra", "branch = \"staging\"\nid = \"acme/infra@staging\"\n");
        let text = both.replacen("path", "id = \"acme/infra@main\"\nformerly = [\"acme/infra\"]\npath", 1);
        assert!(read(&text).unwrap()[0].is_known_as("acme/infra"));
    }

    #[test]
    fn a_link_tells_where_a_checkout_is_only_where_nobody_else_can_change_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir(at("one")).unwrap();
        std::fs::create_dir(at("home")).unwrap();
        std::os::unix::fs::symlink("one", at("same")).unwrap();
        std::os::unix::fs::symlink("../same", at("home/site")).unwrap();
        let path = |name: &str| at(name).to_str().unwrap().to_owned();
        let file = |other: &str| {
            two("acme/other", "").replace("/srv/infra\"", &(path("one") + "\"")).replace("/srv/other", &path(other))
        };
        for other in ["same", "home/site"] {
            assert!(error(&file(other)).contains("has the path"), "{other}");
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(at("home"), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(&file("home/site")).is_ok());
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(at("home"), std::fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::lchown(at("home/site"), Some(4242), None).unwrap();
            assert!(read(&file("home/site")).is_ok());
            std::os::unix::fs::lchown(at("home"), Some(4242), None).unwrap();
            assert!(read(&file("home/site")).is_ok());
        }
    }

    #[test]
    fn names_are_those_that_forges_have() {
        for name in ["me/.dotfiles", "acme/.github", "acme/-x", "acme/_", "Acme/a.b-c_d", "1/2", "acme/ops/eu/infra"] {
            assert_eq!(read(&ONE.replace("acme/infra", name)).unwrap()[0].full_name, name);
        }
        for name in [
            "infra", "../infra", "acme/..", "acme/.", ".acme/x", "-acme/x", "a//c", "a/../c", "a/b@c", "a/", "/b",
            "a/b c",
        ] {
            assert!(error(&ONE.replace("acme/infra", name)).contains("is not owner/name"), "{name}");
        }
        for name in ["a/".repeat(21) + "b", format!("acme/{}/{}", "b".repeat(100), "c".repeat(100))] {
            assert!(error(&ONE.replace("acme/infra", &name)).contains("is not owner/name"), "{name}");
        }
        for id in ["acme", "acme/infra@", "acme/infra@..", "acme/infra@a@b", "acme/infra@a/b", "@x"] {
            assert!(error(&format!("{ONE}id = \"{id}\"\n")).contains("hub.toml:5: repository[0].id: "), "{id}");
        }
    }
}
