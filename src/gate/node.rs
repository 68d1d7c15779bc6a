//! Whether this node can use Funnel: `tailscale status --json` prints ipnstate.Status.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    #[serde(default)]
    backend_state: String,
    #[serde(rename = "Self")]
    node: Option<Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "DNSName", default)]
    dns_name: String,
    cap_map: Option<Map<String, Value>>,
}

/// The capability whose query lists the allowed ports (tailcfg.CapabilityFunnelPorts).
const PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=";

/// Reads the output of `tailscale status --json` and returns the node's DNS name without its last dot.
///
/// What holds here is what the tool asks before it would start its interactive dialogue (ipn.CheckFunnelAccess,
/// ipn.CheckFunnelPort), so that the dialogue cannot be reached.
///
/// # Errors
/// What keeps Funnel from working on `port`.
pub(super) fn ready(output: &[u8], port: u16) -> Result<String, Error> {
    let wrong = |reason: String| Error::Output { command: "tailscale status --json", reason };
    let status: Status = serde_json::from_slice(output).map_err(|error| wrong(error.to_string()))?;
    if status.backend_state != "Running" {
        return Err(Error::NotConnected(status.backend_state));
    }
    let node = status.node.ok_or_else(|| wrong("it has no Self".to_owned()))?;
    let capabilities = node.cap_map.unwrap_or_default();
    if !capabilities.contains_key("https") {
        return Err(Error::NoHttps);
    }
    if !capabilities.contains_key("funnel") {
        return Err(Error::NoFunnel);
    }
    let lists: Vec<&str> = capabilities.keys().filter_map(|key| key.strip_prefix(PORTS)).collect();
    if !lists.iter().flat_map(|list| list.split(',')).any(|item| includes(item, port)) {
        let allowed = if lists.is_empty() { "none".to_owned() } else { lists.join(",") };
        return Err(Error::Port { port, allowed });
    }
    let name = node.dns_name.trim_end_matches('.');
    if name.is_empty() {
        return Err(wrong("the node has no DNS name".to_owned()));
    }
    Ok(name.to_owned())
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
        assert!(says(b"{\"BackendState\":\"Running\",\"Self\":null}", 8443).contains("no Self"));
        assert!(says(b"<html>", 8443).starts_with("tailscale status --json did not print"));
    }
}
