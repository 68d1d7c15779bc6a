//! What is published, and where the gate keeps what it knows.

use std::net::SocketAddr;

use super::Error;
use crate::config::{Config, reachable};
use crate::state::{self, Folder};

/// What may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub address: SocketAddr,
    pub url: String,
    /// The listener that is never published. What it answers tells a proxy that is flooded from one that hangs.
    pub admin: SocketAddr,
}

/// The proxy's public address as the funnel reaches it; never the admin listener's.
pub(super) fn target(config: &Config) -> Result<Target, Error> {
    let (public, admin) = (config.proxy.listen, config.proxy.admin_listen);
    if public.port() == 0 {
        let reason = "proxy.listen has the port 0, which is another one at every start; the gate needs a fixed one";
        return Err(Error::Config(reason.to_owned()));
    }
    let address = reachable(public);
    Ok(Target { address, url: format!("http://{address}"), admin: reachable(admin) })
}

/// The target, where the proxy starts with its secrets, too.
pub(super) fn publishable(config: &Config) -> Result<Target, String> {
    config.credentials().webhook_secrets().map_err(|error| error.to_string())?;
    target(config).map_err(|error| error.to_string())
}

/// `<state>/gate`, made where missing.
pub(super) fn folder(config: &Config) -> Result<Folder, state::Error> {
    Folder::open_or_make(&config.state_dir, 0o755)?.sub_or_make("gate", 0o750)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_of(text: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(Some(&path)).map_err(|error| error.to_string())?;
        target(&config).map(|target| target.url).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_public_listener_can_be_published() {
        assert_eq!(target_of("").unwrap(), "http://127.0.0.1:8085");
        assert_eq!(target_of("[proxy]\nlisten = \"0.0.0.0:80\"").unwrap(), "http://127.0.0.1:80");
        assert_eq!(target_of("[proxy]\nlisten = \"[::]:80\"").unwrap(), "http://[::1]:80");
        assert_eq!(target_of("[proxy]\nlisten = \"192.0.2.7:80\"").unwrap(), "http://192.0.2.7:80");
        for listen in ["0.0.0.0:8086", "127.0.0.1:8086", "[::]:8086"] {
            let error = target_of(&format!("[proxy]\nlisten = \"{listen}\"")).unwrap_err();
            assert!(error.contains("proxy.admin_listen"), "{error}");
        }
        assert!(target_of("[proxy]\nlisten = \"127.0.0.1:0\"").unwrap_err().contains("port 0"));
    }
}
