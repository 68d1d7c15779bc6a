//! contrib/doc/migrate-from-go.md, step by step, on a copy of an installation of the Go version.

use std::path::Path;
use std::process::{Command, Stdio};

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use mongodb::sync::Client;

use crate::gate::Node;
use crate::gitops::{SOON, show};
use crate::machine::{Machine, PACKAGE, describe};
use crate::package::{failed_units, install};
use crate::pipelines::{postgres, start_postgres};
use crate::support::authority::Authority;
use crate::support::{eventually, free_address, skip};

/// The checkout of the Go version.
const OLD: &str = "/home/server/software/observability-hub";

/// Its database in `.env`, and the same in the other form that the Go version took.
const DATABASE: &str = "DATABASE_URL=postgres://server:p%40ss%20word@127.0.0.1/server?sslmode=disable\n";
const SEPARATE: &str = "DB_HOST=127.0.0.1\nDB_USER=server\nDB_NAME=server\nSERVER_DB_PASSWORD='p@ss word'\n";

/// The commands of contrib/doc/migrate-from-go.md before and after its part "Install", and of its part "Back again", as they stand.
fn migration() -> [String; 3] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/doc/migrate-from-go.md");
    let text = std::fs::read_to_string(path).expect("the page has its parts");
    let steps = |text: &str, kind: &str| -> Vec<String> {
        let begin = format!("```{kind}\n");
        text.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
    };
    let (before, after) = text.split_once("## 3. Install").expect("the page has its parts");
    let (after, back) = after.split_once("## Back again").expect("the page has its parts");
    let (before, after, back) = (steps(before, "sh"), steps(after, "sh"), steps(back, "console"));
    // The first one names the checkout for all others.
    let with_it = |steps: Vec<String>| format!("set -eu\n{}{}", before[0], steps.concat());
    [format!("set -eu\n{}", before.concat()), with_it(after), with_it(back)]
}

/// What the Go version made in PostgreSQL, with rows.
const TABLES: &str = "SET ROLE server;
    CREATE TABLE system_metrics (time TIMESTAMPTZ(0) NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL,
        metric_type TEXT NOT NULL, payload JSONB NOT NULL);
    INSERT INTO system_metrics SELECT now() - n * interval '1 minute', 'hub-test', 'debian 12', 'cpu', '{\"usage\": 1.5}'
        FROM generate_series(1, 100) AS n;
    CREATE TABLE reading_analytics (id SERIAL PRIMARY KEY, mongo_id TEXT UNIQUE NOT NULL, event_timestamp TIMESTAMPTZ,
        source TEXT, event_type TEXT, payload JSONB, meta JSONB, created_at TIMESTAMPTZ DEFAULT NOW());
    INSERT INTO reading_analytics (mongo_id, source) SELECT lpad(to_hex(n), 24, '0'), 'old' FROM generate_series(0, 9) AS n";

fn document(number: u8) -> Document {
    let mut id = [0; 12];
    id[11] = number;
    // The last one of the old run was stored, and the run ended before it was marked.
    let status = if number < 9 { "processed" } else { "ingested" };
    doc! { "_id": ObjectId::from_bytes(id), "status": status, "source": "new", "event_type": "visit",
    "timestamp": DateTime::from_millis(1_767_528_000_000), "payload": { "n": i32::from(number) } }
}

/// A MongoDB-wire server in the machine, on its usual port, with documents 0 to 19; false, said aloud, where there is none.
fn start_mongodb(machine: &Machine) -> bool {
    let Some(ferretdb) = crate::support::mongo::ferretdb() else {
        skip::skip("the migration from the Go version", "go cannot build FerretDB; install Go");
        return false;
    };
    // Filled here, since a machine has no network that leads to it.
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_address().port().to_string());
    let mut server = Command::new(&ferretdb)
        .arg(folder.path())
        .arg(&port)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("FerretDB starts");
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=1000");
    let client = Client::with_uri_str(uri).expect("the URI is right");
    eventually("FerretDB answers", || client.database("admin").run_command(doc! { "ping": 1 }).run().is_ok());
    let collection = client.database("reading-analytics").collection("articles");
    collection.insert_many((0..20).map(document)).run().expect("it takes documents");
    let ended = Command::new("kill").arg(server.id().to_string()).status().expect("kill runs");
    assert!(ended.success() && server.wait().is_ok());

    machine.copy_in(&ferretdb, "/srv/ferretdb");
    for file in std::fs::read_dir(folder.path()).expect("the folder is there").flatten() {
        machine.copy_in(&file.path(), &format!("/srv/mongodb/{}", file.file_name().to_string_lossy()));
    }
    machine.ok(&["systemd-run", "--quiet", "--unit=mongodb.service", "/srv/ferretdb", "/srv/mongodb", "27017"]);
    machine.wait_for("MongoDB to listen", SOON, || machine.ok(&["ss", "-ltn"]).contains(":27017 "));
    true
}

/// The old installation: a user of its own, the `.env`, programs in the checkout, linked by `systemctl enable PATH`.
fn old_units(machine: &Machine) {
    machine.ok(&["useradd", "--create-home", "server"]);
    machine.ok(&["git", "init", "--quiet", "--initial-branch=main", OLD]);
    let env = "GITHUB_WEBHOOK_SECRET='a secret with spaces, long enough'\n\
               MONGO_URI=\"mongodb://127.0.0.1:27017/?directConnection=true&appName=hub\"\n";
    machine.write(&format!("{OLD}/.env"), format!("{env}{DATABASE}# a comment\nDB_PORT=5432\n"));
    let unit = |program: &str| {
        format!(
            "[Service]\nUser=server\nWorkingDirectory={OLD}\nEnvironmentFile={OLD}/.env\nExecStart={program}\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    };
    machine.write(&format!("{OLD}/systemd/proxy.service"), unit("/usr/bin/sleep infinity"));
    machine.write(&format!("{OLD}/systemd/volume-backup.service"), unit("/usr/bin/sleep infinity"));
    machine.write(&format!("{OLD}/systemd/system-metrics.service"), unit("/usr/bin/true"));
    machine.write(
        &format!("{OLD}/systemd/system-metrics.timer"),
        "[Timer]\nOnCalendar=*:0/1\n[Install]\nWantedBy=timers.target\n",
    );
    machine.ok(&["chown", "-R", "server:server", "/home/server"]);
    machine.ok(&["systemctl", "link", "--quiet", &format!("{OLD}/systemd/system-metrics.service")]);
    for name in ["proxy.service", "volume-backup.service", "system-metrics.timer"] {
        machine.ok(&["systemctl", "enable", "--now", "--quiet", &format!("{OLD}/systemd/{name}")]);
    }
    assert_eq!(show(machine, "proxy.service", "ActiveState"), "active");
}

#[test]
fn an_installation_of_the_go_version_moves_over_by_the_documented_steps() {
    let Some(machine) = Machine::boot_bare() else { return };
    if !start_mongodb(&machine) {
        return;
    }
    start_postgres(&machine, &Authority::new());
    postgres(&machine, "server", TABLES);
    let node = Node::install(&machine);
    old_units(&machine);
    // Its gate left a funnel, and another service has one.
    for port in ["443", "10000"] {
        let port = format!("--https={port}");
        machine.ok(&["tailscale", "funnel", "--bg", "--yes", &port, "http://127.0.0.1:8085"]);
    }

    // The proxy ran in a container once.
    machine.write("/usr/local/bin/docker", "#!/bin/sh\necho \"$*\" >>/root/docker\n");
    machine.ok(&["chmod", "0755", "/usr/local/bin/docker"]);
    let [before, after, back] = migration();
    let run = |steps: &str| {
        let output = machine.run(&["sh", "-xc", steps]);
        assert!(output.status.success(), "{}", describe(&output));
    };
    // By the other names that a `.env` may have for the same, the copy is the same, too.
    let env = machine.read(&format!("{OLD}/.env"));
    let copy = before.split("for unit in").next().expect("it begins with the copy");
    machine.write(&format!("{OLD}/.env"), env.replace(DATABASE, SEPARATE));
    run(copy);
    let by_parts = machine.read("/root/hub-before.sql").matches("\told\t").count();
    assert_eq!(by_parts, 10, "the copy has the rows");
    machine.write(&format!("{OLD}/.env"), env);

    run(&before);
    assert_eq!(machine.read("/root/docker"), "rm -f proxy_server\n");
    assert_eq!(machine.read("/root/hub-before.sql").matches("\told\t").count(), 10, "the copy has the rows");
    assert_eq!(machine.ok(&["stat", "-c", "%a", "/root/hub-before.env", "/root/hub-before.sql"]), "600\n600\n");
    assert_eq!(node.ports(), ["10000"]);
    assert_eq!(show(&machine, "volume-backup.service", "ActiveState"), "active", "not ours to stop");
    assert!(machine.exists("/etc/systemd/system/volume-backup.service"));
    for name in ["proxy.service", "system-metrics.service", "system-metrics.timer"] {
        assert!(!machine.exists(&format!("/etc/systemd/system/{name}")), "{name}");
    }
    install(&machine, PACKAGE);
    run(&after);

    assert_eq!(machine.read("/etc/credstore/webhook-secret"), "a secret with spaces, long enough\n");
    assert_eq!(machine.ok(&["stat", "-c", "%a", "/etc/credstore/webhook-secret"]), "600\n");
    let file = show(&machine, "proxy.service", "FragmentPath");
    assert!(file.ends_with("/lib/systemd/system/proxy.service"), "the package's unit is hidden by {file}");
    for unit in ["proxy.service", "gitops-sync.path", "gitops-sync.timer", "system-metrics.timer", "reading-sync.timer"]
    {
        assert_eq!(show(&machine, unit, "ActiveState"), "active", "{unit}");
    }
    let count = |condition: &str| postgres(&machine, "server", &format!("SELECT count(*) FROM {condition}"));
    assert_eq!(count("reading_analytics"), "20", "every document once");
    assert_eq!(
        count("reading_analytics WHERE source = 'old'"),
        "9",
        "the one that was not marked is brought up to date"
    );
    assert_eq!(
        count("system_metrics WHERE metric_type = 'cpu' AND os = 'debian 12' AND payload = '{\"usage\": 1.5}'"),
        "100"
    );
    assert_ne!(count("system_metrics WHERE metric_type = 'memory'"), "0");
    assert_ne!(count("pg_indexes WHERE tablename = 'system_metrics' AND indexdef LIKE '%UNIQUE%'"), "0");
    // Nothing is left to move.
    machine.ok(&["systemctl", "start", "reading-sync.service"]);
    assert_eq!(count("reading_analytics"), "20");
    // The funnel is open again, on the new port, and the other service's is as it was.
    node.until_public(true);
    assert_eq!(node.ports(), ["10000", "8443"]);
    assert_eq!(failed_before_network(&machine), "");

    run(&back);
    assert_eq!(node.ports(), ["10000"], "the funnel is closed");
    let file = show(&machine, "proxy.service", "FragmentPath");
    assert_eq!(machine.ok(&["readlink", "-f", &file]).trim(), format!("{OLD}/systemd/proxy.service"));
    assert_eq!(show(&machine, "proxy.service", "ActiveState"), "active");
    assert_eq!(show(&machine, "system-metrics.timer", "ActiveState"), "active");
    assert_eq!(count("reading_analytics"), "20", "rows stay");
}

/// Failed units, but for the worker: the origin of this repository is on the internet, which a machine has not got.
fn failed_before_network(machine: &Machine) -> String {
    let failed = failed_units(machine);
    failed.lines().filter(|line| !line.starts_with("gitops-sync.service")).collect()
}
