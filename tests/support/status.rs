//! `hub status` as tests ask it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gitops::{REPO, user_name};
use crate::support::twice::ask_twice;
use crate::support::{Host, Origin, Service, eventually, free_address};

/// What the command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
    pub json: Value,
}

/// Asks twice: for people and for programs. On a port where no other test's proxy is.
pub fn status_with(prepare: impl Fn() -> Command) -> Said {
    let port = free_address().port().to_string();
    let (code, text, json) = ask_twice(|arguments| {
        let mut command = prepare();
        if command.get_envs().all(|(name, _)| name != "KEEP_PORT") {
            command.env("PORT", &port);
        }
        command.args(["status"]).args(arguments).output().unwrap()
    });
    Said { code, text, json }
}

pub fn status(host: &Host) -> Said {
    status_with(|| host.command("hub"))
}

/// The same where the proxy's own port is to be asked.
pub fn status_on_its_port(host: &Host) -> Said {
    status_with(|| {
        let mut command = host.command("hub");
        command.env("KEEP_PORT", "1");
        command
    })
}

impl Said {
    #[track_caller]
    pub fn ends(self, code: i32, word: &str) -> Self {
        assert!(self.code == Some(code) && self.json["status"] == word, "not {code} {word}: {self:#?}");
        self
    }

    /// There is this reason, among those for people too; what mends it contains this.
    #[track_caller]
    pub fn says(self, level: &str, about: &str, part: &str, mend: &str) -> Self {
        let fits = |reason: &&Value| {
            let has = |key: &str, part: &str| reason[key].as_str().unwrap_or_default().contains(part);
            reason["level"] == level && reason["about"] == about && has("reason", part) && has("mend", mend)
        };
        let found = self.json["reasons"].as_array().unwrap().iter().find(fits);
        let reason = found.unwrap_or_else(|| panic!("no {level} {about}: {part}: {self:#?}"));
        assert!(ageless(&self.text).contains(&ageless(reason["reason"].as_str().unwrap())), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says_nothing_of(self, about: &str) -> Self {
        assert!(self.json["reasons"].as_array().unwrap().iter().all(|reason| reason["about"] != about), "{self:#?}");
        self
    }

    pub fn service(&self, name: &str) -> &Value {
        self.json["services"].as_array().unwrap().iter().find(|service| service["service"] == name).unwrap()
    }

    pub fn repository(&self, name: &str) -> &Value {
        self.json["repositories"].as_array().unwrap().iter().find(|one| one["repository"] == name).unwrap()
    }
}

/// The words without their "12 s" and "3 days": the second of two questions may come a second later.
fn ageless(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_unit = |word: &str| ["s", "min", "h", "days"].contains(&word.trim_end_matches([',', ')', ';']));
    let is_age = |at: usize| {
        words[at].trim_start_matches('(').parse::<u64>().is_ok() && words.get(at + 1).is_some_and(|word| is_unit(word))
    };
    let kept = (0..words.len()).filter(|&at| !is_age(at) && (at == 0 || !is_age(at - 1)));
    kept.map(|at| words[at]).collect::<Vec<_>>().join(" ")
}

pub fn ago(seconds: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds)).to_string()
}

pub fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

pub const SECRET: &str = "0123456789abcdef-secret";

/// A host that `hub up` runs, with one repository.
pub struct Up {
    pub host: Host,
    pub service: Service,
    pub commit: String,
}

pub fn up() -> Up {
    let host = Host::new();
    let origin = Origin::new(&host);
    let commit = origin.push(&[("README", "one\n")]);
    host.configure(&format!(
        "[proxy]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n[[repository]]\nname = \"{REPO}\"\nurl = \"{}\"\npath = \"{}\"\n\
         units = \"\"\nuser = \"{}\"\n",
        free_address(),
        free_address(),
        origin.url(),
        host.path("checkout").display(),
        user_name(),
    ));
    host.credential("webhook-secret", SECRET);
    let service = host.start("hub", &["up"]);
    service.line("up");
    eventually("it has deployed and measured", || {
        let exists = |path: &str| host.path(path).exists();
        exists("state/gitops/run.json") && exists("state/data/metrics/run.json")
    });
    Up { host, service, commit }
}

/// Writes a record as a service does, its last run begun so many seconds ago.
pub fn record(host: &Host, folder: &str, service: &str, age: i64, run: Value) {
    let path = host.state().join(folder);
    std::fs::create_dir_all(&path).unwrap();
    let mut record = json!({"service": service, "started": ago(age), "duration_ms": 12, "counts": {}, "error": null});
    for (name, value) in run.as_object().unwrap() {
        record[name] = value.clone();
    }
    std::fs::write(path.join("run.json"), record.to_string()).unwrap();
}
