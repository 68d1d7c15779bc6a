//! The status page: plain HTML without a script, its pictures drawn here as SVG.

use std::fmt::{self, Display, Write};

use rouille::Response;

use super::answer;
use super::status::{Connections, Status};
use crate::health::Reason;
use crate::random;
use crate::records::{Outcome, Pipeline, Repository, ago, ended_ago, milliseconds, short, span};
use crate::state::{Record, Run};
use crate::text;

const STYLE: &str = include_str!("page.css");
/// How often the page loads itself anew, in seconds.
const REFRESH: u32 = 15;

const LEGEND: &str = "<p class=\"more\">Bars: the latest runs, the newest at the right, as high as they took long; \
                      <b class=\"good\">done</b>, <b class=\"same\">nothing to do</b>, <b class=\"bad\">failed</b>.</p>";

/// Bars in a picture: the newest run and its history.
const BARS: usize = 21;
const BAR_STEP: usize = 12;
const HEIGHT: f64 = 40.0;

/// Text in HTML, in elements and quoted attributes.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in text::shown(&self.0.to_string()).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Answers with the page.
pub(super) fn answer(status: &Status) -> Response {
    let Ok(nonce) = random::id() else { return answer::error(500, "the system gives no random bytes") };
    let mut html = String::new();
    if write(&mut html, status, &nonce).is_err() {
        return answer::error(500, "the page could not be written");
    }
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Response::html(html)
        .with_additional_header("Content-Security-Policy", policy)
        .with_additional_header("Referrer-Policy", "no-referrer")
        .with_additional_header("Cache-Control", "no-store")
}

fn write(html: &mut String, status: &Status, nonce: &str) -> fmt::Result {
    write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"{REFRESH}\">\
         <title>Observability Hub: {state}</title><style nonce=\"{nonce}\">{STYLE}</style></head><body>\
         <header><h1>Observability Hub</h1><p class=\"pill {state}\">{state}</p></header><main>",
        state = status.health.word(),
    )?;
    for Reason { level, about, reason, mend, .. } in &status.reasons {
        let (level, about, reason) = (level.word(), Escaped(about), Escaped(reason));
        write!(html, "<p class=\"notice {level}\"><b>{about}</b>: {reason}")?;
        if let Some(mend) = mend {
            write!(html, "<br><code>{}</code>", Escaped(mend))?;
        }
        html.push_str("</p>");
    }
    tiles(html, status)?;
    html.push_str("<h2>Repositories</h2>");
    if status.repositories.is_empty() {
        html.push_str(
            "<p class=\"empty\">No repository is configured yet: hub.toml takes [[repository]] sections.</p>",
        );
    }
    for repository in &status.repositories {
        repository_card(html, repository, status)?;
    }
    if !status.pipelines.is_empty() {
        html.push_str("<h2>Pipelines</h2>");
    }
    for pipeline in &status.pipelines {
        pipeline_card(html, pipeline, status.now)?;
    }
    html.push_str("<h2>Runs</h2>");
    // The gate has no runs: its record says since when the funnel is as it is, and has a tile.
    let runs = || status.services.iter().filter(|record| record.service != "tailscale-gate");
    if runs().next().is_none() {
        html.push_str("<p class=\"empty\">No service has run yet.</p>");
    } else {
        html.push_str(LEGEND);
    }
    for service in runs() {
        service_card(html, service, status.now)?;
    }
    writeln!(
        html,
        "</main><footer>{} · version {} · instance {} · <a href=\"/api/status\">JSON</a> · \
         <a href=\"/metrics\">metrics</a></footer></body></html>",
        Escaped(&status.time),
        Escaped(status.proxy.version),
        Escaped(short(&status.proxy.instance)),
    )
}

fn tiles(html: &mut String, status: &Status) -> fmt::Result {
    let proxy = &status.proxy;
    let counts = proxy.deliveries;
    html.push_str("<section class=\"tiles\">");
    tile(html, "Proxy up", &span(proxy.uptime_seconds), &format!("since {}", minute(&proxy.started)))?;
    let more = format!("{} ignored · {} refused · {} pings", counts.ignored, counts.refused, counts.pong);
    let more = if proxy.secret_error.is_some() { "none is taken: no webhook secret" } else { &more };
    tile(html, "Deliveries queued", &counts.queued.to_string(), more)?;
    let waiting = match (&status.queue.error, status.queue.oldest_age_seconds) {
        (Some(_), _) => "takes nothing".to_owned(),
        (None, Some(age)) => format!("oldest waits {}", span(age)),
        (None, None) => "empty".to_owned(),
    };
    tile(
        html,
        "In the queue",
        &status.queue.requests.map_or_else(|| "?".to_owned(), |requests| requests.to_string()),
        &waiting,
    )?;
    let about = |of: &Connections| format!("{} accepted · {} evicted", of.accepted, of.evicted);
    tile(html, "Public connections", &proxy.public.open.to_string(), &about(&proxy.public))?;
    let (state, said) = match status.funnel.get() {
        Some(funnel) => {
            let since = funnel.since.as_deref().map(|since| ago(since, status.now));
            let old = if funnel.current { None } else { Some("by an old record".to_owned()) };
            let why = Some(funnel.reason.clone()).filter(|why| funnel.state != "open" && !why.is_empty());
            let said: Vec<String> = [why, since, old].into_iter().flatten().collect();
            (funnel.state.as_str(), said.join("; "))
        }
        None => (status.funnel.unknown().unwrap_or("closed"), "never opened".to_owned()),
    };
    tile(html, "Funnel", state, &said)?;
    html.push_str("</section>");
    Ok(())
}

/// An RFC 3339 instant to the minute, without a hyphen at which a line could break.
fn minute(instant: &str) -> String {
    let parsed = instant.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| instant.to_owned(), |instant| instant.strftime("%-d %b %Y, %H:%M UTC").to_string())
}

fn tile(html: &mut String, name: &str, value: &str, more: &str) -> fmt::Result {
    let (name, value, more) = (Escaped(name), Escaped(value), Escaped(more));
    write!(html, "<div class=\"tile\"><h3>{name}</h3><p class=\"value\">{value}</p><p class=\"more\">{more}</p></div>")
}

fn repository_card(html: &mut String, repository: &Repository, status: &Status) -> fmt::Result {
    let now = status.now;
    write!(
        html,
        "<section class=\"card\"><h3>{} <span class=\"more\">{}</span></h3><dl>",
        Escaped(&repository.repository),
        Escaped(&repository.branch)
    )?;
    match repository.deployed.get() {
        Some(deployed) => {
            let commit = Escaped(short(&deployed.commit));
            write!(html, "<dt>Deployed</dt><dd><code>{commit}</code> {}</dd>", Escaped(ago(&deployed.at, now)))?;
        }
        None => {
            let nothing = repository.deployed.unknown().unwrap_or("nothing yet");
            write!(html, "<dt>Deployed</dt><dd>{nothing}</dd>")?;
        }
    }
    if let Some(checked) = repository.checked.get() {
        // What is wrong is told above.
        let is_told = |reason: &&str| status.reasons.iter().any(|told| told.reason.contains(reason));
        let reason = checked.reason.as_deref().filter(|reason| !is_told(reason)).unwrap_or_default();
        write!(
            html,
            "<dt>Last check</dt><dd><b class=\"{}\">{}</b> {} <span class=\"more\">{}</span></dd>",
            class(Outcome::of_word(&checked.status)),
            Escaped(checked.status.replace('_', " ")),
            Escaped(ago(&checked.at, now)),
            Escaped(reason)
        )?;
    }
    if let Some(why) = repository.checked.get().and_then(|checked| checked.not_deployed.as_ref()) {
        write!(html, "<dt>Units</dt><dd class=\"same\">not deployed: {}</dd>", Escaped(why))?;
    }
    if let Some(hold) = repository.hold.get() {
        let by = hold.holder();
        let since = if hold.since.is_empty() { String::new() } else { ago(&hold.since, now) };
        write!(html, "<dt>Held</dt><dd class=\"same\">by {} {}</dd>", Escaped(by), Escaped(since))?;
    }
    if let Some(bad) = repository.bad.get() {
        let commit = short(&bad.commit);
        let at = if bad.at.is_empty() { String::new() } else { ago(&bad.at, now) };
        write!(html, "<dt>Bad commit</dt><dd class=\"bad\"><code>{}</code> {}</dd>", Escaped(commit), Escaped(at))?;
    }
    html.push_str("</dl></section>");
    Ok(())
}

fn pipeline_card(html: &mut String, pipeline: &Pipeline, now: jiff::Timestamp) -> fmt::Result {
    write!(html, "<section class=\"card\"><h3>{}</h3><dl><dt>Dead letters</dt>", Escaped(&pipeline.pipeline))?;
    match &pipeline.kept {
        None => html.push_str("<dd>not known</dd>"),
        Some(kept) => {
            let class = |number| if number > 0 { "bad" } else { "same" };
            write!(
                html,
                "<dd><b class=\"{}\">{}</b> <span class=\"more\">counted {}</span></dd>\
                 <dt>Damaged files</dt><dd><b class=\"{}\">{}</b></dd>",
                class(kept.dead_letters),
                kept.dead_letters,
                Escaped(ago(&kept.counted, now)),
                class(kept.damaged_files),
                kept.damaged_files,
            )?;
        }
    }
    html.push_str("</dl></section>");
    Ok(())
}

fn service_card(html: &mut String, record: &Record, now: jiff::Timestamp) -> fmt::Result {
    let last = &record.last;
    write!(
        html,
        "<section class=\"card run\"><div><h3>{}</h3><p><b class=\"{}\">{}</b> {} <span class=\"more\">took {}</span></p></div>",
        Escaped(&record.service),
        class(Outcome::of(last)),
        Escaped(last.status.replace('_', " ")),
        Escaped(ended_ago(&last.started, last.duration_ms, now)),
        Escaped(milliseconds(last.duration_ms)),
    )?;
    picture(html, record)?;
    html.push_str("</section>");
    Ok(())
}

/// One bar a run, the newest at the right: height is the duration, colour the outcome. One alone compares with nothing.
fn picture(html: &mut String, record: &Record) -> fmt::Result {
    let mut runs: Vec<&Run> = std::iter::once(&record.last).chain(&record.history).take(BARS).collect();
    if runs.len() < 2 {
        return Ok(());
    }
    runs.reverse();
    let longest = runs.iter().map(|run| run.duration_ms).max().unwrap_or(1).max(1) as f64;
    write!(
        html,
        "<svg viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"The last {} runs of {}\">",
        runs.len(),
        Escaped(&record.service),
        width = runs.len() * BAR_STEP,
    )?;
    for (place, run) in runs.iter().enumerate() {
        let height = (run.duration_ms as f64 / longest * HEIGHT).max(3.0);
        write!(
            html,
            "<rect class=\"{}\" x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{height:.1}\" rx=\"2\"><title>{} {} {}</title></rect>",
            class(Outcome::of(run)),
            place * BAR_STEP,
            HEIGHT - height,
            BAR_STEP - 3,
            Escaped(&run.started),
            Escaped(&run.status),
            milliseconds(run.duration_ms),
        )?;
    }
    html.push_str("</svg>");
    Ok(())
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "good",
        Outcome::Nothing => "same",
        Outcome::Failed => "bad",
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/records.rs"]
mod records;
