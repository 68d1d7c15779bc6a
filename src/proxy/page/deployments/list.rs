use maud::{Markup, html};

use super::read::{Due, Listed, MOST, Next};
use super::words::{commit, outcome, took, when};
use crate::proxy::page::layout::{DEPLOYMENTS as PATH, Page, failed};
use crate::proxy::status::Status;
use crate::records::{Deployment, ago, seconds_between, short, span};

/// The list; `found` is what was read for it.
pub(in crate::proxy::page) fn page(found: &Result<Listed, String>, status: &Status) -> Page {
    let body = html! {
        h2 { "Deployments" }
        @match found {
            Err(why) => (failed("The deployments are not known", why)),
            Ok(listed) => {
                @for one in &listed.repositories { (next(one, status)) }
                (lines(listed, status))
                (others(listed))
            }
        }
    };
    Page { title: "Deployments".to_owned(), place: PATH, body }
}

fn lines(listed: &Listed, status: &Status) -> Markup {
    html! {
        @if listed.lines.is_empty() {
            p.empty { "Nothing was deployed here yet. A push to the branch of a repository is the first thing that shows up." }
        } @else {
            h2 { "What was deployed" }
            ol.lines { @for one in &listed.lines { li { (line(one, listed, status)) } } }
        }
    }
}

fn line(one: &Deployment, listed: &Listed, status: &Status) -> Markup {
    let live = listed.repositories.iter().find(|next| next.repository == one.repository);
    let live = live.and_then(|next| next.live.as_ref().ok()?.as_ref()).map(|(commit, _)| commit);
    let is_newest = |known: &&Deployment| known.kind == "deployed" && known.repository == one.repository;
    // The same commit may have been live before.
    let is_live = listed.newer == 0
        && live.is_some()
        && live == one.to.as_ref()
        && listed.lines.iter().find(is_newest).is_some_and(|newest| newest.id == one.id);
    // A hold has no author.
    let asked = if one.author.is_some() { "asked for by" } else { "by" };
    let people = [("by", &one.author), (asked, &one.by)];
    let people = people.into_iter().filter_map(|(how, who)| Some(format!("{how} {}", who.as_ref()?)));
    html! {
        p {
            (outcome(one)) " " @if is_live { b { "live" } " " }
            a href={ (PATH) "/" (one.id) } { (when(one, status.now)) } (took(one)) ", " (one.repository)
        }
        p { (commit(one)) " " (one.subject.as_deref().unwrap_or_default()) " " span.more { (people.collect::<Vec<_>>().join(", ")) } }
        @if let Some(reason) = &one.reason { p.more { (reason) } }
        @for act in &one.acts {
            p.more { @if !act.unit.is_empty() { b { (act.unit) } " " } (act.action) @if !act.reason.is_empty() { ": " (act.reason) } }
        }
    }
}

/// The way to what is not on this page.
fn others(listed: &Listed) -> Markup {
    html! {
        @if listed.newer > 0 || listed.older > 0 {
            p {
                @if listed.newer > 0 {
                    a href={ (PATH) "?newer=" (listed.newer.saturating_sub(MOST)) } { (listed.newer) " newer" } " "
                }
                @if listed.older > 0 {
                    a href={ (PATH) "?newer=" (listed.newer + listed.lines.len()) } { (listed.older) " older" }
                }
            }
        }
    }
}

/// What is to come of a repository.
fn next(one: &Next, status: &Status) -> Markup {
    let now = status.now;
    html! {
        section.card {
            h3 { (one.repository) " " span.more { (one.branch) } }
            dl {
                dt { "Live" }
                dd {
                    @match &one.live {
                        Ok(Some((commit, at))) => { code { (short(commit)) } " " (ago(at, now)) }
                        Ok(None) => "nothing yet",
                        Err(why) => { "not known " span.more { (why) } }
                    }
                }
                dt { "Last look" }
                dd {
                    @match &one.checked {
                        Ok(Some((at, came, why))) => {
                            (came.replace('_', " ")) " " (ago(at, now))
                            @if let Some(why) = why { " " span.more { (why) } }
                        }
                        Ok(None) => "none yet",
                        Err(why) => { "not known " span.more { (why) } }
                    }
                }
                dt { "Next look" }
                dd { (due(&one.due, now)) }
                @if let Some((who, since, why)) = &one.hold {
                    dt { "On hold" }
                    dd.same {
                        "by " (who) @if !since.is_empty() { " " (ago(since, now)) } @if let Some(why) = why { ": " (why) }
                        p { code { (status.ways.hub(&format!("release {}", one.repository))) } }
                    }
                }
                @if let Some((commit, since)) = &one.waits {
                    dt { "Waits" }
                    dd { code { (short(commit)) } " for checks of others, since " (ago(since, now)) }
                }
                @if let Some((commit, why)) = &one.bad {
                    dt { "Bad commit" }
                    dd.bad { code { (short(commit)) } " is not tried again until the branch moves: " (why) }
                }
                @if let Some(until) = &one.confirm_until {
                    dt { "On trial" }
                    dd { "until " (until) ", unless somebody confirms it" p { code { (status.ways.hub(&format!("confirm {}", one.repository))) } } }
                }
            }
        }
    }
}

fn due(due: &Due, now: jiff::Timestamp) -> String {
    let soon = "by the next run of gitops-sync";
    match due {
        Due::Now => "a run is at it".to_owned(),
        Due::Queued => format!("a delivery waits: {soon}"),
        Due::Again => format!("it could not be fetched: {soon}"),
        Due::Held => "none while it is on hold".to_owned(),
        Due::Soon => soon.to_owned(),
        Due::Unknown => "not known".to_owned(),
        Due::At(at) => match at.parse() {
            Ok(at) if at > now => format!("after {}, or with the next delivery", span(seconds_between(now, at))),
            _ => format!("{soon}, or with the next delivery"),
        },
    }
}
