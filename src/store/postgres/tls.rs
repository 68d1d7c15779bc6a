use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Trust};
use crate::store::Error;

/// The TLS side of a connection.
///
/// # Errors
/// When the trusted authorities cannot be read.
pub(super) fn connector(address: &Address) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = if address.trust == Trust::Anyone {
        Verifier { authorities: None, own: Vec::new(), check_name: false, algorithms }
    } else {
        let trusted = authorities(address.roots.as_deref())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| Error::Config(format!("database.url: sslrootcert: {error}")))?;
        // The system's authorities are no servers.
        let own = if address.roots.is_some() { trusted } else { Vec::new() };
        let check_name = address.trust == Trust::AuthorityAndName;
        Verifier { authorities: Some(inner), own, check_name, algorithms }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(Error::Config(
                "database.url: this host has no trusted certificate authorities; run apt-get install ca-certificates, \
                 or name the server's authority with sslrootcert=/path/ca.pem"
                    .to_owned(),
            ));
        }
        return Ok(found.certs);
    };
    let failed = |reason: String| Error::Config(format!("database.url: sslrootcert {}: {reason}", file.display()));
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("has no certificate; it must be a PEM file".to_owned()));
    }
    Ok(certificates)
}

/// Checks a certificate as far as `sslmode` asks for; rustls itself knows only the strictest.
#[derive(Debug)]
struct Verifier {
    /// None where any certificate is taken.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of sslrootcert: a server may show one of them itself (`openssl req -x509`), which rustls would
    /// refuse because an authority is no server.
    own: Vec<CertificateDer<'static>>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
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
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
