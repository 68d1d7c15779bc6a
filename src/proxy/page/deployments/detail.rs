use std::collections::BTreeMap;

use maud::{Markup, html};

use super::read::{Detail, NO_TIME};
use super::words::{commit, outcome, took, when};
use crate::proxy::page::layout::{DEPLOYMENTS as PATH, Page, failed};
use crate::proxy::page::uses::{Around, By, UNKNOWN, Use, bytes, number, percent};
use crate::proxy::reader::{Question, Readers};
use crate::proxy::status::Status;
use crate::records::{Difference, PlanFile, short};

/// The page of one deployment, and whether there is one of this name.
pub(in crate::proxy::page) fn page(id: String, readers: &Readers, status: &Status) -> (Page, bool) {
    let found: Result<Option<Detail>, String> = readers.ask(&Question::Deployment(id));
    let body = html! {
        p { a href=(PATH) { "All deployments" } }
        @match &found {
            Err(why) => (failed("This deployment is not known", why)),
            Ok(None) => {
                h2 { "No such deployment" }
                p.empty { "The history has no deployment of this name any more: it keeps the newest lines, up to two MiB." }
            }
            Ok(Some(detail)) => (shown(detail, &uses_of(detail, readers), status)),
        }
    };
    let title = match &found {
        Ok(Some(detail)) => detail.deployment.to.as_deref().map_or("Deployment", short),
        _ => "Deployment",
    };
    (Page { title: title.to_owned(), place: PATH, body }, !matches!(found, Ok(None)))
}

/// What the units that it touched used, asked for by itself: a database that is away costs nothing else.
fn uses_of(detail: &Detail, readers: &Readers) -> Result<Around, String> {
    let (begin, end) = detail.times.ok_or(NO_TIME)?;
    if detail.units.is_empty() {
        return Ok(Around { by: By::Minutes, units: BTreeMap::new() });
    }
    readers.ask(&Question::UsesAround(detail.units.clone(), begin, end))
}

fn shown(detail: &Detail, around: &Result<Around, String>, status: &Status) -> Markup {
    let one = &detail.deployment;
    html! {
        h2 { (one.subject.as_deref().unwrap_or(&one.repository)) }
        section.card {
            dl {
                dt { "Repository" } dd { (one.repository) }
                dt { "Outcome" } dd { (outcome(one)) @if let Some(reason) = &one.reason { ": " (reason) } }
                dt { "When" } dd { (when(one, status.now)) (took(one)) p.more { (one.at) } }
                @if one.to.is_some() {
                    dt { "Commit" }
                    dd {
                        (commit(one)) @if let Some(author) = &one.author { " by " (author) }
                        @if let Some(from) = &one.from { p.more { "live before: " code { (short(from)) } } }
                    }
                }
                @if let Some(by) = &one.by { dt { "Asked for by" } dd { (by) } }
            }
        }
        (acts(detail))
        (uses(detail, around))
        (plan(detail))
    }
}

/// What was done to units, and why.
fn acts(detail: &Detail) -> Markup {
    let one = &detail.deployment;
    html! {
        h2 { "Units" }
        @if one.acts.is_empty() { p.empty { "No unit was started, restarted or stopped." } }
        @else {
            ul {
                @for act in &one.acts {
                    li { b { (act.unit) } " " (act.action) @if !act.reason.is_empty() { ": " (act.reason) } }
                }
            }
        }
    }
}

/// What the units that it touched used before it and after it.
fn uses(detail: &Detail, around: &Result<Around, String>) -> Markup {
    let before = match around {
        Ok(Around { by: By::Hours, .. }) => "three whole hours before and after it",
        _ => "the half hour before and after it",
    };
    html! {
        h2 { "Before and after" }
        @if let Err(why) = around { (failed("What units used is not known", why)) }
        @if let Err(why) = &detail.failures { (failed("Failures are not known", why)) }
        @if detail.units.is_empty() {
            p.empty { "It touched no unit that is measured." }
        } @else {
            p.more { "Means of " (before) "; failures that hub-watch found in the journal, within an hour." }
            div.scroll tabindex="0" role="region" aria-label="Before and after" {
                table {
                    caption { "The units that it touched" }
                    thead {
                        tr {
                            th scope="col" rowspan="2" { "Unit" }
                            @for name in ["CPU", "Memory", "Restarts by systemd", "Failures"] { th.number scope="colgroup" colspan="2" { (name) } }
                        }
                        tr { @for _ in 0..4 { th.number scope="col" { "before" } th.number scope="col" { "after" } } }
                    }
                    tbody { @for name in &detail.units { (row(name, detail, around)) } }
                }
            }
        }
    }
}

fn row(name: &str, detail: &Detail, around: &Result<Around, String>) -> Markup {
    let uses = around.as_ref().ok().and_then(|uses| uses.units.get(name)).copied().unwrap_or_default();
    let failures = detail.failures.as_ref().ok().and_then(|failures| failures.get(name));
    let both = |say: &dyn Fn(Use) -> String| uses.map(|used| used.map_or_else(|| UNKNOWN.to_owned(), say));
    let cells = [
        both(&|used| percent(used.cpu.mean())),
        both(&|used| bytes(used.memory.mean())),
        both(&|used| number(used.restarts.more())),
        [0, 1].map(|at| number(failures.map(|failures| failures[at]))),
    ];
    html! { tr { th scope="row" { (name) } @for cell in cells.iter().flatten() { td.number { (cell) } } } }
}

fn plan(detail: &Detail) -> Markup {
    html! {
        h2 { "Plan" }
        @match &detail.plan {
            Err(why) => (failed("The plan cannot be read", why)),
            Ok(None) => p.empty { "None is kept: it was not carried out, or is older than the last 50 of its repository." },
            Ok(Some(plan)) => {
                (steps(plan))
                @if detail.left_out > 0 { p.more { (detail.left_out) " more are not shown" } }
                @if !plan.units.is_empty() { h2 { "Unit files" } }
                @for file in &plan.units { (difference(file)) }
            }
        }
    }
}

fn steps(plan: &PlanFile) -> Markup {
    html! {
        @if plan.plan.is_empty() { p.empty { "Nothing but unit files was to change." } }
        @else { ul.plan { @for step in &plan.plan { li { code { (step) } } } } }
    }
}

fn difference(file: &Difference) -> Markup {
    let class = |line: &str| match line.bytes().next() {
        Some(b'+') => Some("good"),
        Some(b'-') => Some("bad"),
        Some(b'@') => Some("same"),
        _ => None,
    };
    html! {
        section.card {
            h3 { (file.action) " " (file.file) }
            @if !file.reason.is_empty() { p.more { (file.reason) } }
            @if !file.diff.is_empty() {
                pre.diff tabindex="0" role="region" aria-label={ "What changes in " (file.file) } {
                    @for line in file.diff.lines() { span class=[class(line)] { (line) "\n" } }
                }
            }
        }
    }
}
