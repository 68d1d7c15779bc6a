//! The password file of libpq (PostgreSQL manual, "34.16. The Password File").

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use postgres::config::Host;

/// A longer one is none.
const LONGEST: u64 = 1 << 20;

/// The password for a connection, from the file that the URL names, else from `$PGPASSFILE` or `~/.pgpass`, which may be
/// missing; none where the file has none for it.
///
/// # Errors
/// Why the file that the URL names cannot be used.
pub(super) fn find(named: Option<&Path>, config: &postgres::Config) -> Result<Option<String>, String> {
    if let Some(file) = named {
        return read(file)
            .map(|text| choose(&text, config))
            .map_err(|reason| format!("passfile {}: {reason}", file.display()));
    }
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = from("PGPASSFILE").or_else(|| from("HOME").map(|home| home.join(".pgpass")));
    // As with libpq, one that nobody named and that cannot be used is none.
    Ok(file.and_then(|file| read(&file).ok()).and_then(|text| choose(&text, config)))
}

fn read(file: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err("is no file of passwords".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("others may read it; run chmod 600 on it".to_owned());
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

/// The password of the first line that fits one of the hosts.
fn choose(text: &str, config: &postgres::Config) -> Option<String> {
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let hosts = hosts(config);
    let line = |line: &str| {
        let [host, number, line_database, line_user, password] = fields(line)?;
        let fits = |field: &str, value: &str| field == "*" || field == value;
        let is_host = |(name, port): &(String, u16)| {
            // A socket may be called localhost.
            (fits(&host, name) || name.starts_with('/') && host == "localhost") && fits(&number, &port.to_string())
        };
        (hosts.iter().any(is_host) && fits(&line_database, database) && fits(&line_user, user)).then_some(password)
    };
    text.lines().filter(|text| !text.starts_with('#')).find_map(line)
}

/// `host:port:database:user:password`, in which a backslash makes the next character an ordinary one.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            character => {
                let character = if character == '\\' { characters.next().unwrap_or('\\') } else { character };
                fields.last_mut()?.push(character);
            }
        }
    }
    fields.try_into().ok()
}

/// The hosts, or folders of sockets, and their ports.
pub(super) fn hosts(config: &postgres::Config) -> Vec<(String, u16)> {
    let ports = config.get_ports();
    let host = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        let name = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        (name, port)
    };
    config.get_hosts().iter().enumerate().map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# comment\nother:*:*:*:no\nno colon\ndb:5433:metrics:hub:no\ndb:5432:metrics:h\\:ub:a\\\\b:c\n\
                    localhost:*:*:hub:socket\n*:*:*:hub:any\n";
        let password = |url: &str| choose(text, &url.parse().unwrap());
        assert_eq!(password("postgres://h%3Aub@db/metrics").as_deref(), Some("a\\b:c"));
        assert_eq!(password("postgres:///metrics?host=/run/postgresql&user=hub").as_deref(), Some("socket"));
        assert_eq!(password("postgres://hub@elsewhere/x").as_deref(), Some("any"));
        assert_eq!(password("postgres://stranger@elsewhere/x"), None);
        assert_eq!(password("postgres://hub@db:5433,other/metrics").as_deref(), Some("no"));
    }
}
