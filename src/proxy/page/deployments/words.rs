//! A deployment in words, for the list and for its own page.

use maud::{Markup, html};

use crate::records::{Deployment, ago, milliseconds, short};

/// What became of it, in the colour of that.
pub fn outcome(deployment: &Deployment) -> Markup {
    let class = match deployment.kind.as_str() {
        "deployed" | "released" => "good",
        "held" | "removed" => "same",
        _ => "bad",
    };
    html! { b class=(class) { (deployment.kind.replace('_', " ")) } }
}

/// The commit, with its page at the forge where that is known.
pub fn commit(deployment: &Deployment) -> Markup {
    html! {
        @if let Some(to) = &deployment.to {
            @match &deployment.link {
                Some(link) => a href=(link) rel="noreferrer" { code { (short(to)) } },
                None => code { (short(to)) },
            }
        }
    }
}

/// When it ended.
pub fn when(deployment: &Deployment, now: jiff::Timestamp) -> Markup {
    html! {
        time datetime=(deployment.at) title=(deployment.at) { (ago(&deployment.at, now)) }
    }
}

pub fn took(deployment: &Deployment) -> Markup {
    html! { @if let Some(took) = deployment.took_ms { span.more { ", took " (milliseconds(took)) } } }
}
