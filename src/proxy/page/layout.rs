//! What every page has: its head, the way to the others, its foot, its style.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::health::Level;
use crate::host;
use crate::proxy::status::Status;
use crate::records::{counted, seconds_between, short, span};

pub(super) const STYLE: &str = include_str!("page.css");

/// The path of deployments, below which each has its page, and the one of units.
pub(super) const DEPLOYMENTS: &str = "/deployments";
pub(super) const UNITS: &str = "/units";

/// The pages in the order of the navigation: path and name.
const PAGES: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/host", "Host"),
    (DEPLOYMENTS, "Deployments"),
    (UNITS, "Units"),
    ("/pipelines", "Pipelines"),
    ("/funnel", "Funnel"),
];

/// One page.
pub(super) struct Page {
    /// What it is of, for the title; empty for the first page.
    pub title: String,
    /// The path of the entry of the navigation that it belongs to.
    pub place: &'static str,
    pub body: Markup,
}

/// The whole document.
pub(super) fn document(page: Page, status: &Status) -> Markup {
    let host = host::name();
    let state = status.health.word();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title {
                    (host) ": "
                    @if !page.title.is_empty() { (page.title) ", " }
                    (state) " – Observability Hub"
                }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    div.head {
                        h1 { (host) }
                        p class={ "state " (state) } { (state) }
                        p.more { (open(status)) @if let Some(up) = up(status) { " · up " (up) } }
                    }
                    @if PAGES.len() > 1 { (navigation(page.place)) }
                }
                main id="main" tabindex="-1" { (page.body) }
                (foot(status))
            }
        }
    }
}

/// How much is open, with the way to it.
fn open(status: &Status) -> Markup {
    html! {
        @if status.reasons.is_empty() { "nothing is open" }
        @else { a href="/#open" { (counted(status.reasons.len() as u64, "thing")) } " to look at" }
    }
}

/// For how long the host has been up.
fn up(status: &Status) -> Option<String> {
    status.booted.map(|booted| span(seconds_between(booted, status.now)))
}

fn navigation(place: &str) -> Markup {
    html! {
        nav aria-label="Pages" {
            ul {
                @for (path, name) in PAGES {
                    li { a href=(path) aria-current=[(path == place).then_some("page")] { (name) } }
                }
            }
        }
    }
}

/// What developers and programs look for.
fn foot(status: &Status) -> Markup {
    let proxy = &status.proxy;
    html! {
        footer {
            p { "As it was at " (status.time) " · version " (proxy.version) }
            p {
                a href="/api/status" { "JSON" } " · " a href="/metrics" { "metrics" }
                " · proxy " code { (short(&proxy.instance)) } ", up " (span(proxy.uptime_seconds)) ", "
                (proxy.public.open) " connections open, " (proxy.public.accepted) " accepted, "
                (proxy.public.evicted) " evicted"
            }
        }
    }
}

/// The class of a level, for its colour.
pub(super) fn level(level: Level) -> Markup {
    html! { span class={ "word " (level.word()) } { (level.word()) } }
}

/// What a page says in the place of what it cannot show.
pub(super) fn failed(what: &str, why: &str) -> Markup {
    html! { p.notice { b { (what) } ": " (why) } }
}
