//! The one way to make a JSON answer.

use rouille::Response;
use serde_json::{Value, json};

use crate::text;

/// How soon a forge or a script may try again after a 503, in seconds.
const RETRY_AFTER: &str = "30";

/// An answer with a JSON body. Answers are about this moment, so nobody may store them.
pub(super) fn json(status: u16, body: &Value) -> Response {
    let response = Response::from_data("application/json", text::json(body, false) + "\n")
        .with_status_code(status)
        .with_additional_header("Cache-Control", "no-store");
    if status == 503 { response.with_additional_header("Retry-After", RETRY_AFTER) } else { response }
}

/// An answer that says why the request is not served.
pub(super) fn error(status: u16, reason: &str) -> Response {
    json(status, &json!({"status": "error", "reason": reason}))
}

pub(super) fn not_found() -> Response {
    error(404, "there is nothing at this path; a forge delivers to /api/webhook/gitops")
}

/// 405; `allowed` is the value of `Allow`.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    error(405, &format!("the method must be {}", allowed.replace(", ", " or ")))
        .with_additional_header("Allow", allowed)
}

/// True for the methods that only read.
pub(super) fn reads(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}
