//! Incoming webhooks as Slack has them (docs.slack.dev, "Sending messages using incoming webhooks"), which Mattermost,
//! Rocket.Chat and Discord's `/slack` take as well.

use super::Parts;
use crate::watch::Notice;

pub(super) fn request(notice: &Notice) -> Parts {
    let text = format!("*{}*\n{}", escaped(&notice.title), escaped(&notice.text));
    let body = serde_json::json!({ "text": text }).to_string();
    (vec![("Content-Type", "application/json".to_owned())], body)
}

/// Slack reads `<…>` as links and mentions (docs.slack.dev, "Formatting message text": the three to escape).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nobody_is_called_by_a_name() {
        assert_eq!(escaped("<!channel> & a.service"), "&lt;!channel&gt; &amp; a.service");
    }
}
