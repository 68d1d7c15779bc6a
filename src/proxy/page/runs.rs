//! The latest runs of each service: a bar each, the newest at the right.

use maud::{Markup, html};

use crate::proxy::status::Status;
use crate::records::{Outcome, ended_ago, milliseconds};
use crate::state::{Record, Run};

/// Bars in a picture: the newest run and its history.
const BARS: usize = 21;
const BAR_STEP: usize = 12;
const HEIGHT: f64 = 40.0;

pub(super) fn all(status: &Status) -> Markup {
    // The gate has no runs: its record says since when the funnel is as it is, and has a tile.
    let runs: Vec<_> = status.services.iter().filter(|record| record.service != "tailscale-gate").collect();
    html! {
        h2 { "Runs" }
        @if runs.is_empty() {
            p.empty { "No service has run yet." }
        } @else {
            p.more {
                "Each bar is a run, the newest at the right, and as high as the run was long; "
                b.good { "done" } ", " b.same { "nothing to do" } ", " b.bad { "failed" } "."
            }
            @for record in runs { (service(record, status.now)) }
        }
    }
}

fn service(record: &Record, now: jiff::Timestamp) -> Markup {
    let last = &record.last;
    html! {
        section.card.run {
            div {
                h3 { (record.service) }
                p {
                    b class=(class(Outcome::of(last))) { (last.status.replace('_', " ")) }
                    " " (ended_ago(&last.started, last.duration_ms, now))
                    " " span.more { "took " (milliseconds(last.duration_ms)) }
                }
            }
            (picture(record))
        }
    }
}

/// One bar a run: height is the duration, colour the outcome. One alone compares with nothing.
fn picture(record: &Record) -> Markup {
    let mut runs: Vec<&Run> = std::iter::once(&record.last).chain(&record.history).take(BARS).collect();
    if runs.len() < 2 {
        return html! {};
    }
    runs.reverse();
    let longest = runs.iter().map(|run| run.duration_ms).max().unwrap_or(1).max(1) as f64;
    let width = runs.len() * BAR_STEP;
    let height = |run: &Run| (run.duration_ms as f64 / longest * HEIGHT).max(3.0);
    html! {
        svg viewBox={ "0 0 " (width) " " (HEIGHT) } width=(width) height=(HEIGHT) role="img"
            aria-label={ "The last " (runs.len()) " runs of " (record.service) } {
            @for (place, run) in runs.iter().enumerate() {
                rect class=(class(Outcome::of(run))) x=(place * BAR_STEP) y={ (format_args!("{:.1}", HEIGHT - height(run))) }
                    width=(BAR_STEP - 3) height={ (format_args!("{:.1}", height(run))) } rx="2" {
                    title { (run.started) " " (run.status) " " (milliseconds(run.duration_ms)) }
                }
            }
        }
    }
}

/// The class of an outcome, for its colour.
pub(super) fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "good",
        Outcome::Nothing => "same",
        Outcome::Failed => "bad",
    }
}
