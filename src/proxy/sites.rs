//! The two sites, as a configuration wants them, from what lives as long as the process.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::admin::Admin;
use super::deliveries::Deliveries;
use super::listener::{Counters, ListenerLimits, Site};
use super::public::{self, Public};
use super::reader::Readers;
use super::secrets::Secrets;
use super::status::Sources;
use super::sync::Syncs;
use crate::config::{Config, Refused};
use crate::log;
use crate::records::Found;
use crate::state::{Error, Folder};
use crate::webhook::queue::Queue;

/// Connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 32;
const ADMIN_BODY_MEMORY: usize = 64 << 10;

/// What the sites share, whatever the configuration is.
pub(super) struct Shared {
    pub queue: Arc<Queue>,
    pub deliveries: Arc<Deliveries>,
    pub syncs: Arc<Syncs>,
    pub readers: Arc<Readers>,
    /// Of the public listener and the admin listener.
    pub counters: [Arc<Counters>; 2],
    pub holders: Arc<AtomicUsize>,
    pub instance: String,
    pub started: jiff::Timestamp,
    /// Why the configuration on the disk is not in force.
    pub refused: Arc<Mutex<Option<Refused>>>,
}

/// What one listener serves.
pub(super) struct Served {
    pub limits: ListenerLimits,
    pub site: Arc<dyn Site>,
}

impl Shared {
    /// The public site and the admin site.
    ///
    /// # Errors
    /// When the state folder cannot be opened.
    pub fn sites(&self, config: &Config, secrets: Secrets) -> Result<[Served; 2], Error> {
        if secrets.webhook.is_empty() {
            log::warn!(
                "secret_missing",
                reason = "no webhook secret: deliveries get 503 until the credential webhook-secret is there"
            );
        }
        let webhook = Arc::new(public::WebhookSecrets::new(secrets.credentials, secrets.webhook));
        let [public, admin] = &self.counters;
        let admin = Admin {
            syncs: Arc::clone(&self.syncs),
            readers: Arc::clone(&self.readers),
            hosts: config.proxy.admin_hosts.clone(),
            token: secrets.token,
            sources: Sources {
                root: Found::There(Folder::open(&config.state_dir)?),
                config: config.clone(),
                secrets: Arc::clone(&webhook),
                queue: Arc::clone(&self.queue),
                deliveries: Arc::clone(&self.deliveries),
                public: Arc::clone(public),
                admin: Arc::clone(admin),
                holders: Arc::clone(&self.holders),
                refused: Arc::clone(&self.refused),
                instance: self.instance.clone(),
                started: self.started,
            },
        };
        let public = Public {
            repositories: config.repositories.clone(),
            max_body: config.proxy.max_body,
            secrets: webhook,
            queue: Arc::clone(&self.queue),
            deliveries: Arc::clone(&self.deliveries),
            instance: self.instance.clone(),
        };
        let defaults = ListenerLimits::default();
        // A quarter of it is kept from large bodies, and the largest has to fit.
        let largest = usize::try_from(config.proxy.max_body).unwrap_or(usize::MAX).div_ceil(3).saturating_mul(4);
        let public_limits = ListenerLimits { body_memory: defaults.body_memory.max(largest), ..defaults.clone() };
        let admin_limits =
            ListenerLimits { connections: ADMIN_CONNECTIONS, body_memory: ADMIN_BODY_MEMORY, ..defaults };
        Ok([
            Served { limits: public_limits, site: Arc::new(public) },
            Served { limits: admin_limits, site: Arc::new(admin) },
        ])
    }

    /// Shows why the configuration on the disk is not in force.
    pub fn set_refused(&self, reason: Option<Refused>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}
