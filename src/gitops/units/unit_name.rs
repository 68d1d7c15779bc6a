//! What names of units and of their files mean (systemd.unit(5)), and which of them are the hub's own.

use std::collections::BTreeSet;

use crate::systemd::install::Name;
use crate::systemd::{GITOPS_SYNC, Own};

/// Of the hub's own units those that the worker needs to end its work: they come last, when the result is durable, and are
/// not waited for.
pub(super) fn is_last(unit: &str) -> bool {
    Own::named(GITOPS_SYNC).is_some_and(|worker| worker.units().any(|last| last == unit))
}

pub(super) fn is_worker(unit: &str) -> bool {
    Own::named(GITOPS_SYNC).is_some_and(|worker| worker.unit == unit)
}

/// The kinds of units that are deployed (systemd.unit(5)).
pub(super) const KINDS: [&str; 9] =
    [".service", ".socket", ".timer", ".path", ".target", ".mount", ".automount", ".slice", ".swap"];

/// True for the name of a unit or template that can be deployed: a known kind, the characters that systemd.unit(5)
/// allows, no leading dot or dash.
pub(in crate::gitops) fn is_unit_name(name: &str) -> bool {
    let Some(kind) = KINDS.iter().find(|kind| name.ends_with(**kind)) else { return false };
    let stem = &name[..name.len() - kind.len()];
    !stem.is_empty()
        && name.len() <= 200
        && !stem.starts_with(['.', '-', '@'])
        && stem.matches('@').count() <= 1
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
}

/// True for a name whose drop-ins systemd applies to every unit of its kind that begins with it: `app-.service`, and its
/// template and instances (systemd.unit(5)).
pub(in crate::gitops) fn is_prefix(unit: &str) -> bool {
    unit.rsplit_once('.')
        .is_some_and(|(stem, _)| stem.split_once('@').map_or(stem, |(prefix, _)| prefix).ends_with('-'))
}

/// True for the name of a kind of units, whose drop-ins are in force for every unit of that kind.
pub(super) fn kind_of_all(folder: &str) -> bool {
    KINDS.iter().chain(&[".scope", ".device"]).any(|kind| kind[1..] == *folder)
}

/// True for slices of systemd itself, which it makes without a file: what is said of them limits services and logins.
pub(super) fn is_systemds_slice(unit: &str) -> bool {
    let Some(stem) = unit.strip_suffix(".slice") else { return false };
    ["-", "user", "system", "machine"].contains(&stem) || stem.starts_with("user-") || stem.starts_with("system-")
}

/// True for what the hub or systemd calls the units that it makes itself, for the commands of a repository (`hub-build-`,
/// `hub-after-`) and for systemd-run(1): a file of such a name keeps the other from being made.
pub(in crate::gitops) fn is_made_up(unit: &str) -> bool {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let of_hub = ["hub-build-", "hub-after-"].iter().any(|prefix| stem.starts_with(prefix));
    let numbered = |prefix: &str, fits: fn(u8) -> bool| {
        stem.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(fits))
    };
    let of_systemd = numbered("run-u", |byte| byte.is_ascii_digit())
        || numbered("run-p", |byte| byte.is_ascii_digit() || b"-i".contains(&byte))
        || stem.len() > 20 && numbered("run-r", |byte| byte.is_ascii_hexdigit());
    of_hub || of_systemd
}

/// True for `name@.service`.
pub(in crate::gitops) fn is_template(unit: &str) -> bool {
    unit.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@'))
}

/// The unit that a file belongs to: `app.service` for itself and for `app.service.d/limits.conf`.
pub(in crate::gitops) fn unit_of(file: &str) -> &str {
    file.split_once('/').map_or(file, |(folder, _)| folder.strip_suffix(".d").unwrap_or(folder))
}

/// The template that a unit is an instance of: `app@.service` for `app@1.service`.
pub(in crate::gitops) fn template_of(unit: &str) -> Option<String> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let (name, instance) = stem.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{name}@.{kind}"))
}

/// The unit that a link is about: where an instance's name points to a template, that instance of it.
pub(super) fn pointed(link: &str, target: &str) -> String {
    match (Name::parse(link).and_then(|name| name.instance), is_template(target)) {
        (Some(instance), true) => target.replacen("@.", &format!("@{instance}."), 1),
        _ => target.to_owned(),
    }
}

/// True for a unit, an instance of one of the templates, or a template's own name.
pub(super) fn concerns(units: &BTreeSet<String>, name: &str) -> bool {
    units.contains(name) || template_of(name).is_some_and(|template| units.contains(&template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_those_of_systemd() {
        for name in ["app.service", "app@.service", "app@1.timer", "srv-data.mount", "a:b_c\\x2d.slice"] {
            assert!(is_unit_name(name), "{name}");
        }
        for name in [
            "",
            ".service",
            "app",
            "app.conf",
            ".app.service",
            "-app.service",
            "a@b@c.service",
            "a b.service",
            "ä.service",
            "a/b.service",
            "app.scope",
            "@.service",
        ] {
            assert!(!is_unit_name(name), "{name}");
        }
        assert!(!is_unit_name(&format!("{}.service", "a".repeat(250))));
    }

    #[test]
    fn names_that_mean_more_than_one_unit_are_known() {
        for name in ["a-.service", "a-@.service", "a-@x.timer", "systemd-.socket"] {
            assert!(is_prefix(name), "{name}");
        }
        for name in ["a.service", "a-b.service", "a@-.service"] {
            assert!(!is_prefix(name), "{name}");
        }
        for name in ["-.slice", "user.slice", "user-1000.slice", "system-getty.slice", "machine.slice"] {
            assert!(is_systemds_slice(name), "{name}");
        }
        for name in ["hub-build-acme__x.service", "hub-after-a.timer", "run-u12.service", "run-p7-i9.service"] {
            assert!(is_made_up(name), "{name}");
        }
        for name in ["hub-builder.service", "run-user.service", "run-rdb.mount", "run-u.service", "runner-u1.service"] {
            assert!(!is_made_up(name), "{name}");
        }
        assert!(!is_systemds_slice("users.slice") && !is_systemds_slice("system.service"));
        assert!(kind_of_all("service") && kind_of_all("device") && !kind_of_all("app.service"));
    }

    #[test]
    fn files_belong_to_units_and_instances_to_templates() {
        assert_eq!(unit_of("app.service.d/limits.conf"), "app.service");
        assert_eq!(unit_of("app@.service"), "app@.service");
        assert_eq!(template_of("app@x.service").as_deref(), Some("app@.service"));
        assert_eq!(template_of("app@.service"), None);
        assert!(is_template("app@.service") && !is_template("app@x.service"));
    }
}
