//! The ways out of this host: each takes a notice or says why not. A new one is a file here and a word in `[notify]`.
//! What is told, when, and how often it is tried is decided above; no way knows of another.

mod json;
mod mail;
mod ntfy;
mod sent;
mod slack;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ureq::http::{Response, StatusCode};

use super::Notice;
use crate::command::Command;
use crate::config::{Config, Error, Format, Notify, Secret, WebUrl};
use crate::http::{Trusting, retry_after, said};
use crate::text;

use sent::LIMIT;
pub use sent::Unsent;

/// As much of an answer as a reason needs.
pub(super) const MOST_OF_ANSWER: u64 = 2000;

/// A part of a URL that is shorter is a word as any other.
const SHORTEST_SECRET: usize = 5;

/// One way out.
#[derive(Debug)]
pub enum Way {
    Server(Server),
    /// A command that gets the notice as JSON on stdin.
    Command(Vec<String>),
    /// The mail server of this host.
    Mail(mail::Mail),
}

/// A server that takes notices.
#[derive(Debug)]
pub struct Server {
    url: WebUrl,
    format: Format,
    token: Option<Secret>,
    key: Option<json::Key>,
    ca: Option<PathBuf>,
    /// Made for the first notice, since most looks send none.
    agent: OnceCell<ureq::Agent>,
}

/// The ways that are configured.
///
/// # Errors
/// When a credential cannot be read, or is not what it should be.
pub fn of(config: &Config) -> Result<Vec<Way>, Error> {
    let credentials = config.credentials();
    let Notify { url, format, command, mail, mail_from, mail_server, ca, .. } = &config.notify;
    let mut ways = Vec::new();
    if let Some(url) = credentials.url("notify-url")?.or_else(|| url.clone()) {
        // Only that form is signed.
        let secret = if *format == Format::Json { credentials.read("notify-secret")? } else { None };
        let key = secret.map(|secret| json::Key::read(secret.bytes())).transpose();
        let key = key.map_err(|reason| wrong("notify-secret", reason))?;
        let token = credentials.read("notify-token")?;
        ways.push(Way::Server(Server { url, format: *format, token, key, ca: ca.clone(), agent: OnceCell::new() }));
    }
    if !command.is_empty() {
        ways.push(Way::Command(command.clone()));
    }
    if let Some(to) = mail {
        ways.push(Way::Mail(mail::Mail { to: to.clone(), from: mail_from.clone(), server: *mail_server }));
    }
    Ok(ways)
}

fn wrong(name: &str, reason: String) -> Error {
    Error::Credential { name: name.to_owned(), reason }
}

impl Way {
    /// What its waiting notices are kept under.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "url",
            Self::Command(_) => "command",
            Self::Mail(_) => "mail",
        }
    }

    /// Where it leads, for a person.
    pub fn shown(&self) -> String {
        match self {
            Self::Server(server) => server.url.to_string(),
            Self::Command(argv) => argv.first().cloned().unwrap_or_default(),
            Self::Mail(mail) => mail.to.0.to_string(),
        }
    }

    /// Sends a notice; returns what came back.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn send(&self, notice: &Notice) -> Result<String, Unsent> {
        match self {
            Self::Server(server) => server.send(notice),
            Self::Command(argv) => run(argv, notice),
            Self::Mail(mail) => mail.send(notice),
        }
    }
}

fn run(argv: &[String], notice: &Notice) -> Result<String, Unsent> {
    let [program, arguments @ ..] = argv else { return Err("the command is empty".to_owned().into()) };
    let input = serde_json::to_vec(notice).map_err(|error| error.to_string())?;
    let command = Command::new(program, LIMIT).args(arguments).input(input).folder(Path::new("/"));
    command.succeed().map(|_| "ended with 0".to_owned()).map_err(|error| error.to_string().into())
}

impl Server {
    fn send(&self, notice: &Notice) -> Result<String, Unsent> {
        let agent = match self.agent.get() {
            Some(agent) => agent,
            None => {
                let agent = outward(&self.url, self.ca.as_deref())?;
                self.agent.get_or_init(|| agent)
            }
        };
        let mut request = agent.post(self.url.secret()).header("User-Agent", crate::records::ASKS_ITSELF);
        if let Some(token) = &self.token {
            request = request.header("Authorization", &bearer(token)?);
        }
        let (headers, body) = match self.format {
            Format::Ntfy => ntfy::request(notice),
            Format::Slack => slack::request(notice),
            Format::Json => {
                json::request(notice, self.key.as_ref(), Timestamp::now()).map_err(|error| error.to_string())?
            }
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let heard = request.send(body).map_err(|error| silent(&self.url, &error))?;
        answer(&self.url, heard, self.token.as_ref())
    }
}

/// A client for a server of `[notify]`.
pub(super) fn outward(url: &WebUrl, ca: Option<&Path>) -> Result<ureq::Agent, String> {
    Trusting::of(url.secret(), ca, "ca = \"/path/ca.pem\" in [notify]").map(|trusting| trusting.outward(LIMIT))
}

/// Why there was no answer. What ureq says of that may have the URL in it.
pub(super) fn silent(url: &WebUrl, error: &ureq::Error) -> Unsent {
    format!("{url}: {}", without_url(said(error), url)).into()
}

fn bearer(token: &Secret) -> Result<String, String> {
    let token = token.token();
    token
        .map(|token| format!("Bearer {token}"))
        .ok_or_else(|| "the credential notify-token is no token: it has spaces or other characters in it".to_owned())
}

/// What a server said, without parts of the URL that it was asked at: its path is a secret, and servers name what they do not
/// have, in one way of writing or another.
fn without_url(words: String, url: &WebUrl) -> String {
    let [_, person, _, path] = url.parts();
    let parts = person.split(':').chain(path.split(['/', '?', '&', '=', '#', ';']));
    let parts = parts.filter(|part| part.len() >= SHORTEST_SECRET);
    parts.fold(words, |words, part| {
        let (mut left, mut from) = (String::new(), 0);
        for (at, _) in words.to_ascii_lowercase().match_indices(&part.to_ascii_lowercase()) {
            left += &words[from..at];
            left += "(of the URL)";
            from = at + part.len();
        }
        left + &words[from..]
    })
}

/// What a server's answer means. The token that it was shown is not repeated where it echoes it.
pub(super) fn answer(url: &WebUrl, mut answer: Response<ureq::Body>, token: Option<&Secret>) -> Result<String, Unsent> {
    let status = answer.status();
    if status.is_success() {
        return Ok(format!("it answered {}", status.as_u16()));
    }
    let retry_after = retry_after(&answer, Timestamp::now());
    let words = answer.body_mut().with_config().limit(MOST_OF_ANSWER).read_to_string().unwrap_or_default();
    let words = token.map_or(words.clone(), |token| token.kept_from(&words));
    let words = without_url(words, url);
    let words = text::sentence(text::cut(words.trim(), 200).as_ref());
    let words = if words.is_empty() { words } else { format!(": {words}") };
    let advice = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; look at the credential notify-token",
        StatusCode::NOT_FOUND | StatusCode::GONE => "; look at the URL",
        _ if status.is_redirection() => "; it leads elsewhere, which is not followed: write the URL that it leads to",
        _ => "",
    };
    // What the notice is, and not who sends it, or when.
    let is_final = matches!(status.as_u16(), 400 | 413 | 415 | 422);
    Err(Unsent { reason: format!("{url} answered {}{words}{advice}", status.as_u16()), retry_after, is_final })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_secret_url_is_repeated() {
        let url = WebUrl::new("https://person:Pass-word@ntfy.example/topic-x?auth=tk_1234").unwrap();
        for (words, shown) in [
            ("cannot POST /Topic-X?auth=tk_1234", "cannot POST /(of the URL)?auth=(of the URL)"),
            ("pass-word of PERSON", "(of the URL) of (of the URL)"),
            ("ntfy.example is away: ü", "ntfy.example is away: ü"),
        ] {
            assert_eq!(without_url(words.to_owned(), &url), shown);
        }
    }
}
