//! The node: what `tailscale status --json` (ipnstate.Status) says of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    #[serde(default)]
    version: String,
    #[serde(default)]
    backend_state: String,
    #[serde(rename = "Self")]
    node: Option<SelfStatus>,
    current_tailnet: Option<CurrentTailnet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfStatus {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    cap_map: Option<Map<String, Value>>,
    key_expiry: Option<String>,
    #[serde(default)]
    expired: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CurrentTailnet {
    #[serde(default)]
    name: String,
    #[serde(rename = "MagicDNSSuffix", default)]
    suffix: String,
}

/// The capability whose query lists the allowed ports (tailcfg.CapabilityFunnelPorts).
const PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=";

/// What the daemon says of this node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its DNS name without the last dot; none while it has none.
    pub name: Option<String>,
    /// Where it belongs; none while nobody is logged in.
    pub tailnet: Option<Tailnet>,
    /// When its key expires; none where it never does.
    pub key_expiry: Option<jiff::Timestamp>,
    /// The version of the daemon.
    pub daemon: String,
    state: String,
    expired: bool,
    capabilities: Map<String, Value>,
}

/// A tailnet, and which of its nodes this host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tailnet {
    /// Its name, such as `alice@example.com` (ipnstate.TailnetStatus.Name).
    pub name: String,
    /// The end of its nodes' names, which its owner can change.
    pub suffix: String,
    /// The node's stable id, which a new name does not change.
    pub node: String,
}

impl Tailnet {
    /// True where both are one tailnet. One that got another suffix keeps its name and its nodes; a server of somebody's
    /// own may give every tailnet the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && (self.suffix == other.suffix || (!self.node.is_empty() && self.node == other.node))
    }

    /// For people.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { &self.suffix } else { &self.name }
    }
}

impl Node {
    /// Reads the output of `tailscale status --json`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn parse(output: &[u8]) -> Result<Self, Error> {
        let status: Status = serde_json::from_slice(output).map_err(|error| wrong(error.to_string()))?;
        let node = status.node;
        let name = node.as_ref().map(|node| node.dns_name.trim_end_matches('.').to_owned());
        let name = name.filter(|name| !name.is_empty());
        let id = node.as_ref().map_or_else(String::new, |node| node.id.clone());
        let after_first_dot = |name: &String| name.split_once('.').map(|(_, suffix)| suffix.to_owned());
        let tailnet = match status.current_tailnet {
            Some(CurrentTailnet { name, suffix }) => Some(Tailnet { name, suffix, node: id }),
            // Versions before 1.24 do not name it.
            None => {
                name.as_ref().and_then(after_first_dot).map(|suffix| Tailnet { name: String::new(), suffix, node: id })
            }
        };
        Ok(Self {
            name,
            tailnet: tailnet.filter(|tailnet| !tailnet.shown().is_empty()),
            // Go's zero time stands for a key that never expires.
            key_expiry: node
                .as_ref()
                .and_then(|node| node.key_expiry.as_deref()?.parse().ok())
                .filter(|expiry: &jiff::Timestamp| *expiry > jiff::Timestamp::UNIX_EPOCH),
            daemon: status.version,
            state: status.backend_state,
            expired: node.as_ref().is_some_and(|node| node.expired),
            capabilities: node.and_then(|node| node.cap_map).unwrap_or_default(),
        })
    }

    /// Why nobody reaches this node, whatever is configured on it; none where the daemon is connected.
    pub fn away(&self) -> Option<Error> {
        if self.state != "Running" {
            return Some(Error::NotConnected(self.state.clone()));
        }
        self.expired.then_some(Error::Expired)
    }

    /// Whether Funnel can be used on the port: what the tool asks before it would start its interactive dialogue
    /// (ipn.CheckFunnelAccess, ipn.CheckFunnelPort), so that the dialogue cannot be reached.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&self, port: u16) -> Result<(), Error> {
        if let Some(error) = self.away() {
            return Err(error);
        }
        if !self.capabilities.contains_key("https") {
            return Err(Error::NoHttps);
        }
        if !self.capabilities.contains_key("funnel") {
            return Err(Error::NoFunnel);
        }
        let lists: Vec<&str> = self.capabilities.keys().filter_map(|key| key.strip_prefix(PORTS)).collect();
        if !lists.iter().flat_map(|list| list.split(',')).any(|item| includes(item, port)) {
            let allowed = if lists.is_empty() { "none".to_owned() } else { lists.join(",") };
            return Err(Error::Port { port, allowed });
        }
        if self.name.is_none() {
            return Err(wrong("the node has no DNS name".to_owned()));
        }
        Ok(())
    }
}

fn wrong(reason: String) -> Error {
    Error::Output { command: "tailscale status --json", reason }
}

/// Compares two versions as tailscale writes them: `1.102.3`, `1.102.3-t53a0d659-g0`, `1.103.0-dev20260901`. None where one
/// of them is not known.
pub(super) fn is_older(client: &str, daemon: &str) -> Option<bool> {
    Some(numbers(client)? < numbers(daemon)?)
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.trim().split('-').next()?.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

/// True where an item of the list, `N` or `A-B`, includes the port.
fn includes(item: &str, port: u16) -> bool {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match item.split_once('-') {
        Some((first, last)) => {
            number(first).zip(number(last)).is_some_and(|(first, last)| (first..=last).contains(&port))
        }
        None => number(item) == Some(port),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(state: &str, capabilities: &[&str]) -> Vec<u8> {
        let capabilities: Map<String, Value> = capabilities.iter().map(|name| ((*name).into(), Value::Null)).collect();
        let node = json!({"DNSName": "foo.test.ts.net.", "Online": true, "CapMap": capabilities});
        json!({"Version": "1.102.3", "BackendState": state, "Self": node}).to_string().into_bytes()
    }

    fn ready(output: &[u8], port: u16) -> Result<String, Error> {
        let node = Node::parse(output)?;
        node.ready(port).map(|()| node.name.unwrap())
    }

    const ALL: [&str; 3] = ["https", "funnel", "https://tailscale.com/cap/funnel-ports?ports=443,8080-8090,8443,"];

    #[test]
    fn a_ready_node_gives_its_name() {
        for port in [443, 8443, 8085] {
            assert_eq!(ready(&status("Running", &ALL), port).unwrap(), "foo.test.ts.net");
        }
    }

    #[test]
    fn every_obstacle_has_its_sentence() {
        let says = |output: &[u8], port: u16| ready(output, port).unwrap_err().to_string();
        for (state, sentence) in [
            ("Stopped", "tailscale is stopped; run: tailscale up"),
            ("NeedsLogin", "tailscale is logged out; run: tailscale up"),
            ("NeedsMachineAuth", "this machine is not approved"),
            ("Starting", "tailscale is starting"),
            ("InUseOtherUser", "its state is InUseOtherUser"),
        ] {
            assert!(says(&status(state, &ALL), 8443).contains(sentence), "{state}");
        }
        assert!(says(&status("Running", &ALL[1..]), 8443).starts_with("HTTPS is not enabled"));
        assert!(says(&status("Running", &["https"]), 8443).starts_with("Funnel is not enabled"));
        assert!(says(&status("Running", &ALL), 10000).contains("which allows: 443,8080-8090,8443,"));
        assert!(says(&status("Running", &ALL[..2]), 8443).contains("which allows: none"));
        let expired = json!({"BackendState": "Running", "Self": {"DNSName": "a.b.", "Expired": true}}).to_string();
        assert!(says(expired.as_bytes(), 8443).contains("key has expired"));
        assert!(says(b"<html>", 8443).starts_with("tailscale status --json did not print"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(is_older("1.56.1", "1.102.3-t53a0d659-g0"), Some(true));
        assert_eq!(is_older("1.102.2", "1.102.3"), Some(true));
        assert_eq!(is_older("1.102.3", "1.102.3-t53a0d659"), Some(false));
        assert_eq!(is_older("1.103.0-dev20260901", "1.102.3"), Some(false));
        assert_eq!(is_older("1.102", "1.102.0"), Some(false));
        assert_eq!(is_older("unknown", "1.102.3"), None);
        assert_eq!(is_older("1.102.3", ""), None);
    }

    #[test]
    fn a_tailnet_is_known_by_its_name_or_its_node() {
        let tailnet = |name: &str, suffix: &str, node: &str| Tailnet {
            name: name.to_owned(),
            suffix: suffix.to_owned(),
            node: node.to_owned(),
        };
        let first = tailnet("alice@example.com", "tail12.ts.net", "n1");
        assert!(first.is_same(&tailnet("alice@example.com", "red-fox.ts.net", "n1")), "it got another suffix");
        assert!(first.is_same(&tailnet("alice@example.com", "tail12.ts.net", "n2")), "the node joined anew");
        assert!(!first.is_same(&tailnet("work.example", "tail34.ts.net", "n3")));
        assert!(!first.is_same(&tailnet("alice@example.com", "tail34.ts.net", "n3")), "two of one name");
    }
}
