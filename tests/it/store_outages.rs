//! The PostgreSQL store when things go wrong, and when everybody comes at once: logins, deadlines, outages, PgBouncer.
#![cfg(feature = "postgres")]

use crate::support;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::postgres::{Cluster, PgBouncer, configured, free_port, open, shared};
use crate::support::rows::sample;
use observability_hub::store::{Error, Store};

#[test]
fn refused_logins_and_wrong_addresses_are_named_without_the_password() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("login");
    let port = cluster.port;
    let closed = free_port();
    for (url, unavailable, says) in [
        (format!("postgres://login:falsch@127.0.0.1:{port}/login"), false, "password authentication failed"),
        (format!("postgres://login@127.0.0.1:{port}/login"), false, "password"),
        (
            format!("postgres://login:geheim@127.0.0.1:{port}/nowhere"),
            false,
            "CREATE DATABASE \"nowhere\" OWNER \"login\"",
        ),
        (format!("postgres://login:geheim@127.0.0.1:{closed}/login"), true, "refused"),
        (format!("postgres://login:geheim@no-such-host.invalid:{port}/login"), true, "no-such-host.invalid"),
        ("postgres:///login?host=/nonexistent&user=login&password=geheim".to_owned(), true, "/nonexistent"),
        (format!("{}?sslmode=require", database.url()), false, "does not support TLS"),
        (format!("{}?sslmode=verify-full&sslrootcert=/nonexistent.pem", database.url()), false, "/nonexistent.pem"),
    ] {
        let error = open(&url).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.is_unavailable(), unavailable, "{text}");
        assert!(text.contains(says), "{says}: {text}");
        assert!(!text.contains("geheim") && !text.contains("falsch"), "{text}");
    }
}

#[test]
fn a_server_that_accepts_and_stays_silent_does_not_hold_the_caller() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://hub:geheim@{}/hub", listener.local_addr().unwrap());
    let started = Instant::now();
    let error = open(&url).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn a_locked_table_is_given_up_and_the_server_stops_waiting_too() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("locked");
    let mut store = open(&database.url()).unwrap();
    let mut other = database.superuser();
    other.batch_execute("BEGIN; LOCK TABLE system_metrics").unwrap();
    let started = Instant::now();
    let error = store.insert_metrics(&sample("web", 0), &[]).unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("no answer"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    support::eventually("the server gives the statement up", || {
        database.number("SELECT count(*) FROM pg_stat_activity WHERE usename = 'locked' AND state = 'active'") == 0
    });
    assert!(store.check().unwrap_err().to_string().contains("open the database again"));
    other.batch_execute("ROLLBACK").unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
    assert_eq!(database.count(), 4);
}

#[test]
fn a_standby_is_waited_for_and_a_server_that_is_read_only_for_good_is_not() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("standby");
    drop(open(&database.url()).unwrap());
    for set in ["ROLE", "DATABASE"] {
        let setting = format!("ALTER {set} standby SET default_transaction_read_only = on");
        database.superuser().batch_execute(&setting).unwrap();
        let error = open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap_err();
        let remedy = format!("ALTER {set} \"standby\" RESET default_transaction_read_only");
        assert!(!error.is_unavailable() && error.to_string().contains(&remedy), "{error}");
        let reset = format!("ALTER {set} standby RESET default_transaction_read_only");
        cluster.superuser("postgres").batch_execute(&reset).unwrap();
    }
    cluster.stop("INT");
    cluster.file("data/standby.signal", "");
    cluster.run();
    let error = open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("target_session_attrs=read-write"), "{error}");
    cluster.superuser("postgres").execute("SELECT pg_promote()", &[]).unwrap();
    open(&database.url()).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
}

#[test]
fn an_outage_is_survived() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("outage");
    let mut store = open(&database.url()).unwrap();
    store.insert_metrics(&sample("web", 0), &[]).unwrap();
    cluster.stop("QUIT");
    assert!(store.insert_metrics(&sample("web", 1), &[]).unwrap_err().is_unavailable());
    assert!(store.insert_metrics(&sample("web", 1), &[]).unwrap_err().is_unavailable());
    assert!(open(&database.url()).unwrap_err().is_unavailable());
    cluster.run();
    let mut store = open(&database.url()).unwrap();
    for run in 0..5 {
        store.insert_metrics(&sample("web", run), &[]).unwrap();
    }
    assert_eq!(database.count(), 20);
}

#[test]
fn what_was_acknowledged_survives_kill_9_of_the_server() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = cluster.database("killed");
    for round in 0..3 {
        let mut store = open(&database.url()).unwrap();
        let (stored, seen) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            for n in 0.. {
                match store.insert_metrics(&sample("web", round * 1_000_000 + n), &[]) {
                    Ok(_) => stored.send(n).unwrap(),
                    Err(error) => return error,
                }
            }
            unreachable!()
        });
        let last = seen.iter().nth(20).unwrap();
        cluster.stop("KILL");
        let last = seen.iter().last().unwrap_or(last);
        assert!(writer.join().unwrap().is_unavailable());
        cluster.run();
        let rows = database
            .number(&format!("SELECT count(*) FROM system_metrics WHERE time >= to_timestamp({})", round * 1000));
        assert!(rows >= (last + 1) * 4 && rows % 4 == 0, "{rows} rows for {last}");
        // The replay of what was in flight.
        let mut store = open(&database.url()).unwrap();
        store.insert_metrics(&sample("web", round * 1_000_000 + last + 1), &[]).unwrap();
        assert_eq!(
            database
                .number(&format!("SELECT count(*) FROM system_metrics WHERE time >= to_timestamp({})", round * 1000)),
            (last + 2) * 4
        );
    }
}

#[test]
fn five_hundred_hosts_within_a_minute() {
    let Some(cluster) = Cluster::start(&["max_connections=50"]) else { return };
    let database = cluster.database("fleet");
    let Some(bouncer) = PgBouncer::start(&database, "trust") else { return };
    // Each host logs in, stores its rows and leaves. The timer spreads them over the minute, so that one or two are
    // there at a time; here it is 40, as fast as they can, without a password because this machine computes for all.
    for (round, url) in [(0, database.socket_url()), (1, bouncer.url("fleet"))] {
        let config = configured(&url, "");
        let (started, next) = (Instant::now(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    loop {
                        let host = next.fetch_add(1, Ordering::Relaxed);
                        if host >= 500 {
                            return;
                        }
                        let rows = sample(&format!("host-{host}"), 1_700_000_000_000 + round * 60_000);
                        // A sample that cannot be stored is spooled and sent again; this host does so at once.
                        while let Err(error) =
                            Store::open(&config).and_then(|mut store| store.insert_metrics(&rows, &[]))
                        {
                            let late = started.elapsed() > Duration::from_secs(60);
                            assert!(error.is_unavailable() && !late, "host {host}: {error}");
                        }
                    }
                });
            }
        });
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        assert_eq!(database.count(), 2000 * (round + 1));
    }
}

#[test]
fn sessions_share_servers_behind_pgbouncer() {
    let Some(cluster) = shared() else { return };
    let database = cluster.database("bouncer");
    let Some(bouncer) = PgBouncer::start(&database, "scram-sha-256") else { return };
    let url = bouncer.url("bouncer");
    // The first start, with its lock, goes through PgBouncer too.
    let mut stores: Vec<Store> = (0..30).map(|_| open(&url).unwrap()).collect();
    std::thread::scope(|scope| {
        for (n, store) in stores.iter_mut().enumerate() {
            scope.spawn(move || {
                for minute in 0..10 {
                    store.insert_metrics(&sample(&format!("h{n}"), minute * 60_000), &[]).unwrap();
                    store.check().unwrap();
                }
                store.delete_old_metrics(36_500).unwrap();
            });
        }
    });
    assert_eq!(database.count(), 30 * 10 * 4);
    assert_eq!(database.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = 'bouncer')"), 0);
    let error = open(&url.replace("geheim", "falsch")).unwrap_err();
    assert!(matches!(error, Error::Login { .. }), "{error}");
    // What PgBouncer never takes is not waited for (cweijan/vscode-database-client#412).
    let error = open(&format!("{url}?options=-c%20statement_timeout%3D5s")).unwrap_err();
    assert!(
        matches!(error, Error::Login { .. }) && error.to_string().contains("unsupported startup parameter"),
        "{error}"
    );
    open(&format!("{}?options=-c%20statement_timeout%3D5s", database.url())).unwrap();
}

/// psycopg/psycopg2#669
#[test]
fn of_several_hosts_the_one_that_takes_rows_is_found() {
    let (Some(standby), Some(primary)) = (Cluster::start(&[]), Cluster::start(&[])) else { return };
    for cluster in [&standby, &primary] {
        cluster.database("several");
    }
    standby.stop("INT");
    standby.file("data/standby.signal", "");
    standby.run();
    let closed = free_port();
    for attributes in ["read-write", "primary"] {
        for ports in [[closed, standby.port, primary.port], [primary.port, standby.port, closed]] {
            let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
            let url = format!("postgres://several:geheim@{hosts}/several?target_session_attrs={attributes}");
            open(&url).unwrap().insert_metrics(&sample("web", 0), &[]).unwrap();
        }
    }
    assert_eq!(
        primary.superuser("several").query_one("SELECT count(*) FROM system_metrics", &[]).unwrap().get::<_, i64>(0),
        4
    );
    let url = format!("postgres://several:geheim@127.0.0.1:{}/several?target_session_attrs=primary", standby.port);
    assert!(open(&url).unwrap_err().is_unavailable(), "it may be promoted");
}
