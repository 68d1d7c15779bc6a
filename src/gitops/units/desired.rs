use std::collections::BTreeMap;

use super::{is_unit_name, template_of, unit_of};
use crate::gitops::Error;
use crate::gitops::mirror::Mirror;
use crate::gitops::objects::TreeEntry;

/// A unit file is a page; a drop-in a few lines.
const LARGEST_FILE: u64 = 256 << 10;
/// More files than this in one repository are a mistake.
const MOST_FILES: usize = 1000;

/// The unit files that a commit wants, by their place below the units folder.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Desired {
    /// `app.service`, `app.service.d/limits.conf`
    pub files: BTreeMap<String, UnitFile>,
    /// Why nothing may be deployed, one sentence each.
    pub problems: Vec<String>,
}

/// One unit file of a commit.
#[derive(Clone, Debug)]
pub(in crate::gitops) struct UnitFile {
    /// git's name of its content.
    pub object: String,
    /// Its text.
    pub content: String,
}

impl Desired {
    /// Reads the unit files of a commit from the mirror, by object id.
    ///
    /// Files that are no unit and no drop-in (a README, a sysusers.d file) are left alone; what looks like a unit and
    /// cannot be one is a problem.
    pub fn read(mirror: &Mirror, commit: &str, folder: &str) -> Result<Self, Error> {
        let mut desired = Self::default();
        let mut wanted: Vec<(String, String)> = Vec::new();
        for entry in mirror.files(commit, folder)? {
            match place(&entry) {
                Ok(Some(file)) => wanted.push((file, entry.object)),
                Ok(None) => {}
                Err(problem) => desired.problems.push(problem),
            }
        }
        if wanted.len() > MOST_FILES {
            desired
                .problems
                .push(format!("{folder}/ has {} unit files; at most {MOST_FILES} are deployed", wanted.len()));
            return Ok(desired);
        }
        for (file, object) in wanted {
            let Some(content) = mirror.blob(&object, LARGEST_FILE)? else {
                desired.problems.push(format!("{file} has more than {LARGEST_FILE} bytes; no unit file is that long"));
                continue;
            };
            match String::from_utf8(content) {
                Ok(content) if !content.contains('\0') => {
                    desired.files.insert(file, UnitFile { object, content });
                }
                _ => desired.problems.push(format!("{file} is not UTF-8 text; unit files are (systemd.syntax(7))")),
            }
        }
        for file in desired.files.keys() {
            let unit = unit_of(file);
            let template = template_of(unit);
            if ![Some(unit), template.as_deref()].into_iter().flatten().any(|unit| desired.files.contains_key(unit)) {
                desired.problems.push(format!(
                    "{file} is a drop-in for {unit}, which the repository does not have; add the unit, or configure it by hand"
                ));
            }
        }
        Ok(desired)
    }

    /// True where the commit has this unit, a drop-in for it, or this file.
    pub fn has(&self, name: &str) -> bool {
        self.files.keys().any(|file| file == name || unit_of(file) == name)
    }
}

/// Where a file of the repository's units folder belongs; none for what is no unit.
fn place(entry: &TreeEntry) -> Result<Option<String>, String> {
    let shown = crate::log::printable(&entry.path);
    let text = std::str::from_utf8(&entry.path).ok();
    let last = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or(&entry.path);
    let looks_like = |kinds: &[&str]| kinds.iter().any(|kind| last.ends_with(kind.as_bytes()));
    let parts: Vec<&str> = text.map(|text| text.split('/').collect()).unwrap_or_default();
    let drop_in = parts.len() == 2 && parts[0].ends_with(".d") && looks_like(&[".conf"]);
    let unit = (parts.len() == 1 || text.is_none()) && looks_like(&super::KINDS);
    if !drop_in && !unit || last.starts_with(b".") {
        return Ok(None);
    }
    let named = match parts.as_slice() {
        [name] => is_unit_name(name),
        [folder, file] => {
            is_unit_name(folder.trim_end_matches(".d"))
                && file.len() <= 200
                && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
        _ => false,
    };
    if !named {
        return Err(format!("{shown} is not a name for a unit; use letters, digits and : - _ . @ (systemd.unit(5))"));
    }
    match entry.mode.as_str() {
        "100644" | "100755" => {}
        "120000" => return Err(format!("{shown} is a link; unit files are deployed as regular files only")),
        mode => return Err(format!("{shown} has git's mode {mode}; unit files are regular files")),
    }
    Ok(text.map(str::to_owned))
}

impl UnitFile {
    /// The lines of one section, comments and blank lines left out.
    pub fn section(&self, name: &str) -> Vec<&str> {
        let mut inside = false;
        let mut lines = Vec::new();
        for line in self.content.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name);
            } else if inside && !line.is_empty() && !line.starts_with(['#', ';']) {
                lines.push(line);
            }
        }
        lines
    }

    /// The values of a key of `[Install]`, split into words.
    pub fn install(&self, key: &str) -> Vec<&str> {
        let lines = self.section("Install").into_iter();
        let values = lines.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.trim() == key);
        values.flat_map(|(_, value)| value.split_whitespace()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, mode: &str) -> TreeEntry {
        TreeEntry { mode: mode.into(), object: "1".repeat(40), path: path.into() }
    }

    #[test]
    fn units_and_drop_ins_have_a_place_and_other_files_have_none() {
        for (path, expected) in [
            ("app.service", Some("app.service")),
            ("app@.timer", Some("app@.timer")),
            ("app.service.d/10-limits.conf", Some("app.service.d/10-limits.conf")),
            ("README.md", None),
            (".app.service", None),
            ("user/app.service", None),
            ("hub.sysusers", None),
        ] {
            assert_eq!(place(&entry(path, "100644")).unwrap().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_looks_like_a_unit_and_is_none_is_a_problem() {
        for (entry, part) in [
            (entry("app.service", "120000"), "is a link"),
            (entry("app.service", "160000"), "mode 160000"),
            (entry("a b.service", "100644"), "not a name"),
            (entry("-x.service", "100644"), "not a name"),
            (entry("a b.service.d/x.conf", "100644"), "not a name"),
        ] {
            assert!(place(&entry).unwrap_err().contains(part), "{entry:?}");
        }
    }

    #[test]
    fn sections_are_read_like_systemd_does() {
        let content =
            "[Unit]\n# [Install]\nWantedBy=no\n[Install]\n WantedBy=a.target b.target\n;x\nWantedBy=c.target\n";
        let file = UnitFile { object: String::new(), content: content.into() };
        assert_eq!(file.install("WantedBy"), ["a.target", "b.target", "c.target"]);
        assert!(file.install("Alias").is_empty());
    }
}
