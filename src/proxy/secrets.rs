use super::admin::Token;
use crate::config::{self, Config, Credentials, Secret};

/// Secrets, read and checked.
pub(super) struct Secrets {
    pub credentials: Credentials,
    pub webhook: Vec<Secret>,
    pub token: Option<Token>,
}

pub(super) fn secrets(config: &Config) -> Result<Secrets, config::Error> {
    let credentials = config.credentials();
    let webhook = credentials.webhook_secrets()?;
    let wrong = |reason: String| config::Error::Credential { name: "admin-token".to_owned(), reason };
    let token = credentials.admin_token()?.map(|secret| Token::new(&secret)).transpose();
    let token = token.map_err(|error| wrong(error.to_string()))?;
    let address = config.proxy.admin_listen;
    if token.is_none() && config::is_exposed(address) {
        let reason = format!(
            "is missing, and proxy.admin_listen = \"{address}\" is not a loopback address: \
             put a token into {}, or listen on 127.0.0.1",
            credentials.path("admin-token").display()
        );
        return Err(wrong(reason));
    }
    Ok(Secrets { credentials, webhook, token })
}
