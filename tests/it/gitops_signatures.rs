//! With listed signers only what they signed is deployed.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git;
use crate::support::gitops::{Site, is_root, skip};

struct Signed {
    site: Site,
}

impl Signed {
    /// A site with two ssh keys, `alice` listed and `mallory` not.
    fn ssh() -> Self {
        let signed = Self { site: Site::with("", "") };
        for name in ["alice", "mallory"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(signed.path(name))
                .status();
            assert!(made.unwrap().success());
        }
        signed.list("alice");
        signed.configure(&format!("allowed_signers = \"{}\"", signed.path("signers").display()));
        signed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.host.path(name)
    }

    fn configure(&self, lines: &str) {
        self.site.configure("", lines);
    }

    fn list(&self, key: &str) {
        let public = std::fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
        std::fs::write(self.path("signers"), format!("{key}@example.org namespaces=\"git\" {public}")).unwrap();
    }

    fn git(&self, key: &str, arguments: &[&str]) {
        let key = self.path(key);
        let mut all = vec!["-c", "gpg.format=ssh", "-c"];
        let setting = format!("user.signingKey={}", key.display());
        all.push(&setting);
        all.extend(arguments);
        git(&self.site.origin.work, &all);
    }

    /// Commits a change of README signed by a key, or by nobody.
    fn commit(&self, key: Option<&str>, text: &str) {
        std::fs::write(self.site.origin.work.join("README"), text).unwrap();
        match key {
            Some(key) => self.git(key, &["commit", "--quiet", "-S", "-am", text]),
            None => {
                git(&self.site.origin.work, &["commit", "--quiet", "-am", text]);
            }
        }
    }

    /// Pushes; the push is refused with this reason and nothing changes.
    #[track_caller]
    fn refused(&self, part: &str) {
        self.site.push();
        let before = self.site.head();
        self.site.sync().expect(5, "refused").says(part);
        assert_eq!(self.site.head(), before);
        self.site.assert_settled();
    }

    #[track_caller]
    fn deployed(&self) {
        let commit = self.site.push();
        self.site.sync().expect(0, "deployed");
        assert_eq!(self.site.head(), commit);
    }
}

#[test]
fn a_first_deploy_checks_the_tip_and_later_ones_every_commit() {
    let signed = Signed::ssh();
    // The site's first commit is not signed.
    signed.site.sync().expect(5, "refused").says("is not signed; nothing of the push was applied");
    assert!(!signed.site.checkout.exists());
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    signed.commit(Some("alice"), "2\n");
    signed.commit(Some("alice"), "3\n");
    signed.deployed();
    signed.commit(None, "4\n");
    signed.commit(Some("alice"), "5\n");
    signed.refused("is not signed");
    // A rewrite without the unsigned commit is what helps.
    git(&signed.site.origin.work, &["reset", "--quiet", "--hard", "HEAD~2"]);
    signed.commit(Some("alice"), "6\n");
    git(&signed.site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    signed.deployed();
    signed.commit(Some("mallory"), "7\n");
    signed.refused("is signed by a key that is not listed");
    signed.list("mallory");
    signed.deployed();
}

#[test]
fn of_a_merge_the_first_parents_count() {
    let signed = Signed::ssh();
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    let work = &signed.site.origin.work;
    let branch = |key: &str, merge: Option<&str>, name: &str| {
        git(work, &["switch", "--quiet", "-c", name]);
        std::fs::write(work.join(name), name).unwrap();
        git(work, &["add", "."]);
        signed.git(key, &["commit", "--quiet", "-m", name]);
        git(work, &["switch", "--quiet", "-"]);
        match merge {
            Some(key) => signed.git(key, &["merge", "--quiet", "--no-ff", "-S", "-m", "merge", name]),
            None => {
                git(work, &["merge", "--quiet", "--no-ff", "--no-gpg-sign", "-m", "merge", name]);
            }
        }
    };
    // An unsigned commit of a branch comes in by a merge that alice answers for.
    branch("mallory", Some("alice"), "topic");
    signed.deployed();
    branch("alice", None, "unsigned-merge");
    signed.refused("is not signed");
    git(work, &["reset", "--quiet", "--hard", "HEAD~"]);
    // The deployed commit as the second parent: every commit of the other line counts.
    git(work, &["switch", "--quiet", "-c", "side", "HEAD~"]);
    signed.commit(None, "side\n");
    signed.git("alice", &["merge", "--quiet", "--no-ff", "-S", "-s", "ours", "-m", "foxtrot", "main"]);
    git(work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    signed.site.sync().expect(5, "refused").says("is not signed");
}

#[test]
fn of_an_octopus_each_commit_on_the_way_to_the_deployed_one_counts() {
    let signed = Signed::ssh();
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    let work = &signed.site.origin.work;
    let octopus = |round: &str, key: Option<&str>| {
        let branches = ["x", "y", "z"].map(|name| format!("{name}{round}"));
        for name in &branches {
            git(work, &["switch", "--quiet", "-c", name]);
            std::fs::write(work.join(name), name).unwrap();
            git(work, &["add", "."]);
            git(work, &["commit", "--quiet", "-m", name]);
            git(work, &["switch", "--quiet", "-"]);
        }
        let sign = if key.is_some() { "-S" } else { "--no-gpg-sign" };
        let mut arguments = vec!["merge", "--quiet", "--no-ff", sign, "-m", "octopus"];
        arguments.extend(branches.iter().map(String::as_str));
        signed.git(key.unwrap_or("alice"), &arguments);
        assert_eq!(git(work, &["rev-list", "--parents", "-1", "HEAD"]).split(' ').count(), 5);
    };
    octopus("1", Some("alice"));
    signed.deployed();
    for key in [None, Some("mallory")] {
        octopus(if key.is_some() { "3" } else { "2" }, key);
        signed.refused("signed");
        git(work, &["reset", "--quiet", "--hard", "HEAD~"]);
        git(work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    }
    // The deployed commit as the last parent: the line that comes first is nobody's.
    let deployed = git(work, &["rev-parse", "HEAD"]);
    git(work, &["switch", "--quiet", "-c", "strange", "HEAD~"]);
    signed.commit(None, "strange\n");
    signed.git("alice", &["merge", "--quiet", "--no-ff", "-S", "-s", "ours", "-m", "last", "x1", "y1", &deployed]);
    git(work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    signed.site.sync().expect(5, "refused").says("is not signed");
    assert_eq!(signed.site.head(), deployed);
}

#[test]
fn a_copied_signature_and_one_of_a_key_past_its_time_are_refused() {
    let signed = Signed::ssh();
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    let work = signed.site.origin.work.clone();
    let honest = git(&work, &["cat-file", "commit", "HEAD"]) + "\n";
    let start = honest.find("gpgsig ").unwrap();
    let end = honest.find("-----END SSH SIGNATURE-----\n").unwrap() + "-----END SSH SIGNATURE-----\n".len();
    signed.commit(None, "2\n");
    signed.refused("is not signed");
    let unsigned = git(&work, &["cat-file", "commit", "HEAD"]) + "\n";
    let at = unsigned.find("\n\n").unwrap() + 1;
    let copied = [&unsigned[..at], &honest[start..end], &unsigned[at..]].concat();
    std::fs::write(signed.path("commit"), copied).unwrap();
    let made = git(&work, &["hash-object", "-t", "commit", "-w", &signed.path("commit").display().to_string()]);
    git(&work, &["reset", "--quiet", "--hard", &made]);
    git(&work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    signed.refused("signature");
    git(&work, &["reset", "--quiet", "--hard", "HEAD~"]);
    git(&work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    signed.commit(Some("alice"), "3\n");
    let public = std::fs::read_to_string(signed.path("alice.pub")).unwrap();
    for times in ["valid-before=\"20200101\"", "valid-after=\"20990101\""] {
        let line = format!("alice@example.org {times},namespaces=\"git\" {public}");
        std::fs::write(signed.path("signers"), line).unwrap();
        signed.refused("signed by a key");
    }
    signed.list("alice");
    signed.deployed();
}

#[test]
fn the_list_of_signers_must_be_there_and_be_roots() {
    let signed = Signed::ssh();
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    signed.commit(Some("alice"), "2\n");
    let signers = signed.path("signers");
    let text = std::fs::read(&signers).unwrap();
    std::fs::remove_file(&signers).unwrap();
    signed.refused("allowed_signers: ");
    std::fs::write(&signers, "").unwrap();
    signed.refused("not listed");
    std::fs::write(&signers, &text).unwrap();
    if is_root() {
        use std::os::unix::fs::{PermissionsExt, chown};
        std::fs::set_permissions(&signers, PermissionsExt::from_mode(0o666)).unwrap();
        signed.refused("can be written by others than root; run: chown root:");
        std::fs::set_permissions(&signers, PermissionsExt::from_mode(0o644)).unwrap();
        chown(&signers, Some(65_534), None).unwrap();
        signed.refused("can be written by others than root");
        chown(&signers, Some(0), None).unwrap();
        // Whoever can write the folder can put another file there.
        let open = signed.path("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::copy(&signers, open.join("signers")).unwrap();
        signed.configure(&format!("allowed_signers = \"{}\"", open.join("signers").display()));
        signed.refused("can be written by others than root");
        signed.configure(&format!("allowed_signers = \"{}\"", signers.display()));
    } else {
        skip(
            "the_list_of_signers_must_be_there_and_be_roots (owner of the list)",
            "root; run: sudo -E cargo test --test it gitops_signatures::",
        );
    }
    signed.deployed();
}

/// A GnuPG home with keys; its agent is ended with it.
struct Gpg {
    home: PathBuf,
}

impl Gpg {
    fn new(signed: &Signed, test: &str) -> Option<Self> {
        if !Command::new("gpg").arg("--version").output().is_ok_and(|output| output.status.success()) {
            skip(test, "gpg; run: apt-get install gnupg");
            return None;
        }
        let home = signed.path("gnupg");
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, None, None).unwrap();
        std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let gpg = Self { home };
        std::fs::write(
            signed.path("gpg.sh"),
            format!("#!/bin/sh\nGNUPGHOME={} exec gpg --batch \"$@\"\n", gpg.home.display()),
        )
        .unwrap();
        std::fs::set_permissions(signed.path("gpg.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Some(gpg)
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .env("GNUPGHOME", &self.home)
            .output()
            .unwrap();
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn make(&self, name: &str, expire: &str) {
        self.run(&["--quick-gen-key", &format!("{name} <{name}@example.org>"), "ed25519", "sign", expire]);
    }

    fn commit(&self, signed: &Signed, key: &str, text: &str) {
        let work = &signed.site.origin.work;
        std::fs::write(work.join("README"), text).unwrap();
        let program = format!("gpg.program={}", signed.path("gpg.sh").display());
        git(
            work,
            &[
                "-c",
                &program,
                "-c",
                &format!("user.signingKey={key}@example.org"),
                "commit",
                "--quiet",
                "-S",
                "-am",
                text,
            ],
        );
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", &self.home).status();
    }
}

fn export(gpg: &Gpg, path: &Path, arguments: &[&str]) {
    std::fs::write(path, gpg.run(arguments)).unwrap();
}

#[test]
fn gpg_keys_are_listed_by_their_export() {
    let signed = Signed::ssh();
    let Some(gpg) = Gpg::new(&signed, "gpg_keys_are_listed_by_their_export") else { return };
    gpg.make("bob", "never");
    gpg.make("eve", "never");
    let (keys, signers) = (signed.path("keys"), signed.path("signers"));
    export(&gpg, &keys, &["--export", "bob@example.org"]);
    let only_gpg = format!("gpg_keyring = \"{}\"", keys.display());
    let only_ssh = format!("allowed_signers = \"{}\"", signers.display());
    signed.configure(&only_gpg);
    gpg.commit(&signed, "bob", "1\n");
    signed.deployed();
    export(&gpg, &keys, &["--armor", "--export", "bob@example.org"]);
    gpg.commit(&signed, "bob", "2\n");
    signed.deployed();
    gpg.commit(&signed, "eve", "3\n");
    signed.refused("cannot be checked, because its key is not listed");
    git(&signed.site.origin.work, &["reset", "--quiet", "--hard", "HEAD~"]);
    git(&signed.site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    // A kind of signature that nobody listed is none.
    signed.commit(Some("alice"), "4\n");
    signed.refused("not listed");
    signed.configure(&format!("{only_gpg}\n{only_ssh}"));
    signed.deployed();
    gpg.commit(&signed, "bob", "5\n");
    signed.configure(&only_ssh);
    signed.refused("not listed");
    signed.configure(&format!("{only_gpg}\n{only_ssh}"));
    signed.deployed();
    // No key stays behind in the state.
    assert_eq!(support::gitops::names(&signed.site.state("mirror")), ["acme__infra.git"]);
    std::fs::write(&keys, "no keys at all").unwrap();
    gpg.commit(&signed, "bob", "6\n");
    signed.site.push();
    let run = signed.site.sync();
    assert!(matches!(run.code, Some(1 | 5)) && run.reason().contains("gpg"), "{run:#?}");
    assert_eq!(signed.site.read("README"), "5\n");
}

#[test]
fn expired_and_revoked_gpg_keys_are_refused() {
    let signed = Signed::ssh();
    let Some(gpg) = Gpg::new(&signed, "expired_and_revoked_gpg_keys_are_refused") else { return };
    gpg.make("bob", "never");
    let keys = signed.path("keys");
    signed.configure(&format!("gpg_keyring = \"{}\"", keys.display()));
    gpg.commit(&signed, "bob", "1\n");
    export(&gpg, &keys, &["--export", "bob@example.org"]);
    signed.deployed();
    // Signed while the key was good; by now it has expired.
    gpg.run(&[
        "--faked-system-time",
        "20200101T000000!",
        "--quick-gen-key",
        "old <old@example.org>",
        "ed25519",
        "sign",
        "1d",
    ]);
    let wrapper = signed.path("gpg.sh");
    let text = std::fs::read_to_string(&wrapper).unwrap();
    std::fs::write(&wrapper, text.replace("--batch", "--batch --faked-system-time 20200101T000100!")).unwrap();
    gpg.commit(&signed, "old", "2\n");
    std::fs::write(&wrapper, text).unwrap();
    export(&gpg, &keys, &["--export"]);
    signed.refused("is signed by a key that has expired");
    git(&signed.site.origin.work, &["reset", "--quiet", "--hard", "HEAD~"]);
    git(&signed.site.origin.work, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    gpg.commit(&signed, "bob", "3\n");
    let certificate = std::fs::read_dir(gpg.home.join("openpgp-revocs.d")).unwrap().map(|entry| entry.unwrap().path());
    let fingerprint = String::from_utf8(gpg.run(&["--with-colons", "--list-keys", "bob@example.org"])).unwrap();
    let certificate =
        certificate.into_iter().find(|path| fingerprint.contains(path.file_stem().unwrap().to_str().unwrap())).unwrap();
    // gpg keeps it from being used by accident with a colon before the block.
    let armored = std::fs::read_to_string(&certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(signed.path("revocation"), armored).unwrap();
    gpg.run(&["--import", signed.path("revocation").to_str().unwrap()]);
    export(&gpg, &keys, &["--export"]);
    signed.refused("is signed by a key that was revoked");
}

#[test]
fn a_signature_beside_the_one_that_is_checked_is_refused() {
    let signed = Signed::ssh();
    signed.commit(Some("alice"), "1\n");
    signed.deployed();
    signed.commit(Some("alice"), "2\n");
    let work = signed.site.origin.work.clone();
    let honest = git(&work, &["rev-parse", "HEAD"]);
    let headers = git(&work, &["cat-file", "commit", "HEAD"]) + "\n";
    let start = headers.find("gpgsig ").unwrap();
    let end =
        start + headers[start..].find("-----END SSH SIGNATURE-----\n").unwrap() + "-----END SSH SIGNATURE-----\n".len();
    let (head, signature, rest) = (&headers[..start], &headers[start..end], &headers[end..]);
    let other = signature.replacen("gpgsig ", "gpgsig-sha256 ", 1);
    for (what, commit) in [
        ("the other algorithm's", format!("{head}{signature}gpgsig-sha256 x\n{rest}")),
        ("the other algorithm's first", format!("{head}{other}{signature}{rest}")),
        ("twice", format!("{head}{signature}{signature}{rest}")),
        ("one more that is empty", format!("{head}{signature}gpgsig \n{rest}")),
        ("a third kind", format!("{head}{signature}gpgsig-sha512 x\n{rest}")),
    ] {
        std::fs::write(signed.path("commit"), commit).unwrap();
        let file = signed.path("commit");
        let made = git(&work, &["hash-object", "-t", "commit", "-w", "--literally", &file.display().to_string()]);
        assert_ne!(made, honest);
        let shown = git(&signed.site.origin.work, &["push", "--quiet", "--force", "origin", &format!("{made}:main")]);
        let run = signed.site.sync().expect(5, "refused");
        assert!(
            run.reason().contains("signature headers") || run.reason().contains("bad signature"),
            "{what}: {shown} {run:?}"
        );
    }
    // Nothing of them is remembered: the honest branch follows.
    git(&work, &["push", "--quiet", "--force", "origin", &format!("{honest}:main")]);
    signed.deployed();
}
