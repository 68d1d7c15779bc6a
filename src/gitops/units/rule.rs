use crate::config::RestartRule;
use crate::gitops::git::Change;
use crate::log;

impl RestartRule {
    /// The first changed path that is one of the rule's files or lies in one of its folders.
    pub(in crate::gitops) fn matching(&self, changes: &[Change]) -> Option<String> {
        let is_meant = |path: &[u8]| {
            self.paths.iter().any(|rule| {
                let rule = rule.as_bytes();
                match rule.strip_suffix(b"/") {
                    Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/")),
                    None => path == rule,
                }
            })
        };
        changes.iter().find(|change| is_meant(&change.path)).map(|change| log::printable(&change.path))
    }
}
