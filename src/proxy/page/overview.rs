//! The first page: what is open, what comes next on a new host, the repositories, the runs.

use maud::{Markup, html};

use super::cards;
use super::layout::{self, Page};
use super::now;
use super::runs;
use crate::health::Reason;
use crate::proxy::status::Status;
use crate::records::{Found, ago};

pub(super) fn page(status: &Status) -> Page {
    let body = html! {
        (reasons(status))
        (next_steps(status))
        (now::tiles(status))
        h2 { "Webhooks" }
        (cards::tiles(status))
        h2 { "Repositories" }
        @if status.repositories.is_empty() {
            p.empty { "No repository is configured yet: hub.toml takes [[repository]] sections." }
        }
        @for repository in &status.repositories { (cards::repository(repository, status)) }
        @if !status.pipelines.is_empty() {
            h2 { "Pipelines" }
            @for pipeline in &status.pipelines { (cards::pipeline(pipeline, status.now)) }
        }
        (runs::all(status))
    };
    Page { title: String::new(), place: "/", body }
}

/// What is open, each reason once.
fn reasons(status: &Status) -> Markup {
    html! {
        @if !status.reasons.is_empty() {
            h2 id="open" { "To look at" }
            ul.reasons {
                @for one in &status.reasons { li class={ "notice " (one.level.word()) } { (reason(one, status)) } }
            }
        }
    }
}

fn reason(Reason { level, about, reason, mend, since, .. }: &Reason, status: &Status) -> Markup {
    html! {
        p { (layout::level(*level)) " " b { (about) } ": " (reason) }
        @if let Some(mend) = mend { p { code { (mend) } } }
        @if let Some(since) = since { p.more { "since " time datetime=(since) { (ago(since, status.now)) } } }
    }
}

/// What a person does first on a new host. What is done is said to be.
fn next_steps(status: &Status) -> Markup {
    let (has_secret, has_repository) = (status.proxy.has_secret, !status.repositories.is_empty());
    // Another answer than "nothing was left" may hide that it has run.
    let has_run = status.repositories.iter().any(|one| !matches!(one.checked, Found::Missing));
    if has_repository && (has_run || status.proxy.deliveries.any_signed()) {
        return html! {};
    }
    let state = |is_done: bool| if is_done { "done: " } else { "" };
    html! {
        section.card aria-labelledby="next" {
            h2 id="next" { "The next steps" }
            ol.steps {
                li {
                    b { (state(has_secret)) "Make the webhook secret." }
                    " It verifies what your forge sends." @if !has_secret { p { code { (status.ways.hub("webhook-test")) } } }
                }
                li {
                    b { (state(has_repository)) "Name the first repository." }
                    " The hub keeps a checkout of it and deploys its units."
                    @if !has_repository { p { code { (status.ways.hub("init")) } } }
                }
                li {
                    b { "Enter the webhook at your forge." }
                    " The command prints its URL, then sends a delivery to try it."
                    p { code { (status.ways.hub("webhook-test")) } }
                }
            }
        }
    }
}
