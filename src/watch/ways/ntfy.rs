//! ntfy (docs.ntfy.sh, "Publishing"): the text as the body; title, priority and tags as headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::sent::Parts;
use crate::health::Level;
use crate::watch::Notice;

pub(super) fn request(notice: &Notice) -> Parts {
    // 1 to 5; 5 rings through.
    let (priority, tags) = match notice.level {
        Level::Healthy => ("2", "white_check_mark"),
        Level::Degraded => ("3", "warning"),
        Level::Failed => ("5", "rotating_light"),
    };
    let headers = vec![("Title", word(&notice.title)), ("Priority", priority.to_owned()), ("Tags", tags.to_owned())];
    (headers, notice.text.clone())
}

/// A header's value: what is not ASCII as an encoded word (RFC 2047), which ntfy reads.
fn word(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && !text.contains("=?");
    if is_plain { text.to_owned() } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_title_is_one_line_of_ascii() {
        assert_eq!(word("box: acme/site failed"), "box: acme/site failed");
        assert_eq!(word("büx"), "=?UTF-8?B?YsO8eA==?=");
        assert_eq!(word("a\r\nPriority: 1"), "=?UTF-8?B?YQ0KUHJpb3JpdHk6IDE=?=");
    }
}
