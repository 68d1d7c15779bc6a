//! How the hub's programs ask one another over HTTP, and how notices leave this host. Nothing here knows a path or what an
//! answer means.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A client for a service of this host: every status is an answer, nothing is followed, and no `*_proxy` of the environment
/// leads out. `limit` is for a whole request with its answer.
pub fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::new_with_config(config(limit, None))
}

/// Why there is no answer, in the system's words.
pub fn said(error: &ureq::Error) -> String {
    if let ureq::Error::Io(error) = error { error.to_string() } else { error.to_string() }
}

/// What to do where nobody who is trusted has signed the server's certificate: `example` names one's own authority. Empty
/// otherwise.
pub fn advice(error: &ureq::Error, example: &str) -> String {
    match error {
        #[cfg(feature = "tls")]
        ureq::Error::Io(error) => crate::tls::advice(error, example),
        _ => {
            let _ = example;
            String::new()
        }
    }
}

/// How long a server wants to be left alone: `Retry-After`, seconds or a date (RFC 9110, section 10.2.3); else, where nothing is
/// left of what it grants, until when (docs.github.com, "Rate limits for the REST API").
pub fn retry_after<T>(answer: &ureq::http::Response<T>, now: Timestamp) -> Option<SignedDuration> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let reset = || {
        header("x-ratelimit-remaining").filter(|left| *left == "0")?;
        let reset = Timestamp::from_second(header("x-ratelimit-reset")?.trim().parse().ok()?).ok()?;
        Some(reset.duration_since(now).max(SignedDuration::ZERO))
    };
    header("retry-after").and_then(|value| pause(value, now)).or_else(reset)
}

fn pause(value: &str, now: Timestamp) -> Option<SignedDuration> {
    if let Ok(seconds) = value.trim().parse::<u32>() {
        return Some(SignedDuration::from_secs(i64::from(seconds)));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Some(date.timestamp().duration_since(now).max(SignedDuration::ZERO))
}

fn config(limit: Duration, proxy: Option<ureq::Proxy>) -> ureq::config::Config {
    ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .build()
}

/// What a client of one server trusts. Its authorities are read once, for as many clients as are made.
#[derive(Clone)]
pub struct Trusting {
    #[cfg(feature = "tls")]
    tls: Option<rustls::ClientConfig>,
}

impl Trusting {
    /// For a URL. A server over `https://` has to show a certificate of the authorities in `ca`, a file of PEM certificates, else
    /// of the system's. `example` is how a person writes that key.
    ///
    /// # Errors
    /// When the authorities cannot be read, another user could change the file that root is to read, or this build has no TLS
    /// and the URL needs it. The URL is not repeated, since it may be a secret.
    pub fn of(url: &str, ca: Option<&Path>, example: &'static str) -> Result<Self, String> {
        #[cfg(feature = "tls")]
        {
            use crate::tls::{Key, Trust, Wants, client};
            if !url.starts_with("https:") {
                return Ok(Self { tls: None });
            }
            if let Some(path) = ca.filter(|_| rustix::process::geteuid().is_root()) {
                crate::state::require_roots(path).map_err(|error| format!("ca: {error}"))?;
            }
            // Whoever reads a FIFO waits for its writer.
            if ca.is_some_and(|path| std::fs::metadata(path).is_ok_and(|found| !found.is_file())) {
                return Err("ca: is no file; write the path of PEM certificates".to_owned());
            }
            let key = Key { name: "ca", example };
            Ok(Self { tls: Some(client(Trust::AuthorityAndName, ca, key, Wants::default())?) })
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = (ca, example);
            if url.starts_with("https:") {
                return Err("a URL over https cannot be asked: this build has no TLS (cargo feature tls)".to_owned());
            }
            Ok(Self {})
        }
    }

    /// As [`agent`], for `https://` too.
    pub fn agent(&self, limit: Duration) -> ureq::Agent {
        self.with(config(limit, None))
    }

    /// A client for servers anywhere, by way of the proxy that `ALL_PROXY`, `HTTPS_PROXY` or `HTTP_PROXY` names. Nothing is
    /// followed, so that a token reaches nobody but who it is for.
    pub fn outward(&self, limit: Duration) -> ureq::Agent {
        self.with(config(limit, ureq::Proxy::try_from_env()))
    }

    fn with(&self, config: ureq::config::Config) -> ureq::Agent {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return encrypting(config, tls.clone());
        }
        ureq::Agent::new_with_config(config)
    }
}

#[cfg(feature = "tls")]
fn encrypting(config: ureq::config::Config, tls: rustls::ClientConfig) -> ureq::Agent {
    use ureq::unversioned::resolver::DefaultResolver;
    use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, TcpConnector};

    let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    let connector = connector.chain(encrypted::Connector(std::sync::Arc::new(tls)));
    ureq::Agent::with_parts(config, connector, DefaultResolver::default())
}

/// TLS over ureq's TCP, after its own, which takes no verifier of ours.
#[cfg(feature = "tls")]
mod encrypted {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, StreamOwned};
    use ureq::Error;
    use ureq::unversioned::transport::{
        Buffers, ConnectionDetails, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
    };

    #[derive(Debug)]
    pub(super) struct Connector(pub Arc<ClientConfig>);

    impl<In: Transport> ureq::unversioned::transport::Connector<In> for Connector {
        type Out = Either<In, Encrypted>;

        fn connect(&self, details: &ConnectionDetails, below: Option<In>) -> Result<Option<Self::Out>, Error> {
            let Some(transport) = below else { return Err(Error::ConnectionFailed) };
            if !details.needs_tls() {
                return Ok(Some(Either::A(transport)));
            }
            let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Tls("the host is no name"))?;
            let mut conn = ClientConnection::new(self.0.clone(), name).map_err(std::io::Error::other)?;
            let mut sock = TransportAdapter::new(transport.boxed(), details.current_time.clone());
            sock.set_timeout(details.timeout);
            conn.complete_io(&mut sock)?;
            let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
            Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned { conn, sock } })))
        }
    }

    pub(super) struct Encrypted {
        buffers: LazyBuffers,
        stream: StreamOwned<ClientConnection, TransportAdapter>,
    }

    impl std::fmt::Debug for Encrypted {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Encrypted")
        }
    }

    impl Transport for Encrypted {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
            self.stream.sock.set_timeout(timeout);
            Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
        }

        fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
            self.stream.sock.set_timeout(timeout);
            let amount = self.stream.read(self.buffers.input_append_buf())?;
            self.buffers.input_appended(amount);
            Ok(amount > 0)
        }

        fn is_open(&mut self) -> bool {
            self.stream.sock.get_mut().is_open()
        }

        fn is_tls(&self) -> bool {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_number_or_a_date() {
        let now: Timestamp = "2015-10-21T07:27:00Z".parse().unwrap();
        assert_eq!(pause("120", now), Some(SignedDuration::from_secs(120)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(SignedDuration::from_secs(60)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:26:00 GMT", now), Some(SignedDuration::ZERO));
        assert_eq!(pause("soon", now), None);
        let limited = |left: &str| {
            let answer = ureq::http::Response::builder().header("x-ratelimit-remaining", left);
            answer.header("x-ratelimit-reset", now.as_second() + 7).body(()).unwrap()
        };
        assert_eq!(retry_after(&limited("0"), now), Some(SignedDuration::from_secs(7)));
        assert_eq!(retry_after(&limited("9"), now), None);
    }
}
