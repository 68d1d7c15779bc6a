use super::Level;
use super::judge::Judge;
use crate::records::{self, Details, Outcome, Reading, ago};

const SERVICE: &str = "reading-sync";

impl Judge<'_> {
    /// Which pipelines failed, and what they could not store and keep.
    pub fn pipelines(&mut self) {
        let seen = self.seen;
        for pipeline in &seen.left.pipelines {
            let name = &pipeline.pipeline;
            if let Some(error) = &pipeline.failed {
                let mend = seen.ways.journal(SERVICE);
                self.say(Level::Failed, format!("reading/{name}/failed"), SERVICE, error, mend);
            }
            let counted = pipeline.kept.as_ref().map(|kept| ago(&kept.counted, seen.now)).unwrap_or_default();
            if let Some(what) = pipeline.dead_letters() {
                let reason = format!("{what} (counted {counted})");
                let mend = seen.ways.hub("dead-letters");
                self.say(Level::Degraded, format!("reading/{name}/dead-letters"), SERVICE, reason, mend);
            }
            if let (Some(what), Some(path)) =
                (pipeline.damaged_files(), seen.pipeline(name).and_then(|known| known.source.inbox()))
            {
                let (reason, mend) = (format!("{what} (counted {counted})"), records::look_into_failed(path));
                self.say(Level::Degraded, format!("reading/{name}/damaged-files"), SERVICE, reason, mend);
            }
        }
        // A run that names no pipeline: an older hub's, or one that could not get so far.
        if let Some(record) = seen.left.service(SERVICE).get()
            && Outcome::of(&record.last) == Outcome::Failed
            && Reading::known(&record.last).pipeline.is_empty()
        {
            let error = record.last.error.as_deref().unwrap_or(&record.last.status);
            let mend = seen.ways.journal(SERVICE);
            self.say(Level::Failed, "reading/last-run", SERVICE, error, mend);
        }
    }
}
