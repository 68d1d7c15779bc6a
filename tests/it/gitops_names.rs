//! Names: a repository that is renamed keeps what was kept of it, two branches of one are two, letter case is none.

use crate::support;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::gitops::{FILE, REPO, Site, names, user_name};
use crate::support::{deliver, eventually, free_address, git, push_body};

const SECRET: &str = "0123456789abcdef-secret";

/// A `[[repository]]` of the site's origin.
fn repository(site: &Site, name: &str, checkout: &str, more: &str) -> String {
    let (url, path, user) = (site.origin.url(), site.host.path(checkout), user_name());
    format!(
        "[[repository]]\nname = \"{name}\"\nurl = \"{url}\"\npath = \"{}\"\nuser = \"{user}\"\nunits = \"\"\n{more}\n",
        path.display()
    )
}

/// What is left under a file name in the state, but for what could not be taken, and for locks, in which nothing is.
fn left(site: &Site, stem: &str) -> Vec<String> {
    let places = names(&site.state("")).into_iter().filter(|place| !matches!(place.as_str(), "failed" | "locks"));
    let of =
        |place: &String| names(&site.state(place)).into_iter().filter(|name| name.contains(stem)).collect::<Vec<_>>();
    places.flat_map(|place| of(&place).into_iter().map(move |name| format!("{place}/{name}"))).collect()
}

#[test]
fn a_renamed_repository_keeps_its_deployed_commit_mirror_and_hold() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let first = site.head();
    let mirror = std::fs::metadata(site.state("mirror/acme__infra.git")).unwrap().ino();
    assert!(site.host.run("hub", &["hold", REPO, "--reason", "moving"]).status.success());
    site.host.configure(&repository(&site, "other/new.name", "checkout", "formerly = [\"acme/infra\"]"));
    let second = site.origin.push(&[("README", "two\n")]);
    let planned = site.run(&["--dry-run"]).expect(0, "planned");
    assert!(planned.reason().contains("former name"), "{planned:#?}");
    assert_eq!(left(&site, "other__new.name"), [] as [String; 0]);
    site.run(&["other/new.name"]).expect(0, "held").says("moving");
    assert_eq!(left(&site, "acme__infra"), [] as [String; 0]);
    assert!(site.host.run("hub", &["release", "Other/NEW.name"]).status.success());
    let run = site.queued().expect(0, "deployed");
    assert_eq!(run.report["repositories"][0]["from"], first.as_str());
    assert_eq!((site.head(), names(&site.state("failed")).len()), (second, 0));
    assert_eq!(std::fs::metadata(site.state("mirror/other__new.name.git")).unwrap().ino(), mirror);
    // A rewritten history is still one: what was deployed under the old name counts.
    git(&site.origin.work, &["checkout", "--quiet", "--orphan", "fresh"]);
    site.origin.commit(&[("README", "orphan\n")]);
    git(&site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    site.run(&["other/new.name"]).expect(5, "refused").says("was rewritten");
}

#[test]
fn requests_under_a_former_name_are_taken_up_wherever_they_are() {
    for place in ["proxy/queue", "gitops/active", "gitops/retry"] {
        let site = Site::new();
        site.sync().expect(0, "deployed");
        let commit = site.origin.push(&[("README", "two\n")]);
        site.request(REPO);
        std::fs::rename(site.queue().join(FILE), site.host.state().join(place).join(FILE)).unwrap();
        site.host.configure(&repository(&site, "acme/site", "checkout", "formerly = [\"acme/x\", \"ACME/infra\"]"));
        site.queued().expect(0, "deployed");
        assert_eq!((site.head(), names(&site.state("failed")).len()), (commit, 0), "{place}");
        assert_eq!(left(&site, "acme__infra"), [] as [String; 0], "{place}");
        site.assert_settled();
    }
}

#[test]
fn a_takeover_that_was_cut_off_goes_on_and_what_is_newer_stays() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let first = site.head();
    let commit = site.origin.push(&[("README", "two\n")]);
    // Without the key the new name is a stranger, whose look is newer than the old one's.
    site.host.configure(&repository(&site, "acme/site", "checkout", "branch = \"none\""));
    site.run(&["acme/site"]).expect(5, "refused");
    for cut in ["mirror", "deployed", "checked", "none"] {
        let copy = site.host.path("copy");
        let state = site.state("");
        let run = |program: &str, arguments: &[&Path]| {
            let done = std::process::Command::new(program).args(["-a", "--"]).args(arguments).status().unwrap();
            assert!(done.success());
        };
        run("cp", &[&state, &copy]);
        if cut != "none" {
            let (old, new) =
                if cut == "mirror" { ("acme__infra.git", "acme__site.git") } else { (FILE, "acme__site.json") };
            let _ = std::fs::remove_dir_all(state.join(cut).join(new));
            std::fs::rename(state.join(cut).join(old), state.join(cut).join(new)).unwrap();
        }
        site.host.configure(&repository(&site, "acme/site", "checkout", "formerly = [\"acme/infra\"]"));
        let run_again = site.run(&["acme/site"]).expect(0, "deployed");
        assert_eq!(run_again.report["repositories"][0]["from"], first.as_str(), "{cut}");
        assert_eq!((site.head(), left(&site, "acme__infra")), (commit.clone(), Vec::new()), "{cut}");
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::rename(&copy, &state).unwrap();
        git(&site.checkout, &["reset", "--quiet", "--hard", &first]);
    }
}

#[test]
fn an_interrupted_deployment_is_undone_under_the_new_name() {
    let site = Site::with("", &support::gitops::sh("build", "test ! -e poison || kill -9 $PPID"));
    site.sync().expect(0, "deployed");
    let first = site.head();
    site.origin.push(&[("poison", "x")]);
    assert_eq!(site.sync().code, None);
    assert!(site.state("journal").join(FILE).exists());
    site.host.configure(&repository(&site, "acme/site", "checkout", "formerly = [\"acme/infra\"]"));
    let run = site.run(&["acme/site"]).expect(0, "deployed");
    assert!(run.log.contains("interrupted_deployment_undone"), "{}", run.log);
    assert_eq!(run.report["repositories"][0]["from"], first.as_str());
    assert_eq!(left(&site, "acme__infra"), [] as [String; 0]);
    site.assert_settled();
}

#[test]
fn letter_case_makes_no_other_repository() {
    let site = Site::new();
    site.sync().expect(0, "deployed");
    let first = site.head();
    site.run(&["Acme/INFRA"]).expect(0, "unchanged");
    assert!(site.host.run("hub", &["deploy", "ACME/infra"]).status.success());
    assert_eq!(names(&site.queue()), [FILE]);
    // hub.toml is written otherwise, and nobody thinks of formerly.
    site.host.configure(&repository(&site, "Acme/Infra", "checkout", ""));
    site.origin.push(&[("README", "two\n")]);
    let run = site.queued().expect(0, "deployed");
    assert_eq!(run.report["repositories"][0]["from"], first.as_str());
    assert_eq!((left(&site, "acme__infra"), names(&site.state("failed")).len()), (Vec::new(), 0));
}

#[test]
fn two_branches_of_one_repository_are_deployed_side_by_side() {
    let site = Site::empty();
    let main = site.origin.push(&[("README", "main\n")]);
    git(&site.origin.work, &["checkout", "--quiet", "-b", "staging"]);
    let staging = site.origin.commit(&[("README", "staging\n")]);
    git(&site.origin.work, &["push", "--quiet", "origin", "HEAD:staging"]);
    let (listen, admin) = (free_address(), free_address());
    site.host.configure(&format!(
        "[proxy]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n{}{}",
        repository(&site, "acme/.site", "checkout", ""),
        repository(&site, "acme/.site", "second", "branch = \"staging\"\nid = \"acme/.site@staging\""),
    ));
    site.run(&["acme/.site@Staging"]).expect(0, "deployed");
    assert_eq!(names(&site.state("deployed")), ["acme__.site@staging.json"]);
    site.run(&["acme/.site"]).expect(0, "deployed");
    let head = |checkout: &str| git(&site.host.path(checkout), &["rev-parse", "HEAD"]);
    assert_eq!((head("checkout"), head("second")), (main, staging));
    let status: serde_json::Value =
        serde_json::from_slice(&site.host.run("hub", &["status", "--json"]).stdout).unwrap();
    let shown: Vec<&str> =
        status["repositories"].as_array().unwrap().iter().map(|one| one["repository"].as_str().unwrap()).collect();
    assert_eq!(shown, ["acme/.site", "acme/.site@staging"]);

    // A delivery has the forge's name only; the branch says which of the two is meant.
    site.host.credential("webhook-secret", SECRET);
    let proxy = site.host.start("proxy", &[]);
    proxy.line("listening");
    let push = |id: &str, branch: &str| deliver(listen, SECRET, "push", id, &push_body("Acme/.Site", branch));
    for (id, branch, repo) in [("1", "main", "acme/.site"), ("2", "staging", "acme/.site@staging")] {
        let answer = push(id, branch);
        assert_eq!((answer.status, answer.json()["repo"].as_str()), (202, Some(repo)), "{answer:?}");
    }
    let answer = push("3", "dev");
    let reason = answer.json()["reason"].as_str().unwrap().to_owned();
    assert!(answer.status == 200 && reason.ends_with("branches are refs/heads/main, refs/heads/staging"), "{reason}");
    eventually("both are queued", || names(&site.queue()) == ["acme__.site.json", "acme__.site@staging.json"]);
    assert!(site.host.run("hub", &["webhook-test", "acme/.site@staging"]).status.success());
    site.queued().expect(0, "unchanged");
    assert_eq!(names(&site.state("failed")), [] as [String; 0]);
    assert!(names(&site.queue()).is_empty());
}
