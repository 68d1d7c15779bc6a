//! The documents: their links and anchors lead somewhere, their commands are ones that the programs take, their blocks of
//! configuration are right, and what the README has a new user type works as it stands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Host, Service, eventually, free_address, git};

const PROGRAMS: [&str; 6] = ["hub", "proxy", "gitops-sync", "system-metrics", "reading-sync", "tailscale-gate"];

/// The README and everything beside it that people read, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for folder in ["contrib/doc", ".github"] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    assert!(paths.len() > 15, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of a document, with the word after their first fence, and what is outside of them.
fn parts(text: &str) -> (Vec<(String, String)>, String) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), String::new(), None);
    for line in text.lines() {
        let inner = line.trim_start();
        match (inner.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some((kind.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, block))) => *block += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    assert!(open.is_none(), "a block does not end: {open:?}");
    (blocks, prose)
}

/// The name under which a forge makes a heading an anchor.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    parts(text)
        .1
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect()
}

/// What `](…)` names, and `](…` of pictures too.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in documents() {
        for link in links(&parts(&text).1).filter(|link| !link.contains("://")) {
            let (file, name) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = if name.is_empty() {
                target.exists()
            } else {
                std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(name))
            };
            if !there {
                faults.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Every page beside the README can be reached from it, so that nobody has to look into the folder.
#[test]
fn every_page_is_reached_from_the_readme() {
    let mut found = BTreeSet::new();
    let mut left = vec![PathBuf::from("README.md")];
    while let Some(page) = left.pop() {
        if !found.insert(page.clone()) {
            continue;
        }
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            if target.extension().is_some_and(|ending| ending == "md") {
                left.push(target.canonicalize().unwrap().strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().into());
            }
        }
    }
    let lost: Vec<_> = documents().into_iter().map(|(path, _)| path).filter(|path| !found.contains(path)).collect();
    assert!(lost.iter().all(|path| path.starts_with(".github")), "{lost:?}");
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    assert!(readme.lines().count() <= 220, "{} lines", readme.lines().count());
    let long: Vec<&str> = readme.lines().filter(|line| line.chars().count() > 110).collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// The words of a command of ours in a line of a shell, without what follows it; nothing where there is none.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line.split(" # ").next()?.replace("cargo run --release --bin hub -- ", "hub ");
    let line = line.trim().trim_start_matches("sudo ");
    let end = [" | ", " && ", " || ", " > ", ";"].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
    let mut words = Vec::new();
    let mut quoted = line[..end].split('"');
    // Every second part is in quotes.
    while let Some(plain) = quoted.next() {
        words.extend(plain.split_whitespace().map(str::to_owned));
        words.extend(quoted.next().map(str::to_owned));
    }
    let program = Path::new(words.first()?).file_name()?.to_str()?.to_owned();
    words[0] = program;
    (PROGRAMS.contains(&words[0].as_str()) && words.len() > 1).then_some(words)
}

/// Commands of blocks, one a line, and of the prose, in backticks.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (blocks, prose) = parts(text);
    let shell = blocks.iter().filter(|(kind, _)| ["", "sh", "console"].contains(&kind.as_str()));
    let typed = shell.flat_map(|(_, block)| block.lines()).filter_map(command);
    typed.chain(prose.split('`').skip(1).step_by(2).filter_map(command)).collect()
}

#[test]
fn every_command_is_one_that_the_programs_take() {
    let host = Host::new();
    let (mut faults, mut known) = (Vec::new(), BTreeSet::new());
    for (path, text) in documents() {
        // What has changed names what is gone as well.
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for words in commands(&text) {
            // How a command is formed, not one that is typed; and the version is told whatever follows.
            if words[1] == "--version"
                || words.iter().any(|word| word.contains(['[', '…', '<']))
                || !known.insert(words.clone())
            {
                continue;
            }
            let mut arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
            arguments.push("--help");
            let output = host.run(&words[0], &arguments);
            if !output.status.success() || !output.stdout.starts_with(b"Usage: ") {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                faults.push(format!("{}: {}: {said}", path.display(), words.join(" ")));
            }
        }
    }
    assert!(known.len() > 40, "{known:#?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_block_of_configuration_is_right() {
    let mut count = 0;
    for (path, text) in documents() {
        for (_, block) in parts(&text).0.into_iter().filter(|(kind, _)| kind == "toml") {
            let host = Host::new();
            host.configure(&block);
            host.credential("mongo-uri", "mongodb://127.0.0.1/");
            let output = host.run("hub", &["up", "--check"]);
            let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}:\n{block}\n{said}", path.display());
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

/// What the pages give as proof is there: the files of tests, and the tests whose names they begin.
#[test]
fn every_test_that_the_pages_name_is_there() {
    let (mut faults, mut count) = (Vec::new(), 0);
    let names_tests = |path: &Path| ["security.md", "recovering.md"].iter().any(|name| path.ends_with(name));
    for (path, text) in documents().into_iter().filter(|(path, _)| names_tests(path)) {
        for line in text.lines() {
            let named = line.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") && !name.contains(' '));
            let places = |name: &str| ["tests/it", "tests", "."].map(|folder| Path::new(folder).join(name));
            let mut tests = String::new();
            for name in named {
                match places(name).iter().find(|place| place.exists()) {
                    Some(file) => tests += &std::fs::read_to_string(file).unwrap(),
                    None => faults.push(format!("{}: {name}", path.display())),
                }
                count += 1;
            }
            // In the same row more files may be named than have the test, but one has it.
            for begin in
                line.split([' ', '|', '(', ')']).filter_map(|word| word.strip_suffix("_…,").or(word.strip_suffix("_…")))
            {
                if !tests.is_empty() && !tests.contains(&format!("fn {begin}_")) {
                    faults.push(format!("{}: {begin}", path.display()));
                }
            }
        }
    }
    assert!(count > 60, "{count}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A home in which a new user types what a document has, and this checkout is `~/observability-hub`.
struct Reader {
    host: Host,
    blocks: Vec<String>,
}

impl Reader {
    /// The blocks of a chapter, one after the other.
    fn of(document: &str, heading: &str) -> Self {
        let host = Host::new();
        let programs = host.path("observability-hub/target/release");
        std::fs::create_dir_all(&programs).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hub"), programs.join("hub")).unwrap();
        let text = std::fs::read_to_string(document).unwrap();
        let begin = text.find(&format!("\n{heading}\n")).unwrap() + heading.len() + 2;
        let chapter = text[begin..].split("\n## ").next().unwrap();
        let blocks = parts(chapter.split("\n### ").next().unwrap()).0;
        Self { host, blocks: blocks.into_iter().map(|(_, block)| block).collect() }
    }

    fn shell(&self, script: &str) -> String {
        let mut shell = Command::new("bash");
        shell.args(["-euc", script]).current_dir(self.host.path("")).env("HOME", self.host.path(""));
        shell.env("HUB_STATE_DIR", self.host.path(".local/state/observability-hub")).env_remove("HUB_CONFIG");
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}\n{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Types the first block, whose last line starts `hub up`, on ports that no other test has.
    fn start(&self, configuration: &str) -> Service {
        let (before, last) = self.blocks[0].trim_end().rsplit_once('\n').unwrap();
        assert!(last.starts_with("cargo run --release --bin hub -- up --config "), "{last}");
        self.shell(before);
        let path = self.host.path(configuration);
        let text = std::fs::read_to_string(&path).unwrap();
        let ports = format!("[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
        std::fs::write(&path, text + &ports).unwrap();
        let state = self.host.path(".local/state/observability-hub");
        std::fs::create_dir_all(&state).unwrap();
        let mut command = self.host.command("hub");
        command.args(["up", "--config"]).arg(&path).env("HUB_STATE_DIR", state).env("HOME", self.host.path(""));
        let service = Service::start(command);
        service.line("up");
        service
    }
}

#[test]
fn the_two_minutes_of_the_readme_work_as_they_stand() {
    let reader = Reader::of("README.md", "## Two minutes");
    let mut up = reader.start("tour/hub.toml");
    eventually("the first run makes the checkout", || reader.host.path("tour/site/index.html").exists());
    assert!(reader.shell(&reader.blocks[1]).ends_with("\nhello again\n"));
    assert_eq!(git(&reader.host.path("tour/site"), &["log", "-1", "--format=%s"]).trim(), "second");
    up.signal("TERM");
    assert_eq!(up.wait(), Some(0));
}

#[test]
fn the_pipeline_on_files_works_as_it_stands() {
    let reader = Reader::of("contrib/doc/pipelines.md", "## On files, without any server");
    let mut up = reader.start("tour/reading.toml");
    let said = reader.shell(&reader.blocks[1]);
    assert!(said.contains("|1767528000000|{\"value\":99}\n"), "{said}");
    assert!(said.contains("a.jsonl"), "the dead letter is listed: {said}");
    up.signal("TERM");
    assert_eq!(up.wait(), Some(0));
}
