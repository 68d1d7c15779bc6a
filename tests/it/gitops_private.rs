//! Private repositories: by ssh key with pinned host keys, by token; no secret in an argument, a log, the mirror or state.
#![allow(clippy::type_complexity, reason = "a test may fail anywhere")]

use crate::support;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::eventually;
use crate::support::gitops::{REPO, Ran, Site, names, ran, skip, user_name};

const TOKEN: &str = "tok3n/with+odd%characters:and@more";

/// Where a text stands among the arguments and environments of all processes.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let content = std::fs::read(entry.path().join(file)).unwrap_or_default();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(format!("{}: {}", entry.path().join(file).display(), String::from_utf8_lossy(&content)));
            }
        }
    }
    found
}

/// Files below a folder that contain a text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// An HTTP server for git that wants TOKEN as the password, and looks around for it whenever it is asked something.
struct Server {
    port: u16,
    leaks: Arc<Mutex<Vec<String>>>,
    /// The longest mode of a file with the secret that was seen: it must be for its owner only.
    open_files: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(root: PathBuf, state: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (leaks, open_files): (Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>) = Default::default();
        let (seen, open) = (leaks.clone(), open_files.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut leaks = processes_with(TOKEN);
                leaks.extend(processes_with("tok3n%2Fwith"));
                seen.lock().unwrap().extend(leaks);
                for path in files_with(&state.join("gitops"), "tok3n") {
                    let folder = path.parent().unwrap();
                    for part in [path.as_path(), folder] {
                        let mode = std::fs::metadata(part).map_or(0, |found| found.permissions().mode());
                        if mode & 0o077 != 0 {
                            open.lock().unwrap().push(format!("{} {mode:o}", part.display()));
                        }
                    }
                }
                // A client that went away is no business of the test.
                let _ = answer(stream.unwrap(), &root);
            }
        });
        Self { port, leaks, open_files }
    }
}

fn answer(stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let of = |line: &String| {
            line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
        };
        lines.iter().find_map(of).unwrap_or_default()
    };
    let expected = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().and_then(
        |mut child| {
            child.stdin.take().unwrap().write_all(format!("x-access-token:{TOKEN}").as_bytes())?;
            child.wait_with_output()
        },
    )?;
    if header("authorization") != format!("Basic {}", String::from_utf8_lossy(&expected.stdout)) {
        return stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&body)?;
    let output = child.wait_with_output()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")?;
    stream.write_all(&output.stdout)
}

/// What `hub doctor` says of a remote that lets it in with the credential of hub.toml.
fn doctor_finds_the_branch(site: &Site) -> String {
    let output = site.host.run("hub", &["doctor", "--json"]);
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("answers and has the branch main"), "{said}");
    said
}

#[test]
fn a_token_opens_a_private_repository_and_is_seen_nowhere() {
    let site = Site::new();
    let server = Server::start(site.host.path(""), site.host.state());
    let url = format!("http://127.0.0.1:{}/origin.git", server.port);
    let configure = |lines: &str| site.configure_url(&url, "fetch_timeout_seconds = 4", lines);
    configure("");
    site.sync().expect(1, "failed").says("name a credential with token");
    configure("token = \"infra-token\"");
    site.sync().expect(1, "failed").says("credential infra-token: is missing").says("LoadCredential=infra-token");
    site.host.credential("infra-token", "wrong-token-wrong-token\n");
    let run = site.sync().expect(1, "failed").says("put a valid one into the credential");
    assert!(!run.log.contains("wrong-token"), "{}", run.log);
    site.host.credential("infra-token", &format!("{TOKEN}\n"));
    let first = site.sync().expect(0, "deployed");
    let tip = site.origin.push(&[("README", "two\n")]);
    let second = site.sync().expect(0, "deployed");
    site.assert_exactly(&tip);
    let said = doctor_finds_the_branch(&site);
    assert!(!said.contains("tok3n"), "{said}");
    for run in [&first, &second] {
        assert!(!run.log.contains("tok3n") && !run.report.to_string().contains("tok3n"), "{run:#?}");
    }
    assert_eq!(*server.leaks.lock().unwrap(), [] as [String; 0]);
    assert_eq!(*server.open_files.lock().unwrap(), [] as [String; 0]);
    assert_eq!(files_with(&site.state(""), "tok3n"), [] as [PathBuf; 0]);
    assert_eq!(files_with(&site.checkout, "tok3n"), [] as [PathBuf; 0]);
    assert_eq!(names(&site.state("mirror")), ["acme__infra.git"]);
}

#[test]
fn a_token_that_a_killed_run_left_is_removed() {
    let site = Site::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://127.0.0.1:{}/origin.git", silent.local_addr().unwrap().port());
    site.host.credential("infra-token", TOKEN);
    site.configure_url(&hangs, "", "token = \"infra-token\"");
    let mut child = site.host.command("gitops-sync").arg(REPO).stdout(Stdio::null()).spawn().unwrap();
    let left = site.state("access/acme__infra/token");
    eventually("the token is handed over", || left.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(left.exists());
    // As an earlier version left one.
    std::fs::create_dir(site.state("mirror/.access-acme__infra")).unwrap();
    std::fs::copy(&left, site.state("mirror/.access-acme__infra/token")).unwrap();
    // Even where the repository needs no token any more.
    site.configure("", "");
    site.sync().expect(0, "deployed");
    assert!(!left.exists());
    assert_eq!(files_with(&site.state(""), "tok3n"), [] as [PathBuf; 0]);
}

/// An sshd of the test's own.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    fn start(site: &Site, test: &str) -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() || Command::new("ssh").arg("-V").output().is_err() {
            skip(test, "sshd; run: apt-get install openssh-server");
            return None;
        }
        if support::gitops::is_root() {
            // sshd's privilege separation wants it; the package's unit makes it at start.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        for key in ["host", "other-host", "client", "other-client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(site.host.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        std::fs::copy(site.host.path("client.pub"), site.host.path("authorized")).unwrap();
        let port = support::free_address().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            site.host.path("host").display(),
            site.host.path("authorized").display()
        );
        std::fs::write(site.host.path("sshd_config"), config).unwrap();
        let child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(site.host.path("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { child, port };
        eventually("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(sshd)
    }

    fn pin(&self, site: &Site, key: &str) {
        let public = std::fs::read_to_string(site.host.path(&format!("{key}.pub"))).unwrap();
        std::fs::write(site.host.path("known_hosts"), format!("[127.0.0.1]:{} {public}", self.port)).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_ssh_key_opens_a_private_repository_of_a_pinned_host() {
    let site = Site::new();
    let Some(sshd) = Sshd::start(&site, "an_ssh_key_opens_a_private_repository_of_a_pinned_host") else { return };
    let url = format!("ssh://{}@127.0.0.1:{}{}", user_name(), sshd.port, site.origin.url());
    let known = format!("fetch_timeout_seconds = 4\nknown_hosts = \"{}\"", site.host.path("known_hosts").display());
    site.configure_url(&url, &known, "ssh_key = \"infra-key\"");
    sshd.pin(&site, "host");
    site.sync().expect(1, "failed").says("credential infra-key: is missing").says("LoadCredential=infra-key");
    let secret = |name: &str| std::fs::read_to_string(site.host.path(name)).unwrap();
    // Credentials are often written without the newline that ssh wants.
    site.host.credential("infra-key", secret("client").trim_end());
    site.sync().expect(0, "deployed");
    let tip = site.origin.push(&[("README", "two\n")]);
    site.sync().expect(0, "deployed");
    site.assert_exactly(&tip);
    let said = doctor_finds_the_branch(&site);
    assert!(said.contains("is pinned in") && !said.contains("PRIVATE KEY"), "{said}");
    let stays = |part: &str| -> Ran {
        let run = site.sync().expect(1, "failed").says(part);
        assert_eq!(site.head(), tip);
        run
    };
    site.origin.push(&[("README", "three\n")]);
    sshd.pin(&site, "other-host");
    stays("the host's key is not the one in");
    std::fs::remove_file(site.host.path("known_hosts")).unwrap();
    stays("compare it with what the forge publishes");
    sshd.pin(&site, "host");
    site.host.credential("infra-key", &secret("other-client"));
    stays("the forge does not take the key");
    let line = secret("client").lines().nth(2).unwrap().to_owned();
    assert_eq!(files_with(&site.state(""), &line), [] as [PathBuf; 0]);
    assert_eq!(names(&site.state("mirror")), ["acme__infra.git"]);
    site.host.credential("infra-key", &secret("client"));
    site.sync().expect(0, "deployed");
}

#[test]
fn ssh_asks_nobody_and_obeys_no_other_configuration() {
    let site = Site::new();
    // A program in the place of ssh notes what it was asked to do.
    let bin = site.host.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let arguments = site.host.path("arguments");
    std::fs::write(
        bin.join("ssh"),
        format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {0}\nenv >> {0}\nexit 1\n", arguments.display()),
    )
    .unwrap();
    std::fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    site.configure_url("git@example.org:acme/infra.git", "fetch_timeout_seconds = 1", "");
    let mut command = site.host.command("gitops-sync");
    command.args(["--json", REPO]).env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.env("SSH_AUTH_SOCK", "/tmp/agent").env("GIT_SSH_COMMAND", "false").env("GIT_DIR", "/nonexistent");
    ran(command).expect(1, "failed");
    let text = std::fs::read_to_string(&arguments).unwrap();
    for part in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/etc/observability-hub/known_hosts",
        "-F\n/dev/null",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("SSH_AUTH_SOCK") && !text.contains("/nonexistent\n"), "{text}");
}
