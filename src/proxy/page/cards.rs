//! What is known of each thing that the hub looks after, in a few lines each.

use maud::{Markup, html};

use super::runs::class;
use crate::proxy::status::Status;
use crate::records::{Kept, Outcome, Pipeline, Repository, ago, short, span};

/// The numbers that a person looks for first.
pub(super) fn tiles(status: &Status) -> Markup {
    let proxy = &status.proxy;
    let counts = proxy.deliveries;
    let deliveries = match proxy.secret_error {
        Some(_) => "none is taken: no webhook secret".to_owned(),
        None => format!("{} ignored · {} refused · {} pings", counts.ignored, counts.refused, counts.pong),
    };
    let waiting = match (&status.queue.error, status.queue.oldest_age_seconds) {
        (Some(_), _) => "takes nothing".to_owned(),
        (None, Some(age)) => format!("oldest waits {}", span(age)),
        (None, None) => "empty".to_owned(),
    };
    let requests = status.queue.requests.map_or_else(|| "?".to_owned(), |requests| requests.to_string());
    let (funnel, why) = funnel(status);
    html! {
        section.tiles aria-label="Webhooks" {
            (tile("Deliveries queued", &counts.queued.to_string(), &deliveries))
            (tile("In the queue", &requests, &waiting))
            (tile("Funnel", &funnel, &why))
        }
    }
}

/// Whether the gateway is public, and why or since when.
pub(super) fn funnel(status: &Status) -> (String, String) {
    let Some(funnel) = status.funnel.get() else {
        return match status.funnel.unknown() {
            Some(unknown) => (unknown.to_owned(), "its record cannot be read".to_owned()),
            None => ("closed".to_owned(), "never opened".to_owned()),
        };
    };
    let since = funnel.since.as_deref().map(|since| ago(since, status.now));
    let old = (!funnel.current).then(|| "by an old record".to_owned());
    let why = Some(funnel.reason.clone()).filter(|why| funnel.state != "open" && !why.is_empty());
    let said: Vec<String> = [why, since, old].into_iter().flatten().collect();
    (funnel.state.clone(), said.join("; "))
}

pub(super) fn tile(name: &str, value: &str, more: &str) -> Markup {
    html! { div.tile { h3 { (name) } p.value { (value) } p.more { (more) } } }
}

pub(super) fn repository(repository: &Repository, status: &Status) -> Markup {
    let now = status.now;
    // What is wrong is told above.
    let is_told = |reason: &str| status.reasons.iter().any(|told| told.reason.contains(reason));
    html! {
        section.card {
            h3 { (repository.repository) " " span.more { (repository.branch) } }
            dl {
                dt { "Deployed" }
                dd {
                    @match repository.deployed.get() {
                        Some(deployed) => { code { (short(&deployed.commit)) } " " (ago(&deployed.at, now)) }
                        None => { (repository.deployed.unknown().unwrap_or("nothing yet")) }
                    }
                }
                @if let Some(checked) = repository.checked.get() {
                    dt { "Last check" }
                    dd {
                        b class=(class(Outcome::of_word(&checked.status))) { (checked.status.replace('_', " ")) }
                        " " (ago(&checked.at, now)) " "
                        @if let Some(reason) = checked.reason.as_deref().filter(|reason| !is_told(reason)) {
                            span.more { (reason) }
                        }
                    }
                    @if let Some(why) = &checked.not_deployed {
                        dt { "Units" }
                        dd.same { "not deployed: " (why) }
                    }
                }
                @if let Some(hold) = repository.hold.get() {
                    dt { "Held" }
                    dd.same { "by " (hold.holder()) @if !hold.since.is_empty() { " " (ago(&hold.since, now)) } }
                }
                @if let Some(bad) = repository.bad.get() {
                    dt { "Bad commit" }
                    dd.bad { code { (short(&bad.commit)) } @if !bad.at.is_empty() { " " (ago(&bad.at, now)) } }
                }
            }
        }
    }
}

pub(super) fn pipeline(pipeline: &Pipeline, now: jiff::Timestamp) -> Markup {
    html! {
        section.card {
            h3 { a href="/pipelines" { (pipeline.pipeline) } }
            dl {
                @match &pipeline.kept {
                    Some(found) => (kept(found, now)),
                    None => { dt { "Dead letters" } dd { "not known" } }
                }
            }
        }
    }
}

/// What a pipeline could not store and keeps, in a list.
pub(super) fn kept(kept: &Kept, now: jiff::Timestamp) -> Markup {
    let class = |number| if number > 0 { "bad" } else { "same" };
    html! {
        dt { "Dead letters" }
        dd {
            b class=(class(kept.dead_letters)) { (kept.dead_letters) }
            " " span.more { "counted " (ago(&kept.counted, now)) }
        }
        dt { "Damaged files" }
        dd { b class=(class(kept.damaged_files)) { (kept.damaged_files) } }
    }
}
