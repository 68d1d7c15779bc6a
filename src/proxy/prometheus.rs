//! The status in Prometheus' text format (prometheus.io, "Exposition formats", version 0.0.4).

use std::fmt::Write;

use super::process::Process;
use super::status::{Connections, Status};
use crate::kinds;
use crate::records::{Outcome, run_of, seconds_between};
use crate::text;

/// The format's media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// More reasons are counted, and not named: a host of 300 failed units is not to become 300 series.
const MOST_REASONS: usize = 100;
/// An older sample is no value of now, in seconds: as long as Prometheus itself goes by a value.
const FRESH: u64 = 300;

struct Text(String);

impl Text {
    /// One metric family: head and samples, each with its labels in braces (or nothing) and its value.
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (String, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// Labels in braces, values escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", text::label(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The only sample of its family; none where it is not known.
fn plain(value: impl Into<Option<f64>>) -> Option<(String, f64)> {
    Some((String::new(), value.into()?))
}

/// The seconds since 1970 of an RFC 3339 text.
fn timestamp(text: &str) -> Option<f64> {
    text.parse::<jiff::Timestamp>().ok().map(|instant| instant.as_millisecond() as f64 / 1000.0)
}

pub(super) fn format(status: &Status) -> String {
    let mut text = Text(String::new());
    let proxy = &status.proxy;
    text.family("hub_build_info", "gauge", "The running version.", [(build(proxy.version), 1.0)]);
    process(&mut text, status);
    let help = "1 where a webhook's secret is there, so that deliveries can be verified.";
    text.family("hub_webhook_secret_present", "gauge", help, plain(flag(proxy.has_secret)));
    let counts = proxy.deliveries;
    let outcomes =
        [("queued", counts.queued), ("ignored", counts.ignored), ("pong", counts.pong), ("refused", counts.refused)];
    let outcomes = outcomes.map(|(outcome, count)| (labels(&[("outcome", outcome)]), count as f64));
    text.family("hub_deliveries_total", "counter", "Webhook deliveries by outcome.", outcomes);
    connections(&mut text, &[("public", &proxy.public), ("admin", &proxy.admin)]);
    text.family("hub_alive_holders", "gauge", "Connections that hold alive.sock.", plain(proxy.alive_holders as f64));
    text.family(
        "hub_queue_requests",
        "gauge",
        "Requests that wait for gitops-sync.",
        plain(status.queue.requests.map(|requests| requests as f64)),
    );
    let age = status.queue.oldest_age_seconds.map(|age| age as f64);
    text.family("hub_queue_oldest_age_seconds", "gauge", "Age of the oldest waiting request.", plain(age));
    let writable = flag(status.queue.error.is_none());
    text.family("hub_queue_writable", "gauge", "1 while the queue takes deliveries.", plain(writable));
    let help = "How well the host is: 0 healthy, 1 degraded, 2 failed.";
    text.family("hub_health", "gauge", help, plain(f64::from(status.health as u8)));
    let count = status.reasons.len() as f64;
    text.family("hub_health_reasons", "gauge", "How many reasons there are why it is not healthy.", plain(count));
    let reasons = status.reasons.iter().take(MOST_REASONS).map(|reason| {
        let pairs = [("key", &*reason.key), ("level", reason.level.word()), ("about", &reason.about)];
        (labels(&pairs), 1.0)
    });
    let help = "1 for each reason why the host is not healthy, the worst hundred.";
    text.family("hub_health_reason", "gauge", help, reasons);
    repositories(&mut text, status);
    pipelines(&mut text, status);
    services(&mut text, status);
    funnel(&mut text, status);
    sample(&mut text, status);
    text.0
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

/// A version with the commit that it was built from: `0.1.0+20261129.891e73b`.
fn build(version: &str) -> String {
    let commit = version.split_once('+').and_then(|(_, build)| build.rsplit_once('.')).map(|(_, commit)| commit);
    labels(&[("version", version), ("revision", commit.unwrap_or("unknown"))])
}

fn process(text: &mut Text, status: &Status) {
    let own = Process::own();
    let mut gauge = |name: &str, help: &str, value: Option<f64>| text.family(name, "gauge", help, plain(value));
    gauge("process_start_time_seconds", "When the proxy started, since 1970.", timestamp(&status.proxy.started));
    gauge("process_virtual_memory_bytes", "Address space of the proxy.", own.virtual_memory);
    gauge("process_resident_memory_bytes", "Memory of the proxy.", own.resident_memory);
    gauge("process_open_fds", "Files that the proxy has open.", own.open_files);
    gauge("process_max_fds", "Files that the proxy may have open.", own.most_files);
    gauge("process_threads", "Threads of the proxy.", own.threads);
    text.family("process_cpu_seconds_total", "counter", "CPU time of the proxy.", plain(own.cpu_seconds));
}

/// The public door. Of one whose record is too old, or whose gate has gone, nothing is said: its reason is.
fn funnel(text: &mut Text, status: &Status) {
    let known = status.funnel.get().filter(|funnel| funnel.current);
    let states = known.into_iter().flat_map(|funnel| {
        let states = ["open", "closed", "unreachable", "unknown"];
        states.map(|state| (labels(&[("state", state)]), flag(funnel.state == state)))
    });
    text.family("hub_funnel_state", "gauge", "1 for the state that the funnel is in.", states);
}

/// What was measured of the host. What is too old is left out, and the time that it was measured at stays.
fn sample(text: &mut Text, status: &Status) {
    let Some(sample) = status.sample.get() else { return };
    let Ok(at) = sample.time.parse::<jiff::Timestamp>() else { return };
    let help = "When the newest sample of the host was taken, since 1970.";
    text.family("hub_sample_timestamp_seconds", "gauge", help, plain(timestamp(&sample.time)));
    // A clock that was set back makes none fresh for ever.
    if seconds_between(at, status.now).max(seconds_between(status.now, at)) <= FRESH {
        text.0.push_str(&kinds::exposition(&sample.host, &sample.os, &sample.metrics));
    }
}

fn connections(text: &mut Text, listeners: &[(&str, &Connections)]) {
    let each = |value: fn(&Connections) -> u64| {
        listeners.iter().map(move |(name, of)| (labels(&[("listener", name)]), value(of) as f64)).collect::<Vec<_>>()
    };
    text.family("hub_http_connections", "gauge", "Connections held now.", each(|c| c.open));
    text.family("hub_http_connections_accepted_total", "counter", "Connections accepted.", each(|c| c.accepted));
    let help = "Questions of the gate and of hub status, which no other number counts.";
    text.family("hub_http_own_questions_total", "counter", help, each(|c| c.own));
    let help = "Connections closed to make way for others.";
    text.family("hub_http_connections_evicted_total", "counter", help, each(|c| c.evicted));
    text.family("hub_http_connections_refused_total", "counter", "Connections turned away.", each(|c| c.refused));
    let help = "Heads, bodies and answers that missed their deadline.";
    text.family("hub_http_timeouts_total", "counter", help, each(|c| c.timed_out));
    let answers = listeners.iter().flat_map(|(name, of)| {
        let classes = ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(of.answered);
        classes.map(|(class, count)| (labels(&[("listener", name), ("class", class)]), count as f64))
    });
    text.family("hub_http_responses_total", "counter", "Answers by class of status.", answers);
}

fn repositories(text: &mut Text, status: &Status) {
    let all = || status.repositories.iter();
    let name = |name: &str| labels(&[("repository", name)]);
    let deployed = all().filter_map(|repository| {
        let deployed = repository.deployed.get()?;
        Some((labels(&[("repository", &repository.repository), ("commit", &deployed.commit)]), 1.0))
    });
    text.family("hub_repository_deployed_info", "gauge", "The deployed commit.", deployed);
    let deployed_at =
        all().filter_map(|repository| Some((name(&repository.repository), timestamp(&repository.deployed.get()?.at)?)));
    let help = "When the deployed commit was deployed, since 1970.";
    text.family("hub_repository_deployed_timestamp_seconds", "gauge", help, deployed_at);
    let checked =
        all().filter_map(|repository| Some((name(&repository.repository), timestamp(&repository.checked.get()?.at)?)));
    let help = "When the repository was last checked, since 1970.";
    text.family("hub_repository_checked_timestamp_seconds", "gauge", help, checked);
    // Of what cannot be read nothing is said.
    let held = all().filter(|repository| repository.hold.is_known());
    let held = held.map(|repository| (name(&repository.repository), flag(repository.hold.get().is_some())));
    text.family("hub_repository_held", "gauge", "1 while deployments are suspended.", held);
    let bad = all().filter(|repository| repository.bad.is_known());
    let bad = bad.map(|repository| (name(&repository.repository), flag(repository.bad.get().is_some())));
    text.family("hub_repository_bad_commit", "gauge", "1 while a commit is known to be bad.", bad);
    let result = all().filter_map(|repository| {
        Some((labels(&[("repository", &repository.repository), ("result", &repository.checked.get()?.status)]), 1.0))
    });
    text.family("hub_repository_result", "gauge", "1 for what the last look at the repository came to.", result);
    // Where there are no counts, nothing was ever counted.
    if !status.totals.is_known() {
        return;
    }
    let totals = status.totals.get();
    let total =
        |repository: &str| totals.and_then(|totals| totals.repositories.get(repository)).copied().unwrap_or_default();
    let deployed = all().map(|known| (name(&known.repository), total(&known.repository).deployed as f64));
    text.family("hub_deployments_total", "counter", "Commits that became live.", deployed);
    let rolled_back = all().map(|known| (name(&known.repository), total(&known.repository).rolled_back as f64));
    text.family("hub_rollbacks_total", "counter", "Commits that failed and were taken back.", rolled_back);
}

fn pipelines(text: &mut Text, status: &Status) {
    let record = status.services.iter().find(|record| record.service == "reading-sync");
    let runs = || status.pipelines.iter().filter_map(move |one| Some((&one.pipeline, run_of(record?, &one.pipeline)?)));
    let result = runs().map(|(pipeline, run)| {
        let result = if Outcome::of(run) == Outcome::Failed { "failed" } else { &run.status };
        (labels(&[("pipeline", pipeline), ("result", result)]), 1.0)
    });
    text.family("hub_pipeline_result", "gauge", "1 for what the pipeline's last run came to.", result);
    let started =
        runs().filter_map(|(pipeline, run)| Some((labels(&[("pipeline", pipeline)]), timestamp(&run.started)?)));
    let help = "When the pipeline's last run started, since 1970.";
    text.family("hub_pipeline_last_run_timestamp_seconds", "gauge", help, started);
    let kept =
        || status.pipelines.iter().filter_map(|one| Some((labels(&[("pipeline", &one.pipeline)]), one.kept.as_ref()?)));
    let help = "Documents that a pipeline could not store and keeps, as its last run counted.";
    text.family("hub_dead_letters", "gauge", help, kept().map(|(labels, kept)| (labels, kept.dead_letters as f64)));
    let help = "Damaged files in failed/ of a pipeline's inbox, as its last run counted.";
    text.family("hub_damaged_files", "gauge", help, kept().map(|(labels, kept)| (labels, kept.damaged_files as f64)));
}

fn services(text: &mut Text, status: &Status) {
    let all = || status.services.iter();
    let name = |name: &str| labels(&[("service", name)]);
    let started = all().filter_map(|record| Some((name(&record.service), timestamp(&record.last.started)?)));
    let help = "When the last run started, since 1970.";
    text.family("hub_service_last_run_timestamp_seconds", "gauge", help, started);
    let duration = all().map(|record| (name(&record.service), record.last.duration_ms as f64 / 1000.0));
    text.family("hub_service_last_run_duration_seconds", "gauge", "How long the last run took.", duration);
    let watch = status.services.iter().find(|record| record.service == "hub-watch");
    let waiting = watch.and_then(|record| record.last.counts.get("waiting")?.as_f64());
    text.family(
        "hub_notices_waiting",
        "gauge",
        "Notices that have not been sent, as the last look counted.",
        plain(waiting),
    );
    let success = all()
        .map(|record| (name(&record.service), if Outcome::of(&record.last) == Outcome::Failed { 0.0 } else { 1.0 }));
    text.family("hub_service_last_run_success", "gauge", "1 when the last run did not fail.", success);
}
