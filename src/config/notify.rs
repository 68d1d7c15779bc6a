//! `[notify]`: where this host speaks, and when.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::values::{AbsolutePath, Hours, Minutes, is_web_url, text_value};

/// `[notify]`
#[derive(Clone, Debug)]
pub struct Notify {
    /// Where notices go; the credential `notify-url` comes before it.
    pub url: Option<WebUrl>,
    /// How they are written.
    pub format: Format,
    /// A command that gets each notice as JSON on stdin, beside the URL or instead; empty for none.
    pub command: Vec<String>,
    /// Who gets them by e-mail, beside the URL or instead.
    pub mail: Option<MailAddress>,
    /// Whom these mails are from; default: `observability-hub` at this host.
    pub mail_from: Option<MailAddress>,
    /// The mail server, which is on this host.
    pub mail_server: SocketAddr,
    /// The certificates that the servers must come from; default: the system's authorities.
    pub ca: Option<PathBuf>,
    /// After how many hours something that is still wrong is told again.
    pub repeat_hours: u32,
    /// Whether deployments that went well are told, too.
    pub deployments: bool,
    /// When nothing is told but failures.
    pub quiet: Option<Quiet>,
    /// What is asked each time while the host is well, in the way of healthchecks.io; the credential `heartbeat-url` comes
    /// before it.
    pub heartbeat: Option<WebUrl>,
    /// Minutes between two heartbeats.
    pub heartbeat_minutes: u32,
}

/// The form of a notice.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// ntfy: the text as the body, title and priority as headers (docs.ntfy.sh, "Publishing").
    #[default]
    Ntfy,
    /// `{"text": …}`, which Slack, Mattermost, Rocket.Chat and Discord's `/slack` take.
    Slack,
    /// JSON, signed with the credential `notify-secret` as Standard Webhooks have it where that is there.
    Json,
}

/// A URL over HTTP. Its path may be all that keeps strangers out, so that only the host is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(String);

impl WebUrl {
    /// The whole URL, which must not be shown.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Its scheme, who is named in it, its host with the port, and what follows; empty where there is none.
    pub fn parts(&self) -> [&str; 4] {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (person, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        [scheme, person, host, path]
    }

    /// Checks the text of a URL.
    ///
    /// # Errors
    /// What would be right.
    pub fn new(text: &str) -> Result<Self, String> {
        // A wrong one may be a secret, too.
        is_web_url(text)
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| "is not a URL; write one such as \"https://ntfy.sh/my-host\"".to_owned())
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [scheme, _, host, _] = self.parts();
        write!(f, "{scheme}://{host}/…")
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_value!(WebUrl, WebUrl::new);

/// An address for e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress(pub lettre::Address);

text_value!(MailAddress, |text| {
    text.parse().map(MailAddress).map_err(|_| {
        format!("{text:?} is no address for e-mail; write one such as \"you@example.org\" or \"root@localhost\"")
    })
});

/// A mail server of this host: what goes there is neither encrypted nor signed.
#[derive(Clone, Copy)]
struct MailServer(SocketAddr);

text_value!(MailServer, |text| {
    let server = text.parse().ok().filter(|server: &SocketAddr| server.ip().is_loopback() && server.port() != 0);
    server.map(MailServer).ok_or_else(|| {
        format!(
            "{text:?} is no mail server of this host; write a loopback address and a port, such as \"127.0.0.1:25\""
        )
    })
});

/// The hours of a day, in the host's own time, in minutes since midnight; `to` may be before `from`, and then midnight lies
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    from: u16,
    to: u16,
}

impl Quiet {
    /// True for a time of the day within these hours.
    pub fn holds(self, time: jiff::civil::Time) -> bool {
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

text_value!(Quiet, |text| {
    let minutes = |time: &str| {
        let (hours, minutes) = time.trim().split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let (hours, minutes) = (
            digits(hours).then(|| hours.parse::<u16>().ok())??,
            digits(minutes).then(|| minutes.parse::<u16>().ok())??,
        );
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    let both = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
    both.filter(|(from, to)| from != to)
        .map(|(from, to)| Quiet { from, to })
        .ok_or_else(|| format!("{text:?} are no hours of a day; write them like \"23:00-07:00\""))
});

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    url: Option<WebUrl>,
    format: Format,
    command: Vec<String>,
    mail: Option<MailAddress>,
    mail_from: Option<MailAddress>,
    mail_server: Option<MailServer>,
    ca: Option<AbsolutePath>,
    repeat_hours: Option<Hours>,
    deployments: bool,
    quiet: Option<Quiet>,
    heartbeat: Option<WebUrl>,
    heartbeat_minutes: Option<Minutes>,
}

impl Section {
    pub(super) fn read(&self) -> Notify {
        Notify {
            url: self.url.clone(),
            format: self.format,
            command: self.command.clone(),
            mail: self.mail.clone(),
            mail_from: self.mail_from.clone(),
            mail_server: self.mail_server.map_or(SocketAddr::from(([127, 0, 0, 1], 25)), |server| server.0),
            ca: self.ca.clone().map(|path| path.0),
            repeat_hours: self.repeat_hours.map_or(24, |hours| hours.0),
            deployments: self.deployments,
            quiet: self.quiet,
            heartbeat: self.heartbeat.clone(),
            heartbeat_minutes: self.heartbeat_minutes.map_or(1, |minutes| minutes.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_may_have_midnight_in_them() {
        let quiet = |text: &str| toml::from_str::<Section>(&format!("quiet = {text:?}")).map(|section| section.quiet);
        let holds = |text: &str, hour, minute| {
            quiet(text).unwrap().is_some_and(|quiet| quiet.holds(jiff::civil::time(hour, minute, 30, 0)))
        };
        assert!(holds("23:00-07:00", 23, 0) && holds("23:00-07:00", 6, 59) && holds("23:00-07:00", 0, 0));
        assert!(!holds("23:00-07:00", 7, 0) && !holds("23:00-07:00", 22, 59));
        assert!(holds("12:30-13:00", 12, 30) && !holds("12:30-13:00", 13, 0));
        for wrong in ["23-7", "23:00", "24:00-07:00", "7:00-8:00", "07:00-07:00", "+1:00-07:00"] {
            let error = quiet(wrong).unwrap_err().to_string();
            assert!(error.contains("write them like \"23:00-07:00\""), "{wrong}: {error}");
        }
    }

    #[test]
    fn of_a_url_only_the_host_is_shown() {
        for (url, shown) in [
            ("https://ntfy.sh/my-topic", "https://ntfy.sh/…"),
            ("https://me:pw@10.0.0.1:8080?token=x", "https://10.0.0.1:8080/…"),
        ] {
            assert_eq!(format!("{:?}", WebUrl::new(url).unwrap()), shown);
        }
        for wrong in ["ntfy.sh/topic", "https://", "https:///x", "https://a b", "ftp://topic"] {
            assert!(!WebUrl::new(wrong).unwrap_err().contains("topic"), "{wrong}");
        }
    }
}
