//! The manual pages and the completions, as `contrib/manual` makes them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::support::Host;
use crate::support::example::example;
use crate::support::skip::skip;

const PROGRAMS: [(&str, u8); 6] =
    [("hub", 1), ("proxy", 8), ("gitops-sync", 8), ("reading-sync", 8), ("system-metrics", 8), ("tailscale-gate", 8)];

/// The folder with everything that is made.
pub fn made() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, Output)> = OnceLock::new();
    let (folder, output) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(example("manual")).arg(folder.path()).stdin(Stdio::null()).output().unwrap();
        (folder, output)
    });
    // It refuses a flag without a sentence, and a value of which nobody says what a shell offers for it.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.path()
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let sections = std::fs::read_dir(folder.join("man")).unwrap();
    let files = sections.flat_map(|section| std::fs::read_dir(section.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

fn page(folder: &Path, name: &str, section: u8) -> String {
    // Without what roff needs.
    let text = std::fs::read_to_string(folder.join(format!("man/man{section}/{name}.{section}"))).unwrap();
    text.replace("\\-", "-").replace("\\%", "").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
}

/// The options that a help lists.
fn options(help: &[u8]) -> Vec<String> {
    let help = String::from_utf8_lossy(help).into_owned();
    let first = |line: &str| line.trim_start().split([' ', ',']).next().unwrap_or_default().to_owned();
    help.lines().filter(|line| line.starts_with("  -")).map(first).collect()
}

#[test]
fn every_program_and_command_has_a_page_with_its_options() {
    let folder = made();
    let host = Host::new();
    for (program, section) in PROGRAMS {
        let help = host.run(program, &["--help"]);
        let text = page(folder, program, section);
        for option in options(&help.stdout) {
            assert!(text.contains(&option), "{program}: {option}");
        }
    }
    let help = String::from_utf8_lossy(&host.run("hub", &["--help"]).stdout).into_owned();
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let commands = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 20 && !commands.contains(&"names"), "{commands:?}");
    for command in commands {
        let text = page(folder, &format!("hub-{command}"), 1);
        for option in options(&host.run("hub", &[command, "--help"]).stdout) {
            assert!(text.contains(&option), "hub {command}: {option}");
        }
        assert!(text.contains(".SH \"EXIT STATUS\"") && text.contains("The configuration is wrong."), "hub {command}");
    }
}

#[test]
fn the_pages_have_no_fault_that_mandoc_knows() {
    let folder = made();
    if Command::new("mandoc").arg("-h").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err() {
        skip("manual pages", "there is no mandoc");
        return;
    }
    let output = Command::new("mandoc").args(["-T", "lint", "-W", "all"]).args(pages(folder)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(output.status.success());
}

/// What bash offers for a line, with the cursor at its end.
fn offered(host: &Host, folder: &Path, line: &str) -> Vec<String> {
    let program = line.split(' ').next().unwrap();
    let hub = Path::new(env!("CARGO_BIN_EXE_hub")).parent().unwrap();
    let script = format!(
        "PATH={}:$PATH; . {}; COMP_LINE=$1; COMP_POINT=${{#COMP_LINE}}; _{}; (( ${{#COMPREPLY[@]}} == 0 )) || printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        hub.display(),
        folder.join("bash").join(program).display(),
        program.replace('-', "_"),
    );
    let mut bash = Command::new("bash");
    bash.env("HUB_CONFIG", host.path("hub.toml")).env("HUB_STATE_DIR", host.state()).stdin(Stdio::null());
    let output = bash.args(["--norc", "-c", &script, "bash", line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_names() {
    let folder = made();
    let host = Host::new();
    let repository = |id: &str| {
        let folder = id.replace(['/', '@'], "-");
        format!(
            "[[repository]]\nname = \"acme/infra\"\nid = \"{id}\"\nurl = \"/srv/x\"\npath = \"/srv/{folder}\"\nbranch = \"{folder}\"\n"
        )
    };
    let names = repository("acme/infra") + &repository("acme/infra@staging") + &repository("zeta/site");
    host.configure(
        &(names + "[[pipeline]]\nname = \"reading\"\n[[pipeline]]\nname = \"orders\"\ntable = \"orders\"\n"),
    );
    for (line, expected) in [
        ("hub rollb", &["rollback"][..]),
        ("hub status --j", &["--json"]),
        ("hub deploy ", &["acme/infra", "acme/infra@staging", "zeta/site"]),
        ("hub deploy z", &["zeta/site"]),
        // readline has what stands before the @ already.
        ("hub deploy acme/infra@", &["@staging"]),
        // As people quote, and behind words with spaces.
        ("hub deploy \"z", &["zeta/site"]),
        ("hub deploy 'z", &["zeta/site"]),
        ("hub hold --reason \"a b c\" z", &["zeta/site"]),
        ("hub hold --reason it\\'s\\ late z", &["zeta/site"]),
        ("hub rollback zeta/site ", &[]),
        ("hub dead-letters --pipeline ", &["reading", "orders"]),
        ("hub dead-letters retry --as=r", &["reading"]),
        ("hub database re", &["recover"]),
        ("hub log --service prox", &["proxy"]),
        ("gitops-sync zeta/site acme/infra@", &["@staging"]),
        ("reading-sync --pipeline o", &["orders"]),
        ("system-metrics --print --format p", &["prometheus"]),
        ("tailscale-gate al", &["allow"]),
        ("proxy --ch", &["--check"]),
    ] {
        assert_eq!(offered(&host, folder, line), expected, "{line}");
    }
    // A file that is wrong, or that may not be read, completes nothing and says nothing.
    for text in ["nonsense", "[proxy]\nlistem = 1\n"] {
        host.configure(text);
        assert_eq!(offered(&host, folder, "hub deploy "), [""; 0]);
        assert_eq!(offered(&host, folder, "hub deploy --config /nonexistent "), [""; 0]);
    }
}

#[test]
fn the_completions_of_fish_and_zsh_can_be_read() {
    let folder = made();
    for (shell, check, place) in [("fish", "--no-execute", "fish"), ("zsh", "-n", "zsh"), ("bash", "-n", "bash")] {
        if Command::new(shell).arg("--version").stdout(Stdio::null()).status().is_err() {
            continue;
        }
        for file in std::fs::read_dir(folder.join(place)).unwrap() {
            let path = file.unwrap().path();
            let output = Command::new(shell).arg(check).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
}
