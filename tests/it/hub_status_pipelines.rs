//! `hub status`, the page and the metrics: what they say of pipelines.

use crate::support;
use crate::support::free_address;
use crate::support::reading;
use crate::support::status::{ago, change, status_on_its_port as status};
use serde_json::{Value, json};

#[test]
fn documents_that_were_kept_and_pipelines_that_fail_or_are_late_are_told() {
    let site = reading::Site::new(|host| reading::file_pipeline(host, ""));
    reading::publish(&site.host, "a.jsonl", b"this is no JSON\n");
    reading::age(&site.host, "a.jsonl");
    site.synced("reading");
    let said = status(&site.host).ends(1, "degraded");
    said.says("degraded", "reading-sync", "reading: 1 document could not be stored and is kept", "hub dead-letters");
    let file = site.host.path("state/reading/run.json");
    change(&file, |record| {
        record["counts"] = json!({});
        record["started"] = ago(50 * 3600).into();
    });
    status(&site.host).ends(1, "degraded").says("degraded", "reading-sync", "ran 2 days ago, and should daily", "");
    std::fs::remove_dir_all(reading::inbox(&site.host)).unwrap();
    site.run("reading");
    status(&site.host).ends(2, "failed").says("failed", "reading-sync", "inbox", "");
}

#[test]
fn what_a_pipeline_keeps_is_told_until_it_is_gone() {
    let site = reading::Site::new(|host| reading::file_pipeline(host, ""));
    let metrics = || String::from_utf8(support::send(site.admin, "GET", "/metrics", &[], b"").body).unwrap();
    assert!(status(&site.host).text.contains("dead letters     reading: not known"));
    reading::publish(&site.host, "a.jsonl", b"this is no JSON\n");
    reading::publish(&site.host, "b.jsonl.gz", b"this is no gzip\n");
    site.synced("reading");
    reading::publish(&site.host, "c.jsonl", reading::line(1).as_bytes());
    assert_eq!(site.synced("reading")["dead_letters"], 0, "a good run");
    let keeps = || {
        let said = status(&site.host).ends(1, "degraded");
        let said = said.says("degraded", "reading-sync", "reading: 1 document could not be stored", "hub dead-letters");
        let failed = reading::inbox(&site.host).join("failed").display().to_string();
        let said = said.says("degraded", "reading-sync", "reading: 1 damaged file in failed/", &failed);
        assert_eq!(said.json["pipelines"][0]["kept"]["dead_letters"], 1, "{said:#?}");
        assert!(said.text.contains("dead letters     reading: 1, 1 damaged file"), "{}", said.text);
    };
    keeps();
    let page = support::send(site.admin, "GET", "/api/status", &[], b"").json();
    assert_eq!((&page["health"], &page["pipelines"][0]["kept"]["damaged_files"]), (&json!("degraded"), &json!(1)));
    for sample in ["hub_dead_letters{pipeline=\"reading\"} 1", "hub_damaged_files{pipeline=\"reading\"} 1"] {
        assert!(metrics().lines().any(|line| line == sample), "{}", metrics());
    }

    // A run that cannot count them forgets nothing.
    let dead = format!("postgres://hub@{}/hub", free_address());
    let site = site.again(|command| {
        command.env("DATABASE_URL", dead);
    });
    assert_eq!(site.run("reading")["side"], "database");
    let said = status(&site.host).ends(2, "failed");
    said.says("degraded", "reading-sync", "reading: 1 document could not be stored", "hub dead-letters");

    let site = site.again(|_| {});
    assert!(site.host.run("hub", &["dead-letters", "drop", "1"]).status.success());
    let said = status(&site.host);
    assert!(said.text.contains("dead letters     reading: 0, 1 damaged file"), "before any run: {}", said.text);
    assert!(!said.json["reasons"].to_string().contains("could not be stored"), "{said:#?}");
    std::fs::remove_dir_all(reading::inbox(&site.host).join("failed")).unwrap();
    site.synced("reading");
    let said = status(&site.host).says_nothing_of("reading-sync");
    assert!(said.text.contains("dead letters     reading: 0"), "{}", said.text);
}

#[test]
fn a_pipeline_that_failed_is_told_although_another_ran_well_after_it() {
    let site = reading::Site::new(|host| {
        let missing = host.path("missing").display().to_string();
        let other = format!("[[pipeline]]\nname = \"other\"\nsource = \"file:{missing}\"\ntable = \"other\"");
        format!("{}{other}\n", reading::file_pipeline(host, ""))
    });
    assert_eq!(site.run("other")["side"], "source");
    let page = || support::send(site.admin, "GET", "/api/status", &[], b"").json();
    assert_eq!(page()["reasons"].as_array().unwrap().len(), 1, "told once: {}", page());
    site.synced("reading");
    let said = status(&site.host).ends(2, "failed").says("failed", "reading-sync", "other: inbox", "hub doctor");
    assert_eq!(said.json["pipelines"][0]["failed"], Value::Null, "{said:#?}");
    assert_eq!(page()["health"], "failed");
    assert!(page()["reason"].as_str().unwrap().contains("other: inbox"), "{}", page());
    std::fs::create_dir(site.host.path("missing")).unwrap();
    site.synced("other");
    status(&site.host).says_nothing_of("reading-sync");
    assert_eq!(page()["health"], "healthy");
}
