//! The reading pipeline when MongoDB or PostgreSQL is away, refuses, or is named wrongly.
#![cfg(all(feature = "mongodb", feature = "postgres"))]

use crate::support;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::support::authority::Authority;
use crate::support::mongo::Mongo;
use crate::support::mongo_errors::{refusing, wrong_password};
use crate::support::pair::{Pair, fill};
use crate::support::postgres::Cluster;
use mongodb::bson::doc;
use serde_json::json;

macro_rules! servers {
    ($cluster:ident, $mongo:ident) => {
        let Some($cluster) = support::postgres::shared() else { return };
        #[allow(unused_mut, reason = "only some tests stop it")]
        let Some(mut $mongo) = Mongo::start() else { return };
    };
}

#[test]
fn outages_are_named_and_survived() {
    servers!(cluster, mongo);
    let Some(own) = Cluster::start(&[]) else { return };
    drop(cluster);
    let pair = Pair::new(&own, &mongo, "outage");
    fill(&pair.events, 0..800);
    let site = pair.site(&mongo, "");
    own.stop("QUIT");
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (503, &json!("database")), "{}", answer.json());
    own.run();

    // PostgreSQL goes away in the middle and comes back: the run waits for it.
    let last = std::thread::scope(|scope| {
        let call = scope.spawn(|| site.run("reading"));
        support::eventually("some rows are stored", || {
            let stored = own.superuser("outage").query_one("SELECT count(*) FROM reading_analytics", &[]);
            stored.is_ok_and(|row| row.get::<_, i64>(0) > 0)
        });
        own.stop("KILL");
        own.run();
        call.join().unwrap()
    });
    assert_eq!(last["status"], "success", "{last}");
    assert_eq!(pair.counts(), [800, 0, 0, 800]);

    // MongoDB hangs in the middle: the driver's monitor notices after twice ten seconds.
    fill(&pair.events, 5000..6600);
    let hung = std::thread::scope(|scope| {
        let call = scope.spawn(|| site.run("reading"));
        let stored = || pair.database.number("SELECT count(*) FROM reading_analytics");
        support::eventually("some more rows are stored", || stored() > 800);
        let stopped = mongo.signal("STOP");
        let last = call.join().unwrap();
        mongo.signal("CONT");
        stopped.then_some(last)
    });
    if let Some(last) = hung {
        assert_eq!((&last["status"], &last["side"]), (&json!("error"), &json!("source")), "{last}");
    }

    // MongoDB goes away in the middle.
    fill(&pair.events, 800..2400);
    let begun = std::thread::scope(|scope| {
        let call = scope.spawn(|| site.run("reading"));
        let stored = || pair.database.number("SELECT count(*) FROM reading_analytics");
        support::eventually("some more rows are stored", || stored() > 800);
        let stopped = mongo.stop();
        (call.join().unwrap(), stopped)
    });
    if !begun.1 {
        return;
    }
    assert_eq!((&begun.0["status"], &begun.0["side"]), (&json!("error"), &json!("source")), "{}", begun.0);
    mongo.run();
    site.synced("reading");
    assert_eq!(pair.counts(), [4000, 0, 0, 4000]);

    // Both are down at the start.
    mongo.stop();
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (503, &json!("source")), "{}", answer.json());
    own.stop("QUIT");
    assert_eq!(site.sync("reading").status, 503, "both are down");
    own.run();
    mongo.run();
    assert_eq!(site.synced("reading")["processed_count"], 0);
}

/// Speaks TLS with a certificate that no authority has signed.
fn encrypting() -> SocketAddr {
    use rustls::crypto::ring;
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], secret)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // The driver breaks it off.
            while connection.complete_io(&mut stream).is_ok_and(|moved| moved != (0, 0)) {}
        }
    });
    address
}

#[test]
fn documents_come_over_tls_with_a_login() {
    let Some(cluster) = support::postgres::shared() else { return };
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let Some(mongo) = Mongo::start_with_tls(authority.certificate(&["127.0.0.1"]), &file) else { return };
    let pair = Pair::new(&cluster, &mongo, "encrypted");
    fill(&pair.events, 0..30);
    let site = pair.site(&mongo, "");
    // The one mechanism that FerretDB with SQLite takes; any password will do.
    let login = mongo.uri().replace("mongodb://", "mongodb://hub:geheim@") + "&authMechanism=PLAIN";
    site.host.credential("mongo-uri", &login);
    site.synced("reading");
    assert_eq!(pair.counts(), [30, 0, 0, 30]);
    std::fs::write(&file, Authority::new().pem()).unwrap();
    let answer = site.sync("reading");
    assert_eq!((answer.status, &answer.json()["side"]), (502, &json!("source")), "{}", answer.json());
    assert!(answer.json()["reason"].as_str().unwrap().contains("TLS failed"), "{}", answer.json());
}

#[test]
fn what_is_wrong_with_either_side_is_named() {
    servers!(cluster, mongo);
    let pair = Pair::new(&cluster, &mongo, "wrong");
    let site = pair.site(&mongo, "");
    let refused = |what: &str, part: &str, side: &str| {
        let answer = site.sync("reading");
        let body = answer.json();
        assert_eq!((answer.status, &body["side"]), (502, &json!(side)), "{what}: {body}");
        assert!(body["reason"].as_str().unwrap().contains(part), "{what}: {body}");
        assert!(!body.to_string().contains("geheim"), "{what}: a password is shown: {body}");
    };
    site.host.credential("mongo-uri", "postgres://u:geheim@h/");
    refused("no MongoDB URI", "no MongoDB URI", "source");
    for (options, says) in [
        ("compressors=zlib&maxPoolSize=geheim", "the value of the option maxpoolsize"),
        ("replicatSet=rs0&w=1", "the option replicatset is unknown"),
        ("tlsAllowInvalidHostnames=true", "the option tlsallowinvalidhostnames"),
        ("w=1&geheim", "an option has no value"),
    ] {
        site.host.credential("mongo-uri", &format!("mongodb://u:geheim@h/?{options}"));
        refused(options, says, "source");
    }
    let uri = |address: SocketAddr, more: &str| {
        format!("mongodb://u:geheim@{address}/?directConnection=true&serverSelectionTimeoutMS=2000&{more}")
    };
    site.host.credential("mongo-uri", &uri(wrong_password(), "authSource=admin"));
    refused("a wrong password", "login refused", "source");
    site.host.credential("mongo-uri", &uri(encrypting(), "tls=true"));
    refused("a certificate of nobody", "TLS failed", "source");
    site.host.credential("mongo-uri", &uri(encrypting(), "tls=true&tlsCAFile=/nowhere/ca.pem"));
    refused("a file of authorities that is missing", "/nowhere/ca.pem", "source");
    let away = |what: &str, uri: &str| {
        site.host.credential("mongo-uri", uri);
        let down = site.sync("reading");
        assert_eq!((down.status, &down.json()["side"]), (503, &json!("source")), "{what}: {}", down.json());
    };
    away("nobody", &uri(support::free_address(), "w=1"));
    let stops = refusing(91, "ShutdownInProgress", "The server is in quiesce mode and will shut down");
    away("a server that stops", &format!("mongodb://{stops}/?directConnection=true"));
    if mongo.signal("STOP") {
        away("a server that hangs", mongo.uri());
        mongo.signal("CONT");
    }
    // What other drivers know works, or has no meaning here.
    let join = if mongo.uri().contains('?') { '&' } else { '?' };
    let more = "compressors=zstd,zlib&zlibCompressionLevel=6&socketTimeoutMS=60000&uuidRepresentation=standard&j=true";
    site.host.credential("mongo-uri", &format!("{}{join}{more}", mongo.uri()));
    site.synced("reading");

    fill(&pair.events, 0..2);
    let mut superuser = pair.database.superuser();
    superuser.batch_execute("ALTER TABLE reading_analytics OWNER TO postgres").unwrap();
    refused("missing rights", "GRANT SELECT, INSERT, UPDATE, DELETE", "database");
    superuser.batch_execute("ALTER TABLE reading_analytics OWNER TO wrong; ALTER ROLE wrong PASSWORD 'other'").unwrap();
    refused("a wrong password", "password", "database");
    assert_eq!(pair.events.count_documents(doc! { "status": "ingested" }).run().unwrap(), 2, "nothing is lost");
}
