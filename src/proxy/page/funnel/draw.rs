use maud::{Markup, html};

use super::read::{Asked, DAYS, Period, Periods, WIDTH};
use crate::proxy::page::cards;
use crate::proxy::page::layout::{Page, failed};
use crate::proxy::reader::{Question, Readers};
use crate::proxy::status::Status;
use crate::records::counted;

pub(in crate::proxy::page) fn page(status: &Status, readers: &Readers) -> Page {
    let found = readers.ask::<Periods>(&Question::Funnel(Asked {}));
    let (state, why) = cards::funnel(status);
    let url = status.funnel.get().and_then(|funnel| funnel.url.as_deref());
    let body = html! {
        h2 { "Funnel" }
        p { "Now: " b { (state) } ", " (why) @if let Some(url) = url { ", at " code { (url) } } "." }
        @match &found {
            Err(why) => (failed("Its history cannot be read", why)),
            Ok(found) if found.periods.is_empty() => { p.empty { "It was neither opened nor closed in " (DAYS) " days." } },
            Ok(found) => (periods(found)),
        }
    };
    Page { title: "Funnel".to_owned(), place: "/funnel", body }
}

/// The colour of a state.
fn class(state: &str) -> &'static str {
    match state {
        "open" => "good",
        "closed" => "same",
        _ => "bad",
    }
}

fn periods(found: &Periods) -> Markup {
    let open = found.periods.iter().filter(|period| period.state == "open").count();
    html! {
        section.card {
            h3 { "The last " (DAYS) " days" }
            svg.strip viewBox={ "0 0 " (WIDTH) " 24" } preserveAspectRatio="none" role="img"
                aria-label={ "Open " (counted(open as u64, "time")) " in " (DAYS) " days; the table has each" } {
                @for Period { state, begin, length, place, .. } in &found.periods {
                    rect class=(class(state)) x=(place.0) y="0" width=(place.1) height="24" { title { (state) " from " (begin) ", " (length) } }
                }
            }
            p.more { b.good { "open" } ", " b.same { "closed" } ", " b.bad { "unreachable" } "; today is at the right." }
        }
        @if found.left_out > 0 { p.more { (counted(found.left_out as u64, "older period")) " not shown" } }
        div.scroll role="region" aria-label="Periods" tabindex="0" {
            table {
                caption { "The newest first" }
                thead { tr { @for name in ["From", "State", "For", "Reason"] { th scope="col" { (name) } } } }
                tbody {
                    @for period in found.periods.iter().rev() {
                        tr {
                            th.begin scope="row" { (period.begin) }
                            td { b class=(class(&period.state)) { (period.state) } }
                            td { (period.length) @if period.goes_on { " so far" } }
                            td { (period.reason) }
                        }
                    }
                }
            }
        }
    }
}
