//! `hub doctor` as tests ask it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::Host;
use crate::support::twice::ask_twice;

/// What was found, and how the command ended.
#[derive(Debug)]
pub struct Found {
    pub code: Option<i32>,
    pub text: String,
    pub json: Value,
}

/// Asks twice: for people and for programs.
pub fn doctor_with(prepare: impl Fn() -> Command) -> Found {
    let (code, text, json) = ask_twice(|arguments| prepare().arg("doctor").args(arguments).output().unwrap());
    Found { code, text, json }
}

pub fn doctor(host: &Host) -> Found {
    doctor_with(|| host.command("hub"))
}

pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Found {
    /// There is this finding, for people too.
    #[track_caller]
    pub fn has(self, level: &str, about: &str, part: &str, mend: &str) -> Self {
        let fits = |finding: &&Value| {
            let has = |key: &str, part: &str| finding[key].as_str().unwrap_or_default().contains(part);
            finding["level"] == level && finding["about"] == about && has("finding", part) && has("mend", mend)
        };
        let found = self.json["findings"].as_array().unwrap().iter().find(fits);
        let finding = found.unwrap_or_else(|| panic!("no {level} {about}: {part} ({mend}):\n{}", self.text));
        assert!(words(&self.text).contains(&words(part)), "{}", self.text);
        if level == "warning" || level == "problem" {
            let mend = finding["mend"].as_str().expect("what is wrong can be mended");
            let mut lines = mend.lines();
            assert!(self.text.contains(&format!("> {}", lines.next().unwrap())), "{}", self.text);
            assert!(lines.all(|line| self.text.contains(line)), "{}", self.text);
        }
        self
    }

    /// Nothing of what is found about this is wrong.
    #[track_caller]
    pub fn finds_well(self, about: &str) -> Self {
        let wrong = |finding: &&Value| {
            finding["about"] == about && (finding["level"] == "warning" || finding["level"] == "problem")
        };
        let findings = self.json["findings"].as_array().unwrap();
        assert!(!findings.iter().any(|finding| wrong(&finding)), "{}", self.text);
        self
    }

    #[track_caller]
    pub fn ends(self, code: i32, status: &str) -> Self {
        assert!(self.code == Some(code) && self.json["status"] == status, "not {code} {status}: {self:#?}");
        self
    }
}

/// `PATH` with a program of this name in front, which prints this.
pub fn with_program(host: &Host, name: &str, says: &str) -> String {
    let folder = host.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

pub fn with_path(host: &Host, path: &str) -> Found {
    doctor_with(|| {
        let mut command = host.command("hub");
        command.env("PATH", path);
        command
    })
}
