//! Incoming webhooks as Slack has them (docs.slack.dev, "Sending messages using incoming webhooks"), which Mattermost,
//! Rocket.Chat and Discord's `/slack` take as well.

use super::sent::Parts;
use crate::watch::Notice;

pub(super) fn request(notice: &Notice) -> Parts {
    let text = escaped(&format!("*{}*\n{}", tame(&notice.title), tame(&notice.text)));
    let body = serde_json::json!({ "text": text }).to_string();
    (vec![("Content-Type", "application/json".to_owned())], body)
}

/// Mattermost and Discord call whom an `@` names, and make links of `[…](…)`; what a commit says is to do neither.
fn tame(text: &str) -> String {
    let mut tame = String::new();
    for char in text.replace("](", "] (").chars() {
        let is_first = !tame.ends_with(|before: char| before.is_alphanumeric());
        tame.push(if char == '@' && is_first { '＠' } else { char });
    }
    tame
}

/// Discord takes 2,000 characters of such a text, the others more.
const LONGEST: usize = 1_900;

/// Slack reads `<…>` as links and mentions (docs.slack.dev, "Formatting message text": the three to escape).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        let mut bytes = [0; 4];
        let piece = match char {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            other => other.encode_utf8(&mut bytes),
        };
        if escaped.len() + piece.len() > LONGEST {
            escaped.push('…');
            break;
        }
        escaped.push_str(piece);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{escaped, tame};

    #[test]
    fn nobody_is_called_by_a_name() {
        assert_eq!(tame("@here [a](http://b) git@host"), "＠here [a] (http://b) git@host");
        assert_eq!(escaped("<!channel> & a.service"), "&lt;!channel&gt; &amp; a.service");
        assert_eq!(escaped(&"&".repeat(3000)), "&amp;".repeat(380) + "…");
    }
}
