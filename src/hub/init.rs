use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::credential::Store;
use super::greeting::as_root;
use super::webhook_test;
use crate::config::{self, Config};
use crate::gitops::check::check_access;
use crate::hint::command_line;
use crate::program::print;
use crate::state::{self, Folder};

/// Write the first configuration. It asks on a terminal for what the flags leave out, looks at the branch once as the user that
/// will fetch it, makes the webhook secret, and shows the next command.
#[derive(argh::ArgsInfo, argh::FromArgs)]
#[argh(
    subcommand,
    name = "init",
    note = "A configuration that has a key already is never changed, and nothing is written where the branch cannot be read.",
    example = "hub init\nhub init --repository acme/infra --path /srv/infra --branch live\n\
               hub init --user --repository https://git.example.org/acme/site.git",
    error_code(1, "The branch cannot be read, or there is a configuration already.")
)]
pub(super) struct Arguments {
    /// for hub up of this user: ~/.config/observability-hub/hub.toml
    #[argh(switch)]
    user: bool,
    /// the file to write; default: /etc/observability-hub/hub.toml
    #[argh(option, arg_name = "PATH")]
    config: Option<PathBuf>,
    /// owner/name on GitHub, or the URL of any other remote
    #[argh(option, arg_name = "NAME")]
    repository: Option<String>,
    /// owner/name as the forge sends it, where the URL does not end in it
    #[argh(option, arg_name = "NAME")]
    name: Option<String>,
    /// the branch to deploy; default: main
    #[argh(option, arg_name = "BRANCH")]
    branch: Option<String>,
    /// the checkout that is kept in sync; default: /srv/NAME, with --user ~/NAME
    #[argh(option, arg_name = "FOLDER")]
    path: Option<String>,
    /// folder of unit files in the repository; default: systemd, "" for none
    #[argh(option, arg_name = "FOLDER")]
    units: Option<String>,
    /// where unit files are installed; default: /etc/systemd/system
    #[argh(option, arg_name = "FOLDER")]
    units_dir: Option<String>,
    /// postgres://… without a password; default: SQLite in the state folder
    #[argh(option, arg_name = "URL")]
    database: Option<String>,
}

/// What the file will say; none is a default.
struct Answers {
    name: String,
    url: String,
    path: String,
    branch: Option<String>,
    units: Option<String>,
    units_dir: Option<String>,
    database: Option<String>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Error> {
    let path = target(arguments)?;
    let before = unused(&path)?;
    let answers = ask(arguments)?;
    // The folder of the installed services is not this user's to write.
    let is_taken = arguments.user && Path::new(state::SYSTEM_ROOT).exists();
    let own = is_taken.then(state::users_root).transpose()?;
    let text = before + &answers.text(own.as_deref());
    let config = Config::of_text(&path, &text).map_err(answered)?;
    let repository = config.repositories.last().ok_or_else(|| Error::Usage("no repository was given".to_owned()))?;
    print(&format!("Looking at {} of {} ...", repository.branch, repository.remote.url()));
    check_access(&config, repository).map_err(|error| Error::Init(format!("{error}; nothing was written")))?;

    let (Some(folder), Some(file)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::Usage(format!("{} is no file that can be written", path.display())));
    };
    Folder::open_or_make(folder, 0o755)?.publish(file, text.as_bytes(), 0o644)?;
    let store = Store::of(&config);
    let known = webhook_test::secret(&config, &store)?;
    // Every command reads the file that HUB_CONFIG names, unless a flag names this one.
    let named = std::env::var_os("HUB_CONFIG").filter(|named| !named.is_empty());
    let is_elsewhere = named.is_some_and(|named| Path::new(&named) != path);
    let flag = arguments.config.as_deref().or_else(|| is_elsewhere.then_some(path.as_path()));
    let start = if store.installed && arguments.config.is_none() {
        "systemctl enable --now proxy gitops-sync.path gitops-sync.timer".to_owned()
    } else {
        command_line("hub", "up", flag)
    };
    print(&format!(
        "Wrote {}; the webhook secret is {}.\n\nNext:\n\n  {start}\n\nand for the settings of the webhook on the forge:\n\n  {}\n",
        path.display(),
        known.source,
        command_line("hub", "webhook-test", flag)
    ));
    Ok(())
}

/// What is wrong with an answer, without a line of a file that nobody has written.
fn answered(error: config::Error) -> Error {
    match error {
        config::Error::Line { key, reason, .. } if !key.is_empty() => {
            let key = key.rsplit("].").next().unwrap_or(&key);
            Error::Usage(format!("{key}: {reason}; nothing was written"))
        }
        error => Error::Config(error),
    }
}

/// The file to write.
fn target(arguments: &Arguments) -> Result<PathBuf, Error> {
    let is_root = rustix::process::geteuid().is_root();
    match (&arguments.config, arguments.user) {
        (Some(_), true) => Err(Error::Usage("--config and --user name two files; leave one of them out".to_owned())),
        (Some(path), false) => {
            std::path::absolute(path).map_err(|source| Error::System { act: "find the current folder", source })
        }
        (None, true) if is_root => {
            Err(Error::Usage(format!("root's configuration is {}; leave --user out", config::DEFAULT_PATH)))
        }
        (None, true) => config::user_path().ok_or_else(|| Error::Usage("there is no HOME to write to".to_owned())),
        (None, false) if is_root => Ok(config::DEFAULT_PATH.into()),
        (None, false) => Err(Error::Usage(format!(
            "{} is root's: {}; or write one of your own for hub up: hub init --user",
            config::DEFAULT_PATH,
            as_root()
        ))),
    }
}

/// What the file has already, if that is nothing but comments.
fn unused(path: &Path) -> Result<String, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(source) => return Err(Error::Config(config::Error::Read { path: path.to_owned(), source })),
    };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(text.trim_end().to_owned() + "\n\n");
    }
    Err(Error::Init(format!(
        "{} is there already and is not changed; write one more [[repository]] into it, or name another file with --config",
        path.display()
    )))
}

fn ask(arguments: &Arguments) -> Result<Answers, Error> {
    let is_terminal = std::io::stdin().is_terminal();
    if arguments.repository.is_none() && !is_terminal {
        return Err(Error::Usage(
            "--repository is needed where nobody can be asked: --repository acme/infra".to_owned(),
        ));
    }
    // Flags are enough for a script; a person who gave none is asked for all.
    let asks = arguments.repository.is_none();
    let answer = |given: &Option<String>, question: &str, default: &str| -> Result<String, Error> {
        match given {
            Some(given) => Ok(given.clone()),
            None if asks => question_for(question, default),
            None => Ok(default.to_owned()),
        }
    };
    let remote = answer(&arguments.repository, "Repository (owner/name on GitHub, or a URL)", "")?;
    let is_url = remote.contains(':') || remote.starts_with('/');
    let url = if is_url { remote.clone() } else { format!("https://github.com/{remote}.git") };
    let named = if is_url { name_in(&remote) } else { remote };
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None if is_url => answer(&None, "Its owner/name, as the forge sends it", &named)?,
        None => named,
    };
    let last = name.rsplit('/').next().unwrap_or(&name);
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = if arguments.user { format!("{home}/{last}") } else { format!("/srv/{last}") };
    let branch = answer(&arguments.branch, "Branch", "main")?;
    let path = answer(&arguments.path, "Folder of the checkout", &folder)?;
    let units = answer(&arguments.units, "Folder of unit files in it (- for none)", "systemd")?;
    let units_dir = match (&arguments.units_dir, units.as_str()) {
        (None, "" | "-") => UNITS_DIR.to_owned(),
        (given, _) => answer(given, "Where unit files are installed", UNITS_DIR)?,
    };
    let database = answer(&arguments.database, "Database (postgres://… without a password, or sqlite:FILE)", SQLITE)?;
    if has_password(&database) {
        let reason = "the database's URL has a password, and hub.toml is no secret; leave it out here, and write the URL into the \
                      credential database-url: a file of mode 0600 in /etc/credstore, or in credentials/ of the state folder";
        return Err(Error::Usage(reason.to_owned()));
    }
    let other = |value: String, default: &str| Some(value).filter(|value| value != default);
    Ok(Answers {
        url,
        name,
        path,
        branch: other(branch, "main"),
        units: other(units, "systemd").map(|units| if units == "-" { String::new() } else { units }),
        units_dir: other(units_dir, UNITS_DIR),
        database: other(database, SQLITE),
    })
}

const UNITS_DIR: &str = "/etc/systemd/system";
const SQLITE: &str = "sqlite:hub.db";

/// Asks until there is an answer; an empty one is the default.
fn question_for(question: &str, default: &str) -> Result<String, Error> {
    let failed = |source| Error::System { act: "ask on the terminal", source };
    loop {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let mut stderr = std::io::stderr();
        write!(stderr, "{question}{shown}: ").and_then(|()| stderr.flush()).map_err(failed)?;
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).map_err(failed)? == 0 {
            return Err(Error::Usage("the answers ended before the questions; nothing was written".to_owned()));
        }
        match line.trim() {
            "" if default.is_empty() => {}
            "" => return Ok(default.to_owned()),
            answer => return Ok(answer.to_owned()),
        }
    }
}

/// What a forge calls the repository at a URL, such as `https://git.example.org/acme/site.git` or `git@host:acme/site.git`: the
/// last two parts of its path, on a GitLab all of them.
fn name_in(url: &str) -> String {
    let url = url.trim_end_matches('/').trim_end_matches(".git");
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or(("", rest)),
        None => url.split_once(':').unwrap_or(("", url)),
    };
    if crate::forge::has_groups(host) {
        return path.trim_matches('/').to_owned();
    }
    let mut parts = path.rsplit('/');
    let (name, owner) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{owner}/{name}")
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest));
    let query = url.split_once('?').map_or("", |(_, query)| query);
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || query.contains("password=")
}

impl Answers {
    /// The file, with a comment for each key; what is a default is left out.
    fn text(&self, state_dir: Option<&Path>) -> String {
        let mut lines = vec![
            "# Written by hub init. What is not here has its default; contrib/hub.toml shows every key.".to_owned(),
        ];
        lines.extend(state_dir.map(|folder| format!("state_dir = {:?}", folder.display().to_string())));
        if let Some(url) = &self.database {
            lines.push(format!("\n[database]\nurl = {url:?}"));
        }
        if let Some(folder) = &self.units_dir {
            lines.push(format!("\n[gitops]\nunits_dir = {folder:?}  # where unit files are installed"));
        }
        lines.push("\n[[repository]]".to_owned());
        lines.push(format!("name = {:?}  # owner/name as the forge sends it", self.name));
        lines.push(format!("url = {:?}", self.url));
        lines.push(format!("path = {:?}  # the checkout that is kept in sync", self.path));
        if let Some(branch) = &self.branch {
            lines.push(format!("branch = {branch:?}"));
        }
        if let Some(units) = &self.units {
            lines.push(format!("units = {units:?}  # folder of unit files in the repository; \"\" for none"));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_the_url_ends_in() {
        for (url, name) in [
            ("https://git.example.org/acme/site.git", "acme/site"),
            ("git@git.example.org:acme/site.git", "acme/site"),
            ("ssh://git@git.example.org:2222/acme/site/", "acme/site"),
            ("/srv/git/acme/site.git", "acme/site"),
            ("https://gitlab.com/acme/ops/site.git", "acme/ops/site"),
            ("git@gitlab.example.org:acme/ops/site.git", "acme/ops/site"),
            ("https://git.example.org/forge/acme/site", "acme/site"),
        ] {
            assert_eq!(name_in(url), name);
        }
    }

    #[test]
    fn a_password_is_found_in_a_url() {
        for (url, has) in [
            ("postgres://hub:secret@db/m", true),
            ("postgres://hub@db/m?password=x", true),
            ("postgres://hub@db:5432/m", false),
            ("sqlite:hub.db", false),
        ] {
            assert_eq!(has_password(url), has, "{url}");
        }
    }
}
