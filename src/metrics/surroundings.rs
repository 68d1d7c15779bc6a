//! What the measured host runs in.

use super::mounts;
use super::roots::{self, Roots};

/// What kind of container this is, where it can be seen without rights; none where it is none.
pub(super) fn container(roots: &Roots) -> Option<String> {
    if let Some(container) = roots::value(&roots.host("run/systemd/container")).filter(|name| !name.is_empty()) {
        return Some(container);
    }
    if mounts::has_lxcfs(roots) {
        return Some("lxc".to_owned());
    }
    for (file, name) in [(".dockerenv", "docker"), ("run/.containerenv", "podman")] {
        if roots.host(file).exists() {
            return Some(name.to_owned());
        }
    }
    // The host of such containers has both.
    (roots.proc.join("vz").exists() && !roots.proc.join("bc").exists()).then(|| "openvz".to_owned())
}

/// True where the processor says that it is a hypervisor's.
pub(super) fn is_guest(roots: &Roots) -> bool {
    let cpuinfo = roots.proc("cpuinfo").unwrap_or_default();
    let text = roots::text(&cpuinfo);
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")
}
