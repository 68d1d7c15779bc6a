use std::fmt;

use super::values::text_value;
use super::{Credentials, Error, environment};
use crate::text::percent_encoded;

/// What a database URL begins with.
const SCHEMES: [&str; 3] = ["sqlite:", "postgres://", "postgresql://"];

/// Where the database is. It may hold a password, so its text form leaves out whatever could be one.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    password: Option<String>,
}

text_value!(DatabaseUrl, DatabaseUrl::parse);

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self { text: "sqlite:hub.db".to_owned(), password: None }
    }
}

impl DatabaseUrl {
    /// Checks the form of a URL: `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// # Errors
    /// What would be right; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = SCHEMES.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if !known || text.chars().any(char::is_control) {
            return Err("write \"sqlite:hub.db\" or \"postgres://…\"".to_owned());
        }
        Ok(Self { text: text.to_owned(), password: None })
    }

    /// The URL with everything in it; for the driver only.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The password to use where the URL has none; for the driver only.
    pub fn expose_password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The path of a SQLite database; none for another database.
    pub fn sqlite_path(&self) -> Option<&str> {
        self.text.strip_prefix("sqlite:")
    }

    /// The URL that is in force, the first of: environment, credential, `configured` (the file or default).
    pub(super) fn choose(configured: &Self, credentials: &Credentials) -> Result<Self, Error> {
        let from_environment = |reason| Error::Environment { name: "DATABASE_URL", reason };
        let from_credential = |reason| Error::Credential { name: "database-url".to_owned(), reason };
        let mut url = if let Some(text) = environment("DATABASE_URL") {
            Self::parse(text.trim()).map_err(from_environment)?
        } else if let Some(url) = Self::from_parts()? {
            url
        } else if let Some(secret) = credentials.read("database-url")? {
            let text = std::str::from_utf8(secret.bytes()).map_err(|_| from_credential("is not UTF-8".to_owned()))?;
            Self::parse(text.trim()).map_err(from_credential)?
        } else {
            configured.clone()
        };
        url.password = environment("SERVER_DB_PASSWORD");
        Ok(url)
    }

    /// The URL of the variables that installations of the Go version set, when there is any.
    fn from_parts() -> Result<Option<Self>, Error> {
        let [host, port, user, name] = ["DB_HOST", "DB_PORT", "DB_USER", "DB_NAME"].map(environment);
        if [&host, &port, &user, &name].iter().all(|part| part.is_none()) {
            return Ok(None);
        }
        let port = match port {
            None => 5432,
            Some(text) => text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| Error::Environment {
                name: "DB_PORT",
                reason: format!("{text:?} is not a port; write a number from 1 to 65535"),
            })?,
        };
        let host = percent_encoded(host.as_deref().unwrap_or("localhost").as_bytes());
        let user = user.map(|user| percent_encoded(user.as_bytes()) + "@").unwrap_or_default();
        let name = name.map(|name| format!("/{}", percent_encoded(name.as_bytes()))).unwrap_or_default();
        Ok(Some(Self { text: format!("postgres://{user}{host}:{port}{name}"), password: None }))
    }
}

/// Scheme, host and database; user, password and parameters are left out, wherever a stray `@` or `?` puts them.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.text.split_once("://") else { return f.write_str(&self.text) };
        let rest = rest.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{}", rest.split(['?', '#']).next().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_url_shows_a_password() {
        for (text, shown) in [
            ("sqlite:hub.db", "sqlite:hub.db"),
            ("postgres://hub:geheim@db:5432/metrics?sslmode=require", "postgres://db:5432/metrics"),
            ("postgres://hub:ge@geheim@db/metrics", "postgres://db/metrics"),
            ("postgres://hub@db/metrics?password=geheim", "postgres://db/metrics"),
            ("postgresql://hub:ge?geheim=@db/metrics", "postgresql://db/metrics"),
        ] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!((format!("{url}"), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        assert!(!DatabaseUrl::parse("mysql://root:geheim@db").unwrap_err().contains("geheim"));
    }
}
