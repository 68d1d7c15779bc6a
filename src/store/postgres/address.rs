use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::{Host, SslMode};

use super::CONNECT_LIMIT;
use crate::config::DatabaseUrl;
use crate::store::Error;
use crate::tls::Trust;

/// A URL that was understood.
pub(super) struct Address {
    pub config: postgres::Config,
    pub trust: Trust,
    /// A file of trusted authorities; none for the system's.
    pub roots: Option<PathBuf>,
    /// Hosts, ports and database, for messages.
    pub target: String,
    /// The role that logs in.
    pub role: String,
}

/// What may follow the `?`. The names are libpq's; what the driver does not know is handled here.
const PARAMETERS: [&str; 18] = [
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
    "password",
    "port",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

impl Address {
    /// Understands a URL of libpq's form.
    ///
    /// # Errors
    /// What is wrong; never a piece of the URL, because with a stray `@`, `?` or `/` any piece may be of a password.
    pub(super) fn parse(url: &DatabaseUrl) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Config(format!("database.url: {reason}"));
        let form = "is not a PostgreSQL URL; write postgres://user:password@host:5432/database?sslmode=verify-full, \
                    and percent-encode special characters of user and password (@ is %40, / is %2F, ? is %3F)";
        let text = url.expose();
        let after_user = text.rfind('@').map_or(0, |at| at + 1);
        if text[..after_user].matches('@').count() > 1 {
            return Err(wrong(form));
        }
        let question_mark = text[after_user..].find('?').map(|at| after_user + at);
        let (base, query) = question_mark.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong(form))?;
            match key {
                "sslmode" => mode = Some(value),
                "sslrootcert" => roots = Some(percent_decoded(value).ok_or_else(|| wrong(form))?),
                key if PARAMETERS.contains(&key) => rest.push(pair),
                _ => return Err(wrong(&format!("has an unknown parameter; known are {}", PARAMETERS.join(", ")))),
            }
        }
        let driver_url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config: postgres::Config = driver_url.parse().map_err(|_| wrong(form))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host; write postgres://user@host/database, or ?host=/var/run/postgresql"));
        }
        let roots = roots.filter(|file| file != "system").map(PathBuf::from);
        if roots.as_deref().is_some_and(|file| !file.is_absolute()) {
            return Err(wrong("sslrootcert must be an absolute path or \"system\""));
        }
        let (ssl_mode, trust) = modes(mode, roots.as_deref())
            .ok_or_else(|| wrong("sslmode is unknown; write disable, prefer, require, verify-ca or verify-full"))?;
        // libpq, too, ignores sslmode on a unix socket.
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if local { SslMode::Disable } else { ssl_mode });
        if let (None, Some(password)) = (config.get_password(), url.expose_password()) {
            config.password(password);
        }
        if config.get_user().is_none() {
            config.user(&crate::command::current().name);
        }
        complete(&mut config);
        let role = config.get_user().unwrap_or_default().to_owned();
        let target = shown(&config, &role);
        Ok(Self { trust: if local { Trust::Anyone } else { trust }, config, roots, target, role })
    }
}

fn modes(mode: Option<&str>, roots: Option<&Path>) -> Option<(SslMode, Trust)> {
    Some(match mode {
        Some("disable") => (SslMode::Disable, Trust::Anyone),
        None | Some("prefer") => (SslMode::Prefer, Trust::Anyone),
        // With a root certificate, libpq's `require` means `verify-ca`.
        Some("require") if roots.is_some() => (SslMode::Require, Trust::Authority),
        Some("require") => (SslMode::Require, Trust::Anyone),
        Some("verify-ca") => (SslMode::Require, Trust::Authority),
        Some("verify-full") => (SslMode::Require, Trust::AuthorityAndName),
        Some(_) => return None,
    })
}

/// Deadlines, and a name that pg_stat_activity shows.
fn complete(config: &mut postgres::Config) {
    let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
    let each = CONNECT_LIMIT / hosts;
    config.connect_timeout(config.get_connect_timeout().map_or(each, |wanted| each.min(*wanted)));
    config.tcp_user_timeout(Duration::from_secs(10));
    config.keepalives_idle(Duration::from_secs(10));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("observability-hub");
    }
}

fn shown(config: &postgres::Config, role: &str) -> String {
    let ports = config.get_ports();
    let host = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or(role))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, Error> {
        Address::parse(&DatabaseUrl::parse(text).unwrap())
    }

    #[test]
    fn every_sslmode_means_what_libpq_means_by_it() {
        for (query, mode, trust) in [
            ("", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=disable", SslMode::Disable, Trust::Anyone),
            ("?sslmode=require", SslMode::Require, Trust::Anyone),
            ("?sslmode=require&sslrootcert=/ca%2Epem", SslMode::Require, Trust::Authority),
            ("?sslmode=verify-ca&sslrootcert=system", SslMode::Require, Trust::Authority),
            ("?application_name=x&sslmode=verify-full", SslMode::Require, Trust::AuthorityAndName),
        ] {
            let address = parse(&format!("postgres://hub:geheim@db/metrics{query}")).unwrap();
            assert_eq!((address.config.get_ssl_mode(), address.trust), (mode, trust), "{query}");
            assert_eq!((address.target.as_str(), address.role.as_str()), ("postgres://db:5432/metrics", "hub"));
        }
        let roots = parse("postgres://db/m?sslmode=require&sslrootcert=/ca%2Epem").unwrap().roots;
        assert_eq!(roots.as_deref(), Some(Path::new("/ca.pem")));
    }

    #[test]
    fn sockets_are_found_and_need_no_tls() {
        for text in [
            "postgres://hub@%2Fvar%2Frun%2Fpostgresql:5433/metrics?sslmode=verify-full",
            "postgresql:///metrics?host=/var/run/postgresql&port=5433&user=hub&sslmode=require",
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.target, "postgres:///var/run/postgresql:5433/metrics");
            assert_eq!((address.config.get_ssl_mode(), address.trust), (SslMode::Disable, Trust::Anyone));
        }
    }

    #[test]
    fn wrong_urls_are_explained_without_a_piece_of_the_password() {
        for text in [
            "postgres://hub:ge@geheim@db/metrics",
            "postgres://hub:x?geheim=1@db/metrics",
            "postgres://hub@db/metrics?geheim=1",
            "postgres://hub@db/metrics?geheim",
            "postgres://hub:x@db:geheim/metrics",
            "postgres://hub:x@db/metrics?sslmode=geheim",
            "postgres://hub:x@db/metrics?sslrootcert=%zzgeheim",
            "postgres://hub:x@db/metrics?sslrootcert=geheim",
            "postgres:///metrics?password=geheim",
        ] {
            match parse(text) {
                Err(error) => {
                    assert!(matches!(error, Error::Config(_)) && !error.to_string().contains("geheim"), "{error}")
                }
                Ok(address) => assert!(!address.target.contains("geheim"), "{}", address.target),
            }
        }
    }
}
