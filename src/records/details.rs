//! The `details` of run records: what each service says of itself besides how its run went.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Found;
use crate::command::is_called;
use crate::config::{InForce, Refused};
use crate::state::Run;

/// A service's own details.
pub trait Details: Serialize + DeserializeOwned + Default {
    /// Those of a run. Keys that are not known are read over; a run without details has said nothing.
    fn of(run: &Run) -> Found<Self> {
        match &run.details {
            Value::Null => Found::Missing,
            details => match Self::deserialize(details) {
                Ok(details) => Found::There(details),
                Err(error) => Found::Damaged(format!("details: {error}")),
            },
        }
    }

    /// The same, where nothing said and nothing understood are one.
    fn known(run: &Run) -> Self {
        Self::of(run).take().unwrap_or_default()
    }

    /// As a run has them.
    fn written(&self) -> Value {
        // None of these types can fail to be JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What tailscale-gate says of its door.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Door {
    /// `open`, `closed`, `unreachable` or `unknown`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// When this was written, RFC 3339: a gate that runs writes it anew every 15 minutes.
    pub written: Option<String>,
    /// The public port.
    pub port: u16,
    /// What is published there.
    pub target: Option<String>,
    /// The public address; none before the node's name is known.
    pub url: Option<String>,
    /// The version of the tool.
    pub tailscale_version: Option<String>,
    /// When the node's key expires, RFC 3339.
    pub key_expiry: Option<String>,
    /// The name that the node had before.
    pub former_name: Option<FormerName>,
    /// The hub.toml that it goes by; none in records of earlier versions.
    pub configuration: Option<InForce>,
    /// Why the configuration on the disk is not in force.
    pub configuration_refused: Option<Refused>,
    /// The process that wrote this; none where it was `tailscale-gate close`.
    pub pid: Option<u32>,
    /// True in the last word of a gate that has stopped.
    pub ended: bool,
}

/// A name that the node had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerName {
    pub dns_name: String,
    /// When it changed, RFC 3339.
    pub until: String,
}

/// What the proxy says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// The hub.toml that it goes by; none in records of earlier versions.
    pub configuration: Option<InForce>,
    /// Why the configuration on the disk is not in force.
    pub configuration_refused: Option<Refused>,
}

/// What a run of gitops-sync did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gitops {
    /// One result a look at a repository; the last one of a repository counts.
    pub repositories: Vec<Looked>,
}

/// What became of one repository. Of each list the first items, and how many more there were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Looked {
    /// `owner/name`
    pub repository: String,
    /// What became of it: `deployed`, `unchanged`, `held`, `failed` …
    pub status: String,
    /// The commit that was live before.
    pub from: Option<String>,
    /// The commit of the branch.
    pub to: Option<String>,
    /// Why, for the person who reads it.
    pub reason: Option<String>,
    /// Lists and what else there is to tell.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// What a run of reading-sync left.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// Whose run it was.
    pub pipeline: String,
    /// What each pipeline could not store and keeps, in all, by name; those that no run has counted yet are missing.
    pub kept: BTreeMap<String, Kept>,
}

/// What a pipeline could not store and keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Documents in the table of dead letters.
    pub dead_letters: u64,
    /// Files in `failed/` of the inbox.
    pub damaged_files: u64,
    /// The first names of files in the inbox that are not read for their ending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_read: Vec<String>,
    /// When they were counted, RFC 3339.
    pub counted: String,
}

/// What a run of system-metrics left.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// The file systems that it could not reach: mount points, each with the folder that bars the way.
    pub barred: BTreeMap<String, String>,
    /// Why what happened is not in the database, or not all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_sent: Vec<String>,
}

/// What a look of hub-watch came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// How the host is: `healthy`, `degraded` or `failed`.
    pub health: String,
    /// The repositories whose forges do not take the result of deployments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unheard: BTreeMap<String, Unheard>,
}

/// Why a forge does not take the result of deployments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unheard {
    /// Since when, RFC 3339.
    pub since: String,
    /// Why.
    pub reason: String,
}

impl Door {
    /// The process of the gate that wrote this, if it lives.
    pub fn writer(&self) -> Option<u32> {
        let pid = self.pid?;
        is_called(pid, "tailscale-gate")?.then_some(pid)
    }

    /// Whether it lives; none where the processes of other users cannot be seen (ProtectProc= in systemd.exec(5)).
    pub fn lives(&self) -> Option<bool> {
        let is_seen = || std::fs::metadata("/proc/1").is_ok();
        if self.writer().is_some() { Some(true) } else { is_seen().then_some(false) }
    }
}

impl Details for Door {}
impl Details for Gateway {}
impl Details for Gitops {}
impl Details for Reading {}
impl Details for Metrics {}
impl Details for Watch {}
