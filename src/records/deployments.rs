use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::PlanFile;
use super::history::{self, Event};
use crate::random;
use crate::state::{Error, Folder};

/// A line of gitops-sync's history, for people: a deployment, an attempt at one, a hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What names it in links: of its time, its kind and its repository, so that it stays when other lines go.
    pub id: String,
    /// When it ended, RFC 3339.
    pub at: String,
    /// What became of it, a word of `history::Kind`.
    pub kind: String,
    /// `owner/name`; empty for gitops-sync itself.
    pub repository: String,
    /// Why, for the person who reads it.
    pub reason: Option<String>,
    /// The commit that was live before.
    pub from: Option<String>,
    /// The commit that it is about.
    pub to: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// Its page at the forge.
    pub link: Option<String>,
    /// Who asked for it; none where nobody is known to.
    pub by: Option<String>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// The unit files that it changes, each after what is done to it; the first of many.
    pub files: Vec<String>,
    /// What was done to units, and why; the first of many.
    pub acts: Vec<Act>,
    /// Where the plan lies, in gitops-sync's folder.
    pub plan: Option<String>,
}

/// What was done to a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Act {
    /// Its name; empty in the line that says how many more there are.
    pub unit: String,
    /// `started`, `restarted`, `reloaded`, `stopped`, `enabled`
    pub action: String,
    pub reason: String,
}

impl Deployment {
    /// All that the history in gitops-sync's folder has, newest first. What is no line of it is read over.
    ///
    /// # Errors
    /// When the history is there and cannot be read.
    pub fn all(gitops: &Folder) -> Result<Vec<Self>, Error> {
        let mut all: Vec<Self> = history::read(gitops)?.into_iter().filter_map(Self::of).collect();
        all.reverse();
        Ok(all)
    }

    /// What names, in links, the line with this time, kind and repository.
    pub fn id(at: &str, kind: &str, repository: &str) -> String {
        random::hex(&Sha256::digest([at, kind, repository].join("\0"))[..8])
    }

    /// None of what gitops-sync tells of itself.
    fn of(event: Event) -> Option<Self> {
        let Event { at, kind, about, reason, more, .. } = event;
        if matches!(kind.as_str(), "started" | "raised" | "cleared") {
            return None;
        }
        let text = |key: &str| more.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let list = |key: &str| more.get(key).and_then(Value::as_array).into_iter().flatten();
        // A link that a browser would take for a program is none.
        let is_page = |link: &String| link.starts_with("https://") || link.starts_with("http://");
        Some(Self {
            id: Self::id(&at, &kind, &about),
            from: text("from"),
            to: text("to"),
            subject: text("subject"),
            author: text("author"),
            link: text("link").filter(is_page),
            by: text("by"),
            took_ms: more.get("duration_ms").and_then(Value::as_u64),
            files: list("units").filter_map(Value::as_str).map(str::to_owned).collect(),
            acts: list("restarts").map(act).collect(),
            plan: text("plan"),
            repository: about,
            at,
            kind,
            reason,
        })
    }

    /// The units that it touched, by what was done to them and by the files that it changes, each once.
    pub fn touched(&self, plan: Option<&PlanFile>) -> BTreeSet<String> {
        let files = self.files.iter().filter_map(|line| line.split_once(' ')).map(|(_, file)| file);
        let files = files.chain(plan.into_iter().flat_map(|plan| &plan.units).map(|unit| unit.file.as_str()));
        // A drop-in is of the unit whose folder it lies in.
        let units = files.map(|file| file.split_once(".d/").map_or(file, |(unit, _)| unit).to_owned());
        let units = units.chain(self.acts.iter().map(|act| act.unit.clone()));
        units.filter(|unit| unit.contains('.') && !unit.contains([' ', '/']) && !unit.contains("@.")).collect()
    }
}

fn act(value: &Value) -> Act {
    match value {
        Value::String(more) => Act { action: more.clone(), ..Act::default() },
        value => Act::deserialize(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Found;

    #[test]
    fn lines_are_read_whatever_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(Deployment::all(&folder).unwrap(), []);
        let line = |more: &str| {
            format!("{{\"at\":\"2026-01-02T03:04:05.000Z\",\"kind\":\"deployed\",\"about\":\"acme/a\"{more}}}\n")
        };
        let lines = [
            line(""),
            "torn {\n".to_owned(),
            line(r#","status":"deployed","link":"javascript:alert(1)","to":7,"restarts":"x","units":[1],"duration_ms":-1"#),
            r#"{"at":"x","kind":"started"}"#.to_owned() + "\n",
            line(
                r#","link":"https://f/c","restarts":[{"unit":"a.service","action":"restarted","reason":"r","to":"1"},"and 3 more"],
                "units":["change a.service","add b.service.d/x.conf","add t@.service","and 2 more"],"plan":"plans/acme__a/x.json""#,
            )
            .replace('\n', "")
                + "\n",
        ];
        std::fs::write(dir.path().join(history::FILE), lines.concat()).unwrap();
        let all = Deployment::all(&folder).unwrap();
        let [last, odd, first] = all.as_slice() else { panic!("{all:?}") };
        assert!(last.id == first.id && last.id.len() == 16);
        assert_eq!((&odd.link, &odd.to, odd.took_ms, odd.acts.len()), (&None, &None, None, 0));
        assert_eq!(last.link.as_deref(), Some("https://f/c"));
        assert_eq!((last.acts[0].unit.as_str(), last.acts[1].action.as_str()), ("a.service", "and 3 more"));
        assert_eq!(last.touched(None), ["a.service", "b.service"].map(str::to_owned).into());
        let plan = PlanFile { units: vec![Default::default()], ..PlanFile::default() };
        assert_eq!(first.touched(Some(&plan)), BTreeSet::new());
    }

    #[test]
    fn a_plan_is_read_from_its_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("plans/acme__a/1.json", r#"{"to":"abc","plan":["x"],"units":[{"file":"a","action":"add","new":1}]}"#);
        write("plans/acme__a/torn.json", "{");
        write("secret.json", "{}");
        std::os::unix::fs::symlink("../..", dir.path().join("plans/acme__a/up")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("plans/up")).unwrap();
        let found = PlanFile::read(&folder, "plans/acme__a/1.json");
        assert_eq!(found.get().map(|plan| (plan.to.as_str(), plan.units.len())), Some(("abc", 1)));
        assert!(matches!(PlanFile::read(&folder, "plans/acme__a/torn.json"), Found::Damaged(_)));
        assert!(PlanFile::read(&folder, "plans/up/secret.json").get().is_none());
        for path in [
            "secret.json",
            "plans/../secret.json",
            "plans/acme__a/../../secret.json",
            "plans/acme__a/none.json",
            "/etc/passwd",
            "",
        ] {
            assert!(matches!(PlanFile::read(&folder, path), Found::Missing), "{path}");
        }
    }
}
