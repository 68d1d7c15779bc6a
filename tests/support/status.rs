//! `hub status` as tests ask it.
#![allow(dead_code, reason = "every test crate uses its own part of this")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Host, free_address};

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
    let run = |arguments: &[&str]| {
        let mut command = prepare();
        if command.get_envs().all(|(name, _)| name != "KEEP_PORT") {
            command.env("PORT", &port);
        }
        command.args(["status"]).args(arguments).output().unwrap()
    };
    let (people, programs) = (run(&[]), run(&["--json"]));
    let text = String::from_utf8(people.stdout).unwrap() + &String::from_utf8(people.stderr).unwrap();
    let json = serde_json::from_slice(&programs.stdout).unwrap_or_else(|error| panic!("{error}: {programs:?}"));
    assert_eq!(people.status.code(), programs.status.code(), "{text}{json:#}");
    Said { code: people.status.code(), text, json }
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
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&self.text).contains(&words(reason["reason"].as_str().unwrap())), "{self:#?}");
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

pub fn ago(seconds: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds)).to_string()
}

pub fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}
