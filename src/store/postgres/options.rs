//! What follows the `?` of a URL, as libpq has it (PostgreSQL manual, "34.1.2. Parameter Key Words").

use crate::tls::Version;

/// What may follow the `?` and goes to the driver. The names are libpq's.
const DRIVERS: [&str; 16] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "user",
];
/// What may follow it and has no meaning here: there is no GSSAPI, no compression, and the hub has its own deadlines.
const WITHOUT_MEANING: [&str; 7] =
    ["gssdelegation", "gsslib", "krbsrvname", "sslcertmode", "sslcompression", "sslsni", "tcp_user_timeout"];
/// What libpq knows and the hub does not.
const NOT_SUPPORTED: [&str; 9] = [
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// What follows the `?`.
#[derive(Default)]
pub(super) struct Options<'a> {
    pub mode: Option<String>,
    pub roots: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub passfile: Option<String>,
    pub versions: [Option<Version>; 2],
    pub fallback_name: Option<String>,
    /// For the driver, as they stand there.
    pub rest: Vec<&'a str>,
    /// What is wrong with an option; said where the rest of the URL is right, as else it may be a piece of a password.
    pub wrong: Option<String>,
}

impl<'a> Options<'a> {
    /// None where it has not the form of options.
    pub(super) fn read(query: &'a str) -> Option<Self> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            if let Some(wrong) = options.take(pair, key, &percent_decoded(value)?) {
                options.wrong.get_or_insert(wrong);
            }
        }
        Some(options)
    }

    /// Takes an option; what is wrong with it.
    fn take(&mut self, pair: &'a str, key: &str, value: &str) -> Option<String> {
        let version = || match value {
            "TLSv1" | "TLSv1.1" | "TLSv1.2" => Some(Version::V12),
            "TLSv1.3" => Some(Version::V13),
            _ => None,
        };
        let kept = Some(value.to_owned());
        match key {
            "sslmode" => self.mode = kept,
            // As libpq takes it from URLs of JDBC.
            "ssl" if value == "true" => self.mode = Some("require".to_owned()),
            "sslrootcert" => self.roots = kept,
            "sslcert" => self.certificate = kept,
            "sslkey" => self.key = kept,
            "passfile" => self.passfile = kept,
            "fallback_application_name" => self.fallback_name = kept,
            "ssl_min_protocol_version" | "ssl_max_protocol_version" if !value.is_empty() && version().is_none() => {
                return Some(format!("{key}: write TLSv1.2 or TLSv1.3"));
            }
            "ssl_min_protocol_version" => self.versions[0] = version(),
            "ssl_max_protocol_version" if matches!(value, "TLSv1" | "TLSv1.1") => {
                return Some(format!("{key}: the oldest TLS that is spoken here is TLSv1.2"));
            }
            "ssl_max_protocol_version" => self.versions[1] = version(),
            "target_session_attrs" => match value {
                "any" => self.rest.push("target_session_attrs=any"),
                "read-write" | "primary" => self.rest.push("target_session_attrs=read-write"),
                _ => return Some(format!("{key}: rows are written, so it takes any, primary or read-write")),
            },
            "client_encoding" if matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "auto") => {}
            "gssencmode" if matches!(value, "disable" | "prefer") => {}
            "client_encoding" => return Some(format!("{key}: text is sent as UTF8; leave it out")),
            "gssencmode" => return Some(format!("{key}: there is no GSSAPI here; write disable, and use sslmode")),
            _ if DRIVERS.contains(&key) => self.rest.push(pair),
            _ if WITHOUT_MEANING.contains(&key) => {}
            _ if NOT_SUPPORTED.contains(&key) => return Some(format!("the option {key} is not supported")),
            _ => {
                let is_name = (2..=40).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let named =
                    if is_name { format!("has an unknown option {key}") } else { "has an unknown option".into() };
                return Some(format!(
                    "{named}; known are {}, fallback_application_name, passfile, sslcert, sslkey, sslmode, sslrootcert, \
                     ssl_min_protocol_version, ssl_max_protocol_version, target_session_attrs",
                    DRIVERS.join(", ")
                ));
            }
        }
        None
    }
}

/// RFC 3986, section 2.1; none where an escape is not two hexadecimal digits, or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
