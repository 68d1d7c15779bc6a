use std::ffi::OsStr;

use crate::command::{self, Command};

/// What `systemctl show` printed: `NAME=VALUE` lines, an empty line between units.
#[derive(Debug)]
pub struct Shown(String);

/// One unit of it; some properties come more than once.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a>(&'a str);

/// Asks for properties of units, with a `systemctl` that says which manager is asked, and how long.
///
/// # Errors
/// When `systemctl` is missing, does not answer in time, or cannot reach the manager.
pub fn show(
    systemctl: Command,
    properties: &[&str],
    units: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Shown, command::Error> {
    let asked = format!("--property={}", properties.join(","));
    let command = systemctl.args(["show", &asked, "--"]).args(units).name("systemctl show");
    command.succeed().map(|output| Shown(output.text()))
}

impl Shown {
    /// The units, in the order in which they were asked for.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        self.0.split("\n\n").map(Block::of)
    }
}

impl<'a> Block<'a> {
    /// One unit's lines.
    pub fn of(lines: &'a str) -> Self {
        Self(lines)
    }

    pub fn properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.lines().filter_map(|line| line.split_once('='))
    }

    /// A property; empty where it is not there.
    pub fn get(self, name: &str) -> &'a str {
        self.properties().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
impl Shown {
    /// What a manager could have printed.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}
