use std::net::SocketAddr;
use std::path::Path;

use super::say;
use crate::config::{Config, Repository, reachable};
use crate::log;

/// The path that forges deliver to.
pub(super) const WEBHOOK: &str = "/api/webhook/gitops";

/// The URL of a path behind an address as this host reaches it.
pub(super) fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{}{path}", reachable(address))
}

/// How to call another command of this hub for the same state and configuration, from any terminal.
pub(super) fn command_line(command: &str, flag: Option<&Path>) -> String {
    let mut words = Vec::new();
    for name in ["HUB_STATE_DIR", "HUB_CONFIG", "PORT"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            words.push(format!("{name}={}", quoted(&value.to_string_lossy())));
        }
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "hub".into());
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("hub") == program));
    words.push(if on_path { "hub".to_owned() } else { quoted(&program.to_string_lossy()) });
    words.push(command.to_owned());
    if let Some(flag) = flag {
        let flag = std::path::absolute(flag).unwrap_or_else(|_| flag.to_owned());
        words.push(format!("--config {}", quoted(&flag.to_string_lossy())));
    }
    words.join(" ")
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
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
    let next = command_line("webhook-test", flag);
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
    say(&format!(
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
    fn words_survive_a_shell() {
        for (word, expected) in
            [("/srv/hub", "/srv/hub"), ("/srv/my hub", "'/srv/my hub'"), ("", "''"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }

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
