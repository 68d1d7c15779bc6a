//! A path whose file system never answers costs its own repository, and nobody else.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::gitops::{REPO, Ran, Site, is_root, skip};

/// A file system that hangs; gone when dropped.
struct Hanging {
    program: Child,
    folder: PathBuf,
}

impl Hanging {
    fn mount(folder: &Path, uid: u32, kind: &str) -> Self {
        let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/hanging");
        let mut command = Command::new(helper);
        command.arg(folder).args([&uid.to_string(), kind]).stdout(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let folder = folder.to_owned();
        assert_eq!(line, "on\n", "mounted at {}", folder.display());
        Self { program, folder }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.program.kill().and_then(|()| self.program.wait());
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// A site with a second repository, `acme/other`; none where it cannot be had here.
fn site(test: &str, more: &str) -> Option<Site> {
    if !is_root() || !Path::new("/dev/fuse").exists() {
        skip(test, "root and /dev/fuse");
        return None;
    }
    let site = Site::with("", more);
    let file = site.host.path("hub.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (url, path) = (site.origin.url(), site.host.path("other"));
    let other = format!(
        "[[repository]]\nname = \"acme/other\"\nurl = \"{url}\"\npath = \"{}\"\nuser = \"root\"\n",
        path.display()
    );
    site.host.configure(&(text + &other));
    Some(site)
}

/// A run for everything: the first repository is not in sync for this reason, the other one is, and the next run finds no
/// lock held.
#[track_caller]
fn costs_one(site: &Site, status: &str, reason: &str) {
    site.request(REPO);
    site.request("acme/other");
    let run: Ran = site.queued();
    let of = |name: &str, key: &str| {
        let all = run.report["repositories"].as_array().unwrap();
        all.iter().find(|one| one["repository"] == name).unwrap()[key].as_str().unwrap_or_default().to_owned()
    };
    assert!(of(REPO, "status") == status && of(REPO, "reason").contains(reason), "{run:#?}");
    assert!(["deployed", "unchanged"].contains(&of("acme/other", "status").as_str()), "{run:#?}");
    assert!(run.took < Duration::from_secs(120), "{run:#?}");
    let next = site.run(&["acme/other"]);
    assert_eq!(next.code, Some(0), "{next:#?}");
}

#[test]
fn a_checkout_that_does_not_answer_costs_its_repository_only() {
    let test = "a_checkout_that_does_not_answer_costs_its_repository_only";
    for kind in ["silent", "deaf"] {
        let Some(site) = site(test, "") else { return };
        std::fs::create_dir(&site.checkout).unwrap();
        let _hanging = Hanging::mount(&site.checkout, 0, kind);
        costs_one(&site, "failed", "did not answer within 10 s: fuse at ");
        let before = waiting(&site.checkout);
        costs_one(&site, "failed", "did not answer within 10 s: fuse at ");
        // One process that nobody can end is enough.
        assert_eq!((before, waiting(&site.checkout)), (usize::from(kind == "deaf"), before));
    }
}

/// How many processes hang that asked for a path.
fn waiting(path: &Path) -> usize {
    let question = format!("find\0-H\0{}\0", path.display());
    let states = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let is_find =
            std::fs::read(process.path().join("cmdline")).is_ok_and(|command| command.starts_with(question.as_bytes()));
        std::fs::read_to_string(process.path().join("stat")).ok().filter(|stat| is_find && stat.contains(") D "))
    });
    states.count()
}

#[test]
fn a_folder_above_that_does_not_answer_costs_its_repository_only() {
    let Some(mut site) = site("a_folder_above_that_does_not_answer_costs_its_repository_only", "") else { return };
    let home = site.host.path("home");
    std::fs::create_dir(&home).unwrap();
    let text = std::fs::read_to_string(site.host.path("hub.toml")).unwrap();
    let below = home.join("alice/site");
    site.host.configure(&text.replace(&format!("{}\"", site.checkout.display()), &format!("{}\"", below.display())));
    site.checkout = below;
    let _hanging = Hanging::mount(&home, 0, "deaf");
    costs_one(&site, "failed", "did not answer within 10 s: fuse at ");
}

#[test]
fn a_part_of_a_checkout_that_does_not_answer_costs_its_repository_only() {
    let test = "a_part_of_a_checkout_that_does_not_answer_costs_its_repository_only";
    // What git reads itself, and what only a look below goes into.
    for (part, reason) in [(".git", "git status did not end within 30 s"), ("app", "did not end within 30 s")] {
        let Some(site) = site(test, "") else { return };
        site.sync().expect(0, "deployed");
        site.origin.push(&[("app/config", "a=2\n")]);
        let _hanging = Hanging::mount(&site.checkout.join(part), 64_101, "deaf");
        costs_one(&site, "failed", reason);
        if part == ".git" {
            // What hangs does not pile up: a unit may have 512 tasks.
            costs_one(&site, "failed", reason);
            costs_one(&site, "failed", "4 processes in it were killed and hang in a file system");
        }
    }
}

#[test]
fn a_list_of_signers_that_does_not_answer_costs_its_repository_only() {
    let Some(site) = site("a_list_of_signers_that_does_not_answer_costs_its_repository_only", "") else { return };
    let keys = site.host.path("keys");
    std::fs::create_dir(&keys).unwrap();
    let file = site.host.path("hub.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (first, other) = text.split_once("[[repository]]\nname = \"acme/other\"").unwrap();
    let signers = format!("allowed_signers = \"{}\"\n", keys.join("signers").display());
    site.host.configure(&format!("{first}{signers}[[repository]]\nname = \"acme/other\"{other}"));
    let _hanging = Hanging::mount(&keys, 0, "deaf");
    costs_one(&site, "refused", "did not answer within 10 s");
}

#[test]
fn an_origin_that_does_not_answer_costs_its_repository_only() {
    let Some(site) = site("an_origin_that_does_not_answer_costs_its_repository_only", "") else { return };
    let origin = site.host.path("hangs.git");
    std::fs::create_dir(&origin).unwrap();
    let text = std::fs::read_to_string(site.host.path("hub.toml")).unwrap();
    site.host.configure(&text.replacen(site.origin.url(), origin.to_str().unwrap(), 1));
    let _hanging = Hanging::mount(&origin, 0, "deaf");
    costs_one(&site, "failed", "did not answer within 10 s");
}
