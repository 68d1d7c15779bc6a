//! Private repositories on real servers, through the packaged worker's sandbox: sshd, and git's own HTTP backend behind
//! a web server with TLS. Keys and tokens come by `LoadCredential=`.

use crate::gitops::{SOON, Text, configure, deliver, push, repository, service, show, start_hub, wait_deployed};
use crate::journal::{complains, nothing_denied};
use crate::machine::Machine;
use crate::support::authority::Authority;

const WORKER: &str = "gitops-sync.service";
const TOKEN: &str = "tok3n-of-the-test";

/// As [`repository`], on another way to its origin.
fn remote(name: &str, url: &str, more: &str) -> String {
    repository(name, more).replace(&format!("/srv/origin/{name}.git"), url)
}

/// An sshd for root's repositories; the client's key is in /srv/key.
fn start_sshd(machine: &Machine) {
    machine.ok(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/srv/key"]);
    machine.ok(&["install", "-D", "-m", "0600", "/srv/key.pub", "/root/.ssh/authorized_keys"]);
    machine.ok(&["systemctl", "start", "ssh.service"]);
    let key = machine.read("/etc/ssh/ssh_host_ed25519_key.pub");
    machine.write("/etc/observability-hub/known_hosts", format!("localhost {key}"));
}

/// A web server that lets in who has TOKEN, as `git help http-backend` sets it up.
fn start_https(machine: &Machine, authority: &Authority) {
    let (certificate, key) = authority.certificate(&["localhost"]);
    machine.write("/etc/lighttpd/server.pem", certificate + &key);
    machine.write("/etc/lighttpd/users", format!("x-access-token:{TOKEN}\n"));
    machine.write(
        "/etc/lighttpd/lighttpd.conf",
        r#"server.modules = ("mod_auth", "mod_authn_file", "mod_setenv", "mod_alias", "mod_cgi", "mod_openssl")
server.document-root = "/srv/empty"
server.port = 443
ssl.engine = "enable"
ssl.pemfile = "/etc/lighttpd/server.pem"
auth.backend = "plain"
auth.backend.plain.userfile = "/etc/lighttpd/users"
auth.require = ("/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
alias.url = ("/git" => "/usr/lib/git-core/git-http-backend")
setenv.set-environment = ("GIT_PROJECT_ROOT" => "/srv/origin", "GIT_HTTP_EXPORT_ALL" => "1")
cgi.assign = ("git-http-backend" => "")
"#,
    );
    machine.ok(&["mkdir", "-p", "/srv/empty"]);
    machine.ok(&["systemctl", "start", "lighttpd.service"]);
}

#[test]
fn the_packaged_worker_fetches_over_ssh_and_https_with_keys_and_tokens_by_loadcredential() {
    let Some(machine) = Machine::boot() else { return };
    let authority = Authority::new();
    let limit = "[gitops]\nfetch_timeout_seconds = 4\n".to_owned();
    let ssh = remote("ssh", "ssh://root@localhost/srv/origin/ssh.git", "ssh_key = \"infra-key\"");
    let https = remote("https", "https://localhost/git/https.git", "token = \"infra-token\"");
    configure(&machine, &[limit, ssh, https]);
    for name in ["ssh", "https"] {
        push(&machine, name, &[Text(&format!("systemd/{name}-app.service"), &service(name, "1"))]);
    }
    start_sshd(&machine);
    start_https(&machine, &authority);
    start_hub(&machine);

    // Files are there, but the unit does not load them: the reason says what is missing.
    machine.ok(&["install", "-m", "0600", "/srv/key", "/etc/credstore/infra-key"]);
    machine.write("/etc/credstore/infra-token", TOKEN);
    for (name, credential) in [("ssh", "infra-key"), ("https", "infra-token")] {
        deliver(&machine, name);
        machine.wait_for("the refusal", SOON, || show(&machine, WORKER, "Result") == "exit-code");
        complains(&machine, WORKER, &format!("LoadCredential={credential}"));
        machine.ok(&["systemctl", "reset-failed", WORKER]);
    }
    machine.write(
        "/etc/systemd/system/gitops-sync.service.d/credentials.conf",
        "[Service]\nLoadCredential=infra-key\nLoadCredential=infra-token\n",
    );
    machine.ok(&["systemctl", "daemon-reload"]);

    // What waits is tried again with it. Nobody vouches for the web server yet.
    let commits = ["ssh", "https"].map(|name| push(&machine, name, &[Text("note", name)]));
    deliver(&machine, "ssh");
    wait_deployed(&machine, "ssh", &commits[0]);
    assert_eq!(show(&machine, "ssh-app.service", "ActiveState"), "active");
    assert_eq!(show(&machine, WORKER, "Result"), "exit-code");
    complains(&machine, WORKER, "update-ca-certificates");
    machine.write("/usr/local/share/ca-certificates/forge.crt", authority.pem());
    machine.ok(&["update-ca-certificates"]);
    deliver(&machine, "https");
    wait_deployed(&machine, "https", &commits[1]);
    assert_eq!(show(&machine, "https-app.service", "ActiveState"), "active");

    // Nothing of a secret stays, and no sandbox was in the way.
    let left =
        machine.run(&["grep", "-rlaF", TOKEN, "/var/lib/observability-hub", "/srv/https", "/run/log", "/var/log"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    assert_eq!(machine.ok(&["find", "/var/lib/observability-hub/gitops/access", "-mindepth", "1"]), "");
    nothing_denied(&machine, &["proxy.service", WORKER]);
}
