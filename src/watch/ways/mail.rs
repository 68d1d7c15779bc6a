//! E-mail by SMTP to the server of this host, which has a queue and knows the way. sendmail(1) is setgid and cannot work where
//! nobody gets new privileges.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message, SmtpTransport, Transport as _};

use super::sent::{LIMIT, Unsent};
use crate::command::within;
use crate::config::MailAddress;
use crate::host;
use crate::text;
use crate::watch::Notice;

/// How long a server is left alone that refused for good: only a person mends that.
const REFUSED: SignedDuration = SignedDuration::from_hours(1);

/// An e-mail to one person.
#[derive(Debug)]
pub struct Mail {
    pub(super) to: MailAddress,
    pub(super) from: Option<MailAddress>,
    pub(super) server: SocketAddr,
}

impl Mail {
    pub(super) fn send(&self, notice: &Notice) -> Result<String, Unsent> {
        let message = self.message(notice)?;
        let transport = SmtpTransport::builder_dangerous(self.server.ip().to_string())
            .port(self.server.port())
            // An address literal is right however this host is called (RFC 5321, section 4.1.1.1).
            .hello_name(match self.server {
                SocketAddr::V4(server) => ClientId::Ipv4(*server.ip()),
                SocketAddr::V6(server) => ClientId::Ipv6(*server.ip()),
            })
            .timeout(Some(LIMIT))
            .build();
        // Its limit is for each step, and a server may let each last.
        let heard = within(LIMIT, move || transport.send(&message));
        match heard.map_err(|error| format!("cannot start a thread: {error}"))? {
            Some(Ok(answer)) => {
                let words: Vec<&str> = answer.message().collect();
                Ok(format!("{} answered {} {}", self.server, answer.code(), text::sentence(&words.join(" "))))
            }
            Some(Err(error)) => Err(self.refused(&error)),
            None => Err(format!("{}: no answer within {} s", self.server, LIMIT.as_secs()).into()),
        }
    }

    fn refused(&self, error: &Error) -> Unsent {
        let words = text::sentence(text::cut(&all_of(error), 300).as_ref());
        let advice = if error.is_permanent() {
            "; look at mail and mail_from in [notify], and at the server's log"
        } else if error.status().is_none() {
            "; is there a mail server on this host? (apt-get install postfix)"
        } else {
            ""
        };
        let retry_after = error.is_permanent().then_some(REFUSED);
        // A server that refuses an address takes the notice once that is mended.
        Unsent { reason: format!("{}: {words}{advice}", self.server), retry_after, is_final: false }
    }

    fn message(&self, notice: &Notice) -> Result<Message, String> {
        let host = host::name();
        let from = match &self.from {
            Some(from) => from.0.clone(),
            None => Address::new("observability-hub", &host)
                .map_err(|_| format!("{host:?} cannot stand in an address for e-mail; write mail_from in [notify]"))?,
        };
        // lettre makes none out of headers with an address literal.
        let envelope = Envelope::new(Some(from.clone()), vec![self.to.0.clone()]).map_err(|error| error.to_string())?;
        let mut message = Message::builder()
            .envelope(envelope)
            .from(from.into())
            .to(self.to.0.clone().into())
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(notice.at.as_second()).unwrap_or(0)))
            // The same however often it is sent, so that a reader shows it once.
            .message_id(Some(format!("<{}@observability-hub.invalid>", notice.id)))
            .subject(notice.title.clone())
            .header(ContentType::TEXT_PLAIN)
            .body(notice.text.clone() + "\n")
            .map_err(|error| error.to_string())?;
        // So that no vacation answers (RFC 3834).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }
}

/// An error with what it came from.
fn all_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(title: &str, text: &str, to: &str) -> String {
        let notice = Notice {
            id: "msg_1".to_owned(),
            at: jiff::Timestamp::from_second(1_800_000_000).unwrap(),
            host: "box".to_owned(),
            level: crate::health::Level::Failed,
            title: title.to_owned(),
            text: text.to_owned(),
            events: Vec::new(),
        };
        let address = |text: &str| MailAddress(text.parse().unwrap());
        let mail = Mail { to: address(to), from: Some(address("hub@box")), server: ([127, 0, 0, 1], 25).into() };
        String::from_utf8(mail.message(&notice).unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_title_makes_no_header_of_its_own_and_a_text_ends_no_mail() {
        for title in ["a\r\nBcc: evil@example.org\r\n\r\nx", "büx \u{202e} 日本", "=?utf-8?q?x?=", &"x".repeat(120)]
        {
            let text = text_of(title, "one\n.\n\r\n.\r\nQUIT\r\nbüx", "you@[127.0.0.1]");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.lines().all(|line| !line.to_ascii_lowercase().starts_with("bcc:")), "{head}");
            assert!(head.lines().all(|line| line.len() < 998 && line.is_ascii()), "{head}");
            assert!(head.contains("To: you@[127.0.0.1]") && head.contains("Message-ID: <msg_1@"), "{head}");
            assert!(head.contains("Date: Fri, 15 Jan 2027 08:00:00 +0000"), "{head}");
            assert!(body.is_ascii() && head.to_ascii_lowercase().contains("content-transfer-encoding:"), "{body}");
        }
    }
}
