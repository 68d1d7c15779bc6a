use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Error;
use super::credential::Store;
use super::greeting::{WEBHOOK, url};
use super::repository::find_hold;
use crate::config::{Config, Secret, reachable};
use crate::forge::signature::sign;
use crate::hint::command_line;
use crate::http;
use crate::program::print;
use crate::random;

/// Make the webhook secret if there is none, show what to enter on the forge, and send a signed delivery to the proxy
/// on this host: a push of the repository's branch, or a ping if no repository is configured.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "webhook-test",
    note = "The push makes gitops-sync look at the repository, as any delivery does. The secret itself is never shown.",
    example = "hub webhook-test\nhub webhook-test acme/infra",
    error_code(
        0,
        "The delivery was accepted; or the secret was made, and no proxy runs yet that a delivery could be sent to."
    ),
    error_code(1, "The delivery was not accepted; the message shows what to do.")
)]
pub(super) struct Arguments {
    #[argh(positional, arg_name = "REPO")]
    /// owner/name, as in hub.toml; default: the first one there
    repository: Option<String>,
    /// the configuration file
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) const CREDENTIAL: &str = "webhook-secret";
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy is given to take up a new secret, and the time between two attempts.
const TAKE_UP: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// The secret and where it comes from.
pub(super) struct Known {
    secret: Secret,
    pub source: String,
    is_new: bool,
}

/// What the proxy answered.
struct Answer {
    status: u16,
    reason: String,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let flag = arguments.config.as_deref();
    let config = Config::load(flag)?;
    let repository = match &arguments.repository {
        Some(name) => Some(config.repository(name)?),
        None => config.repositories.first(),
    };
    let store = Store::of(&config);
    let installed = store.installed;
    let known = secret(&config, &store)?;
    let target = url(config.proxy.listen, WEBHOOK);
    print(&format!(
        "For the webhook's settings on the forge:\n\n  \
         Payload URL   {target}\n                \
         (as this host sees it; on the forge write the public host name of the funnel or reverse proxy)\n  \
         Content type  application/json\n  \
         Secret        {}\n  \
         Events        push and pull_request (others are answered and ignored)\n",
        known.source
    ));
    if known.is_new && !is_answered(config.proxy.listen) {
        print(&format!(
            "Nothing was sent: no proxy runs on {} yet; {}\nThen try the secret with: {}",
            config.proxy.listen,
            start_it(installed, flag),
            command_line("hub", "webhook-test", flag)
        ));
        return Ok(());
    }
    let (event, body) = match repository {
        Some(repository) => (
            "push",
            json!({
                "ref": format!("refs/heads/{}", repository.branch),
                "deleted": false,
                "repository": { "full_name": repository.full_name },
            }),
        ),
        None => ("ping", json!({ "zen": "A ping from hub webhook-test." })),
    };
    let delivery = format!("test-{}", random::id().map_err(Error::no_random)?);
    print(&format!("Sending a signed {event} to {target} ..."));
    let answer = deliver(&target, &known, event, &delivery, body.to_string().as_bytes());
    let answer = answer.map_err(|reason| Error::Delivery(format!("{reason}; {}", start_it(installed, flag))))?;
    match (answer.status, repository) {
        (202, Some(repository)) => {
            let next = match find_hold(&config.state_dir, &repository.name, flag) {
                Ok(None) => "gitops-sync looks at it now".to_owned(),
                Ok(Some(hold)) => hold,
                Err(error) => format!("gitops-sync looks at it now; whether it is on hold cannot be seen: {error}"),
            };
            print(&format!("202: accepted. {} is queued as delivery {delivery}; {next}", repository.name));
            Ok(())
        }
        (200, None) => {
            let hint = "Add a [[repository]] to hub.toml to have something to deploy (contrib/hub.toml shows how).";
            print(&format!("200: pong, the signature holds. {hint}"));
            Ok(())
        }
        _ => Err(Error::Delivery(refused(&answer, config.proxy.listen, installed, flag))),
    }
}

/// Whether somebody listens on the proxy's address.
fn is_answered(listen: SocketAddr) -> bool {
    TcpStream::connect_timeout(&reachable(listen), TIMEOUT).is_ok()
}

/// Whether the proxy's queue is full or cannot be written.
fn takes_nothing(listen: SocketAddr) -> bool {
    http::agent(TIMEOUT).get(url(listen, "/healthz")).call().is_ok_and(|answer| answer.status() == 503)
}

/// The secret in force, made where there is none.
pub(super) fn secret(config: &Config, store: &Store) -> Result<Known, Error> {
    let credentials = &store.credentials;
    let path = credentials.path(CREDENTIAL);
    let from_environment = std::env::var_os("GITHUB_WEBHOOK_SECRET").is_some_and(|value| !value.is_empty());
    let found = credentials.webhook_secrets()?;
    if let Some(secret) = found.into_iter().next() {
        let source = if from_environment {
            "the value of GITHUB_WEBHOOK_SECRET".to_owned()
        } else {
            format!("the first line of {}", path.display())
        };
        return Ok(Known { secret, source, is_new: false });
    }
    store.make(config, CREDENTIAL)?;
    let made = credentials.webhook_secrets()?.into_iter().next();
    let secret =
        made.ok_or_else(|| Error::Usage(format!("{} changed while it was made; try again", path.display())))?;
    Ok(Known { secret, source: format!("the content of {} (made just now, mode 0600)", path.display()), is_new: true })
}

/// Sends a delivery. A secret that has just been made may not have reached the proxy, so that it gets some time.
fn deliver(target: &str, known: &Known, event: &str, delivery: &str, body: &[u8]) -> Result<Answer, String> {
    let deadline = Instant::now() + TAKE_UP;
    loop {
        let outcome = post(target, &known.secret, event, delivery, body);
        let not_ready = match &outcome {
            Ok(answer) => answer.status == 503,
            Err(_) => true,
        };
        if !(not_ready && known.is_new) || Instant::now() >= deadline {
            return outcome;
        }
        std::thread::sleep(PAUSE);
    }
}

fn post(target: &str, secret: &Secret, event: &str, delivery: &str, body: &[u8]) -> Result<Answer, String> {
    let agent = http::agent(TIMEOUT);
    let request = agent
        .post(target)
        .header("Content-Type", "application/json")
        .header("X-GitHub-Event", event)
        .header("X-GitHub-Delivery", delivery)
        .header("X-Hub-Signature-256", sign(secret, body).map_err(|error| format!("cannot sign: {error}"))?);
    let mut response =
        request.send(body).map_err(|error| format!("{target} does not answer: {}", http::said(&error)))?;
    let text = response.body_mut().with_config().limit(64 << 10).read_to_string();
    let text = text.map_err(|error| format!("{target} broke off its answer: {}", http::said(&error)))?;
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let reason = json["reason"].as_str().map_or_else(|| "no reason given".to_owned(), str::to_owned);
    Ok(Answer { status: response.status().as_u16(), reason: crate::text::sentence(&reason) })
}

fn start_it(installed: bool, flag: Option<&Path>) -> String {
    if installed {
        "start the proxy with: systemctl enable --now proxy".to_owned()
    } else {
        format!("start it with: {}", command_line("hub", "up", flag))
    }
}

/// What to do about an answer that is no success.
fn refused(answer: &Answer, listen: SocketAddr, installed: bool, flag: Option<&Path>) -> String {
    // The proxy takes hub.toml and credentials by itself, within seconds; what it does not take it has refused.
    let look = if installed { "journalctl -u proxy -n 20".to_owned() } else { command_line("hub", "status", flag) };
    let advice = match answer.status {
        401 => format!("the running proxy has another secret; to see why it does not take this one: {look}"),
        404 => format!(
            "the running proxy has another configuration, or another program listens there; to see why it \
             does not take this one: {look}"
        ),
        503 if takes_nothing(listen) => {
            "the proxy's log has the reason (queue_failed); a restart does not help before that is fixed".to_owned()
        }
        503 => format!("the running proxy does not take the credentials that are there; to see why: {look}"),
        _ => "is it the proxy that listens there? Its log has more".to_owned(),
    };
    format!("{}: {}; {advice}", answer.status, answer.reason)
}
