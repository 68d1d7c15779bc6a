//! TLS to PostgreSQL: every `sslmode` against a real server with certificates of its own authority.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]
#![cfg(feature = "postgres")]

#[path = "support/authority.rs"]
mod authority;
mod support;

use authority::Authority;
use observability_hub::store::{Error, Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use support::Host;
use support::postgres::{Cluster, Database};

/// Gives the running server a certificate; `ssl` can be switched without a restart.
fn serve(cluster: &Cluster, certificate: &str, key: &str) {
    let (certificate, key) = (cluster.file("server.crt", certificate), cluster.file("server.key", key));
    let mut superuser = cluster.superuser("postgres");
    for (name, value) in
        [("ssl_cert_file", certificate.to_str().unwrap()), ("ssl_key_file", key.to_str().unwrap()), ("ssl", "on")]
    {
        superuser.execute(&format!("ALTER SYSTEM SET {name} = '{value}'"), &[]).unwrap();
    }
    superuser.execute("SELECT pg_reload_conf()", &[]).unwrap();
    let loaded = || cluster.superuser("postgres").query_one("SHOW ssl", &[]).unwrap().get::<_, String>(0) == "on";
    support::eventually("the server has TLS", loaded);
}

/// Opens the store and says whether the server sees an encrypted connection.
fn encrypted(database: &Database<'_>, query: &str) -> Result<bool, Error> {
    let url = format!("{}?{query}", database.url().replace("127.0.0.1", "localhost"));
    let _store = Store::open(&support::rows::config(&Host::new(), &url, ""))?;
    let sql = format!(
        "SELECT count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{}'",
        database.name
    );
    Ok(database.number(&sql) == 1)
}

fn refused(database: &Database<'_>, query: &str, says: &str) {
    let error = encrypted(database, query).unwrap_err();
    assert!(matches!(error, Error::Login { .. }) && !error.is_unavailable(), "{query}: {error}");
    assert!(error.to_string().contains(says), "{query}: {error}");
}

#[test]
fn every_sslmode_checks_what_it_promises() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("tls");
    assert!(!encrypted(&database, "").unwrap(), "without TLS on the server, prefer goes without");
    refused(&database, "sslmode=require", "ssl = on");

    let (own, stranger) = (Authority::new(), Authority::new());
    let ca = cluster.file("ca.crt", &own.pem());
    let foreign = cluster.file("stranger.crt", &stranger.pem());
    let (ca, foreign) = (ca.display(), foreign.display());
    let (certificate, key) = own.certificate(&["localhost", "127.0.0.1"]);
    serve(&cluster, &certificate, &key);
    assert!(!encrypted(&database, "sslmode=disable").unwrap());
    for query in ["", "sslmode=prefer", "sslmode=require"] {
        assert!(encrypted(&database, query).unwrap(), "{query}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(encrypted(&database, &format!("sslmode={mode}&sslrootcert={ca}")).unwrap());
        refused(&database, &format!("sslmode={mode}&sslrootcert={foreign}"), "sslrootcert=/path/ca.pem");
    }
    // The system's authorities do not know ours.
    for query in ["sslmode=verify-full", "sslmode=verify-ca&sslrootcert=system"] {
        match encrypted(&database, query).unwrap_err() {
            Error::Login { reason, .. } => assert!(reason.contains("UnknownIssuer"), "{reason}"),
            Error::Config(reason) => assert!(reason.contains("ca-certificates"), "{reason}"),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_certificate_for_another_name_passes_verify_ca_only() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("names");
    let own = Authority::new();
    let ca = cluster.file("ca.crt", &own.pem());
    let (certificate, key) = own.certificate(&["db.example.org"]);
    serve(&cluster, &certificate, &key);
    assert!(encrypted(&database, &format!("sslmode=verify-ca&sslrootcert={}", ca.display())).unwrap());
    refused(&database, &format!("sslmode=verify-full&sslrootcert={}", ca.display()), "subjectAltName");
}

#[test]
fn a_self_signed_server_is_trusted_by_its_own_certificate() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("selfsigned");
    // As `openssl req -x509` makes it: an authority that is a server too.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    serve(&cluster, &certificate, &key.serialize_pem());
    let trusted = cluster.file("trusted.crt", &certificate);
    let stranger = cluster.file("stranger.crt", &Authority::new().pem());
    for mode in ["verify-ca", "verify-full"] {
        assert!(encrypted(&database, &format!("sslmode={mode}&sslrootcert={}", trusted.display())).unwrap());
        refused(&database, &format!("sslmode={mode}&sslrootcert={}", stranger.display()), "TLS");
    }
    let empty = cluster.file("empty.crt", "no certificate");
    let error = encrypted(&database, &format!("sslmode=verify-ca&sslrootcert={}", empty.display())).unwrap_err();
    assert!(error.to_string().contains("empty.crt"), "{error}");
}
