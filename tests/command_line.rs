//! What every binary does with its command line and its configuration.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod support;

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use support::Host;

/// Every binary, and the words that come before its options.
const BINARIES: [(&str, &[&str]); 3] = [("hub", &["up"]), ("proxy", &[]), ("gitops-sync", &[])];

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
    let bare = host.run("hub", &[]);
    ends_with(&bare, 2, "Usage: hub <command>");
    assert!(bare.stdout.is_empty());
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
    std::fs::write(host.path("hub.toml"), std::fs::read("contrib/hub.toml").unwrap()).unwrap();
    for binary in BINARIES {
        ends_with(&run(&host, binary, &["--check"]), 0, "hub.toml");
    }
}

#[test]
fn no_configuration_is_right_unless_one_is_named() {
    let host = Host::new();
    // Where the hub is installed its configuration is looked at, right or wrong.
    let installed = std::path::Path::new("/etc/observability-hub/hub.toml").exists();
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
    }
}

#[test]
fn a_broken_configuration_is_named_by_file_line_and_key() {
    let host = Host::new();
    let path = host.path("hub.toml").display().to_string();
    for (text, reason) in [
        ("[proxy]\n\nlistem = \"127.0.0.1:1\"", ":3: proxy.listem: unknown field"),
        ("[proxy]\nlisten = 8085", ":2: proxy.listen: invalid type"),
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
    for (binary, words) in [("proxy", &["--check"][..]), ("hub", &["up", "--check"])] {
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
