//! What happened to repositories since the look before, from the history that gitops-sync leaves.

use jiff::Timestamp;
use rustix::fs::{AtFlags, statat};
use serde::{Deserialize, Serialize};

use super::book::LONGEST_REASON;
use crate::health::Level;
use crate::log;
use crate::records::history::{self, Event, FILE};
use crate::records::{Found, short};
use crate::state::Folder;
use crate::text;

/// So many are taken in where nobody knows how much was seen of the history.
const MOST: usize = 20;

/// How far the history has been read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Inode, length and time of its file: one that did not change is not read.
    mark: Option<(u64, i64, i64)>,
    /// The last line that was seen; empty where there was none, none before the first look.
    last: Option<String>,
}

impl Past {
    /// What happened since the call before, the oldest first; nothing at the first one. `gitops` is gitops-sync's folder.
    pub fn news(&mut self, gitops: &Found<Folder>) -> Vec<Event> {
        if !gitops.is_known() {
            return Vec::new();
        }
        let gitops = gitops.get();
        let found = gitops.and_then(|gitops| statat(gitops.fd(), FILE, AtFlags::SYMLINK_NOFOLLOW).ok());
        let mark = found.map(|found| (found.st_ino, found.st_size, found.st_mtime));
        if self.last.is_some() && mark == self.mark {
            return Vec::new();
        }
        let mut events = match gitops.map_or_else(|| Ok(Vec::new()), history::read) {
            Ok(events) => events,
            Err(error) => {
                log::warn!("history_not_read", error = error.to_string());
                return Vec::new();
            }
        };
        self.mark = mark;
        if events.is_empty() && self.last.is_some() {
            // What is gone for a while may come back; what was seen of it is no news then.
            return Vec::new();
        }
        let newest = events.last().map(name).unwrap_or_default();
        let Some(last) = self.last.replace(newest) else { return Vec::new() };
        let seen = events.iter().rposition(|event| name(event) == last).map(|place| place + 1);
        events.drain(..seen.unwrap_or_else(|| events.len().saturating_sub(MOST)));
        events
    }
}

/// What is to be told of deployments that went well.
pub fn deployments(news: &[Event], now: Timestamp) -> Vec<super::News> {
    let deployed = news.iter().filter(|event| event.kind == "deployed");
    deployed.map(|event| deployment(event, now)).collect()
}

fn deployment(event: &Event, now: Timestamp) -> super::News {
    let field = |key: &str| event.more.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let to = field("to").map_or("a commit", short);
    let subject = field("subject").map(|subject| format!(": {subject}")).unwrap_or_default();
    let author = field("author").map(|author| format!(", by {author}")).unwrap_or_default();
    let before = field("from").map(|from| format!("; before it {}", short(from))).unwrap_or_default();
    super::News {
        kind: super::Change::Deployed,
        key: name(event),
        level: Level::Healthy,
        about: event.about.clone(),
        reason: text::cut(&format!("{to}{subject}{author}{before}"), LONGEST_REASON).into_owned(),
        mend: field("link").map(str::to_owned),
        since: event.time().unwrap_or(now),
        at: now,
    }
}

/// What tells one line from another.
fn name(event: &Event) -> String {
    let to = event.more.get("to").and_then(serde_json::Value::as_str).unwrap_or_default();
    [&event.at, &event.kind, &event.about, to].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::history::Kind;

    #[test]
    fn each_line_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let put = |about: &str| Event::new(Kind::Deployed, about, "deployed").with("to", "1").append(&folder);
        let mut past = Past::default();
        let there = Found::There(Folder::open(dir.path()).unwrap());
        let news = |past: &mut Past| past.news(&there).into_iter().map(|event| event.about).collect::<Vec<_>>();
        assert_eq!(Past::default().news(&Found::Missing), []);
        assert_eq!(news(&mut past), [""; 0]);
        put("a");
        put("b");
        assert_eq!(news(&mut past), ["a", "b"]);
        assert_eq!(news(&mut past), [""; 0]);
        put("c");
        assert_eq!(news(&mut past), ["c"]);
        // A look that cannot see it, or finds none, forgets nothing, and is no first look.
        let file = dir.path().join(FILE);
        let text = std::fs::read(&file).unwrap();
        let mut later = Past::default();
        for away in [Found::Missing, Found::Unreadable(String::new()), Found::Damaged(String::new())] {
            assert_eq!(past.news(&away), []);
            assert_eq!(news(&mut past), [""; 0], "{away:?}");
        }
        assert_eq!(later.news(&Found::Unreadable(String::new())), []);
        assert_eq!(news(&mut later), [""; 0]);
        for hidden in [&b""[..], b"{"] {
            std::fs::write(&file, hidden).unwrap();
            assert_eq!(news(&mut past), [""; 0]);
            std::fs::write(&file, &text).unwrap();
            assert_eq!(news(&mut past), [""; 0]);
        }
        put("d");
        assert_eq!(news(&mut past), ["d"]);
        // The line that was seen last is gone with its file.
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_eq!(news(&mut past), [""; 0]);
        for number in 0..30 {
            put(&number.to_string());
        }
        assert_eq!(news(&mut past).len(), MOST);
        past.last = Some("what is not there".to_owned());
        past.mark = None;
        assert_eq!(news(&mut past).len(), MOST);
        assert_eq!(news(&mut Past::default()), [""; 0], "who begins is told of nothing that was");
    }
}
