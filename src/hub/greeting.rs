use std::net::SocketAddr;
use std::path::Path;

use crate::config::{Config, Repository, reachable};
use crate::hint::{command_line, quoted};
use crate::log;
use crate::program::print;

/// The path that forges deliver to.
pub(super) const WEBHOOK: &str = "/api/webhook/gitops";

/// The URL of a path behind an address as this host reaches it.
pub(super) fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{}{path}", reachable(address))
}

/// This command once more, as root.
pub(super) fn as_root() -> String {
    let words = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
    format!("sudo hub {}", words.collect::<Vec<_>>().join(" "))
}

/// Tells where to point a webhook and what to type next: a person in words, a program in one line.
pub(super) fn greet(config: &Config, flag: Option<&Path>) {
    let file = Config::file_path(flag);
    let file = std::path::absolute(&file).unwrap_or(file);
    let webhook = url(config.proxy.listen, WEBHOOK);
    let status_page = url(config.proxy.admin_listen, "/");
    let secret = config.credentials().webhook_secrets().is_ok_and(|secrets| !secrets.is_empty());
    let next = command_line("hub", "webhook-test", flag);
    if !log::is_for_people() {
        log::info!(
            "up",
            webhook = webhook,
            status_page = status_page,
            state_dir = config.state_dir.display().to_string(),
            config = file.display().to_string(),
            config_exists = config.path.is_some(),
            repositories = config.repositories.iter().map(|repository| &repository.name).collect::<Vec<_>>(),
            webhook_secret = secret,
            next = next
        );
        return;
    }
    let absent = if config.path.is_some() { "" } else { " (not there yet: the defaults are in force)" };
    let purpose = if secret { "send a signed test delivery" } else { "make the webhook secret and try it" };
    print(&format!(
        "Observability Hub is up; Ctrl-C stops it.\n\n  \
         Webhook URL    {webhook}\n  \
         Status page    {status_page}\n  \
         State folder   {}\n  \
         Configuration  {}{absent}\n  \
         Repositories   {}\n\n\
         Next, in another terminal, {purpose}:\n\n  \
         {next}\n",
        config.state_dir.display(),
        file.display(),
        repositories(&config.repositories),
    ));
}

fn repositories(repositories: &[Repository]) -> String {
    if repositories.is_empty() {
        return "none yet; add a [[repository]] to the configuration (contrib/hub.toml shows how)".to_owned();
    }
    let lines = repositories.iter().map(|one| format!("{} ({}) in {}", one.name, one.branch, one.path.display()));
    lines.collect::<Vec<_>>().join("\n                 ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_reached_through_loopback() {
        for (address, expected) in [
            ("127.0.0.1:8085", "http://127.0.0.1:8085/"),
            ("0.0.0.0:80", "http://127.0.0.1:80/"),
            ("[::]:8085", "http://[::1]:8085/"),
            ("192.0.2.7:1", "http://192.0.2.7:1/"),
        ] {
            assert_eq!(url(address.parse().unwrap(), "/"), expected);
        }
    }
}
