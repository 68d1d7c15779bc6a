//! What hub-git can make of its mirrors: root believes an object's content by its name alone, and signatures are not checked
//! where hub-git has a hand in it.

use crate::gitops::{Text, configure, deployed, push, push_to, repository, sync};
use crate::machine::Machine;

const MIRROR: &str = "/var/lib/observability-hub/gitops/mirror/acme__infra.git";
const UNIT: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n";

fn as_git(machine: &Machine, script: &str) -> String {
    machine.ok(&["runuser", "-u", "hub-git", "--", "sh", "-ec", script])
}

/// Puts other content under the name of an object of the mirror: git reads it without a look at the name.
fn lie(machine: &Machine, object: &str, kind: &str, content: &str) {
    let script = format!(
        "cd {MIRROR}; name=$(git rev-parse {object}); mkdir -p /tmp/packs; mv objects/pack/*.pack /tmp/packs/ 2>/dev/null || true
         rm -f objects/pack/*; for pack in /tmp/packs/*.pack; do git unpack-objects -q <$pack; done
         file=objects/$(echo $name | cut -c1-2)/$(echo $name | cut -c3-); rm -f $file
         printf '{content}' | perl -MCompress::Zlib -e 'local $/; $_ = <STDIN>; print compress(\"{kind} \" . length . \"\\0$_\")' >$file"
    );
    as_git(machine, &script);
}

#[test]
fn what_a_mirror_has_under_a_wrong_name_is_not_deployed() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[repository("infra", "")]);
    let first = push(&machine, "infra", &[Text("systemd/app.service", UNIT), Text("systemd/b.service", UNIT)]);
    sync(&machine, "infra").expect(0);
    let evil = "[Service]\\nExecStart=/usr/bin/touch /srv/pwned\\n";
    for (object, kind, content) in [
        // The unit of the commit that is live, and what leads to it.
        ("refs/hub/tip:systemd/app.service", "blob", evil),
        ("refs/hub/tip:systemd", "tree", ""),
        ("refs/hub/tip^{tree}", "tree", ""),
    ] {
        lie(&machine, object, kind, content);
        let run = sync(&machine, "infra").expect(5);
        assert!(run.reason().contains("is not what its name stands for"), "{object}: {}", run.reason());
        assert_eq!(machine.read("/etc/systemd/system/app.service"), UNIT, "{object}");
        // What the reason says to do.
        assert!(run.reason().contains(&format!("rm -rf {MIRROR}")), "{}", run.reason());
        machine.ok(&["rm", "-rf", MIRROR, "/tmp/packs"]);
        sync(&machine, "infra").expect(0);
    }
    assert!(!machine.exists("/srv/pwned"));
    assert_eq!(deployed(&machine, "infra"), first);
}

/// A host that asks for signatures, with a signed commit live.
fn signed(machine: &Machine) {
    machine.ok(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/signer"]);
    let public = machine.read("/root/signer.pub");
    machine.write("/etc/observability-hub/allowed_signers", format!("t@example.org {public}"));
    configure(machine, &[repository("infra", "allowed_signers = \"/etc/observability-hub/allowed_signers\"")]);
    push(machine, "infra", &[Text("systemd/app.service", UNIT)]);
    sign(machine, "main");
    sync(machine, "infra").expect(0);
}

/// Signs the tip of a branch; returns its name.
fn sign(machine: &Machine, branch: &str) -> String {
    let script = format!(
        "cd /srv/origin/infra.git; commit=$(git cat-file commit {branch} | sed '/^$/,$d'; echo; echo x)
         parents=$(git rev-parse {branch}^@ | sed 's/^/-p /')
         new=$(git -c gpg.format=ssh -c user.signingkey=/root/signer.pub -c user.name=T -c user.email=t@example.org \
               commit-tree -S $parents -m x {branch}^{{tree}})
         git update-ref refs/heads/{branch} $new; echo $new"
    );
    machine.ok(&["sh", "-ec", &script]).trim().to_owned()
}

#[test]
fn a_signed_commit_of_another_branch_does_not_follow_because_the_mirror_says_so() {
    let Some(machine) = Machine::boot() else { return };
    signed(&machine);
    let first = deployed(&machine, "infra");
    // Signed, and never meant for the branch that is deployed.
    machine.ok(&["git", "-C", "/srv/origin/infra.git", "branch", "trial", "main"]);
    push_to(
        &machine,
        "infra",
        "trial",
        &[Text("systemd/app.service", "[Service]\nExecStart=/usr/bin/touch /srv/trial\n")],
    );
    let trial = sign(&machine, "trial");
    push(&machine, "infra", &[Text("file", "2")]);
    let second = sign(&machine, "main");
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), second);
    machine.ok(&["git", "clone", "--quiet", "--bare", "/srv/origin/infra.git", "/srv/evil.git"]);
    machine.ok(&["git", "-C", "/srv/evil.git", "update-ref", "refs/heads/main", &trial]);
    machine.ok(&["chown", "-R", "hub-git", "/srv/evil.git"]);
    let script = format!(
        "cd {MIRROR}; git config url./srv/evil.git.insteadOf /srv/origin/infra.git; mkdir -p info; echo {trial} {second} >info/grafts"
    );
    as_git(&machine, &script);
    let run = sync(&machine, "infra").expect(5);
    assert!(run.reason().contains("was rewritten"), "{}", run.reason());
    assert_eq!(deployed(&machine, "infra"), second);
    assert_ne!(first, second);
    assert!(!machine.exists("/srv/trial"));
}

#[test]
fn hub_git_has_no_hand_in_the_check_of_signatures() {
    let Some(machine) = Machine::boot() else { return };
    signed(&machine);
    for program in ["ssh-keygen", "gpg"] {
        let wrapper = format!("#!/bin/sh\necho $(id -un) $(pwd) >>/srv/noted\nexec /usr/bin/{program} \"$@\"\n");
        machine.write(&format!("/usr/local/bin/{program}"), wrapper);
        machine.ok(&["chmod", "755", &format!("/usr/local/bin/{program}")]);
    }
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/noted"]);
    push(&machine, "infra", &[Text("file", "2")]);
    let second = sign(&machine, "main");
    // A graft hides the commit that nobody signed.
    push(&machine, "infra", &[Text("file", "3")]);
    push(&machine, "infra", &[Text("file", "4")]);
    let last = sign(&machine, "main");
    as_git(&machine, &format!("cd {MIRROR}; mkdir -p info; echo {last} {second} >info/grafts"));
    let run = sync(&machine, "infra").expect(5);
    assert!(run.reason().contains("is not signed"), "{}", run.reason());
    machine.ok(&["git", "-C", "/srv/origin/infra.git", "update-ref", "refs/heads/main", &second]);
    sync(&machine, "infra").expect(0);
    assert_eq!(deployed(&machine, "infra"), second);
    let noted = machine.read("/srv/noted");
    assert!(noted.contains("hub-verify "), "{noted}");
    // Whoever signs does so where the origin is.
    for line in noted.lines().filter(|line| !line.ends_with(" /srv/origin/infra.git")) {
        assert!(line.starts_with("hub-verify ") && !line.contains("mirror"), "{noted}");
    }
    // Nobody else can come near what is checked with.
    let folder = "/var/lib/observability-hub/gitops/verify";
    assert_eq!(machine.ok(&["stat", "-c", "%U:%G %a", folder]), "root:hub-verify 710\n");
    assert_eq!(machine.ok(&["find", folder, "-mindepth", "1"]), "");
    assert_eq!(machine.ok(&["id", "-Gn", "hub-verify"]), "hub-verify\n");
}

#[test]
fn the_admin_token_is_not_sent_to_whoever_listens_in_the_gateways_place() {
    let Some(machine) = Machine::boot() else { return };
    machine.ok(&["useradd", "mallory"]);
    machine.write(
        "/etc/observability-hub/hub.toml",
        "[[pipeline]]\nname = \"reading\"\nsource = \"file:/var/lib/observability-hub/reading/inbox\"\n",
    );
    machine.ok(&["install", "-d", "-o", "hub", "/var/lib/observability-hub/reading/inbox"]);
    machine.write("/etc/credstore/admin-token", "a token for the tests only");
    machine.ok(&["install", "-m", "666", "/dev/null", "/srv/heard"]);
    let server = "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:8086), Listen => 5, ReuseAddr => 1) or die;
        while (my $c = $l->accept) { open my $f, q(>>), q(/srv/heard); while (<$c>) { print $f $_; last if /^\\r/ } close $f; close $c }";
    machine.ok(&["systemd-run", "--quiet", "--unit=squatter", "--uid=mallory", "perl", "-e", server]);
    machine.wait_for("mallory to listen", crate::gitops::SOON, || {
        machine.ok(&["cat", "/proc/net/tcp"]).contains("0100007F:1F96 00000000:0000 0A")
    });
    // As the service's user in its sandbox, and as root by hand.
    machine.ok(&["systemctl", "start", "--no-block", "reading-sync.service"]);
    machine.wait_for("the run to fail", crate::gitops::SOON, || {
        machine
            .journal("reading-sync.service")
            .iter()
            .any(|line| line["MESSAGE"].to_string().contains("another user has taken"))
    });
    let run = machine.run(&["env", "CREDENTIALS_DIRECTORY=/etc/credstore", "reading-sync"]);
    assert_eq!(run.status.code(), Some(1), "{}", crate::machine::describe(&run));
    assert_eq!(machine.read("/srv/heard"), "");
    machine.ok(&["systemctl", "stop", "squatter.service", "reading-sync.service"]);
    // The gateway itself gets it.
    crate::gitops::start_hub(&machine);
    let run = machine.run(&["env", "CREDENTIALS_DIRECTORY=/etc/credstore", "reading-sync"]);
    assert_eq!(run.status.code(), Some(0), "{}", crate::machine::describe(&run));
    machine.ok(&["systemctl", "start", "reading-sync.service"]);
}
