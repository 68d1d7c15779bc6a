//! `hub database`: a SQLite file is looked at, copied while it is in use, and read though it is damaged; and what Debian's
//! own sqlite3 says of the hub's files.
#![cfg(feature = "sqlite")]

use crate::support;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use crate::support::rows::{config, sample};
use crate::support::{Host, skip};
use observability_hub::store::{Reading, Readings, Rejected, Store};
use rusqlite::Connection;

const PIPELINE: &str = "[[pipeline]]\nname = \"reading\"\nsource = \"file:/srv/inbox\"\n";
const RUNS: i64 = 1500;
const DOCUMENTS: usize = 2000;

fn file(host: &Host) -> PathBuf {
    host.state().join("data/hub.db")
}

fn reading(number: usize) -> Arc<Reading> {
    Arc::new(Reading {
        mongo_id: format!("id-{number}"),
        source_id: Some(format!("{number}")),
        event_timestamp: Some(number as i64),
        source: None,
        event_type: Some("cpu".to_owned()),
        // Some are longer than a page, some have none.
        payload: (!number.is_multiple_of(3))
            .then(|| format!("\"{}\"", "x".repeat(if number % 100 == 1 { 20_000 } else { 200 }))),
        meta: None,
    })
}

/// A host whose database has rows of every kind.
fn filled() -> Host {
    let host = Host::new();
    host.configure(PIPELINE);
    let mut store = Store::open(&config(&host, "sqlite:hub.db", PIPELINE)).unwrap();
    let rows: Vec<_> = (0..RUNS).flat_map(|run| sample("web", run * 60_000)).collect();
    store.insert_metrics(&rows, &[]).unwrap();
    let rejected = (0..50).map(|number| Rejected {
        source_id: format!("bad-{number}"),
        place: None,
        reason: "no JSON".to_owned(),
        document: vec![number; 300],
    });
    let batch = Readings {
        pipeline: "reading".to_owned(),
        table: "reading_analytics".to_owned(),
        rows: (0..DOCUMENTS).map(reading).collect(),
        rejected: rejected.collect(),
        ..Readings::default()
    };
    store.insert_readings(&Arc::new(batch)).unwrap();
    host.configure(PIPELINE);
    host
}

/// Without a log, so that the file has all of it.
fn settled(host: &Host) -> Connection {
    let connection = Connection::open(file(host)).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    connection
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn hub(host: &Host, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = host.run("hub", &[&["database"], arguments].concat());
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap(), text)
}

/// The sqlite3 of this Debian, and of those in the roots that tests/systemd made.
fn sqlites() -> Vec<Vec<String>> {
    let arch = std::env::consts::ARCH;
    let mut found = vec![vec!["/usr/bin/sqlite3".to_owned()]];
    let cache = std::env::home_dir().unwrap().join(".cache/observability-hub-tests");
    for root in std::fs::read_dir(cache).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        let of = |path: String| root.join(path).to_str().unwrap().to_owned();
        let libraries = of(format!("usr/lib/{arch}-linux-gnu"));
        let loader = std::fs::read_dir(&libraries).into_iter().flatten().map(|entry| entry.unwrap().path());
        let loader =
            loader.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ld-linux"));
        if let Some(loader) = loader {
            let loader = loader.to_str().unwrap().to_owned();
            found.push(vec![loader, "--library-path".into(), libraries, of("usr/bin/sqlite3".into())]);
        }
    }
    found.retain(|command| Path::new(command.last().unwrap()).exists());
    if found.is_empty() {
        skip::skip("Debian's sqlite3", "there is none; apt-get install sqlite3");
    }
    found
}

fn sqlite(program: &[String], database: &Path, command: &str, input: Option<&[u8]>) -> (Vec<u8>, String) {
    let mut child = Command::new(&program[0])
        .args(&program[1..])
        .arg(database)
        .args((input.is_none()).then_some(command))
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        let input = input.to_vec();
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let output = child.wait_with_output().unwrap();
    (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn debian_s_own_sqlite3_takes_the_hub_s_files_for_sound() {
    for (old, program) in sqlites().into_iter().flat_map(|program| [(true, program.clone()), (false, program)]) {
        let host = filled();
        let path = file(&host);
        if old {
            // As versions before this one made it.
            let connection = settled(&host);
            connection
                .execute_batch(
                    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(replace(sql, \
                     'CHECK (payload IS NULL OR json_valid(payload))', 'CHECK (json_valid(payload))'), \
                     'CHECK (meta IS NULL OR json_valid(meta))', 'CHECK (json_valid(meta))') WHERE name = 'reading_analytics'; \
                     PRAGMA schema_version = 900; PRAGMA writable_schema = OFF",
                )
                .unwrap();
            drop(connection);
            let checks = "SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%TEXT CHECK (json_valid(%'";
            assert_eq!(number(&path, checks), 1);
            let (said, _) =
                sqlite(&program, &path, "SELECT sqlite_version(), json_valid(NULL); PRAGMA integrity_check", None);
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("|0") == said.contains("CHECK constraint failed"), "what this is about: {said}");
            let rows = || number(&path, "SELECT count(*) FROM reading_analytics WHERE payload IS NULL");
            let before = rows();
            drop(Store::open(&config(&host, "sqlite:hub.db", PIPELINE)).unwrap());
            assert_eq!((number(&path, checks), rows()), (0, before));
            assert_eq!(number(&path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
        }
        drop(settled(&host));
        let (said, errors) = sqlite(&program, &path, "PRAGMA integrity_check", None);
        assert_eq!((String::from_utf8_lossy(&said).trim(), errors.as_str()), ("ok", ""), "{program:?} {old}");
        let (text, errors) = sqlite(&program, &path, ".dump", None);
        assert_eq!(errors, "", "{program:?}");
        let copy = host.path("copy.db");
        let (_, errors) = sqlite(&program, &copy, "", Some(&text));
        assert_eq!(errors, "", "{program:?}");
        for table in ["system_metrics", "reading_analytics", "dead_letters"] {
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(number(&copy, &count), number(&path, &count), "{program:?} {table}");
        }
    }
}

#[test]
fn a_copy_is_whole_while_somebody_writes() {
    let host = filled();
    let target = host.path("copy.db");
    let shown = target.to_str().unwrap();
    // What is in the log only counts too, and a writer in the middle does not.
    let writer = Connection::open(file(&host)).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM reading_analytics").unwrap();
    let (code, said) = hub(&host, &["backup", shown]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(number(&target, "SELECT count(*) FROM reading_analytics"), DOCUMENTS as i64);
    assert_eq!(number(&target, "SELECT count(*) FROM system_metrics"), RUNS * 4);
    assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!host.path(&format!("copy.db{suffix}")).exists());
    }
    let before = std::fs::read(&target).unwrap();
    let (code, said) = hub(&host, &["backup", shown]);
    assert!(code == 2 && said.contains("is there already"), "{code} {said}");
    assert_eq!(std::fs::read(&target).unwrap(), before);
    std::os::unix::fs::symlink("elsewhere", host.path("link.db")).unwrap();
    assert_eq!(hub(&host, &["backup", host.path("link.db").to_str().unwrap()]).0, 2);
    assert_eq!(hub(&host, &["backup", host.path("missing/copy.db").to_str().unwrap()]).0, 1);
    drop(writer);
    // The copy is a database of the hub's.
    let copied = Host::new();
    Store::open(&config(&copied, &format!("sqlite:{shown}"), PIPELINE))
        .unwrap()
        .insert_metrics(&sample("web", 1), &[])
        .unwrap();
    let (code, said) = hub(&host, &["check"]);
    assert!(
        code == 0 && said.contains("is sound") && said.contains(&format!("reading_analytics: {DOCUMENTS} rows")),
        "{said}"
    );

    let other = Host::new();
    other.configure("");
    for command in ["check", "backup", "recover"] {
        let target = other.path("x.db");
        let arguments = [command, target.to_str().unwrap()];
        let (code, said) = hub(&other, if command == "check" { &arguments[..1] } else { &arguments });
        assert!(code == 2 && said.contains("is not there yet"), "{code} {said}");
    }
    other.configure("[database]\nurl = \"postgres://hub:geheim@127.0.0.1:1/hub\"\n");
    let (code, said) = hub(&other, &["backup", other.path("x.db").to_str().unwrap()]);
    assert!(code == 2 && said.contains("pg_dump") && !said.contains("geheim"), "{code} {said}");
}

#[test]
fn root_opens_the_services_file_as_their_user_and_makes_the_copy_as_root() {
    if support::skipped_without_root() {
        return;
    }
    let host = filled();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let data = host.state().join("data");
    for path in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).chain([data.clone()]) {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let target = host.path("copy.db");
    let (code, said) = hub(&host, &["backup", target.to_str().unwrap()]);
    assert_eq!((code, std::fs::metadata(&target).unwrap().uid()), (0, 0), "{said}");
    assert_eq!(number(&target, "SELECT count(*) FROM system_metrics"), RUNS * 4);
    // Into a folder of theirs it is their own, and a link of theirs leads nowhere.
    let inside = data.join("copy.db");
    let (code, said) = hub(&host, &["backup", inside.to_str().unwrap()]);
    assert_eq!((code, std::fs::metadata(&inside).unwrap().uid()), (0, 65534), "{said}");
    std::os::unix::fs::symlink(host.path("roots"), data.join("link.db")).unwrap();
    assert_ne!(hub(&host, &["backup", data.join("link.db").to_str().unwrap()]).0, 0);
    assert!(!host.path("roots").exists());
    std::fs::remove_file(file(&host)).unwrap();
    std::os::unix::fs::symlink(&target, file(&host)).unwrap();
    assert_ne!(hub(&host, &["backup", host.path("third.db").to_str().unwrap()]).0, 0, "a link in the file's place");
    assert!(!host.path("third.db").exists());
}

/// Pages of a table by their kind.
fn pages(connection: &Connection, table: &str, kind: &str) -> Vec<u64> {
    let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY pageno";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([table, kind], |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|row| row.unwrap() as u64).collect()
}

fn spoil(host: &Host, page: u64, with: u8) {
    let file = std::fs::File::options().write(true).open(file(host)).unwrap();
    file.write_all_at(&vec![with; 4096], (page - 1) * 4096).unwrap();
}

/// Recovers, and says what was said; the new file is sound and one of the hub's.
fn recovered(host: &Host) -> (String, PathBuf) {
    let before = std::fs::read(file(host)).unwrap();
    let new = host.path("new.db");
    let (code, said) = hub(host, &["recover", new.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::read(file(host)).unwrap(), before, "the damaged one stays");
    assert_eq!(number(&new, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    let config = config(&Host::new(), &format!("sqlite:{}", new.display()), PIPELINE);
    Store::open(&config).unwrap().insert_metrics(&sample("new", 1), &[]).unwrap();
    assert!(said.contains("install ") && said.contains("mkdir "), "{said}");
    (said, new)
}

const ROWS: &str = "SELECT count(*) FROM system_metrics WHERE host = 'web'";

#[test]
fn what_can_be_read_of_a_damaged_file_is_and_the_rest_is_counted() {
    // Some leaves.
    let host = filled();
    let connection = settled(&host);
    let leaves = pages(&connection, "system_metrics", "leaf");
    let readings = pages(&connection, "reading_analytics", "leaf");
    let whole = connection.query_row("SELECT sum(id) FROM reading_analytics", [], |row| row.get::<_, i64>(0)).unwrap();
    drop(connection);
    spoil(&host, leaves[3], 0);
    spoil(&host, leaves[9], b'x');
    spoil(&host, readings[5], 0xff);
    let (code, said) = hub(&host, &["check"]);
    assert!(code == 1 && said.contains("damaged") && said.contains("hub database recover FILE"), "{said}");
    let copy = host.path("copy.db");
    let (code, said) = hub(&host, &["backup", copy.to_str().unwrap()]);
    assert!(code == 1 && said.contains("damaged") && !copy.exists(), "{said}");
    let (said, new) = recovered(&host);
    let rows = number(&new, ROWS);
    assert!(rows > RUNS * 4 - 200 && rows < RUNS * 4, "{rows}");
    assert!(said.contains(&format!("system_metrics: {rows} rows of {}; {} lost", RUNS * 4, RUNS * 4 - rows)), "{said}");
    assert!(said.contains("3 pages of tables could not be read") && said.contains("dead_letters: 50 rows\n"), "{said}");
    let kept = number(&new, "SELECT count(*) FROM reading_analytics");
    assert!(said.contains(&format!("reading_analytics: {kept} rows of {DOCUMENTS}; {} lost", DOCUMENTS as i64 - kept)));
    assert!(number(&new, "SELECT sum(id) FROM reading_analytics") < whole);
    assert!(number(&new, "SELECT count(*) FROM reading_analytics WHERE length(payload) > 20000 AND id % 100 = 2") > 0);

    // The page that leads to all the others: every row is found.
    let host = filled();
    let root = pages(&settled(&host), "system_metrics", "internal")[0];
    spoil(&host, root, 0);
    let (said, new) = recovered(&host);
    assert_eq!(number(&new, ROWS), RUNS * 4, "{said}");
    assert!(said.contains("were on pages that nothing led to"), "{said}");

    // The head of the file.
    let host = filled();
    drop(settled(&host));
    spoil(&host, 1, 0);
    let (said, new) = recovered(&host);
    assert_eq!((number(&new, ROWS), number(&new, "SELECT count(*) FROM dead_letters")), (RUNS * 4, 50), "{said}");
    assert_eq!(number(&new, "SELECT count(*) FROM reading_analytics"), DOCUMENTS as i64, "{said}");
    assert!(said.contains("could not be used: it does not begin as a database does"), "{said}");

    // Bytes that are no text any more (sqlitebrowser/sqlitebrowser#3433).
    let host = filled();
    drop(settled(&host));
    let bytes = std::fs::read(file(&host)).unwrap();
    let raw = std::fs::File::options().write(true).open(file(&host)).unwrap();
    let damaged = "SELECT count(*) FROM system_metrics WHERE CAST(os AS BLOB) <> CAST('linux' AS BLOB)";
    // Some places are of rows that were moved to another page.
    let mut places = bytes.windows(9).enumerate().filter(|(_, window)| window == b"linuxdisk").map(|(at, _)| at as u64);
    let is_row = |at: &u64| {
        raw.write_all_at(&[0xff, 0xfe], *at).unwrap();
        let is_row = number(&file(&host), damaged) == 1;
        raw.write_all_at(if is_row { &[0xff, 0xfe] } else { b"li" }, *at).unwrap();
        is_row
    };
    assert!(places.any(|at| is_row(&at)));
    let (said, new) = recovered(&host);
    assert_eq!(number(&new, ROWS), RUNS * 4 - 1, "{said}");
    assert!(said.contains(&format!("system_metrics: {} rows of {}; 1 lost", RUNS * 4 - 1, RUNS * 4)), "{said}");

    // Half a file, and none.
    let host = filled();
    drop(settled(&host));
    let length = std::fs::metadata(file(&host)).unwrap().len();
    std::fs::File::options().write(true).open(file(&host)).unwrap().set_len(length / 2).unwrap();
    let (said, new) = recovered(&host);
    assert!(number(&new, ROWS) > 500 && said.contains("Not all of it could be read"), "{said}");
    std::fs::remove_file(&new).unwrap();
    std::fs::write(file(&host), "no database at all\n".repeat(1000)).unwrap();
    let (said, new) = recovered(&host);
    assert!(number(&new, ROWS) == 0 && said.contains("Not all of it"), "{said}");
}

#[test]
fn a_sound_file_is_recovered_whole_with_what_is_in_its_log() {
    let host = filled();
    let connection = settled(&host);
    // A table of somebody else, rows that were deleted, and a transaction that is not finished.
    connection
        .execute_batch("CREATE TABLE mine (a TEXT, b REAL); INSERT INTO mine VALUES ('x', 0.1), (NULL, -1e300)")
        .unwrap();
    connection.execute_batch("DELETE FROM reading_analytics WHERE id > 1000; BEGIN; DELETE FROM dead_letters").unwrap();
    let beside = ["hub.db-wal", "hub.db-shm"].map(|name| host.state().join("data").join(name));
    let logs = beside.each_ref().map(|path| std::fs::read(path).unwrap());
    assert!(logs.iter().all(|log| !log.is_empty()));
    let (said, new) = recovered(&host);
    drop(connection);
    assert!(said.contains("Nothing is lost, as far as can be known."), "{said}");
    assert_eq!(number(&new, "SELECT count(*) FROM reading_analytics"), 1000);
    assert_eq!(number(&new, "SELECT count(*) FROM dead_letters"), 50);
    assert_eq!(number(&new, "SELECT count(*) FROM mine WHERE b = 0.1 OR b = -1e300"), 2);
    for sql in [
        "SELECT total(length(payload)) FROM reading_analytics",
        "SELECT total(time) FROM system_metrics WHERE host = 'web'",
    ] {
        let sum =
            |path: &Path| -> f64 { Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(sum(&new), sum(&file(&host)), "{sql}");
    }
    let commands: String =
        said.lines().filter_map(|line| line.strip_prefix("  ")).map(|line| format!("{line}\n")).collect();
    let count = number(&new, "SELECT count(*) FROM reading_analytics");
    beside.iter().zip(logs).for_each(|(path, log)| std::fs::write(path, log).unwrap());
    assert!(Command::new("sh").args(["-ec", &commands]).status().unwrap().success(), "{commands}");
    assert!(beside.iter().all(|path| !path.exists()) && host.state().join("data/hub.db.damaged/hub.db-wal").exists());
    assert_eq!(number(&file(&host), "SELECT count(*) FROM reading_analytics"), count);
    let (code, said) = hub(&host, &["check"]);
    assert!(code == 0 && said.contains("is sound"), "{said}");
}
