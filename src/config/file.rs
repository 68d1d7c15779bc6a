use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;
use toml::Spanned;

use super::repository::Guard;
use super::values::{AbsolutePath, Address, FetchMax, Minutes, Port, Size, Socket};
use super::{
    Database, DatabaseUrl, Error, Gate, Gitops, Limits, Metrics, Notify, Pipeline, Proxy, Repository, limits, names,
    notify, pipeline, repository, wording,
};
use crate::state;

/// A configuration is a page or two; whatever is longer is a mistake.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads the file; none where it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    // A FIFO would keep the program waiting for its writer.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(nonblocking).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let untrusted = |reason: &str| Err(Error::Untrusted { path: path.to_owned(), reason: reason.to_owned() });
    if !metadata.is_file() {
        return untrusted("is not a regular file; --config takes the path of hub.toml");
    }
    if metadata.len() > LONGEST_FILE {
        return untrusted("is longer than 1 MiB; that is no configuration of the hub");
    }
    if rustix::process::geteuid().is_root() {
        if metadata.uid() != 0 {
            return untrusted("does not belong to root, and root obeys it; run: chown root: FILE");
        }
        if metadata.mode() & 0o022 != 0 {
            return untrusted("can be written by group or others, and root obeys it; run: chmod go-w FILE");
        }
        // Who can write a folder on the way can put another file of root's in this one's place.
        state::require_roots(path).map_err(|error| match error {
            state::Error::Untrusted { path, reason } => Error::Untrusted { path, reason },
            other => Error::State(other.to_string()),
        })?;
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::Line { path: path.to_owned(), line, key: String::new(), reason: "is not UTF-8".to_owned() }
    })
}

/// Parses the text of a file; `path` is for messages.
pub(super) fn parse(path: &Path, text: &str) -> Result<Parsed, Error> {
    let at = |span: Option<std::ops::Range<usize>>, key: String, reason: String| Error::Line {
        path: path.to_owned(),
        line: line_of(text, span.map_or(0, |span| span.start)),
        key,
        reason,
    };
    let document = toml::Deserializer::parse(text)
        .map_err(|error| at(error.span(), String::new(), format!("not TOML: {}", error.message())))?;
    let content: Content = serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string().replace(".$__serde_spanned_private_value", "");
        let inner = error.inner();
        let key = if key == "." { String::new() } else { key };
        let reason = wording::reason(&key, inner.message());
        at(inner.span(), key, reason)
    })?;
    Ok(Parsed {
        path: path.to_owned(),
        text: text.to_owned(),
        state_dir: content.state_dir.clone().map(|p| p.0),
        content,
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A parsed file, its places still known.
pub(super) struct Parsed {
    path: PathBuf,
    text: String,
    pub(super) state_dir: Option<PathBuf>,
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Content {
    state_dir: Option<AbsolutePath>,
    proxy: ProxySection,
    database: DatabaseSection,
    gitops: GitopsSection,
    repository: Vec<Spanned<repository::Section>>,
    gate: GateSection,
    metrics: MetricsSection,
    pipeline: Vec<Spanned<pipeline::Section>>,
    notify: notify::Section,
    limits: limits::Section,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ProxySection {
    listen: Option<Address>,
    admin_listen: Option<Spanned<Address>>,
    max_body: Option<Size>,
    admin_hosts: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct DatabaseSection {
    url: Option<DatabaseUrl>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct GitopsSection {
    units_dir: Option<AbsolutePath>,
    known_hosts: Option<AbsolutePath>,
    fetch_timeout_seconds: Option<std::num::NonZeroU32>,
    command_timeout_seconds: Option<std::num::NonZeroU32>,
    fetch_max: Option<FetchMax>,
    poll_minutes: Option<Minutes>,
    guard: Option<Vec<Guard>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct GateSection {
    port: Option<Port>,
    socket: Option<Socket>,
}

/// Two years.
const HOURLY_DAYS: u32 = 730;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct MetricsSection {
    retention_days: Option<u32>,
    hourly_days: Option<u32>,
}

impl Parsed {
    pub(super) fn proxy(&self) -> Result<Proxy, Error> {
        let section = &self.content.proxy;
        let address = |address: Option<Address>, default| address.map_or(([127, 0, 0, 1], default).into(), |a| a.0);
        let admin = section.admin_listen.as_ref();
        let proxy = Proxy {
            listen: address(section.listen, 8085),
            admin_listen: address(admin.map(|spanned| *spanned.get_ref()), 8086),
            max_body: section.max_body.map_or(3 << 20, |size| size.0),
            admin_hosts: section.admin_hosts.clone(),
        };
        if let Some(reason) = proxy.clash("proxy.listen", proxy.admin_listen) {
            return Err(self.at(admin.map_or(0, |spanned| spanned.span().start), "proxy.admin_listen".into(), reason));
        }
        Ok(proxy)
    }

    pub(super) fn database(&self) -> Database {
        Database { url: self.content.database.url.clone().unwrap_or_default() }
    }

    pub(super) fn gitops(&self) -> Gitops {
        let section = &self.content.gitops;
        let path =
            |value: &Option<AbsolutePath>, default: &str| value.clone().map_or_else(|| default.into(), |path| path.0);
        let seconds = |value: Option<std::num::NonZeroU32>, default| value.map_or(default, |n| u64::from(n.get()));
        Gitops {
            units_dir: path(&section.units_dir, "/etc/systemd/system"),
            known_hosts: path(&section.known_hosts, "/etc/observability-hub/known_hosts"),
            fetch_timeout_seconds: seconds(section.fetch_timeout_seconds, 300),
            command_timeout_seconds: seconds(section.command_timeout_seconds, 900),
            fetch_max: section.fetch_max.map_or(1 << 30, |size| size.0),
            guard: section.guard.clone().unwrap_or_else(|| Guard::ALL.to_vec()),
        }
    }

    pub(super) fn gate(&self) -> Gate {
        let section = &self.content.gate;
        Gate {
            port: section.port.map_or(8443, |port| port.0),
            socket: section.socket.clone().and_then(|socket| socket.0),
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        let section = &self.content.metrics;
        Metrics { retention_days: section.retention_days, hourly_days: section.hourly_days.unwrap_or(HOURLY_DAYS) }
    }

    pub(super) fn limits(&self) -> Limits {
        self.content.limits.read()
    }

    pub(super) fn notify(&self) -> Notify {
        self.content.notify.read()
    }

    pub(super) fn pipelines(&self) -> Result<Vec<Pipeline>, Error> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut pipelines = Vec::new();
        for (index, spanned) in self.content.pipeline.iter().enumerate() {
            let section = spanned.get_ref();
            if let Some(earlier) = first.insert(&section.name.0, spanned.span().start) {
                let reason =
                    format!("{:?} is the name of the pipeline in line {} too", section.name.0, self.line(earlier));
                return Err(self.at(spanned.span().start, format!("pipeline[{index}].name"), reason));
            }
            let start = spanned.span().start;
            let wrong = |(key, reason)| self.at(start, format!("pipeline[{index}].{key}"), reason);
            let pipeline = section.check().map_err(wrong)?;
            let (table, days) = (&pipeline.table, pipeline.retention_days);
            let other =
                pipelines.iter().find(|other: &&Pipeline| other.table == *table && other.retention_days != days);
            if let Some(other) = other {
                let line = self.line(first.get(other.name.as_str()).copied().unwrap_or(0));
                let theirs = other.retention_days;
                let reason = format!(
                    "is {days}, and the pipeline in line {line} fills the same table with {theirs}; write one number"
                );
                return Err(wrong(("retention_days", reason)));
            }
            if let Some(reason) = pipelines.iter().find_map(|other| super::tables::clash(&pipeline.table, &other.table))
            {
                return Err(wrong(("table", reason)));
            }
            pipelines.push(pipeline);
        }
        Ok(pipelines)
    }

    pub(super) fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let (mut repositories, mut lines, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (index, spanned) in self.content.repository.iter().enumerate() {
            let start = spanned.span().start;
            let at = |(key, reason)| self.at(start, format!("repository[{index}].{key}"), reason);
            repositories.push(spanned.get_ref().check(self.content.gitops.poll_minutes).map_err(at)?);
            lines.push(self.line(start));
            places.extend(repositories.last().map(names::Place::of));
            names::check(&repositories, &lines, &places).map_err(at)?;
        }
        names::check_former(&repositories, &lines).map_err(|(index, reason)| {
            let start = self.content.repository[index].span().start;
            self.at(start, format!("repository[{index}].formerly"), reason)
        })?;
        Ok(repositories)
    }

    fn line(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }

    fn at(&self, offset: usize, key: String, reason: String) -> Error {
        Error::Line { path: self.path.clone(), line: self.line(offset), key, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: &str =
        "[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/git/infra.git\"\npath = \"/srv/infra\"\n";

    fn error(text: &str) -> String {
        let parsed = parse(Path::new("hub.toml"), text);
        let checked = parsed.and_then(|file| {
            file.proxy()?;
            file.pipelines()?;
            file.repositories().map(|_| ())
        });
        checked.expect_err("the text is wrong").to_string()
    }

    #[test]
    fn every_error_names_line_key_and_what_would_be_right() {
        for (text, expected) in [
            ("[proxy]\nlistem = \"x\"", "hub.toml:2: proxy.listem: unknown field `listem`, expected one of `listen`"),
            ("[prox]\n", "hub.toml:1: prox: unknown field `prox`, expected one of"),
            (
                "[proxy]\n\nlisten = 8085",
                "hub.toml:3: proxy.listen: is the number 8085; write text in quotes, such as \"127.0.0.1:8085\"",
            ),
            ("[proxy]\nlisten = \"localhost\"", "hub.toml:2: proxy.listen: \"localhost\" is not an address"),
            (
                "[proxy]\nadmin_listen = \"127.0.0.1:8085\"",
                "hub.toml:2: proxy.admin_listen: 127.0.0.1:8085 reaches proxy.listen too",
            ),
            (
                "[proxy]\nadmin_listen = \"[::]:8085\"",
                "hub.toml:2: proxy.admin_listen: [::]:8085 reaches proxy.listen too",
            ),
            (
                "[proxy]\nlisten = \"0.0.0.0:80\"\nadmin_listen = \"127.0.0.1:80\"",
                "hub.toml:3: proxy.admin_listen: 127.0.0.1:80 reaches proxy.listen too",
            ),
            ("[proxy]\nmax_body = \"3 MB\"", "hub.toml:2: proxy.max_body: \"3 MB\" is not a size"),
            ("[proxy]\nmax_body = \"26 MiB\"", "hub.toml:2: proxy.max_body: \"26 MiB\" is out of range"),
            ("[gate]\nport = 80", "hub.toml:2: gate.port: 80 cannot be a funnel's port"),
            ("[database]\nurl = \"mysql://root:geheim@db\"", "hub.toml:2: database.url: write \"sqlite:hub.db\""),
            ("a = = 1", "hub.toml:1: not TOML"),
            ("[[repository]]\nname = \"acme/infra\"\n", "hub.toml:1: repository[0]: missing field `url`"),
            ("[[pipeline]]\nname = \"Reading\"", "hub.toml:2: pipeline[0].name: \"Reading\" is not a name"),
            (
                "[[pipeline]]\nname = \"a\"\n[[pipeline]]\nname = \"a\"",
                "hub.toml:3: pipeline[1].name: \"a\" is the name of the pipeline in line 1",
            ),
            (
                "[[pipeline]]\nname = \"a\"\ntable = \"a; drop\"",
                "hub.toml:3: pipeline[0].table: \"a; drop\" is not a table",
            ),
        ] {
            let error = error(text);
            assert!(error.starts_with(expected), "{text:?}\n  gave     {error}\n  expected {expected}");
            assert!(!error.contains("geheim"));
        }
    }

    #[test]
    fn wrong_repositories_are_named() {
        for (change, expected) in [
            (("acme/infra", "infra"), "hub.toml:2: repository[0].name: \"infra\" is not owner/name"),
            (("acme/infra", "../infra"), "hub.toml:2: repository[0].name: \"../infra\" is not owner/name"),
            (
                ("\"/srv/infra\"", "\"~/infra\""),
                "hub.toml:4: repository[0].path: \"~/infra\" begins with ~, and ~ is not replaced here; write the whole path",
            ),
            (
                ("\"/srv/infra\"", "\"$HOME/infra\""),
                "hub.toml:4: repository[0].path: \"$HOME/infra\" begins with $, and",
            ),
            (("\"/srv/infra\"", "\"srv\""), "hub.toml:4: repository[0].path: \"srv\" is not an absolute path"),
            (("\"/srv/infra\"", "\"/srv/../etc\""), "hub.toml:4: repository[0].path: \"/srv/../etc\" has \"..\" in it"),
            (("\"/srv/infra\"", "\"/\""), "hub.toml:1: repository[0].path: is the root folder"),
            (("path =", "branch = \"a..b\"\npath ="), "hub.toml:4: repository[0].branch: \"a..b\" is not a branch"),
            (("path =", "units = \"../x\"\npath ="), "hub.toml:4: repository[0].units: \"../x\" is not a folder"),
            (
                ("path =", "token = \"../x\"\npath ="),
                "hub.toml:4: repository[0].token: is not the name of a credential",
            ),
            (
                ("path =", "health = { grace_seconds = -1 }\npath ="),
                "hub.toml:4: repository[0].health.grace_seconds: is the number -1; write a whole number of seconds, 0 or more",
            ),
            (
                ("path =", "health = { url = \"ftp://x\" }\npath ="),
                "hub.toml:4: repository[0].health.url: \"ftp://x\" is not a health URL",
            ),
        ] {
            let error = error(&REPOSITORY.replacen(change.0, change.1, 1));
            assert!(error.starts_with(expected), "{change:?}\n  gave     {error}\n  expected {expected}");
        }
    }

    #[test]
    fn an_example_of_every_key_is_accepted() {
        let text = std::fs::read_to_string("contrib/hub.toml").unwrap();
        assert_eq!(toml::from_str(&text), Ok(toml::Table::new()), "copied as it is, it changes nothing");
        // A key has its # directly before it, a sentence a space between.
        let of_key =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', ':'])).map(str::to_owned);
        let text: String = text.lines().filter_map(of_key).map(|line| line + "\n").collect();
        let file = parse(Path::new("hub.toml"), &text).unwrap();
        let repository = file.repositories().unwrap().remove(0);
        assert_eq!((repository.name.as_str(), repository.units.as_str()), ("acme/infra@staging", "systemd"));
        assert_eq!(file.proxy().unwrap().max_body, 3 << 20);
        assert_eq!(file.pipelines().unwrap()[0].table, "reading_analytics");
    }
}
