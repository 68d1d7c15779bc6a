//! The status in Prometheus' text format (prometheus.io, "Exposition formats", version 0.0.4).

use std::fmt::Write;

use super::status::{Connections, Status};
use crate::records::Outcome;
use crate::text;

/// The format's media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

fn plain(value: f64) -> [(String, f64); 1] {
    [(String::new(), value)]
}

/// The seconds since 1970 of an RFC 3339 text.
fn timestamp(text: &str) -> Option<f64> {
    text.parse::<jiff::Timestamp>().ok().map(|instant| instant.as_millisecond() as f64 / 1000.0)
}

/// Formats a status.
pub(super) fn format(status: &Status) -> String {
    let mut text = Text(String::new());
    let proxy = &status.proxy;
    text.family("hub_build_info", "gauge", "The running version.", [(labels(&[("version", proxy.version)]), 1.0)]);
    let started = timestamp(&proxy.started).unwrap_or_default();
    text.family("hub_proxy_start_time_seconds", "gauge", "When the proxy started, since 1970.", plain(started));
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
        plain(status.queue.requests as f64),
    );
    let age = status.queue.oldest_age_seconds.unwrap_or(0);
    text.family("hub_queue_oldest_age_seconds", "gauge", "Age of the oldest waiting request.", plain(age as f64));
    let writable = if status.queue.error.is_none() { 1.0 } else { 0.0 };
    text.family("hub_queue_writable", "gauge", "1 while the queue takes deliveries.", plain(writable));
    let help = "How well the host is: 0 healthy, 1 degraded, 2 failed.";
    text.family("hub_health", "gauge", help, plain(f64::from(status.health as u8)));
    let reasons = status.reasons.iter().map(|reason| {
        let pairs = [("key", &*reason.key), ("level", reason.level.word()), ("about", &reason.about)];
        (labels(&pairs), 1.0)
    });
    text.family("hub_health_reason", "gauge", "1 for each reason why the host is not healthy.", reasons);
    repositories(&mut text, status);
    pipelines(&mut text, status);
    services(&mut text, status);
    text.0
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
    let flag = |set: bool| if set { 1.0 } else { 0.0 };
    // Of what cannot be read nothing is said.
    let held = all().filter(|repository| repository.hold.is_known());
    let held = held.map(|repository| (name(&repository.repository), flag(repository.hold.get().is_some())));
    text.family("hub_repository_held", "gauge", "1 while deployments are suspended.", held);
    let bad = all().filter(|repository| repository.bad.is_known());
    let bad = bad.map(|repository| (name(&repository.repository), flag(repository.bad.get().is_some())));
    text.family("hub_repository_bad_commit", "gauge", "1 while a commit is known to be bad.", bad);
}

fn pipelines(text: &mut Text, status: &Status) {
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
    let success = all()
        .map(|record| (name(&record.service), if Outcome::of(&record.last) == Outcome::Failed { 0.0 } else { 1.0 }));
    text.family("hub_service_last_run_success", "gauge", "1 when the last run did not fail.", success);
}
