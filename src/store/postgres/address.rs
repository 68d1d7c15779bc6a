use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::{Host, SslMode};

use super::options::Options;
use super::passfile::{self, hosts};
use crate::config::DatabaseUrl;
use crate::store::Error;
use crate::tls::{Trust, Version};

/// From the first packet to the end of the login.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A URL that was understood.
pub(super) struct Address {
    pub config: postgres::Config,
    pub trust: Trust,
    /// A file of trusted authorities; none for the system's.
    pub roots: Option<PathBuf>,
    /// The files of the client's own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The oldest and the newest version of TLS, where the URL says so.
    pub versions: [Option<Version>; 2],
    /// Hosts, ports and database, for messages.
    pub target: String,
    /// The role that logs in.
    pub role: String,
}

/// The folder of sockets that Debian's packages have.
const SOCKETS: &str = "/var/run/postgresql";

impl Address {
    /// Understands a URL of libpq's form.
    ///
    /// # Errors
    /// What is wrong; never a piece of the URL but the name of an option where the rest is right, because with a stray
    /// `@`, `?` or `/` any piece may be of a password.
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
        let options = Options::read(query).ok_or_else(|| wrong(form))?;
        let driver_url =
            if options.rest.is_empty() { base.to_owned() } else { format!("{base}?{}", options.rest.join("&")) };
        let mut config: postgres::Config = driver_url.parse().map_err(|_| wrong(form))?;
        if let Some(reason) = options.wrong {
            return Err(wrong(&reason));
        }
        if config.get_hosts().is_empty() {
            // libpq, too, takes an address alone, or else the usual socket.
            for address in config.get_hostaddrs().to_vec() {
                config.host(&address.to_string());
            }
            if config.get_hosts().is_empty() {
                config.host_path(SOCKETS);
            }
        }
        let file = |name: &str, given: Option<String>| match given.map(PathBuf::from) {
            Some(file) if !file.is_absolute() => Err(wrong(&format!("{name} must be an absolute path"))),
            file => Ok(file),
        };
        let roots = options.roots.filter(|file| file != "system").map(PathBuf::from);
        if roots.as_deref().is_some_and(|file| !file.is_absolute()) {
            return Err(wrong("sslrootcert must be an absolute path or \"system\""));
        }
        let own = match (file("sslcert", options.certificate)?, file("sslkey", options.key)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(wrong("sslcert and sslkey belong together: name both files")),
        };
        let (ssl_mode, trust) = modes(options.mode.as_deref(), roots.as_deref())
            .ok_or_else(|| wrong("sslmode is unknown; write disable, prefer, require, verify-ca or verify-full"))?;
        // libpq, too, ignores sslmode on a unix socket.
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if local { SslMode::Disable } else { ssl_mode });
        if config.get_user().is_none() {
            config.user(&crate::command::current().name);
        }
        if config.get_application_name().is_none()
            && let Some(name) = &options.fallback_name
        {
            config.application_name(name);
        }
        if let (None, Some(password)) = (config.get_password(), url.expose_password()) {
            config.password(password);
        }
        let passfile = file("passfile", options.passfile)?;
        if config.get_password().is_none()
            && let Some(password) = passfile::find(passfile.as_deref(), &config).map_err(|reason| wrong(&reason))?
        {
            config.password(password);
        }
        complete(&mut config);
        let role = config.get_user().unwrap_or_default().to_owned();
        let target = shown(&config, &role);
        let trust = if local { Trust::Anyone } else { trust };
        Ok(Self { trust, config, roots, own, versions: options.versions, target, role })
    }

    /// The name of the database.
    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or(&self.role)
    }
}

fn modes(mode: Option<&str>, roots: Option<&Path>) -> Option<(SslMode, Trust)> {
    Some(match mode {
        Some("disable") => (SslMode::Disable, Trust::Anyone),
        None | Some("allow" | "prefer") => (SslMode::Prefer, Trust::Anyone),
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
    let hosts: Vec<String> = hosts(config).into_iter().map(|(name, port)| format!("{name}:{port}")).collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or(role))
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
            "postgres://hub:x@db/metrics?application_name=geheim&sslpasswort=geheim",
            "postgres://hub:x@db/metrics?Geheim%20geheim=1",
            "postgres://hub:geheim?heim=1",
            "postgres://hub@db/metrics?geheim",
            "postgres://hub@db/metrics?passfile=geheim",
            "postgres://hub@db/metrics?target_session_attrs=geheim",
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

    #[test]
    fn options_of_libpq_work_or_are_named() {
        for query in [
            "options=-c%20statement_timeout%3D5s",
            "target_session_attrs=primary",
            "gssencmode=disable&krbsrvname=postgres&sslcompression=0&sslsni=1&client_encoding=UTF8&tcp_user_timeout=1000",
            "sslmode=allow",
            "sslmode=require&sslcert=/c.pem&sslkey=/k.pem&ssl_min_protocol_version=TLSv1.3",
        ] {
            assert!(parse(&format!("postgres://hub:x@db/m?{query}")).is_ok(), "{query}");
        }
        for (query, says) in [
            ("sslrotcert=/x.pem", "unknown option sslrotcert"),
            ("sslmode=require&pool_size=3", "unknown option pool_size"),
            ("requirepeer=postgres", "requirepeer is not supported"),
            ("sslcrl=/x.pem", "sslcrl is not supported"),
            ("target_session_attrs=standby", "target_session_attrs: rows are written"),
            ("client_encoding=LATIN1", "client_encoding"),
            ("sslcert=/c.pem", "sslcert and sslkey belong together"),
            ("ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version"),
        ] {
            let error = parse(&format!("postgres://hub:x@db/m?{query}")).err().unwrap().to_string();
            assert!(error.contains(says), "{query}: {error}");
        }
        let address = parse("postgres://hub:x@db/m?ssl=true&fallback_application_name=me").unwrap();
        assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(address.config.get_application_name(), Some("me"));
        assert_eq!(parse("postgres:///m").unwrap().target, "postgres:///var/run/postgresql:5432/m");
        assert_eq!(parse("postgres:///m?hostaddr=10.0.0.1&user=hub").unwrap().target, "postgres://10.0.0.1:5432/m");
    }
}
