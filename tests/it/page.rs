//! The pages of the admin listener: how the host was, whatever the database and histories hold.
#![cfg(feature = "sqlite")]

use std::path::Path;

use jiff::Timestamp;
use observability_hub::store::{MetricRow, Store};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, host};
use crate::support::rows::{config_in, row};
use crate::support::{Answer, Host, send_raw};

const MINUTE: i64 = 60_000;
/// Markup, quotes, a mark that turns text, a control character.
const EVIL: &str = "<script>alert('&\"')</script>\u{202e}\u{1b}[31m";
const EVIL_SHOWN: &str = "&lt;script&gt;alert('&amp;&quot;')&lt;/script&gt;\\u{202e}\\u{1b}[31m";
const PIPELINE: &str = "[[pipeline]]\nname = \"reading\"\nsource = \"file:/nowhere\"\n";
/// The largest page, in bytes.
const LARGEST: usize = 150_000;

fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn ago(minutes: i64) -> i64 {
    Timestamp::now().as_millisecond() - minutes * MINUTE
}

fn instant(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap().to_string()
}

/// Puts rows into the database of a host.
fn fill(host: &Host, rows: &[MetricRow]) {
    let config = config_in(&host.path("fill.toml"), &host.state(), "sqlite:hub.db", PIPELINE);
    let mut store = Store::open(&config).unwrap();
    for some in rows.chunks(5000) {
        store.insert_metrics(some, &[]).unwrap();
    }
}

/// What a usual host measures in a minute.
fn usual(host: &str, time: i64, usage: f64) -> Vec<MetricRow> {
    let some = |avg60| json!({"some": {"avg60": avg60}});
    vec![
        row(
            host,
            time,
            "cpu",
            json!({"usage": usage, "modes": {"user": usage / 2.0, "system": 1.0}, "package_temp": 51}),
        ),
        row(host, time, "memory", json!({"used_percent": 40.5})),
        row(host, time, "disk", json!({"/": {"used_percent": 50.5}, "/srv": {"used_percent": 99}})),
        row(host, time, "disk_io", json!({"sda": {"read_bytes_per_second": 4e5, "written_bytes_per_second": 2e6}})),
        row(host, time, "network", json!({"eth0": {"rx_bytes_per_second": 8e6, "tx_bytes_per_second": 1e3}})),
        row(host, time, "pressure", json!({"cpu": some(2.5), "io": some(0.5)})),
        row(host, time, "temperature", json!({"nvme": {"Composite": -5.5}})),
    ]
}

/// A line of the history of a service.
fn happened(host: &Host, folder: &str, events: &[Value]) {
    let path = host.state().join(folder);
    std::fs::create_dir_all(&path).unwrap();
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(path.join("history.jsonl"), lines).unwrap();
}

fn text(answer: Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body).unwrap()
}

/// A page, which has neither a script nor anything that a browser would ask another host for, and is not too large.
#[track_caller]
fn page(gateway: &Gateway, path: &str) -> String {
    let answer = gateway.get_admin(path);
    let policy = answer.header("Content-Security-Policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let html = text(answer);
    let lower = html.to_lowercase();
    for bad in
        ["<script", "<b onload", " style=", " onload=", "javascript:", "http-equiv", "<link", "<img", "url(", "@import"]
    {
        assert!(!lower.contains(bad), "{bad} is in {path}: {html}");
    }
    for quoted in html.split(" href=\"").skip(1).chain(html.split(" src=\"").skip(1)) {
        assert!(
            quoted.starts_with(['/', '#']) && !quoted.starts_with("//"),
            "{path}: {}",
            &quoted[..quoted.len().min(80)]
        );
    }
    let hidden = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!html.contains(hidden), "{path}: {html:?}");
    assert!(html.len() <= LARGEST, "{path} has {} bytes", html.len());
    html
}

/// The paths of the navigation.
fn pages(gateway: &Gateway) -> Vec<String> {
    let html = page(gateway, "/");
    let navigation = html.split("<nav").nth(1).unwrap().split("</nav>").next().unwrap();
    navigation.split(" href=\"").skip(1).map(|link| link.split('"').next().unwrap().to_owned()).collect()
}

/// The paths of lines within a piece of a page: means, then bands.
fn courses(html: &str) -> (Vec<&str>, Vec<&str>) {
    let of = |start: &'static str| {
        let paths = html.split(start).skip(1);
        paths.map(|path| path.split(" d=\"").nth(1).unwrap().split('"').next().unwrap()).filter(|d| *d != "M0 2H16")
    };
    (of("<path class=\"mean c").collect(), of("<path class=\"band c").collect())
}

/// The figure with a title.
fn figure<'a>(html: &'a str, title: &str) -> &'a str {
    let start = html.find(&format!("<h3>{title}</h3>")).unwrap_or_else(|| panic!("{title} is not in {html}"));
    html[start..].split("</figure>").next().unwrap()
}

#[test]
fn a_new_host_shows_the_next_steps() {
    let host = Host::new();
    host.configure("[proxy]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/");
    for shown in ["The next steps", "hub init", "hub webhook-test", "Enter the webhook", "nothing is open"] {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    assert!(html.contains(&format!("<title>{}: healthy", own_name())), "{html}");
    assert!(html.contains(&format!("<h1>{}</h1>", own_name())), "{html}");
    let fold = html.find("<footer").unwrap();
    for developers in ["evicted", "instance"] {
        assert!(!html[..fold].contains(developers), "{developers}");
    }
    let html = page(&gateway, "/host");
    assert!(html.contains("There are no pictures") && html.contains("nothing has been measured yet"), "{html}");
}

#[test]
fn what_was_measured_is_drawn_with_its_gaps_and_what_happened() {
    let host = host("");
    let name = own_name();
    // Ten hours, of which two are missing, and a peak of a minute.
    let minutes = (0..600).filter(|minute| !(200..320).contains(minute));
    let rows: Vec<_> =
        minutes.flat_map(|ago_| usual(&name, ago(ago_), if ago_ == 100 { 97.0 } else { 10.0 })).collect();
    fill(&host, &rows);
    let deployed = json!({"at": instant(ago(300)), "kind": "deployed", "about": "acme/infra", "to": "1".repeat(40), "subject": "Fix it"});
    let old =
        json!({"at": instant(ago(3 * 24 * 60)), "kind": "rolled_back", "about": "acme/infra", "reason": "it broke"});
    happened(&host, "gitops", &[old, deployed]);
    happened(&host, "watch", &[json!({"at": instant(ago(60)), "kind": "booted", "about": "host"})]);
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/host");
    let cpu = figure(&html, "CPU");
    let (means, bands) = courses(cpu);
    assert_eq!(means.len(), 3, "used, user, system: {cpu}");
    assert_eq!(means[0].matches('M').count(), 2, "a gap is a gap: {}", means[0]);
    assert!(!bands.is_empty() && cpu.contains("<td>97 %</td>"), "the peak is in the band: {cpu}");
    assert!(cpu.contains("aria-label=\"CPU, 24 hours. used: mean 10 %, from 10 % to 97 %, last 10 %"), "{cpu}");
    for (title, shown) in [
        ("Memory", "40"),
        ("File systems", "/srv"),
        ("Disks", "2.0 MB/s"),
        ("Network", "eth0 received"),
        ("Temperature", "-6 °C"),
        ("Pressure (tasks that wait)", "io"),
    ] {
        assert!(figure(&html, title).contains(shown), "{title}: {}", figure(&html, title));
    }
    assert_eq!(html.matches("<use href=\"#marks\">").count(), 6, "the marks are on all of them");
    assert_eq!(
        html.matches("<path class=\"mark ").count()
            - html.matches("<svg class=\"swatch\" viewBox=\"0 0 16 16\"").count(),
        2
    );
    assert!(html.contains("acme/infra 1111111111 “Fix it”") && html.contains("host started"), "{html}");
    assert!(!html.contains("it broke"), "that is longer ago");
    let week = page(&gateway, "/host?range=7d");
    assert!(week.contains("it broke") && week.contains("aria-current=\"true\">7 days"), "{week}");
    for range in ["30d", "1y", "", "x", "7d&host="] {
        assert!(page(&gateway, &format!("/host?range={range}")).contains("<h3>CPU</h3>"), "{range}");
    }
}

#[test]
fn text_of_strangers_is_text_everywhere() {
    let host = host(PIPELINE);
    let rows = |name: &str| {
        let time = ago(3);
        vec![
            row(name, time, "cpu", json!({"usage": 5})),
            row(name, time, "disk", json!({EVIL: {"used_percent": 50}})),
            row(name, time, "temperature", json!({EVIL: {EVIL: 50}})),
            row(name, time, "network", json!({EVIL: {"rx_bytes_per_second": 1e308, "tx_bytes_per_second": -1e308}})),
        ]
    };
    fill(&host, &[rows(&own_name()), rows(EVIL)].concat());
    let event = |kind: &str| {
        json!({
            "at": instant(ago(9)), "kind": kind, "about": EVIL, "status": EVIL, "reason": EVIL, "to": EVIL, "from": EVIL, "subject": EVIL, "author": EVIL,
            "counts": {EVIL: 1, "processed": 5},
        })
    };
    let kinds =
        ["deployed", "rolled_back", "booted", "moved", "failed", "opened", "closed", "unreachable", "raised", EVIL];
    for folder in ["gitops", "watch", "gate", "reading", "data/metrics", "proxy"] {
        happened(&host, folder, &kinds.map(event));
    }
    let run = json!({"service": EVIL, "started": EVIL, "duration_ms": 5, "status": EVIL, "error": EVIL, "details": {"pipeline": "reading"}});
    for folder in ["gitops", "reading", "data/metrics", "gate", "watch"] {
        std::fs::write(host.state().join(folder).join("run.json"), run.to_string()).unwrap();
    }
    let gateway = Gateway::on(host);
    for path in pages(&gateway) {
        page(&gateway, &path);
    }
    let html = page(&gateway, "/host");
    assert!(html.contains(EVIL_SHOWN), "{html}");
    let other = percent(EVIL);
    let html = page(&gateway, &format!("/host?host={other}"));
    assert!(html.contains(&format!("<b>{EVIL_SHOWN}</b>")), "{html}");
    assert!(!html.contains("rolled back"), "what happened here is not told of another host: {html}");
    let html = page(&gateway, &format!("/host?host=x{other}"));
    assert!(html.contains(&format!("the database has nothing of x{EVIL_SHOWN}")), "{html}");
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn one_point_is_seen_and_many_are_not_too_many() {
    let host = host("");
    let name = own_name();
    fill(&host, &usual(&name, ago(30), 10.0));
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/host");
    let (means, _) = courses(figure(&html, "CPU"));
    assert!(means[0].starts_with('M') && means[0].ends_with("h2"), "{means:?}");
    // Two thousand minutes, of which some came twice, in no order.
    let mut rows: Vec<_> =
        (0..2000).flat_map(|minute| usual(&name, ago(minute * 7919 % 2000), (minute % 90) as f64)).collect();
    rows.extend_from_within(..700);
    fill(&gateway.host, &rows);
    for range in ["24h", "7d"] {
        let html = page(&gateway, &format!("/host?range={range}"));
        assert_eq!(courses(figure(&html, "CPU")).0[0].matches('M').count(), 1, "there is no gap");
    }
}

#[test]
fn a_large_host_fits() {
    let host = host("");
    let name = own_name();
    let each = |count: usize, name: &str, value: Value| -> Value {
        (0..count).map(|number| (format!("{name}{number:03}"), value.clone())).collect()
    };
    let rows = |minute: i64| {
        let time = ago(minute);
        let number = (minute * 7919 % 101) as f64;
        let rate = json!({"read_bytes_per_second": number * 1e6, "written_bytes_per_second": number * 2e6});
        vec![
            row(
                &name,
                time,
                "cpu",
                json!({"usage": number, "modes": {"user": number, "system": 100.0 - number, "nice": number / 2.0, "iowait": number / 3.0, "steal": number / 4.0}, "per_cpu": vec![number; 256], "core_temps": each(256, "core_", json!(40))}),
            ),
            row(&name, time, "disk", each(60, "/mnt/a-file-system-with-a-long-name-", json!({"used_percent": number}))),
            row(&name, time, "disk_io", each(60, "nvme", rate)),
            row(
                &name,
                time,
                "network",
                each(60, "veth", json!({"rx_bytes_per_second": number, "tx_bytes_per_second": 100.0 - number})),
            ),
            row(&name, time, "temperature", json!({"coretemp": each(256, "Core ", json!(number))})),
            row(&name, time, "memory", json!({"used_percent": number})),
            row(
                &name,
                time,
                "pressure",
                json!({"cpu": {"some": {"avg60": number}}, "io": {"some": {"avg60": number}}, "memory": {"some": {"avg60": number}}}),
            ),
        ]
    };
    fill(&host, &(0..144).flat_map(|part| [rows(part * 10), rows(part * 10 + 4)].concat()).collect::<Vec<_>>());
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/host");
    assert!(html.contains("lines with lower values not shown"), "{html}");
}

#[test]
fn a_clock_that_jumped_moves_nothing_out_of_its_frame() {
    let host = host("");
    let name = own_name();
    let times = [-5 * 365 * 24 * 60, -60, 10, 20, 3 * 365 * 24 * 60];
    fill(&host, &times.into_iter().flat_map(|minutes| usual(&name, ago(minutes), 10.0)).collect::<Vec<_>>());
    let booted = |minutes: i64| json!({"at": instant(ago(minutes)), "kind": "booted", "about": "host"});
    happened(&host, "watch", &[booted(-99), booted(5), booted(9_999_999), json!({"at": "0", "kind": "booted"})]);
    let gateway = Gateway::on(host);
    for range in ["24h", "7d", "30d", "1y"] {
        let html = page(&gateway, &format!("/host?range={range}"));
        let width: i64 = html.split("<svg viewBox=\"0 0 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let marks = html.split("<path class=\"mark booted\" d=\"M").skip(1);
        let places: Vec<i64> = marks.map(|mark| mark.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(places.len(), 2, "the start, and its line below: {places:?}");
        assert!(places.iter().all(|place| (0..=width).contains(place)), "{places:?}");
    }
}

#[test]
fn a_night_on_which_clocks_are_set_has_its_true_times() {
    for zone in ["Europe/Berlin", "Pacific/Auckland", "UTC", "Nowhere/At_All"] {
        let host = host("");
        fill(&host, &usual(&own_name(), ago(30), 10.0));
        let mut command = host.command("proxy");
        command.env("TZ", zone);
        let gateway = Gateway::with(host, command);
        let html = page(&gateway, "/host?range=1y");
        assert!(html.contains("<h3>CPU</h3>"), "{zone}: {html}");
        let zone = jiff::tz::TimeZone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC);
        let now = Timestamp::now().to_zoned_datetime(zone);
        let shown = [now.strftime("to %Y-%m-%d %H:").to_string(), now.strftime(" %Z</p>").to_string()];
        assert!(shown.iter().all(|shown| html.contains(shown)), "{shown:?} are not in {html}");
    }
}

#[test]
fn hosts_of_one_database_have_a_line_each() {
    let host = host("");
    let names = [own_name(), "web".to_owned(), "silent".to_owned()];
    fill(&host, &usual(&names[0], ago(3), 10.0));
    // Two machines of one name: what both measured is one host's.
    fill(&host, &[usual("web", ago(3), 20.0), usual("web", ago(2), 60.0)].concat());
    fill(&host, &usual("silent", ago(300), 10.0));
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/host");
    let table = html.split("<table class=\"numbers\">").nth(1).unwrap().split("</table>").next().unwrap();
    for name in &names {
        assert!(table.contains(&format!("href=\"/host?range=24h&amp;host={name}\"")), "{name} is not in {table}");
    }
    assert!(table.contains("longer ago") && table.contains("<td>99 %</td>"), "{table}");
    let html = page(&gateway, "/host?range=7d&host=web");
    assert!(html.contains("from 20 % to 60 %"), "{html}");
    assert!(html.contains("href=\"/host?range=30d&amp;host=web\""), "the host stays chosen: {html}");
}

#[test]
fn a_database_that_cannot_be_read_costs_its_pictures_only() {
    let host = host("");
    fill(&host, &usual(&own_name(), ago(3), 10.0));
    let file = host.state().join("data/hub.db");
    // The log outlives the program that wrote it; here the file has everything.
    let database = rusqlite::Connection::open(&file).unwrap();
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(database);
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(host.state().join(format!("data/hub.db{end}")));
    }
    let good = std::fs::read(&file).unwrap();
    let gateway = Gateway::on(host);
    let broken = |why: &str| {
        let html = page(&gateway, "/host");
        assert!(html.contains("There are no pictures") && html.contains(why), "{why} is not in {html}");
        assert!(page(&gateway, "/").contains("acme/infra"));
    };
    std::fs::write(&file, "this is no database, and never was one, whatever its name says of it").unwrap();
    broken("hub.db");
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    broken("hub.db");
    std::fs::remove_file(&file).unwrap();
    broken("nothing has been measured yet");
    std::fs::create_dir(&file).unwrap();
    broken("hub.db");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, &good).unwrap();
    assert!(page(&gateway, "/host").contains("<h3>CPU</h3>"), "it is there again");
    let taken = rusqlite::Connection::open(&file).unwrap();
    taken.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE taken (id)").unwrap();
    broken("it could not be read within 2 s");
}

#[test]
fn a_database_that_does_not_answer_is_waited_for_two_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = host(&format!("[database]\nurl = \"postgres://hub@{}/hub\"", silent.local_addr().unwrap()));
    let gateway = Gateway::on(host);
    let begin = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert!(page(&gateway, "/host").contains("There are no pictures")));
        }
        // Webhooks and the first page wait for nobody.
        assert_eq!(gateway.push("1").status, 202);
        assert!(page(&gateway, "/").contains("acme/infra"));
        assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
    });
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    let children = children(&gateway);
    assert_eq!(children, Vec::<String>::new(), "none outlives its question");
}

#[test]
fn a_page_that_gave_up_leaves_no_question_in_the_server() {
    let Some(cluster) = crate::support::postgres::shared() else { return };
    let database = cluster.database("hub_page_locked");
    let file = format!("[database]\nurl = \"{}\"\n[metrics]\n", database.url());
    let host = host(&file);
    let config = config_in(&host.path("fill.toml"), &host.state(), &database.url(), "");
    Store::open(&config).unwrap().insert_metrics(&usual(&own_name(), ago(1), 5.0), &[]).unwrap();
    let gateway = Gateway::on(host);
    let shows = || page(&gateway, "/host").contains("<h3>CPU</h3>");
    assert!(shows());
    let mut owner = database.superuser();
    let mut lock = owner.transaction().unwrap();
    lock.batch_execute("LOCK system_metrics IN ACCESS EXCLUSIVE MODE").unwrap();
    for path in ["/host", "/host?range=1y"] {
        assert!(page(&gateway, path).contains("no answer within 1 s"), "{path}");
    }
    // Those that wait for a place have their time all the same.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert!(page(&gateway, "/host").contains("There are no pictures")));
        }
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    // The server takes a moment to obey; one that it was not asked for waits as long as the lock is held.
    crate::support::eventually("no question is left in the server", || database.number(waiting) == 0);
    lock.rollback().unwrap();
    assert!(shows());
}

#[test]
fn a_hundred_looks_leave_less_than_a_megabyte() {
    let host = host("");
    fill(&host, &(0..600).flat_map(|minute| usual(&own_name(), ago(minute), (minute % 90) as f64)).collect::<Vec<_>>());
    let gateway = Gateway::on(host);
    let held = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.service.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert_eq!(gateway.get("/healthz").status, 200);
    let before = held();
    for _ in 0..50 {
        page(&gateway, "/");
        page(&gateway, "/host");
    }
    let after = held();
    assert!(after <= before + 1024, "{before} kB, then {after} kB");
}

/// The processes that a gateway started and that are there still.
fn children(gateway: &Gateway) -> Vec<String> {
    let pid = gateway.service.child.id();
    let tasks = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    };
    tasks.map(of_task).flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn a_reason_is_told_once_with_its_command_and_since_when() {
    let host = host(PIPELINE);
    let kept = json!({"reading": {"dead_letters": 7, "damaged_files": 0, "counted": instant(ago(5))}});
    let run = json!({"service": "reading-sync", "started": instant(ago(5)), "duration_ms": 1, "status": "done", "details": {"kept": kept}});
    happened(&host, "reading", &[]);
    std::fs::write(host.state().join("reading/run.json"), run.to_string()).unwrap();
    let gateway = Gateway::on(host);
    let reasons = gateway.get_admin("/api/status").json()["reasons"].clone();
    let reasons = reasons.as_array().unwrap();
    let look = json!({"at": instant(ago(1)), "since": reasons.iter().map(|reason| (reason["key"].as_str().unwrap().to_owned(), Value::from(instant(ago(50))))).collect::<Value>()});
    std::fs::create_dir_all(gateway.host.state().join("watch")).unwrap();
    std::fs::write(gateway.host.state().join("watch/look.json"), look.to_string()).unwrap();
    let html = page(&gateway, "/");
    assert!(!reasons.is_empty());
    for reason in reasons {
        assert_eq!(html.matches(reason["reason"].as_str().unwrap()).count(), 1, "{html}");
        assert_eq!(html.matches(&format!("<code>{}</code>", reason["mend"].as_str().unwrap())).count(), 1, "{html}");
    }
    assert!(
        html.contains("<span class=\"word degraded\">degraded</span>") && html.contains("\">50 min ago</time>"),
        "{html}"
    );
    assert!(
        html.contains("<p class=\"state degraded\">degraded</p>")
            && html.contains(": degraded – Observability Hub</title>")
    );
}

#[test]
fn pipelines_show_their_days_and_what_could_not_be_stored() {
    let host = host(PIPELINE);
    let moved = |days: i64, stored: u64| json!({"at": instant(ago(days * 24 * 60)), "kind": "moved", "about": "reading", "status": "done", "counts": {"stored": stored}});
    happened(&host, "reading", &[moved(900, 5000), moved(3, 40), moved(3, 2), moved(0, 7)]);
    let kept = json!({"reading": {"dead_letters": 1, "damaged_files": 0, "counted": instant(ago(5))}});
    let run = json!({"service": "reading-sync", "started": instant(ago(5)), "duration_ms": 20, "status": "done", "counts": {"stored": 7}, "details": {"pipeline": "reading", "kept": kept}});
    std::fs::write(host.state().join("reading/run.json"), run.to_string()).unwrap();
    fill(&host, &usual(&own_name(), ago(3), 10.0));
    let database = rusqlite::Connection::open(host.state().join("data/hub.db")).unwrap();
    let letter = "INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('reading', ?1, ?1, x'00')";
    database.execute(letter, [EVIL]).unwrap();
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/pipelines");
    for shown in [
        "49 rows in 30 days, at most 42 a day",
        "<b class=\"good\">done</b> 5 min ago",
        ", 7 rows",
        "<b class=\"bad\">1</b>",
    ] {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    assert_eq!(html.matches(EVIL_SHOWN).count(), 2, "its name and its reason: {html}");
    assert_eq!(html.matches("<rect class=\"good\"").count(), 2, "{html}");
    // The table is gone, and the days are there still.
    database.execute_batch("DROP TABLE dead_letters").unwrap();
    let html = page(&gateway, "/pipelines");
    assert!(html.contains("The dead letters cannot be read") && html.contains("49 rows in 30 days"), "{html}");
}

#[test]
fn postgresql_is_shown_too() {
    let Some(cluster) = crate::support::postgres::shared() else { return };
    let database = cluster.database("hub_page");
    let host = host(&format!("[database]\nurl = \"{}\"\n{PIPELINE}", database.url()));
    let config = config_in(&host.path("fill.toml"), &host.state(), &database.url(), PIPELINE);
    Store::open(&config).unwrap().insert_metrics(&usual(&own_name(), ago(1), 5.0), &[]).unwrap();
    let letter = "INSERT INTO dead_letters (pipeline, source_id, reason, document) VALUES ('reading', $1, $1, '')";
    database.superuser().execute(letter, &[&EVIL]).unwrap();
    let kept = json!({"reading": {"dead_letters": 1, "damaged_files": 0, "counted": instant(ago(5))}});
    let run = json!({"service": "reading-sync", "started": instant(ago(5)), "duration_ms": 1, "status": "done", "details": {"pipeline": "reading", "kept": kept}});
    happened(&host, "reading", &[]);
    std::fs::write(host.state().join("reading/run.json"), run.to_string()).unwrap();
    let gateway = Gateway::on(host);
    for range in ["24h", "1y"] {
        assert!(page(&gateway, &format!("/host?range={range}")).contains("<h3>CPU</h3>"), "{range}");
    }
    assert_eq!(page(&gateway, "/pipelines").matches(EVIL_SHOWN).count(), 2);
}

#[test]
fn the_funnel_shows_when_it_was_open() {
    let host = host("");
    let event = |hours: i64, kind: &str, reason: Option<&str>| json!({"at": instant(ago(hours * 60)), "kind": kind, "about": "", "status": kind, "reason": reason});
    happened(
        &host,
        "gate",
        &[
            event(60 * 24, "opened", None),
            event(50, "closed", Some("the proxy does not answer")),
            event(48, "opened", None),
        ],
    );
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/funnel");
    for shown in ["the proxy does not answer", "<td>2 h</td>", "2 days so far", "aria-label=\"Open 2 times in 30 days"]
    {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    // What is no history is read over.
    std::fs::write(gateway.host.state().join("gate/history.jsonl"), b"\xff\0{\n{}").unwrap();
    assert!(page(&gateway, "/funnel").contains("neither opened nor closed"));
    std::fs::remove_file(gateway.host.state().join("gate/history.jsonl")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", gateway.host.state().join("gate/history.jsonl")).unwrap();
    let html = page(&gateway, "/funnel");
    assert!(html.contains("Its history cannot be read") && !html.contains("root:"), "{html}");
}

#[test]
fn a_database_of_another_version_is_shown_as_it_is() {
    let host = host("");
    fill(&host, &usual(&own_name(), ago(3), 10.0));
    let database = rusqlite::Connection::open(host.state().join("data/hub.db")).unwrap();
    // As the first version made it: no hours, no order, no table of what happened.
    database
        .execute_batch(
            "DROP VIEW metrics_hourly; DROP TABLE hub_hours; DROP TABLE hub_unfilled; DROP TABLE hub_keys;
             DROP INDEX system_metrics_sorted; DROP INDEX system_metrics_new; DROP TABLE hub_events; DROP TABLE hub_schema;",
        )
        .unwrap();
    let gateway = Gateway::on(host);
    for range in ["24h", "1y"] {
        let html = page(&gateway, &format!("/host?range={range}"));
        assert!(html.contains("<h3>CPU</h3>") && html.contains("last 10 %"), "{html}");
    }
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('hub_hours', 'hub_schema', 'hub_events')";
    let made: i64 = database.query_row(tables, [], |row| row.get(0)).unwrap();
    assert_eq!(made, 0, "looking changes nothing");
}

#[test]
fn only_what_reads_is_answered() {
    let gateway = Gateway::new();
    for path in pages(&gateway) {
        let ask = |method: &str| {
            send_raw(
                gateway.admin,
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").as_bytes(),
            )
            .unwrap()
        };
        assert_eq!(ask("POST").status, 405, "{path}");
        let head = ask("HEAD");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    assert_eq!(gateway.get_admin("/host/").status, 404);
    // A browser asks for it by itself.
    assert_eq!(gateway.get_admin("/favicon.ico").status, 204);
}

#[test]
fn what_others_write_of_any_length_is_bounded() {
    let host = host("");
    let own = own_name();
    let long = "x".repeat(300_000);
    let mut rows = usual(&own, ago(3), 10.0);
    rows.push(row(&own, ago(2), "disk", json!({long: {"used_percent": 30}})));
    rows.push(row(&own, ago(2), "temperature", json!({"nvme": {"Composite": f64::MAX}})));
    // Names before and behind the own one, and one that no link can carry.
    for at in 0..30 {
        rows.extend(usual(&format!("{}{at:02}", if at < 25 { "0" } else { "zz" }), ago(3), 10.0));
    }
    rows.extend(usual(&"h".repeat(10_000), ago(3), 10.0));
    fill(&host, &rows);
    let gateway = Gateway::on(host);
    let html = page(&gateway, "/host");
    assert!(html.len() < LARGEST, "{} bytes", html.len());
    let first = html.split("<tbody>").nth(1).unwrap().split("</tr>").next().unwrap();
    assert!(first.contains(&format!("host={own}\"")) && first.contains("10 %"), "the own host is not first: {first}");
    assert!(html.contains("12 more hosts") && !html.contains("hhhhhh"), "{html}");
    assert!(html.contains("(cut, 300000 bytes)"), "a long mount point is not cut");
    assert!(!html.contains(">inf<"), "a chart has no edge");
    let html = page(&gateway, &format!("/host?host={}", "h".repeat(5000)));
    assert!(html.contains("the database has nothing of hhh") && html.len() < 20_000, "{} bytes", html.len());
}
