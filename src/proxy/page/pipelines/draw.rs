use maud::{Markup, html};

use super::read::{Asked, DAYS, Letter, Pipelines};
use crate::proxy::page::cards;
use crate::proxy::page::layout::{Page, failed};
use crate::proxy::page::runs::class;
use crate::proxy::reader::{Question, Readers};
use crate::proxy::status::Status;
use crate::records::{Outcome, Pipeline, ended_ago, milliseconds, run_of};
use crate::state::Run;

/// Units of a picture from its lower edge to the upper one, and from a day to the next.
const HEIGHT: u64 = 60;
const STEP: usize = 10;

pub(in crate::proxy::page) fn page(status: &Status, readers: &Readers) -> Page {
    let has_letters = status.pipelines.iter().filter_map(|one| one.kept.as_ref()).any(|kept| kept.dead_letters > 0);
    let body = html! {
        h2 { "Pipelines" }
        @if status.pipelines.is_empty() {
            p.empty { "No pipeline is configured: hub.toml takes [[pipeline]] sections." }
        } @else {
            @let found = readers.ask::<Pipelines>(&Question::Pipelines(Asked { has_letters }));
            @if let Err(why) = &found { (failed("There are no pictures", why)) }
            @if let Ok(Pipelines { unseen: Some(why), .. }) = &found { (failed("Not all can be read", why)) }
            @for pipeline in &status.pipelines { (card(pipeline, status, found.as_ref().ok())) }
            @if let Ok(found) = &found { (letters(&found.letters, status)) }
        }
    };
    Page { title: "Pipelines".to_owned(), place: "/pipelines", body }
}

fn card(pipeline: &Pipeline, status: &Status, found: Option<&Pipelines>) -> Markup {
    let name = &pipeline.pipeline;
    let record = status.services.iter().find(|record| record.service == "reading-sync");
    let run = record.and_then(|record| run_of(record, name));
    html! {
        section.card {
            h3 { (name) @if !pipeline.configured { " " span.more { "not in hub.toml any more" } } }
            dl {
                dt { "Last run" }
                dd { @match run { Some(run) => (last(run, status)), None => "not known" } }
                @match &pipeline.kept {
                    Some(kept) => (cards::kept(kept, status.now)),
                    None => { dt { "Dead letters" } dd { "not known" } }
                }
            }
            @if let Some(found) = found {
                @match found.rows.get(name) {
                    Some(rows) => (days(name, rows, &found.days)),
                    None => { p.empty { "No rows in " (DAYS) " days." } }
                }
            }
        }
    }
}

fn last(run: &Run, status: &Status) -> Markup {
    let stored = run.counts.get("stored").and_then(serde_json::Value::as_u64);
    html! {
        b class=(class(Outcome::of(run))) { (run.status.replace('_', " ")) }
        " " (ended_ago(&run.started, run.duration_ms, status.now))
        " " span.more { "took " (milliseconds(run.duration_ms)) @if let Some(stored) = stored { ", " (stored) " rows" } }
    }
}

/// The rows of each day: a bar each.
fn days(name: &str, rows: &[u64], days: &[String]) -> Markup {
    let most = rows.iter().copied().max().unwrap_or(0).max(1);
    let all: u64 = rows.iter().fold(0, |all, rows| all.saturating_add(*rows));
    // What is not 0 is seen.
    let height = |rows: u64| (u128::from(rows) * u128::from(HEIGHT)).div_ceil(u128::from(most));
    html! {
        p.more { (all) " rows in " (DAYS) " days, at most " (most) " a day" }
        svg.days viewBox={ "0 0 " (rows.len() * STEP) " " (HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label={ "Rows a day of " (name) ": " (all) " in " (DAYS) " days, at most " (most) } {
            @for (at, (rows, day)) in rows.iter().zip(days).enumerate().filter(|(_, (rows, _))| **rows > 0) {
                rect.good x=(at * STEP) y=(u128::from(HEIGHT) - height(*rows)) width=(STEP - 2) height=(height(*rows)) {
                    title { (day) ": " (rows) }
                }
            }
        }
        ol.span aria-hidden="true" { @for day in [days.first(), days.last()].into_iter().flatten() { li { (day) } } }
        details {
            summary { "Table of " (name) }
            div.scroll role="region" aria-label={ "Rows a day of " (name) } tabindex="0" {
                table.numbers {
                    thead { tr { th scope="col" { "Day" } th scope="col" { "Rows" } } }
                    tbody { @for (day, rows) in days.iter().zip(rows).rev() { tr { th scope="row" { (day) } td { (rows) } } } }
                }
            }
        }
    }
}

fn letters(letters: &Result<Vec<Letter>, String>, status: &Status) -> Markup {
    html! {
        @match letters {
            Err(why) => (failed("The dead letters cannot be read", why)),
            Ok(letters) if letters.is_empty() => {},
            Ok(letters) => {
                h2 { "Dead letters" }
                p.more { "The newest ones. " code { (status.ways.hub("dead-letters")) } " lists, shows, retries and drops them." }
                div.scroll role="region" aria-label="Dead letters" tabindex="0" {
                    table {
                        thead { tr { @for name in ["Number", "Pipeline", "Document", "Reason", "Last tried"] { th scope="col" { (name) } } } }
                        tbody {
                            @for letter in letters {
                                tr {
                                    th scope="row" { (letter.id) }
                                    td { (letter.pipeline) }
                                    td { (letter.source_id) }
                                    td { (letter.reason) }
                                    td { (letter.at) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
