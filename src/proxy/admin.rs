//! The admin routes: the status as page, JSON and metrics, and pipelines, for people and scripts on this host.

use std::net::IpAddr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use rouille::{Request, Response};
use sha2::Sha256;

use super::answer;
use super::listener::{Admission, Head, Site};
use super::reader::Readers;
use super::status::Sources;
use super::sync::Syncs;
use super::{page, prometheus};
use crate::config::Secret;
use crate::random;
use crate::records::ASKS_ITSELF;

/// What browsers ask for beside each page; it has none, and an answer that says so leaves no error in their console.
const ICON: &str = "/favicon.ico";

/// The site behind `proxy.admin_listen`.
pub(super) struct Admin {
    pub hosts: Vec<String>,
    pub token: Option<Token>,
    pub sources: Sources,
    pub syncs: Arc<Syncs>,
    pub readers: Arc<Readers>,
}

/// The token that admin requests need, kept as a MAC: comparing MACs takes the same time wherever texts differ.
pub(super) struct Token(Hmac<Sha256>, Vec<u8>);

impl Token {
    /// From the credential.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(secret: &Secret) -> std::io::Result<Self> {
        let mac = Hmac::<Sha256>::new_from_slice(random::id()?.as_bytes()).map_err(std::io::Error::other)?;
        let tag = mac.clone().chain_update(secret.bytes()).finalize().into_bytes().to_vec();
        Ok(Self(mac, tag))
    }

    fn fits(&self, given: &str) -> bool {
        self.0.clone().chain_update(given).verify_slice(&self.1).is_ok()
    }

    /// Whether a request carries it: `Authorization: Bearer TOKEN`, or Basic with the token as password.
    fn is_in(&self, request: &Request) -> bool {
        let bearer = request.header("Authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
        });
        match bearer {
            Some(token) => self.fits(token),
            None => rouille::input::basic_http_auth(request).is_some_and(|basic| self.fits(&basic.password)),
        }
    }
}

impl Site for Admin {
    fn admit(&self, _: &Head) -> Admission {
        Admission::NoBody
    }

    fn is_own(&self, head: &Head) -> bool {
        head.path() == "/healthz" && head.values("user-agent").any(|agent| agent == ASKS_ITSELF)
    }

    fn answer(&self, request: &Request, _: &[u8]) -> Response {
        let host = request.header("Host").unwrap_or_default();
        if !self.is_ours(host) {
            // The name is the browser's, and so may be a stranger's page that was pointed here (DNS rebinding).
            let reason =
                "Host is not localhost or a loopback address; proxy.admin_hosts in hub.toml lists further names";
            return answer::error(403, reason);
        }
        if self.token.as_ref().is_some_and(|token| !token.is_in(request)) {
            let reason = "the admin token is needed, as bearer or as password";
            return answer::error(401, reason)
                .with_additional_header("WWW-Authenticate", "Basic realm=\"Observability Hub\", charset=\"UTF-8\"");
        }
        if !answer::reads(request.method()) && request.header("Origin").is_some() {
            return answer::error(403, "a web page may not send this (Origin is set)");
        }
        let path = request.raw_url().split('?').next().unwrap_or_default();
        if let Some(pipeline) = path.strip_prefix("/api/sync/") {
            return self.syncs.answer(request, pipeline);
        }
        let place = page::Place::of(request);
        if place.is_none() && !matches!(path, "/api/status" | "/metrics" | ICON) {
            return answer::not_found();
        }
        if !answer::reads(request.method()) {
            return answer::method_not_allowed("GET, HEAD");
        }
        if path == ICON {
            return Response::empty_204();
        }
        let status = self.sources.collect();
        if let Some(place) = place {
            return place.answer(&status, &self.readers);
        }
        match path {
            "/metrics" => Response::from_data(prometheus::MEDIA_TYPE, prometheus::format(&status))
                .with_additional_header("Cache-Control", "no-store"),
            _ => match serde_json::to_value(&status) {
                Ok(body) => answer::json(200, &body),
                Err(error) => answer::error(500, &error.to_string()),
            },
        }
    }
}

impl Admin {
    fn is_ours(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        let loopback = || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        let listed = |listed: &String| listed.eq_ignore_ascii_case(name) || listed.eq_ignore_ascii_case(host);
        name.eq_ignore_ascii_case("localhost") || loopback() || self.hosts.iter().any(listed)
    }
}

/// The name or address in a `Host` (RFC 9110, section 7.2), without port and brackets.
fn host_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    (port && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_host() {
        for (host, name) in [
            ("localhost", Some("localhost")),
            ("localhost:8086", Some("localhost")),
            ("127.0.0.1:8086", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("[::1]:8086", Some("::1")),
            ("::1", None),
            ("", None),
            (":80", None),
            ("localhost:80.evil.example", None),
            ("[::1].evil.example", None),
            ("localhost:123456", None),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }
}
