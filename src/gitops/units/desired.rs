use std::collections::{BTreeMap, BTreeSet};

use super::unit_name::{
    KINDS, is_made_up, is_prefix, is_systemds_slice, is_template, is_unit_name, kind_of_all, template_of, unit_of,
};
use crate::config::Repository;
use crate::gitops::Error;
use crate::gitops::mirror::Mirror;
use crate::gitops::objects::TreeEntry;
use crate::systemd::install::Install;
use crate::systemd::syntax::{Assignment, assignments};

/// A unit file is a page; a drop-in a few lines.
const LARGEST_FILE: u64 = 256 << 10;
/// More files than this in one repository are a mistake.
const MOST_FILES: usize = 1000;
/// With `no`, a unit is not restarted when it changes; systemd itself knows no such key.
const KEEP: &str = "X-RestartIfChanged";
/// git's mode of a link.
const LINK: &str = "120000";

/// The unit files that a commit wants, by their place below the units folder.
#[derive(Debug, Default)]
pub(in crate::gitops) struct Desired {
    /// `app.service`, `app.service.d/limits.conf`, `app@one.service`
    pub files: BTreeMap<String, UnitFile>,
    /// Why nothing may be deployed, one sentence each.
    pub problems: Vec<String>,
}

/// One unit file of a commit.
#[derive(Clone, Debug)]
pub(in crate::gitops) struct UnitFile {
    /// git's name of its content.
    pub object: String,
    /// Its text; where a link points to.
    pub content: String,
    /// True for an instance, which is a link to its template.
    pub is_link: bool,
}

impl Desired {
    /// Reads the unit files of a commit from the mirror, by object id.
    ///
    /// Files that are no unit and no drop-in (a README, a sysusers.d file) are left alone; what looks like a unit and
    /// cannot be one is a problem.
    pub fn read(mirror: &Mirror, commit: &str, repository: &Repository) -> Result<Self, Error> {
        let folder = &repository.units;
        let mut desired = Self::default();
        let mut wanted: Vec<(String, TreeEntry)> = Vec::new();
        for entry in mirror.files(commit, folder)? {
            match place(&entry) {
                Ok(Some(file)) => wanted.push((file, entry)),
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
        for (file, TreeEntry { object, mode, .. }) in wanted {
            let Some(content) = mirror.blob(&object, LARGEST_FILE)? else {
                desired.problems.push(format!("{file} has more than {LARGEST_FILE} bytes; no unit file is that long"));
                continue;
            };
            match String::from_utf8(content) {
                Ok(content) if !content.contains('\0') => {
                    desired.files.insert(file, UnitFile { object, content, is_link: mode == LINK });
                }
                _ => desired.problems.push(format!("{file} is not UTF-8 text; unit files are (systemd.syntax(7))")),
            }
        }
        desired.check(&repository.dropins);
        Ok(desired)
    }

    /// Finds what is wrong with the files as a whole. `dropins` are units of others that may get drop-ins.
    fn check(&mut self, dropins: &[String]) {
        let mut problems = Vec::new();
        for (file, wanted) in &self.files {
            let unit = unit_of(file);
            let template = template_of(unit);
            let has = |names: &dyn Fn(&str) -> bool| [Some(unit), template.as_deref()].into_iter().flatten().any(names);
            if wanted.is_link && template.as_ref() != Some(&wanted.content) {
                let template = template.unwrap_or_default();
                problems.push(format!(
                    "{file} is a link to {:?}; it may be one to its template alone: {file} -> {template}",
                    wanted.content
                ));
            } else if wanted.is_link
                && template.as_ref().is_none_or(|name| self.files.get(name).is_none_or(|t| t.is_link))
            {
                problems.push(format!("{file} is a link to {}, which the repository does not have", wanted.content));
            } else if file != unit
                && !has(&|name| self.files.contains_key(name))
                && !has(&|name| dropins.iter().any(|listed| listed == name))
            {
                problems.push(format!(
                    "{file} is a drop-in for {unit}, which the repository does not have; add the unit, or configure it \
                     by hand, or write dropins = [{unit:?}] for the repository in hub.toml"
                ));
            }
        }
        self.problems.append(&mut problems);
        let mut names: BTreeSet<String> = self.files.keys().cloned().collect();
        let units: BTreeSet<&str> = self.files.keys().map(|file| unit_of(file)).collect();
        for unit in units {
            match self.install(unit) {
                Ok(install) => {
                    for also in install.also.iter().filter(|also| !self.files.contains_key(*also)) {
                        problems.push(format!(
                            "{unit}: Also={also} would enable a unit that the repository does not have; enable it by hand"
                        ));
                    }
                    for also in install.also.iter().filter(|also| is_template(also) && self.files.contains_key(*also)) {
                        if self.install(also).is_ok_and(|template| template.default_instance.is_none()) {
                            problems.push(format!(
                                "{unit}: Also={also} names no instance; name one, or add DefaultInstance= to it"
                            ));
                        }
                    }
                    for alias in install.alias.iter().filter(|alias| *alias != unit) {
                        if !names.insert(alias.clone()) {
                            problems
                                .push(format!("{unit}: Alias={alias} is the name of another unit of the repository"));
                        }
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        self.problems.append(&mut problems);
    }

    /// True for a unit of the commit, or an instance of one of its templates.
    pub(super) fn has_unit(&self, unit: &str) -> bool {
        self.files.contains_key(unit) || template_of(unit).is_some_and(|template| self.files.contains_key(&template))
    }

    /// What a unit's file and its drop-ins say about one thing together; none where they are silent.
    pub(super) fn flag(&self, unit: &str, section: &str, key: &str) -> Option<bool> {
        let template = template_of(unit);
        let is_of = |file: &str| unit_of(file) == unit || template.as_deref() == Some(unit_of(file));
        // Files of drop-ins come after their unit's, in the order of their names.
        let mut files: Vec<(&String, &UnitFile)> = self.files.iter().filter(|(file, _)| is_of(file)).collect();
        files.sort_by_key(|(file, _)| (file.contains('/'), *file));
        files.into_iter().filter_map(|(_, file)| file.flag(section, key)).next_back()
    }

    /// True where a unit asks to be left as it is when it changes (`X-RestartIfChanged=no`).
    pub(super) fn keeps_running(&self, unit: &str) -> bool {
        self.flag(unit, "Unit", KEEP) == Some(false)
    }

    /// True where the commit has this unit, a drop-in for it, or this file.
    pub fn has(&self, name: &str) -> bool {
        self.files.keys().any(|file| file == name || unit_of(file) == name)
    }

    /// The further names of the commit's units, each with the file that it is for.
    pub fn aliases(&self) -> BTreeMap<String, String> {
        let units = self.files.iter().filter(|(file, unit)| unit_of(file) == *file && !unit.is_link);
        let aliases = units.filter_map(|(file, _)| Some((file, self.install(file).ok()?.alias)));
        aliases.flat_map(|(file, names)| names.into_iter().map(move |name| (name, file.clone()))).collect()
    }

    /// What `systemctl enable` makes of a unit of the commit, or of the drop-ins that the commit has for another's.
    ///
    /// # Errors
    /// As `Install::read`.
    pub fn install(&self, unit: &str) -> Result<Install, String> {
        self.install_with(unit, &BTreeMap::new())
    }

    /// As `install`, with drop-ins that are not the commit's, by their file names.
    pub fn install_with(&self, unit: &str, others: &BTreeMap<String, Vec<u8>>) -> Result<Install, String> {
        let template = template_of(unit);
        let file = [Some(unit), template.as_deref()].into_iter().flatten();
        let file = file.filter_map(|name| self.files.get_key_value(name)).find(|(_, file)| !file.is_link);
        // Of two with one name the instance's own is in force, of the rest all, in the order of their names.
        let mut drop_ins: BTreeMap<&str, (&str, &[u8])> =
            others.iter().map(|(name, content)| (name.as_str(), (name.as_str(), content.as_slice()))).collect();
        for owner in [template.as_deref(), Some(unit)].into_iter().flatten() {
            let of_owner = self.files.iter().filter(|(file, _)| unit_of(file) == owner);
            drop_ins.extend(of_owner.filter_map(|(path, file)| {
                path.split_once('/').map(|(_, name)| (name, (path.as_str(), file.content.as_bytes())))
            }));
        }
        match file {
            Some((name, file)) => Install::read(unit, (name, file.content.as_bytes()), drop_ins.into_values()),
            None => Install::read(unit, (unit, b"\n"), drop_ins.into_values()),
        }
    }
}

impl UnitFile {
    /// What it says, as systemd reads it; nothing where systemd takes nothing from it.
    pub(super) fn assignments(&self) -> Vec<Assignment> {
        if self.is_link { Vec::new() } else { assignments(self.content.as_bytes()).unwrap_or_default() }
    }

    /// The last value of a key.
    pub(super) fn value(&self, section: &str, key: &str) -> Option<String> {
        let found = self.assignments().into_iter().filter(|one| one.section == section && one.key == key);
        found.map(|one| one.value).next_back()
    }

    /// The last value of a key that says yes or no, as systemd reads it.
    pub(super) fn flag(&self, section: &str, key: &str) -> Option<bool> {
        match self.value(section, key)?.to_ascii_lowercase().as_str() {
            "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
            "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
            _ => None,
        }
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
    let unit = (parts.len() == 1 || text.is_none()) && looks_like(&KINDS);
    if !drop_in && !unit || last.starts_with(b".") {
        return Ok(None);
    }
    let name = match parts.as_slice() {
        [name] => *name,
        [folder, file] => {
            let folder = folder.strip_suffix(".d").unwrap_or(folder);
            if kind_of_all(folder) {
                return Err(format!(
                    "{shown} would be a drop-in for every {folder} of this host; write one for a unit"
                ));
            }
            let fits = file.len() <= 200 && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if fits { folder } else { "" }
        }
        _ => "",
    };
    if is_prefix(name) {
        return Err(format!(
            "{shown}: drop-ins of {name} are in force for every unit whose name begins so \
             (systemd.unit(5)); choose a name without the dash before its kind"
        ));
    }
    if unit && is_systemds_slice(name) {
        return Err(format!(
            "{shown} is a slice of systemd's own, and limits in it are in force for others' services and logins"
        ));
    }
    if is_made_up(name) {
        return Err(format!(
            "{shown} has a name of the units that the hub makes for build and after, or systemd for systemd-run(1), which \
             could not be made any more; choose another"
        ));
    }
    if !is_unit_name(name) {
        return Err(format!("{shown} is not a name for a unit; use letters, digits and : - _ . @ (systemd.unit(5))"));
    }
    match entry.mode.as_str() {
        "100644" | "100755" => {}
        LINK if unit && template_of(name).is_some() => {}
        LINK => {
            return Err(format!(
                "{shown} is a link; unit files are deployed as regular files only, but for an instance that is a link to \
                 its template"
            ));
        }
        mode => return Err(format!("{shown} has git's mode {mode}; unit files are regular files")),
    }
    Ok(text.map(str::to_owned))
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
            (entry("a.service.d.d/x.conf", "100644"), "not a name"),
            (entry("service.d/x.conf", "100644"), "every service of this host"),
            (entry("scope.d/x.conf", "100644"), "every scope of this host"),
            (entry("a-.service", "100644"), "begins so"),
            (entry("a-.socket.d/x.conf", "100644"), "begins so"),
            (entry("a-@.service.d/x.conf", "100644"), "begins so"),
            (entry("a-@x.service", "120000"), "begins so"),
            (entry("user-1000.slice", "100644"), "systemd's own"),
            (entry("hub-build-acme__other.service", "100644"), "build and after"),
            (entry("run-u1.service.d/x.conf", "100644"), "systemd-run"),
            (entry("system.slice", "100644"), "systemd's own"),
            (entry("a@.service", "120000"), "is a link"),
            (entry("a.service.d/x.conf", "120000"), "is a link"),
        ] {
            assert!(place(&entry).unwrap_err().contains(part), "{entry:?}");
        }
    }

    fn desired(files: &[(&str, &str)]) -> Desired {
        let file = |(name, content): &(&str, &str)| {
            let (is_link, content) = content.strip_prefix("-> ").map_or((false, *content), |target| (true, target));
            ((*name).to_owned(), UnitFile { object: String::new(), content: content.to_owned(), is_link })
        };
        let mut desired = Desired { files: files.iter().map(file).collect(), problems: Vec::new() };
        desired.check(&["ssh.service".to_owned()]);
        desired
    }

    #[test]
    fn files_that_do_not_go_together_are_a_problem() {
        for (files, part) in [
            (&[("a@one.service", "-> b@.service"), ("b@.service", "x")][..], "to its template alone"),
            (&[("a@one.service", "-> /etc/passwd"), ("a@.service", "x")], "to its template alone"),
            (&[("a@one.service", "-> a@.service")], "which the repository does not have"),
            (&[("dbus.service.d/x.conf", "x")], "write dropins"),
            (&[("a.service", "[Install]\nAlso=debug-shell.service\n")], "enable it by hand"),
            (
                &[("a.service", "x"), ("a.service.d/x.conf", "[Install]\nAlso=debug-shell.service\n")],
                "enable it by hand",
            ),
            (
                &[("a.service", "[Install]\nAlso=b@.service\n"), ("b@.service", "[Install]\nWantedBy=x.target\n")],
                "names no instance",
            ),
            (&[("a.service", "[Install]\nAlias=b.service\n"), ("b.service", "x")], "another unit of the repository"),
            (
                &[("a.service", "[Install]\nAlias=c.service\n"), ("b.service", "[Install]\nAlias=c.service\n")],
                "another unit",
            ),
            (&[("a.service", "")], "is empty"),
            (&[("a.service", "[Install\n")], "line 1"),
        ] {
            let problems = desired(files).problems;
            assert!(problems.len() == 1 && problems[0].contains(part), "{files:?}: {problems:?}");
        }
        let fine = desired(&[
            ("a@.service", "[Install]\nAlso=b.service\n"),
            ("a@one.service", "-> a@.service"),
            ("b.service", "x"),
            ("ssh.service.d/x.conf", "[Service]\n"),
        ]);
        assert_eq!(fine.problems, [] as [String; 0]);
    }

    #[test]
    fn drop_ins_are_read_by_their_names_and_an_instances_own_come_first() {
        let desired = desired(&[
            ("a@.service", "[Install]\nWantedBy=x.target\n"),
            ("a@one.service", "-> a@.service"),
            ("a@.service.d/20.conf", "[Install]\nWantedBy=\nWantedBy=y.target\n"),
            ("a@.service.d/30.conf", "[Install]\nWantedBy=no.target\n"),
            ("a@one.service.d/30.conf", "[Install]\nWantedBy=z.target\n"),
        ]);
        let links = desired.install("a@one.service").unwrap().links();
        let links: Vec<String> = links.iter().map(|(link, file)| format!("{link} -> {file}")).collect();
        let expected = ["y", "z"].map(|target| format!("{target}.target.wants/a@one.service -> a@.service"));
        assert_eq!(links, expected);
    }
}
