//! What services leave for readers, whoever damaged it: drawn as page and as metrics.

use std::collections::BTreeSet;

use super::{html, overview};
use crate::fuzz::fuzz;
use crate::health::{Answer, Level, Seen, Ways, funnel, judge};
use crate::proxy::prometheus;
use crate::proxy::status::{Connections, Proxy, QueueStatus, Status};
use crate::records::{Found, Left, Outcome, SERVICES, Wanted};
use crate::state::Folder;
use crate::text::is_hidden;

const SEEDS: &[&[u8]] = &[
    br#"{"service":"gitops-sync","started":"2026-01-01T00:00:00.000Z","duration_ms":12,"status":"rolled_back","counts":{"deployed":1},"error":"x","details":{"repositories":[{"repository":"a/b","status":"failed"}]},"history":[{"started":"2026-01-01T00:00:00.000Z","duration_ms":1,"status":"unchanged"}]}"#,
    br#"{"service":"reading-sync","started":"2026-01-01T00:00:00.000Z","duration_ms":18446744073709551615,"status":"success","details":{"pipeline":"reading","kept":{"reading":{"dead_letters":3,"damaged_files":1,"counted":"2026-01-01T00:00:00.000Z"}}}}"#,
    br#"{"at":"2026-01-01T00:00:00.000Z","status":"refused","reason":"x","not_deployed":"y","commit":"1111111111111111111111111111111111111111","since":"2026-01-01T00:00:00.000Z","by":"root","to":"2222","step":"units","started":"now"}"#,
];

const WORDS: &[&[u8]] = &[
    b"null",
    b"-1",
    b"1e400",
    b"18446744073709551615",
    b"\"\"",
    b"[]",
    b"{}",
    b"\"status\":",
    b"\"details\":",
    b"\"history\":[",
    b"\"error\":",
    b"\"-009999-01-01T00:00:00Z\"",
    b"\"9999-12-31T23:59:59.999Z\"",
    b"<script>",
    b"\"><b onload=x>",
    b"\\u202e",
    b"\\u0000",
    b"\\ud83d\\ude00",
    b"\"repositories\":",
    b"\"kept\":",
    b"\xe2\x80\xae",
    b"\xc2\x9b",
    b"&lt;",
    b"'",
    b"\"duration_ms\":",
    b"{\"time\":\"2026-01-02T00:00:00Z\",\"host\":\"\",\"os\":\"\",\"metrics\":{\"disk\":{\"",
];

#[test]
fn fuzz_records() {
    let dir =
        tempfile::tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let root = Found::There(Folder::open(dir.path()).unwrap());
    let repositories = vec![("acme/infra".to_owned(), "main".to_owned())];
    let wanted = Wanted { repositories: Some(repositories), pipelines: Some(vec!["reading".to_owned()]) };
    let paths: Vec<_> = SERVICES
        .iter()
        .map(|(_, folder)| (*folder, "run.json"))
        .chain([("gitops", "totals.json"), ("data/metrics", "sample.json")])
        .chain(["deployed", "checked", "bad", "hold", "journal"].map(|folder| (folder, "acme__infra.json")))
        .map(|(folder, file)| {
            let folder =
                dir.path().join(if file.contains("__") { format!("gitops/{folder}") } else { folder.to_owned() });
            std::fs::create_dir_all(&folder).unwrap();
            folder.join(file)
        })
        .collect();
    let time = "2026-01-02T00:00:00Z";
    let zero = || Connections { open: 0, accepted: 0, own: 0, evicted: 0, refused: 0, timed_out: 0, answered: [0; 4] };
    fuzz("records", SEEDS, WORDS, |input| {
        for path in &paths {
            std::fs::write(path, input).unwrap();
        }
        let now = time.parse().unwrap();
        let mut left = Left::read(&root, &wanted, now);
        left.unreadable.truncate(9);
        let seen = Seen {
            now,
            config: Err("not looked at"),
            last_valid: None,
            ways: &Ways::default(),
            left: &left,
            units: None,
            units_error: None,
            failed: left.look.get().and_then(|look| look.failed.as_ref()),
            up: None,
            proxy: &Answer::Well,
            lives: true,
            waits: &[],
        };
        let (reasons, funnel) = (judge(&seen), funnel(&seen));
        let keys: BTreeSet<&str> = reasons.iter().map(|reason| &*reason.key).collect();
        assert_eq!(keys.len(), reasons.len(), "a key names one reason: {reasons:#?}");
        let records: Vec<_> = left.records().cloned().collect();
        let repository = &left.repositories[0];
        let answer = (
            records.len(),
            records.first().map(|record| (record.history.len(), Outcome::of(&record.last) == Outcome::Failed)),
            left.pipelines
                .iter()
                .map(|one| (one.dead_letters().is_some(), one.damaged_files().is_some()))
                .collect::<Vec<_>>(),
            [
                repository.deployed.get().is_some(),
                repository.checked.get().is_some(),
                repository.hold.get().is_some(),
                repository.open.get().is_some(),
            ],
        );
        let status = Status {
            status: "ok",
            health: Level::of(&reasons),
            reason: String::new(),
            funnel,
            reasons,
            time: time.to_owned(),
            now,
            booted: None,
            ways: Ways::default(),
            proxy: Proxy {
                version: "0",
                instance: "x".to_owned(),
                started: time.to_owned(),
                uptime_seconds: 1,
                deliveries: crate::proxy::deliveries::Deliveries::default().counts(),
                secret_error: None,
                has_secret: true,
                public: zero(),
                admin: zero(),
                alive_holders: 0,
            },
            queue: QueueStatus { requests: None, oldest_age_seconds: None, error: None },
            services: records,
            repositories: left.repositories,
            pipelines: left.pipelines,
            unreadable: left.unreadable,
            totals: left.totals,
            sample: left.sample,
        };
        let html = html(overview::page(&status), &status);
        for bad in ["<script", "<b onload", "\"><"] {
            assert!(!html.contains(bad) || bad == "\"><", "{html}");
        }
        assert!(!html.contains(|c| is_hidden(c) && c != '\n'), "{html:?}");
        let metrics = prometheus::format(&status);
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line:?}");
            assert!(!line.contains(is_hidden), "{line:?}");
        }
        answer
    });
}
