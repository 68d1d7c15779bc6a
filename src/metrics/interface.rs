use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::roots::{self, Roots};

/// ARPHRD_LOOPBACK (if_arp.h).
const LOOPBACK: u32 = 772;
/// ARPHRD_PPP.
const PPP: u32 = 512;
/// How many interfaces may lie on one another (MAX_NEST_DEV of the kernel).
const DEPTH: u32 = 8;

/// What sysfs says an interface is (Documentation/ABI/testing/sysfs-class-net); none where it does not lead out of the host
/// by itself.
fn kind(folder: &Path) -> Option<&'static str> {
    // The functions of a card that are made for virtual machines, which count them themselves.
    if roots::is_present(&folder.join("device/physfn")) {
        return None;
    }
    if folder.join("bonding").is_dir() {
        return Some("bond");
    }
    if folder.join("bridge").is_dir() {
        // A bridge between containers only has no way out of the host; its name and number come and go with them.
        let ports = folder.join("brif");
        let leads_out = |port: &std::ffi::OsString| leads_out(&folder.with_file_name(port), DEPTH);
        return (!ports.is_dir() || roots::names(&ports).iter().any(leads_out)).then_some("bridge");
    }
    is_physical(folder).then_some("physical")
}

/// What an interface is that leads out where it has an address, or the default route; none for other kinds.
fn kind_with_address(folder: &Path) -> Option<&'static str> {
    if roots::is_present(&folder.join("device/physfn")) {
        return Some("physical");
    }
    if roots::is_present(&folder.join("tun_flags")) {
        return Some("tun");
    }
    let uevent = roots::value(&folder.join("uevent")).unwrap_or_default();
    let stated = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    if let Some(known) = ["wireguard", "ppp", "team", "vlan"].into_iter().find(|known| stated == Some(known)) {
        return Some(known);
    }
    let is_on = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"lower_");
    match stated {
        Some(_) => None,
        None if roots::number(&folder.join("type")) == Some(PPP) => Some("ppp"),
        // A team says nothing of itself but what it is made of.
        None => roots::names(folder).iter().any(is_on).then_some("team"),
    }
}

/// The interfaces that have an address beyond their own link, or the default route. Addresses of version 4 are told by the
/// routes that the kernel makes for their networks; one without a network has none.
fn addressed(roots: &Roots) -> BTreeSet<String> {
    let table = |name: &str| {
        let bytes = roots.proc(&format!("1/net/{name}")).or_else(|_| roots.proc(&format!("net/{name}")));
        roots::text(&bytes.unwrap_or_default()).into_owned()
    };
    let (routes, addresses, routes_6) = (table("route"), table("if_inet6"), table("ipv6_route"));
    let first = routes.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    let inet6 = addresses.lines().filter_map(|line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        // Scopes of the host and the link.
        [_, _, _, "10" | "20", ..] => None,
        [.., name] => Some(name),
        [] => None,
    });
    let default_6 = routes_6.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_default = words.next()?.bytes().all(|byte| byte == b'0') && words.next()? == "00";
        words.last().filter(|_| is_default)
    });
    first.chain(inet6).chain(default_6).filter(|name| *name != "lo").map(str::to_owned).collect()
}

/// True where an interface belongs to a device; of a recorded tree that has the links of the class only, the link
/// says it.
fn is_physical(folder: &Path) -> bool {
    let is_outside = |link: &Path| !link.components().any(|part| part.as_os_str() == "virtual");
    roots::is_present(&folder.join("device"))
        || (!folder.exists() && std::fs::read_link(folder).is_ok_and(|link| is_outside(&link)))
}

/// True where an interface is physical, a bond, or lies on such a one, as a VLAN does (`lower_eth0`).
fn leads_out(folder: &Path, depth: u32) -> bool {
    if is_physical(folder) || folder.join("bonding").is_dir() {
        return true;
    }
    let below = |name: &std::ffi::OsString| {
        let lower = name.to_str().and_then(|name| name.strip_prefix("lower_"));
        lower.is_some_and(|lower| leads_out(&folder.with_file_name(lower), depth - 1))
    };
    depth > 0 && roots::names(folder).iter().any(below)
}

/// The interfaces to report, with what they are. A container has none that sysfs calls physical: there, everything
/// but loopback, what hangs on a bridge of its own, and what is down, as the kernel's own tunnels are, is its way out.
pub(super) fn select(roots: &Roots, names: &[String]) -> BTreeMap<String, &'static str> {
    let class = roots.sys.join("class/net");
    let folder = |name: &str| -> PathBuf { class.join(name) };
    let mut selected = BTreeMap::new();
    for name in names {
        if let Some(kind) = kind(&folder(name)) {
            selected.insert(name.clone(), kind);
        }
    }
    let is_known = |name: &&String| !selected.contains_key(*name);
    let others =
        names.iter().filter(is_known).filter_map(|name| Some((name.clone(), kind_with_address(&folder(name))?)));
    let others: BTreeMap<String, &'static str> = others.collect();
    let used = |name: &String| roots::is_present(&folder(name).join("master")) && others.get(name) == Some(&"physical");
    if !selected.is_empty() {
        let addressed = if others.is_empty() { BTreeSet::new() } else { addressed(roots) };
        selected.extend(
            others
                .iter()
                .filter(|(name, _)| addressed.contains(*name) || used(name))
                .map(|(name, kind)| (name.clone(), *kind)),
        );
        return selected;
    }
    let is_inner = |name: &str| {
        let folder = folder(name);
        let loopback = roots::number::<u32>(&folder.join("type")) == Some(LOOPBACK) || name == "lo";
        let is_down = roots::value(&folder.join("operstate")).is_some_and(|state| state == "down");
        let has = |name: &str| roots::is_present(&folder.join(name));
        loopback || is_down || has("bridge") || has("brport") || has("master")
    };
    let kind = |name: &String| others.get(name).copied().unwrap_or("virtual");
    names.iter().filter(|name| !is_inner(name)).map(|name| (name.clone(), kind(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(path: &Path) -> Roots {
        Roots::new(path, path, path).unwrap()
    }

    #[test]
    fn sysfs_tells_what_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        for path in [
            "veth1/device",
            "br0/bridge",
            "br0/brif/veth1",
            "docker0/bridge",
            "docker0/brif/vethabc",
            "vethabc/brport",
            "bond0/bonding",
            "bond0.10/lower_bond0",
            "vmbr10/bridge",
            "vmbr10/brif/bond0.10",
            "wg0",
            "lo",
        ] {
            std::fs::create_dir_all(class.join(path)).unwrap();
        }
        let names: Vec<String> = ["veth1", "br0", "docker0", "vethabc", "bond0", "bond0.10", "vmbr10", "wg0", "lo"]
            .map(str::to_owned)
            .to_vec();
        let selected = select(&sysfs(dir.path()), &names);
        let expected = [("bond0", "bond"), ("br0", "bridge"), ("veth1", "physical"), ("vmbr10", "bridge")];
        assert_eq!(selected.iter().map(|(name, kind)| (name.as_str(), *kind)).collect::<Vec<_>>(), expected);
        // Inside a container.
        let names: Vec<String> = ["wg0", "lo", "docker0", "vethabc"].map(str::to_owned).to_vec();
        assert_eq!(select(&sysfs(dir.path()), &names).keys().collect::<Vec<_>>(), ["wg0"]);
        assert_eq!(
            select(&sysfs(Path::new("/nonexistent")), &["lo".into(), "eth0".into()]).keys().collect::<Vec<_>>(),
            ["eth0"]
        );
    }

    #[test]
    fn links_that_lead_nowhere_still_say_what_they_are_links_to() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        std::fs::create_dir_all(class.join("wlan0")).unwrap();
        for (name, target) in [
            ("eth0", "../../devices/pci0000:00/0000:00:03.0/net/eth0"),
            ("docker0", "../../devices/virtual/net/docker0"),
            ("wlan0/device", "../../../mmc1:0001:1"),
        ] {
            std::os::unix::fs::symlink(target, class.join(name)).unwrap();
        }
        let names: Vec<String> = ["docker0", "eth0", "lo", "wlan0"].map(str::to_owned).to_vec();
        assert_eq!(select(&sysfs(dir.path()), &names).keys().collect::<Vec<_>>(), ["eth0", "wlan0"]);
    }

    #[test]
    fn in_a_container_tunnels_that_are_down_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/net");
        for (name, state) in [("tunl0", "down"), ("sit0", "down"), ("eth0", "up"), ("wg0", "unknown")] {
            std::fs::create_dir_all(class.join(name)).unwrap();
            std::fs::write(class.join(name).join("operstate"), state).unwrap();
        }
        let names: Vec<String> = ["eth0", "lo", "sit0", "tunl0", "wg0"].map(str::to_owned).to_vec();
        assert_eq!(select(&sysfs(dir.path()), &names).keys().collect::<Vec<_>>(), ["eth0", "wg0"]);
    }

    #[test]
    fn tunnels_and_their_like_are_shown_where_they_have_an_address_or_the_default_route() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        for (path, content) in [
            ("class/net/eth0/device/vendor", "0x8086"),
            ("class/net/eth0v0/device/physfn/vendor", "0x8086"),
            ("class/net/eth0v1/device/physfn/vendor", "0x8086"),
            ("class/net/eth0v2/device/physfn/vendor", "0x8086"),
            ("class/net/eth0v2/master/type", "1"),
            ("class/net/wg0/uevent", "DEVTYPE=wireguard\nINTERFACE=wg0\n"),
            ("class/net/wg1/uevent", "DEVTYPE=wireguard\n"),
            ("class/net/ppp0/type", "512"),
            ("class/net/team0/lower_eth0/x", ""),
            ("class/net/eth0.7/uevent", "DEVTYPE=vlan\n"),
            ("class/net/tailscale0/tun_flags", "0x1001"),
            ("class/net/vnet3/tun_flags", "0x1002"),
            ("class/net/vxlan1/uevent", "DEVTYPE=vxlan\n"),
            ("class/net/dummy0/type", "1"),
        ] {
            file(path, content);
        }
        let names: Vec<String> = std::fs::read_dir(dir.path().join("class/net"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let kinds = || {
            let mut kinds: Vec<String> =
                select(&sysfs(dir.path()), &names).iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            kinds.sort();
            kinds
        };
        assert_eq!(kinds(), ["eth0 physical", "eth0v2 physical"]);
        file(
            "net/route",
            "Iface\tDestination\tGateway\tFlags\nppp0\t00000000\t00000000\t0001\nwg0\t0000000A\t00000000\t0001\n\
            team0\t0001A8C0\t00000000\t0001\neth0v1\t0002A8C0\t00000000\t0001\nvxlan1\t0003A8C0\t00000000\t0001\n",
        );
        file(
            "net/if_inet6",
            "fd7a115ca1e000000000000000000001 05 80 00 80 tailscale0\nfe800000000000000000000000000001 06 40 20 80 vnet3\n\
            00000000000000000000000000000001 01 80 10 80 lo\n",
        );
        file(
            "net/ipv6_route",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 \
            00000400 00000001 00000000 00000003 eth0.7\n\
            fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 \
            00000100 00000001 00000000 00000001 wg1\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 \
            ffffffff 00000001 00000000 00200200 lo\n",
        );
        let expected = [
            "eth0 physical",
            "eth0.7 vlan",
            "eth0v1 physical",
            "eth0v2 physical",
            "ppp0 ppp",
            "tailscale0 tun",
            "team0 team",
            "wg0 wireguard",
        ];
        assert_eq!(kinds(), expected);
        // A container whose way out is none of these.
        let names: Vec<String> = ["eth9", "lo", "wg0"].map(str::to_owned).to_vec();
        let inside = select(&sysfs(dir.path()), &names);
        assert_eq!(inside, [("eth9".to_owned(), "virtual"), ("wg0".to_owned(), "wireguard")].into());
    }
}
