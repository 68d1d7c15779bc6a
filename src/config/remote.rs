use std::fmt;
use std::path::PathBuf;

/// Where a repository is fetched from. The URL comes from hub.toml only and names exactly one protocol, which is then
/// the only one that git may use.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    url: String,
    protocol: &'static str,
    host: String,
}

impl Remote {
    /// Checks a URL: `https://`, `ssh://`, `user@host:path`, `file://`, an absolute path; `http://` and `git://`
    /// only on this host, because whoever can answer in the remote's name is root here.
    ///
    /// # Errors
    /// What is wrong and what would be right; a password in the URL is not repeated.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with('-') || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("is not a URL; write one such as \"https://github.com/acme/infra.git\"".to_owned());
        }
        let remote = |protocol, host: &str| Self { url: url.to_owned(), protocol, host: host.to_owned() };
        if url.starts_with('/') {
            return Ok(remote("file", ""));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            // scp's form, user@host:path; a colon after a slash would be a path.
            let (address, path) = url.split_once(':').ok_or_else(|| unknown(url))?;
            let host = address.rsplit('@').next().unwrap_or(address);
            // git takes helper::address for a program to run.
            if path.is_empty() || path.starts_with(':') || address.contains('/') || !is_host(host) {
                return Err(unknown(url));
            }
            return Ok(remote("ssh", host));
        };
        let authority = rest.split('/').next().unwrap_or(rest);
        let (user, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') || (!user.is_empty() && scheme != "ssh") {
            return Err(
                "has a user or password in it; write the URL without, and name a credential with token or ssh_key"
                    .to_owned(),
            );
        }
        let host = host_of(host_port);
        let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match scheme {
            "file" if rest.starts_with('/') => Ok(remote("file", "")),
            "https" if is_host(host) => Ok(remote("https", host)),
            "ssh" if is_host(host) => Ok(remote("ssh", host)),
            "http" if local => Ok(remote("http", host)),
            "git" if local => Ok(remote("git", host)),
            "http" | "git" => Err(format!(
                "{scheme}:// can be answered by anyone on the way, who would be root here; write https:// or ssh://"
            )),
            _ => Err(unknown(url)),
        }
    }

    /// The URL, free of secrets.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// git's name of the protocol (`GIT_ALLOW_PROTOCOL`, git(1)).
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// The host; empty for a local path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The folder of a local remote.
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.protocol == "file").then(|| PathBuf::from(self.url.strip_prefix("file://").unwrap_or(&self.url)))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn unknown(url: &str) -> String {
    format!(
        "{url:?} is not a URL that the hub fetches from; write https://, ssh://, user@host:path, file:// or an absolute path"
    )
}

fn host_of(host_port: &str) -> &str {
    match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host_port.split(':').next().unwrap_or(host_port),
    }
}

fn is_host(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>().is_ok();
    address
        || (!host.is_empty()
            && !host.starts_with('-')
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::Remote;

    #[test]
    fn accepted_urls_name_their_protocol_and_host() {
        for (url, protocol, host) in [
            ("https://github.com/acme/infra.git", "https", "github.com"),
            ("https://forge.lan:8443/acme/infra", "https", "forge.lan"),
            ("ssh://git@[::1]:2222/srv/git/infra.git", "ssh", "::1"),
            ("git@github.com:acme/infra.git", "ssh", "github.com"),
            ("file:///srv/git/infra.git", "file", ""),
            ("/srv/git/infra.git", "file", ""),
            ("http://127.0.0.1:3000/acme/infra.git", "http", "127.0.0.1"),
            ("git://localhost/infra.git", "git", "localhost"),
        ] {
            let remote = Remote::parse(url).unwrap();
            assert_eq!((remote.protocol(), remote.host()), (protocol, host), "{url}");
        }
        assert_eq!(Remote::parse("file:///srv/x").unwrap().local_path(), Some("/srv/x".into()));
    }

    #[test]
    fn refused_urls_say_why_and_keep_secrets() {
        for (url, part) in [
            ("http://example.org/x.git", "anyone on the way"),
            ("git://example.org/x.git", "anyone on the way"),
            ("--upload-pack=touch /x", "not a URL"),
            ("ext::sh -c id", "not a URL"),
            ("ext::sh", "not a URL"),
            ("ssh://-oProxyCommand=id/x", "not a URL"),
            ("-oProxyCommand=id:x", "not a URL"),
            ("relative/path", "not a URL"),
            ("ftp://example.org/x", "not a URL"),
            ("https://", "not a URL"),
        ] {
            assert!(Remote::parse(url).unwrap_err().contains(part), "{url}");
        }
        let error = Remote::parse("https://me:s3cr3t-s3cr3t@github.com/x.git").unwrap_err();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}
