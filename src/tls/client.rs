//! Which servers a connection trusts, and the client that does.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::version::as_version_3;

/// How far a server's certificate is checked (PostgreSQL manual, "34.19.1. Client Verification of Server Certificates").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Not at all: the connection is not encrypted, or only against listeners.
    Anyone,
    /// It must come from a trusted authority.
    Authority,
    /// It must come from a trusted authority and name the host.
    AuthorityAndName,
}

/// How a person names the server's own authority.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What to write.
    pub example: &'static str,
}

/// A version of TLS that can be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Version {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// What a client may want besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants<'a> {
    /// The oldest and the newest version.
    pub versions: [Option<Version>; 2],
    /// Files of a certificate of its own, and of its key.
    pub own: Option<(&'a Path, &'a Path)>,
}

/// The client's side of a connection. Without `roots`, a file of PEM certificates, the system's authorities are trusted.
///
/// # Errors
/// When the authorities or the client's own files cannot be read, and what to do.
pub fn client(trust: Trust, roots: Option<&Path>, key: Key, wants: Wants<'_>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = if trust == Trust::Anyone {
        Verifier { authorities: None, own: Vec::new(), check_name: false, algorithms }
    } else {
        let trusted = authorities(roots, key)?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(trusted.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .map_err(|error| format!("{}: {error}", key.name))?;
        // The system's authorities are no servers.
        let own = if roots.is_some() { trusted } else { Vec::new() };
        let check_name = trust == Trust::AuthorityAndName;
        Verifier { authorities: Some(inner), own, check_name, algorithms }
    };
    let [oldest, newest] = wants.versions;
    let is_wanted = |version: Version| {
        oldest.is_none_or(|oldest| oldest <= version) && newest.is_none_or(|newest| version <= newest)
    };
    let versions = [(Version::V13, &rustls::version::TLS13), (Version::V12, &rustls::version::TLS12)];
    let versions: Vec<_> =
        versions.into_iter().filter(|(version, _)| is_wanted(*version)).map(|(_, version)| version).collect();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match wants.own {
        Some((certificate, key)) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own(&provider, certificate, key)?)))
        }
        None => config.with_no_client_auth(),
    })
}

/// The client's own certificate with its key.
fn own(provider: &CryptoProvider, certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let failed = |error: &dyn std::fmt::Display| format!("sslkey {}: {error}", key.display());
    let chain = certificates("sslcert", certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            failed(&"has no key that can be read; a key with a passphrase cannot be used")
        }
        error => failed(&error),
    })?;
    let secret = provider.key_provider.load_private_key(secret).map_err(|error| failed(&error))?;
    // As with that of the server, one of version 1 is read as one of version 3.
    let readable = chain.iter().take(1).map(|first| as_version_3(first).unwrap_or_else(|| first.clone())).collect();
    CertifiedKey::new(readable, secret.clone())
        .keys_match()
        .map_err(|error| failed(&format!("does not belong to sslcert: {error}")))?;
    Ok(CertifiedKey::new(chain, secret))
}

/// The certificates of a PEM file that a key names.
fn certificates(name: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |reason: String| format!("{name} {}: {reason}", file.display());
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("has no certificate; it must be a PEM file".to_owned()));
    }
    Ok(certificates)
}

fn authorities(file: Option<&Path>, key: Key) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(format!(
                "this host has no trusted certificate authorities; run apt-get install ca-certificates, or name the server's \
                 authority with {}",
                key.example
            ));
        }
        return Ok(found.certs);
    };
    certificates(key.name, file)
}

/// Checks a certificate as far as `sslmode` asks for; rustls itself knows only the strictest.
#[derive(Debug)]
struct Verifier {
    /// None where any certificate is taken.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of `roots`: a server may show one of them itself (`openssl req -x509`), which rustls would
    /// refuse because an authority is no server.
    own: Vec<CertificateDer<'static>>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Checks what the server signed with the key of its certificate. rustls reads no certificate of version 1, which
    /// psql takes: where nobody is trusted, its key is read as that of one of version 3.
    fn signed(
        &self,
        certificate: &CertificateDer<'_>,
        check: impl Fn(&CertificateDer<'_>) -> Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match (check(certificate), as_version_3(certificate)) {
            (Err(_), Some(certificate)) if self.authorities.is_none() => check(&certificate),
            (outcome, _) => outcome,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let error = match authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        match &error {
            // The name is looked at last, so everything else is right.
            rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) if !self.check_name => {
                Ok(ServerCertVerified::assertion())
            }
            rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. } | Expired | ExpiredContext { .. },
            ) => Err(error),
            _ if self.own.contains(certificate) => {
                if self.check_name {
                    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(certificate, |certificate| {
            verify_tls12_signature(message, certificate, signature, &self.algorithms)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(certificate, |certificate| {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
