//! The pages of deployments and of units: what gitops-sync, hub watch and system-metrics left, shown whole, escaped, and no
//! more than is known.
#![cfg(feature = "sqlite")]

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use observability_hub::store::Store;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, host};
use crate::support::gitops::Site;
use crate::support::rows::{config_in, row};
use crate::support::{Answer, Host, Service, send};

const EVIL: &str = "<script>alert('&\"')</script>\u{202e}";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let Answer { status, body, .. } = send(address, "GET", path, &[], b"");
    (status, String::from_utf8(body).unwrap())
}

/// The page at a path of the admin listener.
#[track_caller]
fn page(gateway: &Gateway, path: &str) -> String {
    let (status, html) = get(gateway.admin, path);
    assert_eq!(status, 200, "{path}: {html}");
    assert!(!html.contains("<script") && !html.contains('\u{202e}'), "{path}: {html}");
    html
}

fn write(host: &Host, path: &str, text: &str) {
    let path = host.state().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn ago(minutes: i64) -> String {
    let time = Timestamp::now().checked_sub(SignedDuration::from_mins(minutes)).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// A deployment of two units, an hour and five minutes ago, in ten seconds.
fn deployed() -> Value {
    json!({"at": ago(65), "kind": "deployed", "about": "acme/infra", "status": "deployed", "from": "f".repeat(40),
        "to": COMMIT, "subject": "Serve more quickly", "author": "Ada", "link": "https://forge.example/c/0123",
        "restarts": [{"unit": "web.service", "action": "restarted", "reason": "its file changed", "to": COMMIT}],
        "units": ["change web.service", "add job.timer"], "duration_ms": 10_000, "by": "bob",
        "plan": "plans/acme__infra/1.json"})
}

const PLAN: &str = r#"{"repository": "acme/infra", "at": "x", "to": "0123", "plan": ["M app/run.sh: differs in 0123"],
    "units": [{"file": "web.service", "action": "change", "reason": "other content in 0123",
    "diff": "@@ -1 +1 @@\n-ExecStart=/old\n+ExecStart=/new <b>\n Environment=***\n"}]}"#;

/// The only path of a deployment's page in the list.
fn link(html: &str) -> String {
    let mut links = html.split("href=\"").filter_map(|part| part.split('"').next());
    links.find(|link| link.starts_with("/deployments/")).unwrap_or_else(|| panic!("no link: {html}")).to_owned()
}

fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn store(host: &Host) -> Store {
    Store::open(&config_in(&host.path("store.toml"), &host.state(), "sqlite:hub.db", "")).unwrap()
}

/// Minutes of web.service: 10 % and 100 MB before the deployment, 30 % and 50 MB after it, in which systemd restarts it twice.
fn measured(host: &Host) {
    let now = Timestamp::now().as_millisecond();
    let rows = (0..120).map(|minute| {
        let (cpu, memory, restarts) = match minute {
            0..20 => (30.0, 50_000_000, 2),
            20..66 => (30.0, 50_000_000, 0),
            _ => (10.0, 100_000_000, 5),
        };
        let unit = json!({"cpu_percent": cpu, "memory": memory, "restarts": restarts, "tasks": 3});
        row(&own_name(), now - minute * 60_000, "unit", json!({"web.service": unit, "other.service": unit}))
    });
    store(host).insert_metrics(&rows.collect::<Vec<_>>(), &[]).unwrap();
}

/// The cells of a table's row that begins with a name, without markup.
fn cells(html: &str, name: &str) -> Vec<String> {
    let rows = html.split("<tr>").skip(1).filter_map(|row| row.split("</tr>").next());
    let row = rows.into_iter().find(|row| row.contains(&format!(">{name}")));
    let row = row.unwrap_or_else(|| panic!("no {name}: {html}"));
    let text = |cell: &str| {
        let parts = cell.split('<').map(|part| part.split_once('>').map_or("", |(_, text)| text));
        parts.collect::<String>().trim().to_owned()
    };
    row.split("<td").skip(1).map(|cell| text(&format!("<td{cell}"))).collect()
}

#[test]
fn a_deployment_has_a_line_and_a_page_with_before_and_after() {
    let (host, deployed) = (host(""), deployed());
    write(&host, "gitops/history.jsonl", &lines(std::slice::from_ref(&deployed)));
    write(&host, "gitops/plans/acme__infra/1.json", PLAN);
    write(&host, "gitops/deployed/acme__infra.json", &json!({"commit": COMMIT, "at": ago(65)}).to_string());
    write(&host, "gitops/checked/acme__infra.json", &json!({"at": ago(5), "status": "deployed"}).to_string());
    write(&host, "gitops/hold/acme__app.json", &json!({"since": ago(9), "by": "eve", "reason": "a fair"}).to_string());
    let failed = |minutes, times: u64| json!({"at": ago(minutes), "kind": "unit_failed", "about": "web.service", "status": "exit-code", "times": times});
    write(&host, "watch/history.jsonl", &lines(&[failed(70, 1), failed(50, 3), failed(1, 9)]));
    write(&host, "watch/look.json", &json!({"at": ago(0)}).to_string());
    measured(&host);
    let gateway = Gateway::on(host);
    let list = page(&gateway, "/deployments");
    for shown in [
        "Serve more quickly",
        "Ada",
        "https://forge.example/c/0123",
        "took 10 s",
        "its file changed",
        "asked for by bob",
        "<b>live</b>",
        "after 5",
        "none while it is on hold",
        "a fair",
        "hub release acme/app",
        "aria-current=\"page\">Deployments",
    ] {
        assert!(list.contains(shown), "{shown} is missing in {list}");
    }
    let path = link(&list);
    let detail = page(&gateway, &path);
    for shown in
        ["M app/run.sh: differs", "+ExecStart=/new &lt;b&gt;", "Environment=***", "other content in 0123", "half hour"]
    {
        assert!(detail.contains(shown), "{shown} is missing in {detail}");
    }
    assert_eq!(cells(&detail, "web.service"), ["10 %", "30 %", "100 MB", "50 MB", "0", "0", "1", "3"], "{detail}");
    assert_eq!(cells(&detail, "job.timer")[..6], ["not known"; 6]);
    assert!(!detail.contains("other.service"), "it was not touched");
    assert!(page(&gateway, "/host").contains(&format!("href=\"{path}\"")), "a mark on the charts leads to it");
    // What happens later changes no link.
    let later = json!({"at": ago(1), "kind": "rolled_back", "about": "acme/infra", "to": "2", "reason": "no answer"});
    write(&gateway.host, "gitops/history.jsonl", &lines(&[deployed, later]));
    let (_, with_later) = get(gateway.admin, "/deployments");
    assert!(with_later.contains(&path), "{with_later}");
    assert!(with_later.contains("rolled back") && with_later.contains("no answer"), "{with_later}");
}

#[test]
fn hours_are_read_where_the_minutes_are_deleted() {
    let host = host("");
    let old = json!({"at": ago(30 * 24 * 60), "kind": "deployed", "about": "acme/infra", "to": COMMIT, "units": ["add web.service"]});
    write(&host, "gitops/history.jsonl", &lines(&[old]));
    let now = Timestamp::now().as_millisecond();
    let begin = now - 30 * 24 * 3_600_000;
    let rows = (-5 * 60..5 * 60).map(|minute| {
        let memory = if minute < 0 { 100_000_000 } else { 50_000_000 };
        row(
            &own_name(),
            begin + minute * 60_000,
            "unit",
            json!({"web.service": {"cpu_percent": 2.0, "memory": memory}}),
        )
    });
    store(&host).insert_metrics(&rows.collect::<Vec<_>>(), &[]).unwrap();
    let file = rusqlite::Connection::open(host.state().join("data/hub.db")).unwrap();
    file.execute_batch("DELETE FROM system_metrics").unwrap();
    let gateway = Gateway::on(host);
    let detail = page(&gateway, &link(&page(&gateway, "/deployments")));
    assert!(detail.contains("three whole hours"), "{detail}");
    assert_eq!(cells(&detail, "web.service")[..4], ["2.0 %", "2.0 %", "100 MB", "50 MB"]);
    assert!(detail.contains("hub-watch has not looked yet"), "{detail}");
}

#[test]
fn nothing_of_it_is_there_yet() {
    let gateway = Gateway::new();
    let list = page(&gateway, "/deployments");
    assert!(list.contains("Nothing was deployed here yet") && list.contains("none yet"), "{list}");
    assert!(page(&gateway, "/units").contains("None yet"));
}

#[test]
fn what_is_torn_hostile_or_bare_costs_itself() {
    let host = host("");
    let bare = json!({"at": ago(3), "kind": "failed", "about": "acme/infra", "reason": EVIL.repeat(200)});
    let odd = json!({"at": EVIL, "kind": EVIL, "about": EVIL, "to": EVIL, "subject": EVIL, "author": EVIL, "by": EVIL,
        "link": "javascript:alert(1)", "reason": EVIL, "restarts": [{"unit": EVIL, "action": EVIL, "reason": EVIL}, 7, EVIL],
        "units": [EVIL], "plan": "plans/../../../etc/passwd"});
    let text = format!("{}{{torn\n\u{0}\n[1]\n{{\"at\":\"2026", lines(&[odd, bare]));
    write(&host, "gitops/history.jsonl", &text);
    for folder in ["deployed", "checked", "hold", "bad"] {
        write(&host, &format!("gitops/{folder}/acme__infra.json"), "{torn");
    }
    let gateway = Gateway::on(host);
    let list = page(&gateway, "/deployments");
    assert!(list.contains("&lt;script&gt;") && list.contains("not known"), "{list}");
    assert!(!list.contains("javascript:"), "{list}");
    assert!(list.len() < 60_000, "{}", list.len());
    for path in
        list.split("href=\"").filter_map(|part| part.split('"').next()).filter(|path| path.starts_with("/deployments/"))
    {
        let detail = page(&gateway, path);
        // There is no database, and hub watch has not looked.
        assert!(detail.contains("Plan") && !detail.contains("root:"), "{detail}");
    }
    let detail = page(&gateway, &link(&list));
    assert!(detail.contains("hub-watch has not looked yet"), "{detail}");
}

#[test]
fn no_path_leads_out_of_the_history() {
    let host = host("");
    write(&host, "gitops/history.jsonl", &lines(&[deployed()]));
    write(&host, "secret.json", PLAN);
    let gateway = Gateway::on(host);
    for path in [
        "/deployments/",
        "/deployments/../secret.json",
        "/deployments/%2e%2e%2fsecret",
        "/deployments/0123456789abcdef/x",
    ] {
        assert_eq!(get(gateway.admin, path).0, 404, "{path}");
    }
    let (status, html) = get(gateway.admin, "/deployments/0123456789abcdef");
    assert!(status == 404 && html.contains("No such deployment"), "{html}");
    assert!(page(&gateway, "/deployments?newer=99999999999999999999").contains("Serve more quickly"));
    assert!(page(&gateway, "/deployments?newer=7").contains("1 newer"));
    // The unit was touched, and there is no database to ask.
    let detail = page(&gateway, &link(&page(&gateway, "/deployments")));
    assert!(detail.contains("What units used is not known"), "{detail}");
}

#[test]
fn a_real_deployment_shows_up() {
    let site = Site::with("", "");
    site.sync().expect(0, "deployed");
    let commit = site.head();
    let text = std::fs::read_to_string(site.host.path("hub.toml")).unwrap();
    site.host.configure(&format!("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{text}"));
    let service = Service::start(site.host.command("proxy"));
    let admin = service.line("listening")["admin_listen"].as_str().unwrap().parse().unwrap();
    let (_, list) = get(admin, "/deployments");
    for shown in [&commit[..10], "deployed", "acme/infra", "live"] {
        assert!(list.contains(shown), "{shown} is missing in {list}");
    }
    let (status, detail) = get(admin, &link(&list));
    assert!(status == 200 && detail.contains("README"), "{detail}");
}

#[test]
fn units_are_shown_with_their_state_and_what_they_use() {
    let host = host("");
    let files = |unit: &str| json!({unit: {"repository": "acme/infra"}});
    let mut manifest = files("web.service");
    for unit in ["job.timer", "gone.service", "t@.service", "web.service.d/x.conf"] {
        manifest[unit] = files(unit)[unit].clone();
    }
    write(&host, "gitops/manifest.json", &json!({"files": manifest}).to_string());
    let state = json!({"active": "active", "sub": "running", "since": ago(125), "restarts": 4});
    let look = json!({"at": ago(0), "deployed": {"web.service": state, "gone.service": {}, EVIL: {}}});
    write(&host, "watch/look.json", &look.to_string());
    let now = json!({"web.service": {"cpu_percent": 12.5, "memory": 75_000_000}, "t@1.service": {"memory": 1_000_000}, EVIL: {}});
    write(
        &host,
        "data/metrics/sample.json",
        &json!({"time": ago(0), "host": "x", "os": "linux", "metrics": {"unit": now}}).to_string(),
    );
    measured(&host);
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/units");
    let web = cells(&html, "web.service");
    assert!(web[0].starts_with("active (running)") && web[0].ends_with("2 h ago"), "{web:?}");
    assert_eq!((web[1].as_str(), web[2].as_str(), web[5].as_str()), ("4", "12 %", "75 MB"));
    assert_eq!((web[4].as_str(), web[7].as_str()), ("30 %", "100 MB"), "the highest of the day: {web:?}");
    assert!(html.contains("journalctl -u web.service") && html.contains("t@1.service"), "{html}");
    assert_eq!(cells(&html, "gone.service")[0], "not there");
    assert_eq!(cells(&html, "job.timer"), ["not known"; 8]);
    assert!(!html.contains("x.conf") && !html.contains("t@.service<"), "{html}");
    for missing in ["watch/look.json", "data/metrics/sample.json", "data/hub.db"] {
        std::fs::remove_file(gateway.host.state().join(missing)).unwrap();
    }
    let html = page(&gateway, "/units");
    assert_eq!(cells(&html, "web.service"), ["not known"; 8], "{html}");
    for told in
        ["hub-watch has not looked yet", "system-metrics has measured nothing yet", "use over the day not known"]
    {
        assert!(html.contains(told), "{told} is missing in {html}");
    }
}

#[test]
fn a_long_difference_is_cut_and_the_rest_of_the_page_is_there() {
    let host = host("");
    write(&host, "gitops/history.jsonl", &lines(&[deployed()]));
    let long = "+Environment=A=\"x\"\n".repeat(10_000);
    let unit = |file: &str| json!({"file": file, "action": "change", "reason": "", "diff": long});
    let plan =
        json!({"repository": "acme/infra", "at": "x", "to": "0123", "units": [unit("a.service"), unit("b.service")]});
    write(&host, "gitops/plans/acme__infra/1.json", &plan.to_string());
    let gateway = Gateway::on(host);
    let html = page(&gateway, &link(&page(&gateway, "/deployments")));
    assert!(html.len() <= 150_000, "{} bytes", html.len());
    assert!(html.contains("a.service") && html.contains("b.service") && html.contains("(cut, 190000 bytes)"), "{html}");
}

#[test]
fn a_database_that_does_not_answer_costs_what_is_in_it_alone() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://hub@{}/hub", silent.local_addr().unwrap());
    let host = host(&format!("[database]\nurl = \"{url}\""));
    write(&host, "gitops/history.jsonl", &lines(&[deployed()]));
    write(&host, "gitops/plans/acme__infra/1.json", PLAN);
    write(&host, "gitops/manifest.json", &json!({"files": {"web.service": {"repository": "acme/infra"}}}).to_string());
    let gateway = Gateway::on(host);
    let detail = page(&gateway, &link(&page(&gateway, "/deployments")));
    assert!(detail.contains("M app/run.sh: differs") && detail.contains("What units used is not known"), "{detail}");
    let units = page(&gateway, "/units");
    assert!(units.contains("journalctl -u web.service") && units.contains("use over the day not known"), "{units}");
}
