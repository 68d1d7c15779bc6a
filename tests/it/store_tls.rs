//! TLS to PostgreSQL: every `sslmode` against a real server with certificates of its own authority.
#![cfg(feature = "postgres")]

use crate::support;
use crate::support::Host;
use crate::support::authority::Authority;
use crate::support::postgres::{Cluster, Database};
use observability_hub::store::{Error, Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

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
    // The server may take a moment to see that an earlier session is over.
    let others = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", database.name);
    support::eventually("no other session", || database.number(&others) == 0);
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

/// Runs openssl in a folder.
fn openssl(folder: &std::path::Path, arguments: &str) {
    let output = std::process::Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_certificate_of_version_1_is_taken_where_nobody_is_trusted() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("version_1");
    let folder = tempfile::tempdir().unwrap();
    // As PostgreSQL's manual makes them ("19.9.5. Creating Certificates"): one that signs itself, and one of an authority.
    for request in ["rsa:2048 -nodes", "ec -pkeyopt ec_paramgen_curve:P-256 -nodes"] {
        openssl(
            folder.path(),
            &format!("req -new -newkey {request} -out server.csr -keyout server.key -subj /CN=localhost"),
        );
        openssl(folder.path(), "req -new -x509 -nodes -newkey rsa:2048 -out root.crt -keyout root.key -subj /CN=root");
        for signed in ["-signkey server.key", "-CA root.crt -CAkey root.key -CAcreateserial"] {
            openssl(folder.path(), &format!("x509 -req -in server.csr -days 365 {signed} -out server.crt"));
            let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            serve(&cluster, &read("server.crt"), &read("server.key"));
            let trusted = cluster.file("trusted.crt", &(read("root.crt") + &read("server.crt")));
            for query in ["", "sslmode=require", "sslmode=require&ssl_max_protocol_version=TLSv1.2"] {
                assert!(encrypted(&database, query).unwrap(), "{request} {signed} {query}");
            }
            for mode in ["require", "verify-ca", "verify-full"] {
                let query = format!("sslmode={mode}&sslrootcert={}", trusted.display());
                refused(&database, &query, "make one of version 3");
            }
        }
    }
    // A key that is not spoken here is said to be the server's refusal, and not waited for (sebadob/rauthy#1505).
    openssl(
        folder.path(),
        "req -new -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-521 -out p521.crt -keyout p521.key -subj /CN=localhost",
    );
    let p521 = ["p521.crt", "p521.key"].map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap());
    serve(&cluster, &p521[0], &p521[1]);
    refused(&database, "sslmode=require", "TLS");
    // The advice works.
    openssl(
        folder.path(),
        "req -new -newkey rsa:2048 -nodes -out server.csr -keyout server.key -subj /CN=localhost -addext subjectAltName=DNS:localhost",
    );
    openssl(
        folder.path(),
        "x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -copy_extensions copy -out server.crt",
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    serve(&cluster, &read("server.crt"), &read("server.key"));
    let root = cluster.file("root.crt", &read("root.crt"));
    assert!(encrypted(&database, &format!("sslmode=verify-full&sslrootcert={}", root.display())).unwrap());
}

#[test]
fn a_client_logs_in_with_its_own_certificate_and_a_password_file() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("localhost");
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    openssl(folder.path(), "req -new -x509 -nodes -newkey rsa:2048 -out root.crt -keyout root.key -subj /CN=root");
    openssl(
        folder.path(),
        "req -new -x509 -nodes -newkey rsa:2048 -out other.crt -keyout other.key -subj /CN=localhost",
    );
    openssl(folder.path(), "req -new -newkey rsa:2048 -nodes -out client.csr -keyout client.key -subj /CN=localhost");
    openssl(folder.path(), "x509 -req -in client.csr -CA root.crt -CAkey root.key -CAcreateserial -out client.crt");
    openssl(folder.path(), "rsa -aes256 -passout pass:geheim -in client.key -out locked.key");
    let ca = cluster.file("ca.crt", &read("root.crt"));
    let (certificate, key) = Authority::new().certificate(&["localhost"]);
    serve(&cluster, &certificate, &key);
    cluster.superuser("postgres").execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{}'", ca.display()), &[]).unwrap();
    // The name of the certificate is what PostgreSQL takes for the role's.
    cluster.file("data/pg_hba.conf", "local all all trust\nhostssl all all all cert\n");
    cluster.superuser("postgres").execute("SELECT pg_reload_conf()", &[]).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    let with_files =
        |certificate: &str, key: &str| format!("sslmode=require&sslcert={}&sslkey={}", path(certificate), path(key));
    let query = with_files("client.crt", "client.key");
    support::eventually("the certificate is the login", || encrypted(&database, &query).is_ok());
    refused(&database, "sslmode=require", "certificate");
    // What never comes is not waited for.
    refused(&database, &with_files("other.crt", "other.key"), "ssl_ca_file");
    for (certificate, key, says) in [
        ("client.crt", "missing.key", "missing.key"),
        ("client.crt", "other.key", "other.key"),
        ("client.crt", "locked.key", "locked.key"),
        ("client.csr", "client.key", "client.csr: has no certificate"),
    ] {
        let error = encrypted(&database, &with_files(certificate, key)).unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains(says), "{error}");
    }

    cluster.file("data/pg_hba.conf", "local all all trust\nhost all all all scram-sha-256\n");
    cluster.superuser("postgres").execute("SELECT pg_reload_conf()", &[]).unwrap();
    let with = |query: &str| {
        let url = format!("postgres://localhost@localhost:{}/localhost?{query}", cluster.port);
        Store::open(&support::rows::config(&Host::new(), &url, "")).map(drop)
    };
    let right = file("right", &format!("localhost:{}:localhost:localhost:geheim\n", cluster.port));
    support::eventually("the password of the file", || with(&format!("passfile={right}")).is_ok());
    let wrong = file("wrong", "*:*:*:localhost:falsch\n");
    let error = with(&format!("passfile={wrong}")).unwrap_err().to_string();
    assert!(error.contains("password authentication failed") && !error.contains("falsch"), "{error}");
    std::fs::set_permissions(&right, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = with(&format!("passfile={right}")).unwrap_err().to_string();
    assert!(error.contains("chmod 600") && !error.contains("geheim"), "{error}");
    with("password=geheim&options=-c%20application_name%3Doptions&target_session_attrs=primary").unwrap();
}
