//! The units that the hub deployed: how they are, what they use, where their log is.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::layout::{Page, UNITS, failed};
use super::uses::{UNKNOWN, Use, bytes, number, percent};
use crate::hint::quoted;
use crate::proxy::reader::{Question, Readers};
use crate::proxy::status::Status;
use crate::records::{UnitState, ago, counted};
pub(in crate::proxy) use read::read;
use read::{Unit, Units};

/// What units used over the day; an error is why that is not known.
type Day = Result<BTreeMap<String, Use>, String>;

/// The page. What they used over the day is asked for by itself: a database that is away costs nothing else.
pub(super) fn page(readers: &Readers, status: &Status) -> Page {
    let found: Result<Units, String> = readers.ask(&Question::Units);
    let names: BTreeSet<String> = found.iter().flat_map(|found| &found.units).map(|unit| unit.unit.clone()).collect();
    let day: Day = if names.is_empty() { Ok(BTreeMap::new()) } else { readers.ask(&Question::UsesOfDay(names)) };
    let body = html! {
        h2 { "Units that the hub deployed" }
        @match &found {
            Err(why) => (failed("The units are not known", why)),
            Ok(found) => {
                @if found.units.is_empty() {
                    p.empty { "None yet. What a repository has in its folder of unit files shows up here once it is deployed: that is systemd/, or the key units in hub.toml." }
                } @else { (table(found, &day, status)) }
            }
        }
    };
    Page { title: "Units".to_owned(), place: UNITS, body }
}

fn table(found: &Units, day: &Day, status: &Status) -> Markup {
    let now = status.now;
    html! {
        p.more {
            @match &found.seen { Ok(at) => { "State as hub-watch saw it " (ago(at, now)) }, Err(why) => { "State not known: " (why) } }
            "; "
            @match &found.measured { Ok(at) => { "use as measured " (ago(at, now)) }, Err(why) => { "use now not known: " (why) } }
            @if let Err(why) = day { "; use over the day not known: " (why) }
        }
        div.scroll tabindex="0" role="region" aria-label="Units" {
            table {
                caption { (counted((found.units.len() + found.left_out) as u64, "unit")) @if found.left_out > 0 { ", of which " (found.left_out) " are not shown" } }
                thead {
                    tr {
                        @for name in ["Unit", "State"] { th scope="col" rowspan="2" { (name) } }
                        th.number scope="col" rowspan="2" { "Restarts by systemd" }
                        @for name in ["CPU", "Memory"] { th.number scope="colgroup" colspan="3" { (name) } }
                    }
                    tr { @for _ in 0..2 { @for name in ["now", "24 h", "highest"] { th.number scope="col" { (name) } } } }
                }
                tbody { @for unit in &found.units { (row(unit, day, status)) } }
            }
        }
    }
}

fn row(unit: &Unit, day: &Day, status: &Status) -> Markup {
    let day = day.as_ref().ok().and_then(|day| day.get(&unit.unit)).copied().unwrap_or_default();
    let restarts = unit.state.as_ref().and_then(|state| state.restarts);
    html! {
        tr {
            th.wide scope="row" {
                (unit.unit) " " span.more { (unit.repository) }
                p { code.log { "journalctl -u " (quoted(&unit.unit)) } }
            }
            td { (state(unit.state.as_ref(), status)) }
            td.number { (number(restarts.map(u64::from))) }
            td.number { (percent(unit.now[0])) } td.number { (percent(day.cpu.mean())) } td.number { (percent(day.cpu.highest())) }
            td.number { (bytes(unit.now[1])) } td.number { (bytes(day.memory.mean())) } td.number { (bytes(day.memory.highest())) }
        }
    }
}

fn state(state: Option<&UnitState>, status: &Status) -> Markup {
    let Some(state) = state else { return html! { (UNKNOWN) } };
    let class = match state.active.as_str() {
        "failed" | "" => "bad",
        "active" | "reloading" => "good",
        _ => "same",
    };
    html! {
        b class=(class) { @if state.active.is_empty() { "not there" } @else { (state.active) } }
        @if !state.sub.is_empty() { " (" (state.sub) ")" }
        @if let Some(since) = &state.since { p.more { time datetime=(since) title=(since) { (ago(since, status.now)) } } }
    }
}
