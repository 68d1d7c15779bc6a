//! The status page: plain HTML without a script, a file for each page in this folder.
//! maud writes every text as text; what is hidden in one is written out at the end, in one place.

mod cards;
mod database;
pub(super) mod deployments;
pub(super) mod funnel;
pub(super) mod host;
mod layout;
mod now;
mod overview;
pub(super) mod pipelines;
mod runs;
pub(super) mod units;
pub(super) mod uses;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rouille::{Request, Response};
use sha2::{Digest, Sha256};

use super::reader::{Question, Readers};
use super::status::Status;
use crate::text;
use layout::{Page, STYLE, document};

/// Nothing but the page itself and its style, which is named by what it says (CSP Level 3, "hash-source").
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// A page that was asked for.
pub(super) enum Place {
    Overview,
    Host(host::Asked),
    /// Without so many of the newest.
    Deployments(usize),
    /// One, by its name in links.
    Deployment(String),
    Units,
    Pipelines,
    Funnel,
}

impl Place {
    /// The one that a request asks for; none where there is none.
    pub fn of(request: &Request) -> Option<Self> {
        let newer = || request.get_param("newer").and_then(|newer| newer.parse().ok()).unwrap_or(0);
        match request.raw_url().split('?').next().unwrap_or_default() {
            "/" => Some(Self::Overview),
            "/pipelines" => Some(Self::Pipelines),
            "/funnel" => Some(Self::Funnel),
            "/host" => Some(Self::Host(host::Asked::of(request))),
            layout::DEPLOYMENTS => Some(Self::Deployments(newer())),
            layout::UNITS => Some(Self::Units),
            path => deployments::id(path).map(Self::Deployment),
        }
    }

    pub fn answer(self, status: &Status, readers: &Readers) -> Response {
        let (page, is_there) = self.page(status, readers);
        Response::html(html(page, status))
            .with_status_code(if is_there { 200 } else { 404 })
            .with_additional_header("Content-Security-Policy", POLICY.as_str())
            .with_additional_header("X-Content-Type-Options", "nosniff")
            .with_additional_header("Referrer-Policy", "no-referrer")
            .with_additional_header("Cache-Control", "no-store")
    }

    /// The page, and whether what it is about is there.
    fn page(self, status: &Status, readers: &Readers) -> (Page, bool) {
        let page = match self {
            Self::Overview => overview::page(status),
            Self::Pipelines => pipelines::page(status, readers),
            Self::Funnel => funnel::page(status, readers),
            Self::Host(asked) => host::page(asked, readers),
            Self::Deployments(newer) => deployments::list(&readers.ask(&Question::Deployments(newer)), status),
            Self::Deployment(id) => return deployments::detail(id, readers, status),
            Self::Units => units::page(readers, status),
        };
        (page, true)
    }
}

/// The whole document. A mark that turns or hides text is written out in whatever place it stands.
fn html(page: Page, status: &Status) -> String {
    text::shown_lines(&document(page, status).into_string()).into_owned()
}

#[cfg(test)]
#[path = "../../../tests/fuzz/records.rs"]
mod records;
