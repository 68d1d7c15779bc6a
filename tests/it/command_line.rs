//! What every binary does with its command line and its configuration.

use crate::support;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::Host;

/// Every binary, and the words that come before its options.
const BINARIES: [(&str, &[&str]); 3] = [("hub", &["up"]), ("proxy", &[]), ("gitops-sync", &[])];

/// Every program, and the words with which it checks the configuration.
const CHECKS: [(&str, &[&str]); 6] = [
    ("hub", &["up", "--check"]),
    ("proxy", &["--check"]),
    ("gitops-sync", &["--check"]),
    ("reading-sync", &["--check"]),
    ("system-metrics", &["--check"]),
    ("tailscale-gate", &["--check"]),
];

fn run(host: &Host, (binary, words): (&str, &[&str]), options: &[&str]) -> Output {
    host.run(binary, &[words, options].concat())
}

#[track_caller]
fn ends_with(output: &Output, code: i32, part: &str) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "{part:?} is not in {said}");
}

#[test]
fn help_goes_to_stdout() {
    let host = Host::new();
    for (binary, words) in BINARIES {
        for output in [host.run(binary, &["--help"]), run(&host, (binary, words), &["--help"])] {
            ends_with(&output, 0, &format!("Usage: {binary}"));
            assert!(output.stdout.starts_with(b"Usage: ") && output.stderr.is_empty());
        }
    }
    for command in ["up", "webhook-test", "deploy", "hold", "release", "retry", "log"] {
        ends_with(&host.run("hub", &[command, "--help"]), 0, "Examples:");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let host = Host::new();
    for binary in BINARIES {
        for options in [&["--nonsense"][..], &["--config"]] {
            let output = run(&host, binary, options);
            ends_with(&output, 2, options[0]);
            assert!(output.stdout.is_empty());
        }
        let odd = std::ffi::OsString::from_vec(b"--config=\xff".to_vec());
        ends_with(&host.command(binary.0).args(binary.1).arg(odd).output().unwrap(), 2, "is not UTF-8");
    }
    for words in [&["deploy"][..], &["hold"], &["release"], &["retry"], &["frobnicate"]] {
        assert_eq!(host.run("hub", words).status.code(), Some(2), "{words:?}");
    }
    for (words, named) in [
        (&["deploy"][..], "hub deploy"),
        (&["dead-letters", "show", "--all"], "hub dead-letters show"),
        (&["versions", "a/b", "c d"], "hub versions"),
        (&["--nonsense"], "hub"),
    ] {
        ends_with(&host.run("hub", words), 2, &format!("Run {named} --help for more information."));
    }
    let bare = host.run("hub", &[]);
    ends_with(&bare, 2, "Usage: hub <command>");
    assert!(bare.stdout.is_empty());
}

#[test]
fn every_program_tells_its_version() {
    let host = Host::new();
    for (binary, _) in CHECKS {
        for flag in ["--version", "-V"] {
            let output = host.run(binary, &[flag]);
            ends_with(&output, 0, "");
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{binary} {}\n", observability_hub::VERSION));
        }
        ends_with(&host.run(binary, &["--version", "--config", "/nonexistent"]), 0, observability_hub::VERSION);
        let help = host.run(binary, &["--help"]);
        ends_with(&help, 0, &format!("--version, -V     display the version: {}\n", observability_hub::VERSION));
    }
    for (program, words) in [("hub", &["-h"][..]), ("hub", &["status", "-h"]), ("proxy", &["-h"])] {
        let output = host.run(program, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("  --help, -h, help  display usage"), "{text}");
    }
    // Behind an option it is that one's.
    assert_eq!(host.run("hub", &["hold", "--reason", "-h"]).status.code(), Some(2));
    ends_with(&host.run("hub", &[]), 2, "--version, -V ");
    // It is the program's, not a command's.
    for (binary, command) in [("hub", "status"), ("tailscale-gate", "close")] {
        let help = host.run(binary, &[command, "--help"]);
        assert!(!String::from_utf8_lossy(&help.stdout).contains("--version"), "{command}");
    }
}

#[test]
fn check_reads_the_token_that_a_start_needs() {
    let host = Host::new();
    host.configure("");
    for (content, reason) in
        [("", "is empty; make one"), ("\n", "is empty; make one"), (&*"x".repeat(100_000), "longer than")]
    {
        host.credential("admin-token", content);
        for binary in ["reading-sync", "proxy"] {
            ends_with(&host.run(binary, &["--check"]), 78, "admin-token");
            ends_with(&host.run(binary, &["--check"]), 78, reason);
        }
        ends_with(&host.run("reading-sync", &[]), 78, reason);
    }
    host.credential("admin-token", "token\n");
    for binary in ["reading-sync", "proxy"] {
        ends_with(&host.run(binary, &["--check"]), 0, "is valid");
    }
}

#[test]
fn a_wrong_command_is_answered_with_the_commands() {
    let host = Host::new();
    let output = host.run("hub", &["bogus"]);
    ends_with(&output, 2, "there is no command \"bogus\"; write one of init, up, status, doctor, webhook-test,");
    ends_with(&output, 2, "admin-token, database, log");
}

#[test]
fn what_would_be_ignored_is_refused() {
    let host = Host::new();
    host.configure("");
    ends_with(&host.run("system-metrics", &["--format", "prometheus"]), 2, "add --print");
    assert_eq!(std::fs::read_dir(host.state()).unwrap().count(), 0, "nothing is measured");
    host.configure("[[pipeline]]\nname = \"reading\"\nsource = \"file:/nonexistent\"\n");
    for (url, reason) in [("foo", "does not begin with http://"), ("https://x", "http://"), ("http://[", "not a URL")] {
        ends_with(&host.run("reading-sync", &["--url", url]), 2, reason);
    }
}

#[test]
fn reading_sync_says_at_once_that_it_waits_for_the_proxy() {
    let host = Host::new();
    let address = support::free_address();
    let pipeline = "[[pipeline]]\nname = \"reading\"\nsource = \"file:/nonexistent\"\n";
    host.configure(&format!("[proxy]\nadmin_listen = \"{address}\"\n{pipeline}"));
    let url = format!("http://{address}");
    let output = host.run("reading-sync", &["--url", &url, "--deadline", "2"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("proxy_unreachable").count(), 1, "{said}");
    ends_with(&output, 1, &format!("\"msg\":\"proxy_unreachable\",\"url\":\"{url}\",\"seconds\":2"));
    ends_with(&output, 1, "sync_failed");
    assert!(!host.state().join("reading").exists(), "another proxy may be meant, whose runs are not this host's");
    ends_with(&host.run("reading-sync", &["--deadline", "1"]), 1, "sync_failed");
    let record = host.json("state/reading/run.json");
    assert_eq!((&record["status"], &record["details"]["pipeline"]), (&"failed".into(), &"reading".into()));
    assert!(record["error"].as_str().unwrap().contains("does not answer"), "{record}");
}

#[test]
fn dead_letters_without_a_pipeline_name_none() {
    let host = Host::new();
    host.configure("");
    ends_with(&host.run("hub", &["dead-letters"]), 2, "no pipeline is configured");
}

#[test]
fn an_environment_that_cannot_be_right_is_refused_by_every_program() {
    let host = Host::new();
    host.configure("");
    for (binary, words) in CHECKS {
        for (name, value, reason) in [
            ("HUB_STATE_DIR", "rel/state", "environment HUB_STATE_DIR: \\\"rel/state\\\" is not an absolute path"),
            ("BATCH_SIZE", "0", "environment BATCH_SIZE: \\\"0\\\" is no size of a batch"),
        ] {
            let mut command = host.command(binary);
            ends_with(&command.args(words).env(name, value).current_dir(host.path(".")).output().unwrap(), 78, reason);
        }
    }
    assert!(!host.path("rel").exists());
}

#[test]
fn a_short_secret_is_named_by_file_and_line() {
    let host = Host::new();
    host.configure("");
    host.credential("webhook-secret", "0123456789abcdef\nshort\n");
    let output = host.run("proxy", &["--check"]);
    ends_with(&output, 78, &format!("{}:2: has 5 bytes", host.state().join("credentials/webhook-secret").display()));
}

#[test]
fn the_version_names_the_commit_of_a_clone_and_of_a_tarball() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let run = |folder: &Path, program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(Path::new("."), "rustc", &["--edition", "2024", "-o", at("build").to_str().unwrap(), "build.rs"]);
    let version = |folder: &Path| {
        let mut build = Command::new(at("build"));
        build.current_dir(folder).env("CARGO_MANIFEST_DIR", folder).env("CARGO_PKG_VERSION", "1.2.3");
        let said = String::from_utf8(build.output().unwrap().stdout).unwrap();
        said.lines().find_map(|line| line.strip_prefix("cargo:rustc-env=HUB_VERSION=")).unwrap().to_owned()
    };
    let clone = at("clone");
    std::fs::create_dir_all(clone.join("contrib")).unwrap();
    for file in [".gitattributes", "contrib/commit"] {
        std::fs::copy(file, clone.join(file)).unwrap();
    }
    assert_eq!(version(&clone), "1.2.3");
    run(&clone, "git", &["init", "--quiet"]);
    run(&clone, "git", &["add", "."]);
    let person = ["-c", "user.name=T", "-c", "user.email=t@example.org"];
    // The day is the committer's, in a tarball too.
    let date = "--date=2026-11-30T00:30:00+0100";
    let mut commit = Command::new("git");
    commit
        .args(person)
        .args(["commit", "--quiet", "-m", "x", date])
        .env("GIT_COMMITTER_DATE", "2026-11-30T00:30:00+0100");
    assert!(commit.current_dir(&clone).status().unwrap().success());
    let hash = run(&clone, "git", &["rev-parse", "--short=7", "HEAD"]);
    assert_eq!(version(&clone), format!("1.2.3+20261130.{}", hash.trim()));

    // Unpacked in another repository, whose commit it is not.
    let tarball = clone.join("tarball");
    std::fs::create_dir(&tarball).unwrap();
    let archive = at("archive.tar");
    run(&clone, "git", &["archive", "-o", archive.to_str().unwrap(), "HEAD"]);
    run(&tarball, "tar", &["-xf", archive.to_str().unwrap()]);
    assert_eq!(version(&tarball), format!("1.2.3+20261130.{}", hash.trim()));
    std::fs::copy("contrib/commit", tarball.join("contrib/commit")).unwrap();
    assert_eq!(version(&tarball), "1.2.3");
}

/// The example with its keys in force: there a `#` stands directly before a key, a sentence has a space between.
pub fn example() -> String {
    let text = std::fs::read_to_string("contrib/hub.toml").unwrap();
    let key = |line: &str| {
        line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', ':'])).map(|rest| format!("{rest}\n"))
    };
    text.lines().filter_map(key).collect()
}

#[test]
fn check_says_whether_the_configuration_is_right() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\n");
    let path = host.path("hub.toml").display().to_string();
    for binary in BINARIES {
        ends_with(&run(&host, binary, &["--check"]), 0, &path);
        ends_with(&run(&host, binary, &["--check", "--config", &path]), 0, &path);
    }
    assert_eq!(std::fs::read_dir(host.state()).unwrap().count(), 0, "a check leaves nothing behind");
}

#[test]
fn the_example_configuration_is_right() {
    let host = Host::new();
    for text in [example(), std::fs::read_to_string("contrib/hub.toml").unwrap()] {
        host.configure(&text);
        for binary in BINARIES {
            ends_with(&run(&host, binary, &["--check"]), 0, "hub.toml");
        }
    }
}

#[test]
fn no_configuration_is_right_unless_one_is_named() {
    let host = Host::new();
    // Where the hub is installed its configuration is looked at, right or wrong.
    let installed = Path::new("/etc/observability-hub/hub.toml").exists();
    for binary in BINARIES {
        let output = run(&host, binary, &["--check"]);
        if installed {
            ends_with(&output, output.status.code().unwrap(), "/etc/observability-hub/hub.toml");
        } else {
            ends_with(&output, 0, "default");
        }
        let missing = host.path("missing.toml").display().to_string();
        ends_with(&run(&host, binary, &["--check", "--config", &missing]), 78, &format!("{missing}: no such file"));
        ends_with(&run(&host, binary, &["--config", &missing]), 78, "no such file");
        ends_with(&run(&host, binary, &["--check", "--config", ""]), 78, "--config is empty; name a file");
    }
}

#[test]
fn a_broken_configuration_is_named_by_file_line_and_key() {
    let host = Host::new();
    let path = host.path("hub.toml").display().to_string();
    for (text, reason) in [
        ("[proxy]\n\nlistem = \"127.0.0.1:1\"", ":3: proxy.listem: unknown field"),
        ("[proxy]\nlisten = 8085", ":2: proxy.listen: is the number 8085; write text in quotes"),
        ("[gate]\nport = 80", ":2: gate.port: 80 cannot be a funnel's port"),
        ("[[repository]]\nname = \"infra\"\nurl = \"/x\"\npath = \"/y\"", ":2: repository[0].name: "),
        ("not toml", ":1: not TOML"),
    ] {
        host.configure(text);
        for binary in BINARIES {
            for options in [&["--check"][..], &[]] {
                ends_with(&run(&host, binary, options), 78, &format!("{path}{reason}"));
            }
        }
        ends_with(&host.run("hub", &["deploy", "acme/infra"]), 78, reason);
        ends_with(&host.run("hub", &["webhook-test"]), 78, reason);
    }
}

#[test]
fn a_port_in_the_environment_is_checked_too() {
    let host = Host::new();
    for (binary, words) in BINARIES {
        let output = host.command(binary).args(words).arg("--check").env("PORT", "eighty").output().unwrap();
        ends_with(&output, 78, "environment PORT: \\\"eighty\\\" is not a port");
    }
}

#[test]
fn root_does_not_obey_a_file_that_others_can_write() {
    let host = Host::new();
    host.configure("");
    let file = host.path("hub.toml");
    let is_root = rustix::process::geteuid().is_root();
    for mode in [0o664, 0o646] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        for binary in BINARIES {
            let output = run(&host, binary, &["--check"]);
            if is_root {
                ends_with(&output, 78, "can be written by group or others, and root obeys it; run: chmod go-w");
            } else {
                ends_with(&output, 0, "hub.toml");
            }
        }
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    if is_root {
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        for binary in BINARIES {
            ends_with(&run(&host, binary, &["--check"]), 78, "does not belong to root");
        }
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        // Nor one in a folder of another's, or of a group's, or at the end of another's link: it could be put there.
        let (inner, link) = (host.path("inner"), host.path("link"));
        std::fs::create_dir(&inner).unwrap();
        let there = inner.join("hub.toml");
        std::fs::copy(&file, &there).unwrap();
        std::os::unix::fs::symlink(&there, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        let says = |path: &Path, code: i32, text: &str| {
            for (binary, words) in BINARIES {
                let output = host.command(binary).args(words).args(["--check", "--config"]).arg(path).output().unwrap();
                ends_with(&output, code, text);
            }
        };
        says(&link, 78, "is a link of");
        says(&there, 0, "is valid");
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o775)).unwrap();
        says(&there, 78, "others than its owner can write it");
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&inner, Some(65534), None).unwrap();
        says(&there, 78, "it belongs to");
    }
}

/// What a test of answers that nobody takes asks for.
const ANSWERS: [(&str, &[&str]); 9] = [
    ("hub", &["--help"]),
    ("proxy", &["--help"]),
    ("gitops-sync", &["--help"]),
    ("reading-sync", &["--help"]),
    ("system-metrics", &["--help"]),
    ("tailscale-gate", &["--check"]),
    ("hub", &["status"]),
    ("hub", &["status", "--json"]),
    ("hub", &["doctor"]),
];

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n");
    for (binary, words) in ANSWERS {
        let expected = host.run(binary, words).status.code();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = host.command(binary).args(words).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), expected, "{binary} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = host.command(binary).args(words).stdout(full).output().unwrap();
        ends_with(&output, 1, "the answer cannot be written: No space left on device");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn check_refuses_a_database_that_nothing_could_open() {
    let host = Host::new();
    host.configure("[database]\nurl = \"postgres://u:SEKRET@h:99999/x?foo=bar\"\n[[pipeline]]\nname = \"reading\"\n");
    for (binary, words) in [("proxy", &["--check"][..]), ("system-metrics", &["--check"]), ("hub", &["up", "--check"])]
    {
        let output = host.run(binary, words);
        ends_with(&output, 78, "database.url: ");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("SEKRET"));
    }
}

#[test]
fn check_refuses_an_address_of_mongodb_and_a_secret_that_cannot_be_right() {
    let host = Host::new();
    let sources = "[[pipeline]]\nname = \"reading\"\nsource = \"mongodb\"\n";
    host.configure(sources);
    for (binary, words) in [("proxy", &["--check"][..]), ("hub", &["up", "--check"]), ("hub", &["--check"])] {
        ends_with(&host.run(binary, words), 0, "hub.toml");
        for (name, value) in [("MONGO_URI", "garbage"), ("BATCH_SIZE", "many")] {
            let output = host.command(binary).args(words).env(name, value).output().unwrap();
            ends_with(&output, 78, name);
            assert!(!String::from_utf8_lossy(&output.stdout).contains("garbage"), "it may be a password");
        }
    }
    host.credential("webhook-secret", "short");
    for words in [&["--check"][..], &[]] {
        ends_with(&host.run("tailscale-gate", words), 78, "webhook-secret");
    }
    let closed = host.run("tailscale-gate", &["close"]);
    assert_ne!(closed.status.code(), Some(78), "closing works whatever is wrong");
}
