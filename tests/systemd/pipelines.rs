//! Pipelines and metrics in their packaged units: reading-sync asks the packaged proxy, whose sandbox must let the run
//! reach inboxes and databases on every way there is, and say what is wrong where it cannot.

use crate::gitops::show;
use crate::journal::{complains, fails, nothing_denied};
use crate::machine::Machine;
use crate::support::authority::Authority;
use crate::support::reading::line;

const SYNC: &str = "reading-sync.service";
/// An inbox that needs no drop-in: it lies in the pipelines' own folder.
pub const INBOX: &str = "/var/lib/observability-hub/reading/inbox";

/// The version of PostgreSQL that the machine's Debian has.
fn postgresql(machine: &Machine) -> String {
    machine.ok(&["ls", "/usr/lib/postgresql"]).trim().to_owned()
}

/// Its one cluster.
fn cluster(machine: &Machine) -> String {
    format!("postgresql@{}-main.service", postgresql(machine))
}

/// hub.toml's table for a pipeline on an inbox.
pub fn pipeline(inbox: &str) -> String {
    format!("[[pipeline]]\nname = \"reading\"\nsource = \"file:{inbox}\"\n")
}

/// Puts a file of documents into an inbox of `hub`.
pub fn publish(machine: &Machine, inbox: &str, name: &str, numbers: std::ops::Range<usize>) {
    let text: String = numbers.map(line).collect();
    machine.write(&format!("{inbox}/.unfinished"), text);
    machine.ok(&["chown", "-R", "hub:hub", inbox]);
    machine.ok(&["mv", &format!("{inbox}/.unfinished"), &format!("{inbox}/{name}")]);
}

/// What a query of hub.db gives, asked as `hub`.
pub fn sqlite(machine: &Machine, sql: &str) -> String {
    let query = ["sqlite3", "-cmd", ".timeout 10000", "/var/lib/observability-hub/data/hub.db", sql];
    machine.ok(&[&["runuser", "-u", "hub", "--"], &query[..]].concat()).trim().to_owned()
}

/// What a query of a database of the machine's PostgreSQL gives, asked as its superuser.
pub fn postgres(machine: &Machine, database: &str, sql: &str) -> String {
    machine.ok(&["runuser", "-u", "postgres", "--", "psql", "-qAtc", sql, database]).trim().to_owned()
}

/// Starts Debian's PostgreSQL: a database and a role `hub` that owns it, which logs in over TCP by password, with TLS only,
/// and over the unix socket as the user of that name; and the same for a role `server`, without TLS.
pub fn start_postgres(machine: &Machine, authority: &Authority) {
    let version = postgresql(machine);
    let folder = format!("/etc/postgresql/{version}/main");
    machine.ok(&["pg_createcluster", "--locale=C.UTF-8", &version, "main", "--", "--no-sync"]);
    let (certificate, key) = authority.certificate(&["localhost"]);
    for (name, content) in [("crt", certificate), ("key", key)] {
        let path = format!("{folder}/server.{name}");
        machine.write(&path, content);
        machine.ok(&["chown", "postgres:postgres", &path]);
        machine.ok(&["chmod", "0600", &path]);
    }
    let tls = format!("ssl_cert_file = '{folder}/server.crt'\nssl_key_file = '{folder}/server.key'\n");
    machine.write(&format!("{folder}/conf.d/test.conf"), format!("ssl = on\n{tls}fsync = off\n"));
    let logins = "local all all peer\nhostssl hub hub 127.0.0.1/32 scram-sha-256\nhost server server 127.0.0.1/32 scram-sha-256\n";
    machine.write(&format!("{folder}/pg_hba.conf"), logins);
    machine.ok(&["systemctl", "start", &cluster(machine)]);
    for name in ["hub", "server"] {
        for sql in
            [format!("CREATE ROLE {name} LOGIN PASSWORD 'p@ss word'"), format!("CREATE DATABASE {name} OWNER {name}")]
        {
            machine.ok(&["runuser", "-u", "postgres", "--", "psql", "-qc", &sql]);
        }
    }
}

/// Makes `url` the credential `database-url`, and the services see it.
fn use_database(machine: &Machine, url: &str) {
    machine.write("/etc/credstore/database-url", url);
    machine.ok(&["chmod", "0600", "/etc/credstore/database-url"]);
    machine.ok(&["systemctl", "restart", "proxy.service"]);
}

/// Moves files of an inbox into SQLite, twice, and one from an inbox that only a drop-in opens.
pub fn files_reach_sqlite(machine: &Machine) {
    machine.write("/etc/observability-hub/hub.toml", pipeline(INBOX));
    publish(machine, INBOX, "a.jsonl", 0..200);
    let refused = fails(machine, SYNC);
    assert_eq!(refused, "1");
    complains(machine, SYNC, "systemctl start proxy.service");
    machine.ok(&["systemctl", "start", "proxy.service"]);
    machine.ok(&["systemctl", "restart", SYNC]);
    assert_eq!(sqlite(machine, "SELECT count(*) FROM reading_analytics"), "200");
    assert!(machine.exists(&format!("{INBOX}/processed/a.jsonl")));
    publish(machine, INBOX, "b.jsonl", 200..300);
    machine.ok(&["systemctl", "restart", SYNC]);
    assert_eq!(sqlite(machine, "SELECT count(*) FROM reading_analytics"), "300");

    // In another place the proxy may read and not write: the reason says what it needs.
    machine.write("/etc/observability-hub/hub.toml", pipeline("/srv/inbox"));
    publish(machine, "/srv/inbox", "c.jsonl", 300..400);
    machine.ok(&["systemctl", "restart", "proxy.service"]);
    fails(machine, SYNC);
    complains(machine, SYNC, "ReadWritePaths=/srv/inbox");
    let doctor = || String::from_utf8_lossy(&machine.run(&["hub", "doctor", "--json"]).stdout).into_owned();
    let found = doctor();
    assert!(found.contains("ProtectSystem=strict and no ReadWritePaths=/srv/inbox"), "{found}");
    assert!(found.contains("proxy goes by /etc/observability-hub/hub.toml as it is on the disk"), "{found}");
    machine.write("/etc/systemd/system/proxy.service.d/inbox.conf", "[Service]\nReadWritePaths=/srv/inbox\n");
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "restart", "proxy.service"]);
    machine.ok(&["systemctl", "restart", SYNC]);
    assert_eq!(sqlite(machine, "SELECT count(*) FROM reading_analytics"), "400");
    let found = doctor();
    assert!(!found.contains("the proxy cannot take files out of"), "{found}");
    nothing_denied(machine, &["proxy.service", SYNC]);
}

#[cfg(feature = "postgres")]
#[test]
fn postgresql_is_reached_over_tls_and_the_unix_socket_and_its_outage_is_told_and_made_up_for() {
    let Some(machine) = Machine::boot() else { return };
    let authority = Authority::new();
    start_postgres(&machine, &authority);
    machine.write("/etc/observability-hub/db-ca.pem", authority.pem());
    machine.write("/etc/observability-hub/hub.toml", pipeline(INBOX));
    let tls = |ca: &str| format!("postgres://hub:p%40ss%20word@localhost/hub?sslmode=verify-full&sslrootcert={ca}");
    let metrics = "SELECT count(*) FROM system_metrics WHERE metric_type = 'run'";
    let readings = "SELECT count(*) FROM reading_analytics";

    publish(&machine, INBOX, "tls.jsonl", 0..100);
    use_database(&machine, &tls("/etc/observability-hub/db-ca.pem"));
    machine.ok(&["systemctl", "restart", SYNC, "system-metrics.service"]);
    assert_eq!((postgres(&machine, "hub", readings), postgres(&machine, "hub", metrics)), ("100".into(), "1".into()));

    publish(&machine, INBOX, "socket.jsonl", 100..200);
    use_database(&machine, "postgres:///hub?host=/run/postgresql&user=hub");
    machine.ok(&["systemctl", "restart", SYNC, "system-metrics.service"]);
    assert_eq!((postgres(&machine, "hub", readings), postgres(&machine, "hub", metrics)), ("200".into(), "2".into()));

    // A server that another authority vouches for.
    publish(&machine, INBOX, "later.jsonl", 200..300);
    machine.write("/etc/observability-hub/other-ca.pem", Authority::new().pem());
    use_database(&machine, &tls("/etc/observability-hub/other-ca.pem"));
    fails(&machine, SYNC);
    complains(&machine, SYNC, "sslrootcert");

    // The server is down: no reading is lost, and samples wait.
    use_database(&machine, &tls("/etc/observability-hub/db-ca.pem"));
    machine.ok(&["systemctl", "stop", &cluster(&machine)]);
    assert_eq!(fails(&machine, SYNC), "1");
    complains(&machine, SYNC, "not available");
    assert!(machine.exists(&format!("{INBOX}/later.jsonl")));
    machine.ok(&["systemctl", "start", "system-metrics.service"]);
    complains(&machine, "system-metrics.service", "not available");
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");
    machine.ok(&["systemctl", "start", &cluster(&machine)]);
    machine.ok(&["systemctl", "restart", SYNC, "system-metrics.service"]);
    assert_eq!((postgres(&machine, "hub", readings), postgres(&machine, "hub", metrics)), ("300".into(), "4".into()));
    nothing_denied(&machine, &["proxy.service", SYNC, "system-metrics.service"]);
}
