//! Deployments: a line each, and a page each.

mod detail;
mod list;
mod read;
mod words;

use super::layout::DEPLOYMENTS as PATH;
pub(in crate::proxy) use read::{list as read_list, one as read_one};
pub(super) use {detail::page as detail, list::page as list};

/// The name of a deployment in a link: what cannot be one is none.
pub(super) fn id(path: &str) -> Option<String> {
    let id = path.strip_prefix(PATH)?.strip_prefix('/')?;
    (id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_name_is_a_name() {
        assert_eq!(id("/deployments/0123456789ABCDEF").as_deref(), Some("0123456789abcdef"));
        for path in [
            "/deployments",
            "/deployments/",
            "/deployments/0123456789abcde",
            "/deployments/0123456789abcdef/",
            "/deployments/../../../../etc",
            "/deployments/%2e%2e%2f%2e%2e%2fab",
            "/deploymentsx0123456789abcdef",
        ] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
