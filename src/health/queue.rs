use super::Level;
use super::judge::Judge;
use crate::records::span;

/// A queued request is taken up within a second, unless a run is at work.
const WAITING: u64 = 10 * 60;

impl Judge<'_> {
    /// What waits, what is at work, what could not be done.
    pub fn queue(&mut self) {
        let (seen, queue) = (self.seen, &self.seen.left.queue);
        if let Some(age) = queue.oldest_age_seconds.filter(|age| *age > WAITING) {
            let ways = seen.ways;
            let mend = if ways.is_installed { "systemctl restart gitops-sync.path".to_owned() } else { ways.hub("up") };
            let reason = format!("a request waits for {}, and gitops-sync does not take it up", span(age));
            self.say(Level::Degraded, "queue/waits", "queue", reason, mend);
        }
        // One that is configured has its own reason, with the why. Where the configuration cannot be read, nobody knows.
        if let Some(config) = seen.known_config() {
            let is_known = |name: &str| config.repositories.iter().any(|repository| repository.is_known_as(name));
            for name in queue.retry.iter().flatten().filter(|name| !is_known(name)) {
                let file = format!("gitops/retry/{}", crate::state::repository_record(name));
                let reason = format!("{name} could not be fetched, and hub.toml has no such repository any more");
                let mend = format!("rm {}", seen.path(&file));
                self.say(Level::Degraded, format!("queue/{name}/gone"), "queue", reason, mend);
            }
        }
        if let Some(count) = queue.failed.filter(|count| *count > 0) {
            let why = queue.failed_reason.as_deref().unwrap_or("no reason is written down");
            let reason = format!("{count} refused and kept; the newest: {why}");
            let mend = format!("look at {0}, then: rm -r {0}/*", seen.path("gitops/failed"));
            self.say(Level::Degraded, "queue/refused", "queue", reason, mend);
        }
    }
}
