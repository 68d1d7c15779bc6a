//! The public routes: a greeting, a health check and the webhook. Everything a stranger can reach is here.

use std::sync::{Arc, PoisonError, RwLock};

use rouille::{Request, Response};
use serde_json::json;

use super::answer;
use super::deliveries::Deliveries;
use super::listener::{Admission, Head, Length, Site};
use crate::config::{Credentials, Repository, Secret};
use crate::forge::event::{self, Event};
use crate::forge::signature::Claim;
use crate::log;
use crate::records::ASKS_ITSELF;
use crate::webhook::delivery_id;
use crate::webhook::queue::Queue;

const WEBHOOK: &str = "/api/webhook/gitops";

/// The site behind `proxy.listen`.
pub(super) struct Public {
    pub repositories: Vec<Repository>,
    pub max_body: u64,
    pub secrets: Arc<WebhookSecrets>,
    pub queue: Arc<Queue>,
    pub deliveries: Arc<Deliveries>,
    pub instance: String,
}

/// The webhook secrets. Where there are none they are looked for again at each delivery, so that a first one need not
/// wait until its file rests.
pub(super) struct WebhookSecrets {
    credentials: Credentials,
    known: RwLock<Arc<[Secret]>>,
}

impl WebhookSecrets {
    pub fn new(credentials: Credentials, known: Vec<Secret>) -> Self {
        Self { credentials, known: RwLock::new(known.into()) }
    }

    /// The secrets.
    ///
    /// # Errors
    /// The refusal of a delivery, where there is none or it cannot be used.
    fn get(&self) -> Result<Arc<[Secret]>, Refusal> {
        let known = Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        if !known.is_empty() {
            return Ok(known);
        }
        let found = self
            .credentials
            .webhook_secrets()
            // The cause names a path of this host, and the asker may be anybody.
            .map_err(|_| refuse(503, "the webhook secret cannot be used; proxy --check shows why"))?;
        if found.is_empty() {
            return Err(refuse(503, "no webhook secret is configured; make one with: hub webhook-test"));
        }
        let found: Arc<[Secret]> = found.into();
        log::info!("secret_found", secrets = found.len());
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&found);
        Ok(found)
    }

    /// Why no delivery can be verified; none where they can.
    pub fn trouble(&self) -> Option<String> {
        self.get().err().map(|refusal| refusal.reason)
    }
}

/// A delivery that is not taken.
struct Refusal {
    status: u16,
    reason: String,
}

fn refuse(status: u16, reason: impl ToString) -> Refusal {
    Refusal { status, reason: reason.to_string() }
}

impl Site for Public {
    fn admit(&self, head: &Head) -> Admission {
        match (head.path(), head.method.as_str()) {
            ("/" | "/healthz", method) if answer::reads(method) => Admission::NoBody,
            ("/" | "/healthz", _) => Admission::Answer(answer::method_not_allowed("GET, HEAD")),
            (WEBHOOK, "POST") => match self.admit_delivery(head) {
                Ok(()) => Admission::Body { limit: self.max_body },
                // An empty body is nobody's delivery: gate and hub status ask so whether one would be taken.
                Err(refusal) if matches!(head.length, Length::Known(0)) => {
                    Admission::Answer(answer::error(refusal.status, &refusal.reason))
                }
                Err(refusal) => Admission::Answer(self.refused(&refusal)),
            },
            (WEBHOOK, _) => Admission::Answer(answer::method_not_allowed("POST")),
            _ => Admission::Answer(answer::not_found()),
        }
    }

    /// A stranger can say so too, and is then counted there.
    fn is_own(&self, head: &Head) -> bool {
        let is_question = match head.path() {
            "/healthz" => true,
            WEBHOOK => matches!(head.length, Length::Known(0)),
            _ => false,
        };
        is_question && head.values("user-agent").any(|agent| agent == ASKS_ITSELF)
    }

    fn answer(&self, request: &Request, body: &[u8]) -> Response {
        let path = request.raw_url().split('?').next().unwrap_or_default();
        match path {
            "/" => answer::json(200, &json!({"message": "Welcome to the Observability Hub."})),
            "/healthz" => self.health(),
            WEBHOOK => self.take(request, body).unwrap_or_else(|refusal| self.refused(&refusal)),
            _ => answer::not_found(),
        }
    }
}

impl Public {
    fn health(&self) -> Response {
        match self.queue.check() {
            Ok(()) => answer::json(200, &json!({"status": "ok", "instance": self.instance})),
            // The cause names a path of this host: it goes to the admin listener and not to the internet.
            Err(_) => {
                let reason = "the queue does not take deliveries";
                answer::json(503, &json!({"status": "error", "reason": reason, "instance": self.instance}))
            }
        }
    }

    /// What can be told before the body is read: length, type, secret, the signature's form.
    fn admit_delivery(&self, head: &Head) -> Result<(), Refusal> {
        match head.length {
            Length::Known(length) if length <= self.max_body => {}
            Length::Known(_) => return Err(refuse(413, format!("the body is longer than {} bytes", self.max_body))),
            Length::None | Length::Chunked => return Err(refuse(411, "Content-Length is needed")),
        }
        let mut types = head.values("content-type");
        let (first, second) = (types.next().unwrap_or_default(), types.next());
        let media_type = first.split(';').next().unwrap_or_default().trim();
        if second.is_some() || !media_type.eq_ignore_ascii_case("application/json") {
            let reason = "the body is not JSON; choose application/json as the webhook's content type on the forge";
            return Err(refuse(415, reason));
        }
        self.secrets.get()?;
        let headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Claim::read(&headers).map(drop).map_err(|error| refuse(401, error))
    }

    fn take(&self, request: &Request, body: &[u8]) -> Result<Response, Refusal> {
        let secrets = self.secrets.get()?;
        let headers: Vec<_> = request.headers().collect();
        let claim = Claim::read(&headers).map_err(|error| refuse(401, error))?;
        claim.verify(&secrets, body).map_err(|error| refuse(401, error))?;
        let name = claim.forge.event(&headers);
        let event = Event::read(claim.forge, name, body).map_err(|error| refuse(400, error))?;
        let name = event::shown(name.unwrap_or_default());
        let delivery = delivery_id(claim.forge.delivery(&headers))
            .map_err(|error| refuse(503, format!("the system gives no random bytes: {error}")))?;
        if event == Event::Ping {
            self.deliveries.pong(&delivery);
            return Ok(answer::json(200, &json!({"status": "pong", "reason": "the signature holds"})));
        }
        let ignored = |reason: &str| {
            self.deliveries.ignored(&delivery, &name, reason);
            Ok(answer::json(200, &json!({"status": "ignored", "reason": reason})))
        };
        let Some(repository) = event.repository() else {
            return ignored(&event.ignored(&[]).unwrap_or_default());
        };
        let called: Vec<&Repository> = self.repositories.iter().filter(|known| known.is_called(repository)).collect();
        if called.is_empty() {
            let reason = format!("{} is not a configured repository; hub.toml names them", event::shown(repository));
            return Err(refuse(404, reason));
        }
        // Of several with one name each has another branch.
        let Some(configured) = called.iter().find(|known| event.ignored(&[&known.branch]).is_none()) else {
            let branches: Vec<&str> = called.iter().map(|known| known.branch.as_str()).collect();
            return ignored(&event.ignored(&branches).unwrap_or_default());
        };
        if let Err(error) = self.queue.push(&configured.name, &delivery, event.after(&configured.branch)) {
            log::error!("queue_failed", repo = configured.name, delivery = delivery, error = error.to_string());
            return Err(refuse(503, "the queue does not take the delivery; redeliver it later"));
        }
        self.deliveries.queued(&configured.name, &delivery, &name);
        let reason = format!("{} will be synced", configured.name);
        let body = json!({"status": "queued", "reason": reason, "repo": configured.name, "delivery": delivery});
        Ok(answer::json(202, &body))
    }

    fn refused(&self, refusal: &Refusal) -> Response {
        self.deliveries.refused(refusal.status, &refusal.reason);
        answer::error(refusal.status, &refusal.reason)
    }
}
