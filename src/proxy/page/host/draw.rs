use maud::{Markup, html};

use super::read::{Asked, Drawing, Drawn, Host, Mark, MarkKind, Neighbour, Range, TALL};
use crate::proxy::page::layout::{DEPLOYMENTS, Page, failed};
use crate::proxy::reader::{Question, Readers};
use crate::records::counted;
use crate::text::percent_encoded;

/// The classes of lines: each has a colour, and those beyond are dashed.
const COLOURS: usize = 6;

pub(in crate::proxy::page) fn page(asked: Asked, readers: &Readers) -> Page {
    let range = asked.range;
    let found = readers.ask::<Host>(&Question::Host(asked.clone()));
    let body = html! {
        h2 { "How the host was" }
        (ranges(&asked))
        @match &found {
            Err(why) => (failed("There are no pictures", why)),
            Ok(host) => {
                @if !host.hosts.is_empty() { (hosts(host, range)) }
                @if host.more_hosts > 0 {
                    p.more {
                        (counted(host.more_hosts as u64, "more host")) " in this database; to see one, open "
                        code { "/host?host=NAME" }
                    }
                }
                p.more { @if !host.hosts.is_empty() { b { (host.host) } ", " } (host.time) }
                @if host.charts.is_empty() { p.empty { "Nothing was measured in this time." } }
                @for (at, chart) in host.charts.iter().enumerate() { (figure(host, chart, at == 0, range)) }
                (events(host))
            }
        }
    };
    Page { title: "Host".to_owned(), place: "/host", body }
}

/// The way to the same host over another time.
fn ranges(asked: &Asked) -> Markup {
    html! {
        nav.ranges aria-label="Time" {
            ul {
                @for range in Range::ALL {
                    li {
                        a href=(link(range, asked.host.as_deref())) aria-current=[(range == asked.range).then_some("true")] {
                            (range.names().1)
                        }
                    }
                }
            }
        }
    }
}

fn link(range: Range, host: Option<&str>) -> String {
    let host = host.map(|host| format!("&host={}", percent_encoded(host.as_bytes()))).unwrap_or_default();
    format!("/host?range={}{host}", range.names().0)
}

fn hosts(shown: &Host, range: Range) -> Markup {
    let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    html! {
        div.scroll role="region" aria-label="Hosts" tabindex="0" {
            table.numbers {
                caption { "The hosts of this database, in the last hour" }
                thead {
                    tr { th scope="col" { "Host" } @for name in ["CPU", "Memory", "Fullest file system", "Last measured"] {
                        th scope="col" { (name) }
                    } }
                }
                tbody {
                    @for Neighbour { host, values, last } in &shown.hosts {
                        tr {
                            th scope="row" {
                                a href=(link(range, Some(host))) aria-current=[(*host == shown.host).then_some("true")] { (host) }
                            }
                            @for value in values { td { (cell(value)) } }
                            td { (last.as_deref().unwrap_or("longer ago")) }
                        }
                    }
                }
            }
        }
    }
}

fn class(at: usize) -> String {
    format!("c{}{}", at % COLOURS, if at < COLOURS { "" } else { " dashed" })
}

fn figure(host: &Host, chart: &Drawn, is_first: bool, range: Range) -> Markup {
    let said: Vec<String> = chart.lines.iter().map(spoken).collect();
    html! {
        figure.card {
            figcaption { h3 { (chart.title) } }
            div.chart {
                ol.y aria-hidden="true" { @for edge in &chart.edges { li { (edge) } } }
                svg viewBox={ "0 0 " (host.width) " " (TALL) } preserveAspectRatio="none" role="img"
                    aria-label={ (chart.title) ", " (range.names().1) ". " (said.join("; ")) } {
                    path.grid d={ "M0 0H" (host.width) "M0 " (TALL / 2) "H" (host.width) "M0 " (TALL) "H" (host.width) } {}
                    @for (at, line) in chart.lines.iter().enumerate().filter(|(_, line)| !line.band.is_empty()) {
                        path class={ "band " (class(at)) } d=(line.band) {}
                    }
                    @for (at, line) in chart.lines.iter().enumerate() { path class={ "mean " (class(at)) } d=(line.mean) {} }
                    // Drawn once; the other charts have the same width.
                    @if is_first { (marks(&host.marks)) } @else { use href="#marks" {} }
                }
                ol.x aria-hidden="true" { @for label in &host.labels { li { (label) } } }
            }
            ul.legend {
                @for (at, line) in chart.lines.iter().enumerate() {
                    li {
                        svg.swatch viewBox="0 0 16 4" width="16" height="4" aria-hidden="true" {
                            path class={ "mean " (class(at)) } d="M0 2H16" {}
                        }
                        (line.name) " " b { (line.values[3]) }
                    }
                }
            }
            @if chart.left_out > 0 { p.more { (counted(chart.left_out as u64, "line")) " with lower values not shown" } }
            details { summary { "Table of " (chart.title) } (table(host, chart)) }
        }
    }
}

/// A line in words.
fn spoken(line: &Drawing) -> String {
    let [lowest, mean, highest, last] = &line.values;
    format!("{}: mean {mean}, from {lowest} to {highest}, last {last}", line.name)
}

fn marks(marks: &[Mark]) -> Markup {
    html! {
        g id="marks" {
            @for mark in marks {
                path class={ "mark " (kind(mark.kind).0) } d={ "M" (mark.x) " 0V" (TALL) } {
                    title { (mark.at) " " (kind(mark.kind).1) " " (mark.told) }
                }
            }
        }
    }
}

/// The class of a mark, and its word.
fn kind(kind: MarkKind) -> (&'static str, &'static str) {
    match kind {
        MarkKind::Deployed => ("deployed", "deployed"),
        MarkKind::RolledBack => ("back", "rolled back"),
        MarkKind::Booted => ("booted", "host started"),
    }
}

fn table(host: &Host, chart: &Drawn) -> Markup {
    html! {
        div.scroll role="region" aria-label={ "Table of " (chart.title) } tabindex="0" {
            table.numbers {
                caption { "All of the time" }
                thead {
                    tr {
                        th scope="col" { "Line" }
                        @for name in ["lowest", "mean", "highest", "last"] { th scope="col" { (name) } }
                    }
                }
                tbody {
                    @for line in &chart.lines {
                        tr { th scope="row" { (line.name) } @for value in &line.values { td { (value) } } }
                    }
                }
            }
            table.numbers {
                caption { "The mean from each time on" }
                thead {
                    tr {
                        th scope="col" { "Time" }
                        @for line in &chart.lines { th scope="col" { (line.name) } }
                    }
                }
                tbody {
                    @for (at, time) in host.slices.iter().enumerate() {
                        tr {
                            th scope="row" { (time) }
                            @for line in &chart.lines {
                                td { (line.slices.get(at).and_then(Option::as_deref).unwrap_or("–")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What the marks are.
fn events(host: &Host) -> Markup {
    html! {
        h2 { "What happened" }
        @if let Some(why) = &host.unseen { (failed("Not all can be read", why)) }
        @if host.marks.is_empty() { p.empty { "No deployment and no start of the host in this time." } }
        @else {
            ul.events {
                @for mark in host.marks.iter().rev() {
                    li {
                        svg.swatch viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
                            path class={ "mark " (kind(mark.kind).0) } d="M8 0V16" {}
                        }
                        @match &mark.deployment {
                            Some(id) => a href={ (DEPLOYMENTS) "/" (id) } { (mark.at) },
                            None => (mark.at),
                        }
                        " " b { (kind(mark.kind).1) } " " (mark.told)
                    }
                }
            }
        }
    }
}
