//! `hub doctor` on the database and on pipelines.

use crate::support;
use crate::support::reading;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::support::doctor::{doctor, doctor_with};
use crate::support::{Host, free_address, skipped_without_root};

#[test]
fn a_database_that_refuses_or_is_down_is_told() {
    let host = Host::new();
    let with_url = |url: &str| {
        host.credential("database-url", url);
        doctor(&host)
    };
    let nobody = free_address();
    let found = with_url(&format!("postgres://hub:geheim@{nobody}/hub?connect_timeout=2"));
    let found = found.has("problem", "database", "not available", &format!("psql 'postgres://{nobody}/hub'"));
    assert!(!found.text.contains("geheim") && !found.json.to_string().contains("geheim"));
    let found =
        with_url("mysql://root:geheim@db").has("problem", "database", "credential database-url", "database-url");
    assert!(!found.text.contains("geheim"));
    std::fs::create_dir(host.path("state/data")).unwrap();
    std::fs::write(host.path("state/data/torn.db"), vec![b'x'; 8192]).unwrap();
    with_url("sqlite:torn.db").has("problem", "database", "torn.db", "database recover");
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_without_the_right_to_make_tables_is_told_with_the_statements() {
    let Some(cluster) = support::postgres::shared() else { return };
    let database = cluster.database("doctor");
    let host = Host::new();
    host.credential("database-url", &database.url());
    doctor(&host).has("ok", "database", "the login, the schema and the right to write are there", "");
    let mut superuser = database.superuser();
    superuser.batch_execute("DROP OWNED BY doctor CASCADE; ALTER DATABASE doctor OWNER TO CURRENT_USER; REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    doctor(&host).has("problem", "database", "permission denied", "GRANT");
}

#[cfg(feature = "sqlite")]
#[test]
fn what_somebody_dropped_is_told() {
    let host = Host::new();
    host.configure("");
    let config = support::rows::config(&host, "sqlite:hub.db", "");
    drop(observability_hub::store::Store::open(&config).unwrap());
    let connection = rusqlite::Connection::open(host.path("state/data/hub.db")).unwrap();
    for (drop, name) in [("VIEW", "metrics_cpu"), ("INDEX", "system_metrics_key"), ("TABLE", "system_metrics")] {
        connection.execute_batch(&format!("DROP {drop} {name}")).unwrap();
        // Whoever looks first has it made again.
        let first = host.run("hub", &["doctor", "--json"]);
        let first: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
        let findings = first["findings"].as_array().unwrap();
        let note = findings.iter().find(|finding| finding["about"] == "database").unwrap();
        assert_eq!(note["level"], "warning");
        assert!(note["finding"].as_str().unwrap().contains(&format!("made again: {name}")), "{note}");
        doctor(&host).has("ok", "database", "the schema and the right to write are there", "");
    }
}

#[test]
fn a_pipeline_whose_source_is_not_there_is_told() {
    let host = Host::new();
    let pipeline = reading::file_pipeline(&host, "");
    host.configure(&pipeline);
    reading::publish(&host, "a.jsonl", b"{}\n");
    doctor(&host).has("ok", "pipeline reading", "1 file waits", "").finds_well("configuration");
    std::fs::remove_dir_all(reading::inbox(&host)).unwrap();
    let host_of_mongo = Host::new();
    doctor(&host).has("problem", "pipeline reading", "inbox", "install -d");
    host_of_mongo.configure("[[pipeline]]\nname = \"reading\"\n");
    doctor(&host_of_mongo).has("problem", "pipeline reading", "credential mongo-uri: is missing", "mongo-uri");
}

#[cfg(feature = "mongodb")]
#[test]
fn a_mongodb_that_does_not_answer_is_told_without_its_password() {
    let host = Host::new();
    host.configure("[[pipeline]]\nname = \"reading\"\n");
    host.credential("mongo-uri", &format!("mongodb://hub:geheim@{}/", free_address()));
    let found = doctor(&host).has("problem", "pipeline reading", "MongoDB", "mongosh");
    assert!(!found.text.contains("geheim") && !found.json.to_string().contains("geheim"));
}

#[cfg(feature = "mongodb")]
#[test]
fn a_mongodb_that_answers_is_told_with_what_waits_and_one_that_refuses_the_login_too() {
    let Some(mongo) = support::mongo::Mongo::start() else { return };
    let events = mongo.collection("doctor", "events");
    let host = Host::new();
    host.configure("[[pipeline]]\nname = \"reading\"\ndatabase = \"doctor\"\n");
    host.credential("mongo-uri", mongo.uri());
    let about = "pipeline reading";
    doctor(&host).has("ok", about, "doctor.events can be read, it is empty, or not there yet", "");
    events.insert_one(mongodb::bson::doc! { "status": "ingested" }).run().unwrap();
    doctor(&host).has("ok", about, "doctor.events can be read, documents wait", "");
    let refuses = support::mongo_errors::wrong_password();
    host.credential("mongo-uri", &format!("mongodb://hub:geheim@{refuses}/?directConnection=true"));
    let found = doctor(&host).has("problem", about, "login refused", "mongosh");
    assert!(!found.text.contains("geheim") && !found.json.to_string().contains("geheim"));
}

#[test]
fn what_a_pipeline_left_undone_is_a_finding() {
    let site = reading::Site::new(|host| reading::file_pipeline(host, ""));
    reading::publish(&site.host, "a.jsonl", b"this is no JSON\n");
    reading::publish(&site.host, "b.jsonl.gz", b"this is no gzip\n");
    site.synced("reading");
    let about = "pipeline reading";
    let found = doctor(&site.host).has("warning", about, "1 document could not be stored", "hub dead-letters");
    found.has("warning", about, "1 damaged file in failed/", "ls -l").has("ok", about, "0 files wait", "");
    let inbox = reading::inbox(&site.host);
    std::fs::rename(&inbox, site.host.path("elsewhere")).unwrap();
    site.run("reading");
    std::fs::rename(site.host.path("elsewhere"), &inbox).unwrap();
    doctor(&site.host).has("problem", about, "the last run, begun", "/api/sync/reading");
}

#[test]
fn a_file_that_the_readers_user_may_not_read_is_found() {
    if skipped_without_root() {
        return;
    }
    let host = Host::new();
    host.configure(&reading::file_pipeline(&host, ""));
    reading::publish(&host, "a.jsonl", b"{}\n");
    std::fs::set_permissions(reading::inbox(&host).join("a.jsonl"), PermissionsExt::from_mode(0o600)).unwrap();
    chown(reading::inbox(&host), Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = host.path("hub");
    support::copy_program(env!("CARGO_BIN_EXE_hub"), &binary);
    let as_nobody = || {
        doctor_with(|| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
            for (name, value) in host.command("hub").get_envs() {
                value.map(|value| command.env(name, value));
            }
            command
        })
    };
    as_nobody().has("problem", "pipeline reading", "a.jsonl: Permission denied", "chown -R");
    chown(reading::inbox(&host).join("a.jsonl"), Some(65534), None).unwrap();
    as_nobody().has("ok", "pipeline reading", "1 file waits", "");
}
