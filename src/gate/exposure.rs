//! What tailscale exposes, read from its own JSON: `tailscale funnel status --json` prints ipn.ServeConfig.

use serde_json::{Map, Value};

use super::Error;

const COMMAND: &str = "tailscale funnel status --json";

/// The serve configuration of the node: the background one and those of foreground sessions. Unknown keys are kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServeConfig(Map<String, Value>);

/// What a look at the port found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody outside the tailnet reaches anything there.
    Nothing,
    /// Exactly what the gate opens: one foreground session that publishes the proxy's public address, no more.
    Ours,
    /// Something else is public there; the text names it.
    Other(String),
}

/// What a look at the port and at the node found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub seen: Seen,
    /// Why nobody reaches the port although it is public; none where they do, or nothing is public.
    pub away: Option<String>,
}

impl From<Seen> for Look {
    fn from(seen: Seen) -> Self {
        Self { seen, away: None }
    }
}

impl ServeConfig {
    /// Reads the output of `tailscale funnel status --json`; versions before 1.50 print `null` for nothing.
    ///
    /// # Errors
    /// When it is not JSON, or no object.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Output { command: COMMAND, reason };
        match serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))? {
            Value::Object(object) => Ok(Self(object)),
            Value::Null => Ok(Self(Map::new())),
            other => Err(wrong(format!("it is {other:.40}"))),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        Value::Object(self.0.clone()).to_string().into_bytes()
    }

    /// Background first (no session), then every foreground session.
    fn parts(&self) -> impl Iterator<Item = (Option<&str>, &Map<String, Value>)> {
        let sessions = self.0.get("Foreground").and_then(Value::as_object).into_iter().flatten();
        let sessions = sessions.filter_map(|(id, part)| part.as_object().map(|part| (Some(id.as_str()), part)));
        std::iter::once((None, &self.0)).chain(sessions)
    }

    /// What makes the port public, for any host name: a renamed node keeps its old keys.
    fn public(&self, port: u16) -> Vec<Public<'_>> {
        let mut found = Vec::new();
        for (session, part) in self.parts() {
            for (key, on) in entries(part, "AllowFunnel") {
                if on == &Value::Bool(true) && port_of(key) == Some(port) {
                    found.push(Public { session, part, key });
                }
            }
        }
        found
    }

    /// Judges the port. `name` is the node's DNS name without the last dot, `target` the URL that may be published.
    pub fn see(&self, port: u16, name: Option<&str>, target: &str) -> Seen {
        let public = self.public(port);
        let &[Public { session, part, key }] = &public[..] else {
            return if public.is_empty() { Seen::Nothing } else { Seen::Other(describe(&public)) };
        };
        let expected = name.map(|name| format!("{name}:{port}"));
        let https = part.get("TCP").and_then(|tcp| tcp.get(port.to_string())).and_then(|tcp| tcp.get("HTTPS"));
        let handlers = part.get("Web").and_then(|web| web.get(key)).and_then(|web| web.get("Handlers"));
        let handlers = handlers.and_then(Value::as_object);
        let only_the_proxy = handlers.is_some_and(|handlers| {
            let proxy = handlers.get("/").and_then(|root| root.get("Proxy")).and_then(Value::as_str);
            handlers.len() == 1 && proxy.is_some_and(|proxy| plain(proxy) == plain(target))
        });
        // In the background it would outlive the gate, so that is not what the gate opens.
        let fits = session.is_some() && expected.as_deref() == Some(key);
        if fits && https == Some(&Value::Bool(true)) && only_the_proxy {
            Seen::Ours
        } else {
            Seen::Other(describe(&public))
        }
    }

    /// True where anything makes the port public.
    pub fn is_public(&self, port: u16) -> bool {
        !self.public(port).is_empty()
    }

    /// What makes the port public, for people.
    pub fn who_is_public(&self, port: u16) -> String {
        describe(&self.public(port))
    }

    /// True where nothing outside foreground sessions makes the port public.
    pub fn background_is_closed(&self, port: u16) -> bool {
        self.public(port).iter().all(|public| public.session.is_some())
    }

    /// What is configured on the port at all; none where it is free. A Service has addresses of its own, so that it may
    /// have the same port.
    pub fn occupant(&self, port: u16) -> Option<String> {
        self.parts().find_map(|(session, part)| {
            let web = entries(part, "Web").find(|(key, _)| port_of(key) == Some(port));
            let tcp = entries(part, "TCP").find(|(key, _)| key.parse() == Ok(port));
            let (key, value) = web.or(tcp)?;
            Some(match value.get("TCPForward").and_then(Value::as_str) {
                Some(forward) => format!("a TCP forward to {forward:.200}, {}", place(session)),
                None => format!("{key} {value:.200}, {}", place(session)),
            })
        })
    }

    /// The configuration without anything on the port; all else stays as it is.
    pub fn without(&self, port: u16) -> Self {
        let mut whole = self.0.clone();
        strip(&mut whole, port);
        if let Some(Value::Object(sessions)) = whole.get_mut("Foreground") {
            sessions.retain(|_, part| {
                let Value::Object(part) = part else { return true };
                let had = part.len();
                strip(part, port);
                !part.is_empty() || had == 0
            });
            if sessions.is_empty() {
                whole.shift_remove("Foreground");
            }
        }
        Self(whole)
    }
}

/// One key that makes a port public, and where it stands.
struct Public<'a> {
    /// The foreground session; none in the background.
    session: Option<&'a str>,
    part: &'a Map<String, Value>,
    key: &'a str,
}

fn entries<'a>(part: &'a Map<String, Value>, section: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let section = part.get(section).and_then(Value::as_object);
    section.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The port of a key `host:port`.
fn port_of(key: &str) -> Option<u16> {
    key.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

fn strip(part: &mut Map<String, Value>, port: u16) {
    for name in ["TCP", "Web", "AllowFunnel"] {
        let number = |key: &str| if name == "TCP" { key.parse().ok() } else { port_of(key) };
        let Some(Value::Object(section)) = part.get_mut(name) else { continue };
        let had = section.len();
        section.retain(|key, _| number(key) != Some(port));
        if section.is_empty() && had > 0 {
            part.shift_remove(name);
        }
    }
}

fn describe(public: &[Public<'_>]) -> String {
    let one = |Public { session, part, key }: &Public<'_>| format!("{key}, {}{}", place(*session), leads_to(part, key));
    crate::text::listed(public.iter().map(one), "; ")
}

/// Where a public key leads: web handlers, a TCP forward, or nothing at all.
fn leads_to(part: &Map<String, Value>, key: &str) -> String {
    if let Some(handlers) = part.get("Web").and_then(|web| web.get(key)).and_then(|web| web.get("Handlers")) {
        return format!(" to {handlers:.200}");
    }
    let tcp = port_of(key).and_then(|port| part.get("TCP")?.get(port.to_string()));
    match tcp.and_then(|tcp| tcp.get("TCPForward")).and_then(Value::as_str) {
        Some(forward) => format!(" to the TCP address {forward:.200}"),
        None => " without a handler".to_owned(),
    }
}

fn place(session: Option<&str>) -> String {
    session.map_or_else(|| "in the background".to_owned(), |id| format!("in the foreground session {id}"))
}

/// A target in one form: `8085`, `localhost:8085` and `http://127.0.0.1:8085/` are the same place.
fn plain(target: &str) -> String {
    let target = target.strip_prefix("http://").unwrap_or(target).trim_end_matches('/');
    let target = target.strip_prefix("localhost:").unwrap_or(target);
    let is_port = target.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { format!("127.0.0.1:{target}") } else { target.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAME: &str = "foo.test.ts.net";
    const TARGET: &str = "http://127.0.0.1:8085";

    fn part(port: u16, target: &str, funnel: bool) -> Value {
        let key = format!("{NAME}:{port}");
        json!({
            "TCP": {port.to_string(): {"HTTPS": true}},
            "Web": {&key: {"Handlers": {"/": {"Proxy": target}}}},
            "AllowFunnel": {&key: funnel},
        })
    }

    fn see(config: &Value) -> Seen {
        ServeConfig::parse(config.to_string().as_bytes()).unwrap().see(8443, Some(NAME), TARGET)
    }

    fn is_other(config: &Value) -> bool {
        matches!(see(config), Seen::Other(_))
    }

    #[test]
    fn closed_is_everything_without_a_true_key_of_the_port() {
        for config in
            [json!({}), json!(null), part(8443, TARGET, false), part(443, TARGET, true), json!({"Foreground": null})]
        {
            assert_eq!(see(&config), Seen::Nothing, "{config}");
        }
    }

    #[test]
    fn only_one_foreground_session_with_the_public_address_is_ours() {
        for target in [TARGET, "http://127.0.0.1:8085/", "http://localhost:8085", "8085", "127.0.0.1:8085"] {
            assert_eq!(see(&json!({"Foreground": {"df16": part(8443, target, true)}})), Seen::Ours, "{target}");
        }
        assert!(is_other(&part(8443, TARGET, true)), "in the background it outlives the gate");
        assert!(is_other(&json!({"Foreground": {"df16": part(8443, "http://127.0.0.1:8086", true)}})));
        assert!(is_other(&json!({"Foreground": {"a": part(8443, TARGET, true), "b": part(8443, TARGET, true)}})));
        let mut more = part(8443, TARGET, true);
        more["Web"][format!("{NAME}:8443")]["Handlers"]["/other"] = json!({"Text": "hello"});
        assert!(is_other(&json!({"Foreground": {"df16": more}})), "another mount is public too");
        let tcp =
            json!({"TCP": {"8443": {"TCPForward": "127.0.0.1:8085"}}, "AllowFunnel": {"foo.test.ts.net:8443": true}});
        assert!(is_other(&tcp));
        assert!(is_other(&json!({"AllowFunnel": {"old-name.test.ts.net:8443": true}})), "a renamed node keeps its key");
    }

    #[test]
    fn each_kind_of_exposure_is_named() {
        let key = format!("{NAME}:8443");
        let says = |config: &Value| match see(config) {
            Seen::Other(by) => by,
            seen => panic!("{seen:?}"),
        };
        let tcp =
            json!({"TCP": {"8443": {"TCPForward": "127.0.0.1:22", "TerminateTLS": NAME}}, "AllowFunnel": {&key: true}});
        assert_eq!(says(&tcp), format!("{key}, in the background to the TCP address 127.0.0.1:22"));
        assert_eq!(says(&json!({"AllowFunnel": {&key: true}})), format!("{key}, in the background without a handler"));
        let theirs = says(&json!({"Foreground": {"df16": part(8443, "http://127.0.0.1:3000", true)}}));
        assert!(theirs.contains("in the foreground session df16") && theirs.contains("127.0.0.1:3000"), "{theirs}");
        let forward = ServeConfig::parse(br#"{"TCP": {"8443": {"TCPForward": "unix:/run/x.sock"}}}"#).unwrap();
        assert_eq!(forward.occupant(8443).unwrap(), "a TCP forward to unix:/run/x.sock, in the background");
        let service = ServeConfig::parse(br#"{"Services": {"svc:web": {"TCP": {"8443": {"HTTPS": true}}}}}"#).unwrap();
        assert_eq!(service.occupant(8443), None, "it has addresses of its own");
    }

    #[test]
    fn garbage_is_no_answer() {
        for text in ["", "no json", "[]", "3", "{\"TCP\":"] {
            assert!(ServeConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_port_is_taken_out_and_all_else_stays_as_it_is() {
        let mut config = part(443, "http://127.0.0.1:3000", true);
        config["Services"] = json!({"svc:web": {"TCP": {"8443": {"HTTPS": true}}}});
        config["Unknown"] = json!([1, 2]);
        config["Foreground"] = json!({"other": part(10000, "http://127.0.0.1:1", true)});
        let untouched = config.clone();
        config["Foreground"]["mine"] = part(8443, TARGET, true);
        config["TCP"]["8443"] = json!({"HTTPS": true});
        config["Web"]["old.test.ts.net:8443"] = json!({"Handlers": {}});
        config["AllowFunnel"]["old.test.ts.net:8443"] = json!(true);
        let stripped = ServeConfig::parse(config.to_string().as_bytes()).unwrap().without(8443);
        assert_eq!(String::from_utf8(stripped.to_json()).unwrap(), untouched.to_string());
        assert_eq!(stripped.occupant(8443), None);
        assert!(stripped.occupant(443).unwrap().ends_with("in the background"));
    }
}
