//! Which servers a TLS connection trusts. Knows of certificates, and neither of databases nor of HTTP.

mod client;
mod expiry;
mod version;

use std::error::Error;
use std::io;

use rustls::CertificateError;

pub use client::{Key, Trust, Version, Wants, client};
pub use expiry::expiry;

/// What rustls said, where `error` comes of that.
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What is wrapped in an error of the system is not its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map_or_else(|| error.source(), |inner| Some(inner));
    }
    None
}

/// What to do where nobody who is trusted has signed the server's certificate; empty otherwise.
pub fn advice(error: &(dyn Error + 'static), example: &str) -> String {
    use CertificateError::{BadSignature, UnknownIssuer};
    match cause(error) {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            format!("; name the server's certificate authority with {example}")
        }
        _ => String::new(),
    }
}
