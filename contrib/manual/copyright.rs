//! The package's copyright file: the hub's own licence, and those of the crates that are compiled into its programs, from what
//! `cargo metadata` prints and the licence files beside their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Observability Hub
Comment: The programs are linked with the crates below, each with its version
 at https://crates.io. Where a crate is under several licences, any of them may
 be chosen.
";

struct Crate {
    name: String,
    license: String,
    notices: BTreeSet<String>,
    folder: PathBuf,
}

pub fn copyright(metadata: &Value) -> Result<String, String> {
    let crates = linked(metadata)?;
    let own = notices(Path::new("."));
    let mut out = format!("{HEAD}\nFiles: *\n{}License: MIT or Apache-2.0\n", field("Copyright", &own));
    let mut alike: BTreeMap<(&str, &BTreeSet<String>), Vec<&str>> = BTreeMap::new();
    for one in &crates {
        alike.entry((&one.license, &one.notices)).or_default().push(&one.name);
    }
    for ((license, notices), names) in alike {
        let files: BTreeSet<String> = names.iter().map(|name| format!("crates/{name}/*")).collect();
        let _ = write!(out, "\n{}{}License: {license}\n", field("Files", &files), field("Copyright", notices));
    }
    let words: BTreeSet<&str> = crates.iter().flat_map(|one| ids(&one.license)).chain(["MIT", "Apache-2.0"]).collect();
    for id in words {
        match text(id, &crates) {
            Some(text) => {
                let _ = write!(out, "\nLicense: {id}\n{}", indented(&text));
            }
            // Another licence of the same crate is at hand.
            None if crates
                .iter()
                .all(|one| ids(&one.license).all(|other| other != id) || one.license.contains(" or ")) => {}
            None => return Err(format!("no file has the text of the licence {id}")),
        }
    }
    Ok(out)
}

/// The crates that are compiled into the programs: not those of tests and build scripts.
fn linked(metadata: &Value) -> Result<Vec<Crate>, String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let by_id = |all: Vec<Value>| all.into_iter().map(|one| (word(&one, "id"), one)).collect::<BTreeMap<_, _>>();
    let (packages, nodes) = (by_id(list(metadata, "packages")), by_id(list(&metadata["resolve"], "nodes")));
    let root = word(&metadata["resolve"], "root");
    let (mut waiting, mut seen, mut found) = (vec![root.clone()], BTreeSet::new(), Vec::new());
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).ok_or_else(|| format!("cargo metadata does not know {id}"))?;
        for dependency in list(node, "deps") {
            if list(&dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null()) {
                waiting.push(word(&dependency, "pkg"));
            }
        }
        let package = packages.get(&id).filter(|_| id != root);
        let Some(package) = package else { continue };
        let name = format!("{}-{}", word(package, "name"), word(package, "version"));
        let folder = Path::new(&word(package, "manifest_path")).parent().unwrap_or(Path::new("/")).to_owned();
        let mut notices = notices(&folder);
        if notices.is_empty() {
            notices = list(package, "authors").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        if notices.is_empty() {
            notices.insert(format!("the authors of {}", word(package, "name")));
        }
        let license = word(package, "license").replace('/', " OR ").replace(" OR ", " or ").replace(" AND ", " and ");
        if license.is_empty() {
            return Err(format!("{name} names no licence"));
        }
        found.push(Crate { name, license, notices, folder });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The licences of an expression.
fn ids(license: &str) -> impl Iterator<Item = &str> {
    let words = license.split([' ', '(', ')']).filter(|word| !word.is_empty());
    words.filter(|word| !["or", "and", "WITH", "LLVM-exception"].contains(word))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let names = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        names.iter().any(|start| name.starts_with(start)) && path.is_file()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    found.sort();
    found
}

/// Who holds the copyright, as the licence files have it.
fn notices(folder: &Path) -> BTreeSet<String> {
    let texts = files(folder).into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let lines = texts.flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
    let is_notice = |line: &String| {
        // The sample in the text of the Apache licence is none.
        line.starts_with("Copyright ")
            && !line.contains(['[', '{'])
            && line.contains(|c: char| c.is_ascii_digit() || c == '©')
    };
    lines.filter(is_notice).map(|line| line.trim_start_matches("Copyright ").trim().to_owned()).collect()
}

/// The text of a licence: where Debian has it, or from a crate that is under it.
fn text(id: &str, crates: &[Crate]) -> Option<String> {
    if ["Apache-2.0", "CC0-1.0", "MPL-2.0"].contains(&id) {
        let place = format!("/usr/share/common-licenses/{id}");
        return Some(format!("On Debian systems the full text of this licence is in\n{place}."));
    }
    let named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        name.contains(&id.to_uppercase()) || id == "Unlicense" && name == "UNLICENSE"
    };
    let by_name = crates.iter().find_map(|one| files(&one.folder).into_iter().find(named));
    let alone = crates.iter().filter(|one| one.license == id).find_map(|one| files(&one.folder).into_iter().next());
    let text = std::fs::read_to_string(by_name.or(alone)?).ok()?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("Copyright "));
    Some(lines.collect::<Vec<_>>().join("\n").trim().to_owned())
}

/// A field of several lines.
fn field(name: &str, lines: &BTreeSet<String>) -> String {
    format!("{name}: {}\n", lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n "))
}

/// Text as a field has it: a space before each line, and a dot in an empty one.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| if line.trim().is_empty() { " .\n".to_owned() } else { format!(" {}\n", line.trim_end()) })
        .collect()
}
