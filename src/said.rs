//! What is said of a commit at its forge: told and asked over HTTP, with a token. How each forge wants it is in `forge/`, and
//! what comes of an answer is its caller's business.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ureq::http::{Response, StatusCode};

use crate::config::{Config, Error, Repository, Secret};
use crate::forge::board;
use crate::forge::board::{Board, Said, Word};
use crate::http::{Trusting, said};
use crate::text;

/// The longest one request takes.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: a hundred statuses with their authors are a tenth of it.
const LONGEST_ANSWER: u64 = 4 << 20;
/// Nobody's commit has the word of more than a thousand checks.
const MOST_PAGES: usize = 10;
/// Where an authority of your own goes, which git trusts then, too.
const OWN_AUTHORITY: &str = "/usr/local/share/ca-certificates/NAME.crt and update-ca-certificates";
/// As much of an answer as a reason needs.
const MOST_OF_REASON: usize = 200;

/// The forge of a repository.
pub struct Forge {
    board: &'static dyn Board,
    root: String,
    /// `owner/name` there.
    name: String,
    token: Option<Token>,
    agent: ureq::Agent,
}

struct Token {
    /// Name of the credential.
    name: String,
    secret: Secret,
    header: (&'static str, String),
}

/// Why a forge did not hear, or did not answer.
#[derive(Debug)]
pub struct Unheard {
    /// For a person; without the token.
    pub reason: String,
    /// How long the forge does not want to be asked.
    pub retry_after: Option<SignedDuration>,
    /// Its last word on this very request: the same one again has no use.
    pub is_final: bool,
    /// Whether a person has to mend something here.
    pub is_mine: bool,
}

impl From<String> for Unheard {
    fn from(reason: String) -> Self {
        Self { reason, retry_after: None, is_final: false, is_mine: false }
    }
}

/// Whether what hub.toml wants of each repository's forge can be had there.
///
/// # Errors
/// For the first repository whose forge is not known.
pub fn check(config: &Config) -> Result<(), Error> {
    config.repositories.iter().filter(|known| known.status || known.wait_for_checks).try_for_each(|known| {
        board_of(known).map(drop).map_err(|reason| Error::Repository { name: known.name.clone(), reason })
    })
}

fn board_of(repository: &Repository) -> Result<(&'static dyn Board, String), String> {
    let api = repository.api.as_ref().map(crate::config::WebUrl::secret);
    let Repository { remote, .. } = repository;
    board(api, remote.url(), remote.host()).ok_or_else(|| {
        let host = if remote.host().is_empty() { "git.acme.org" } else { remote.host() };
        format!(
            "status and wait_for_checks need GitHub, Gitea, Forgejo or GitLab, and which one this is does not show; write \
             api = \"https://{host}/api/v1\" for Gitea and Forgejo, with /api/v3 for GitHub, with /api/v4 for GitLab"
        )
    })
}

impl Forge {
    /// The forge of a repository, with the credential that its table in hub.toml names.
    ///
    /// # Errors
    /// When it is not known, the credential is missing or no token, or the system's authorities cannot be read.
    pub fn of(config: &Config, repository: &Repository) -> Result<Self, String> {
        let (board, root) = board_of(repository)?;
        let token = match repository.status_token.as_ref().or(repository.token.as_ref()) {
            Some(name) => {
                let secret = config.credentials().require(name).map_err(|error| error.to_string())?;
                let token = secret.token();
                let token = token.ok_or_else(|| {
                    format!("credential {name}: is no token: it has spaces or other characters in it")
                })?;
                Some(Token { name: name.clone(), header: board.authorization(token), secret })
            }
            None => None,
        };
        let agent = Trusting::of(&root, None, OWN_AUTHORITY)?.outward(LIMIT);
        Ok(Self { board, root, name: repository.full_name.clone(), token, agent })
    }

    /// The address of its API.
    pub fn address(&self) -> &str {
        &self.root
    }

    /// Says a word of a commit.
    ///
    /// # Errors
    /// When it is not known to stand there.
    pub fn say(&self, commit: &str, said: &Said) -> Result<(), Unheard> {
        let (path, body) = self.board.say(&self.name, commit, said);
        let request = self.agent.post(self.root.clone() + &path).header("Content-Type", "application/json");
        let (status, answer, retry_after) = self.heard(self.with_headers(request).send(body.to_string()))?;
        if status.is_success() || self.board.stands_already(status.as_u16(), &answer) {
            return Ok(());
        }
        // Of these only another request mends anything: the commit is not there, or has too many words already.
        let is_final = matches!(status.as_u16(), 400 | 409 | 410 | 413 | 422);
        Err(Unheard { is_final, ..self.refused(status, &answer, retry_after) })
    }

    /// What others than the hub say of a commit.
    ///
    /// # Errors
    /// When not all of it could be read.
    pub fn words(&self, commit: &str) -> Result<Vec<Word>, Unheard> {
        let questions = self.board.questions(&self.name, commit);
        let all = questions.iter().map(|question| self.answers(question)).collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    fn answers(&self, question: &str) -> Result<Vec<Word>, Unheard> {
        let (mut words, mut count, mut last) = (Vec::new(), 0, String::new());
        for number in 1..=MOST_PAGES {
            let request = self.agent.get(format!("{}{question}&page={number}", self.root));
            let (status, answer, retry_after) = self.heard(self.with_headers(request).call())?;
            if !status.is_success() {
                return Err(self.refused(status, &answer, retry_after));
            }
            let page = self.board.read(&answer);
            let page = page.map_err(|error| format!("{} answered what is not understood: {error}", self.root))?;
            // Who knows no pages gives the first one each time.
            if page.count == 0 || answer == last {
                return match page.of.filter(|of| count < *of) {
                    Some(of) => Err(format!("{} counts {of} and shows {count}", self.root).into()),
                    None => Ok(words),
                };
            }
            words.extend(page.words);
            count += page.count;
            if page.of.is_some_and(|of| count >= of) {
                return Ok(words);
            }
            last = answer;
        }
        Err(format!("{} has the word of more than {count} checks on this commit", self.root).into())
    }

    fn with_headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("User-Agent", crate::records::ASKS_ITSELF).header("Accept", "application/json");
        match &self.token {
            Some(Token { header: (name, value), .. }) => request.header(*name, value),
            None => request,
        }
    }

    /// A whole answer, and how long the forge wants to be left alone.
    fn heard(
        &self,
        result: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<(StatusCode, String, Option<SignedDuration>), Unheard> {
        let failed = |error: &ureq::Error| {
            format!("{}: {}{}", self.root, said(error), crate::http::advice(error, OWN_AUTHORITY))
        };
        let mut answer = result.map_err(|error| failed(&error))?;
        let status = answer.status();
        let pause = crate::http::retry_after(&answer, Timestamp::now());
        // GitHub says so what the token may not do ("Troubleshooting the REST API").
        let wanted = answer.headers().get("x-accepted-github-permissions").and_then(|value| value.to_str().ok());
        let wanted = wanted.filter(|_| !status.is_success()).map(|wanted| format!(" (it needs {wanted})"));
        let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).lossy_utf8(true).read_to_string();
        // What was refused is refused, however its reason ends.
        let body = body.or_else(|error| if status.is_success() { Err(failed(&error)) } else { Ok(String::new()) })?;
        Ok((status, body + wanted.as_deref().unwrap_or_default(), pause))
    }

    fn refused(&self, status: StatusCode, answer: &str, retry_after: Option<SignedDuration>) -> Unheard {
        let answer = self.token.as_ref().map_or(answer.to_owned(), |token| token.secret.kept_from(answer));
        let words = text::sentence(text::cut(answer.trim(), MOST_OF_REASON).as_ref());
        let words = if words.is_empty() { words } else { format!(": {words}") };
        let is_denied = matches!(status.as_u16(), 401 | 403 | 404) && retry_after.is_none();
        let advice = match &self.token {
            Some(Token { name, .. }) if is_denied => {
                format!("; look at the credential {name}: what it may do, and whether it is still valid")
            }
            None if is_denied => "; name a credential with status_token".to_owned(),
            _ if status.is_redirection() => {
                "; it leads elsewhere, which is not followed: write name, url or api as the forge has them now"
                    .to_owned()
            }
            _ => String::new(),
        };
        let reason = format!("{} answered {}{words}{advice}", self.root, status.as_u16());
        Unheard { reason, retry_after, is_final: false, is_mine: is_denied || status.is_redirection() }
    }
}
