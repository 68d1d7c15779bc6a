use super::*;

#[test]
fn a_newer_kernel_of_the_same_kind_is_seen() {
    for (version, running, newer) in [
        ("6.1.0-29-amd64", "6.1.0-28-amd64", true),
        ("6.1.0-28-amd64", "6.1.0-28-amd64", false),
        ("6.1.0-9-amd64", "6.1.0-28-amd64", false),
        ("6.12.0-1-cloud-amd64", "6.1.0-28-amd64", true),
        ("6.8.0-50-generic", "6.8.0-49-lowlatency", false),
        ("6.12.1+rpt-rpi-2712", "6.6.51+rpt-rpi-v8", false),
        ("6.12.1+rpt-rpi-v8", "6.6.51+rpt-rpi-v8", true),
        ("6.11.8-300.fc41.x86_64", "6.11.7-300.fc41.x86_64", true),
        ("0-rescue-7a1b", "6.11.7-300.fc41.x86_64", false),
        ("linux", "6.11.7-arch1-1", false),
        ("", "", false),
    ] {
        assert_eq!(is_newer(version, running), newer, "{version} {running}");
    }
}

#[test]
fn the_flag_and_the_kernel_are_read_below_a_root() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");
    write("boot/vmlinuz-6.1.0-28-amd64", "");
    write("boot/vmlinuz-6.1.0-28-amd64.old", "");
    assert_eq!((asked_for(dir.path()), newer_kernel(dir.path())), (None, None));
    write("run/reboot-required", "*** System restart required ***\n");
    assert_eq!(asked_for(dir.path()).as_deref(), Some("packages ask for it"));
    write("run/reboot-required.pkgs", "linux-image-6.1.0-30-amd64\nlibc6\nlibc6\n");
    write("boot/vmlinuz-6.1.0-30-amd64", "");
    write("boot/vmlinuz-6.1.0-29-amd64", "");
    assert_eq!(asked_for(dir.path()).as_deref(), Some("libc6, linux-image-6.1.0-30-amd64 ask for it"));
    assert_eq!(newer_kernel(dir.path()).as_deref(), Some("6.1.0-30-amd64 is installed, and 6.1.0-28-amd64 runs"));
    write("run/systemd/container", "lxc");
    assert_eq!(newer_kernel(dir.path()), None);
}

#[test]
fn a_root_that_became_read_only_is_seen_and_one_that_always_was_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let mounts = |options: &str| {
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let text = format!(
            "21 1 0:18 / /proc rw - proc proc rw\n29 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 {options}\n"
        );
        std::fs::write(dir.path().join("proc/self/mountinfo"), text).unwrap();
    };
    let config = Config::of_text(Path::new("hub.toml"), "").unwrap();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut around = Around::default();
    let is_told = |around: &mut Around| {
        around.look(&config, dir.path(), now);
        around.readings(&config.limits, now).iter().any(|one| one.key == "disk///read-only" && one.value == 1.0)
    };
    assert!(!is_told(&mut around), "not known");
    for (options, told) in [
        ("ro,errors=remount-ro", false),
        ("rw,errors=remount-ro", false),
        ("ro", true),
        ("rw", false),
        ("rw,emergency_ro", true),
        ("rw,shutdown", true),
    ] {
        mounts(options);
        assert_eq!(is_told(&mut around), told, "{options}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn a_server_that_does_not_answer_takes_back_nothing_that_was_known_of_its_certificate() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    let text = format!(
        "[[repository]]\nname = \"a/b\"\nurl = \"https://git.example/b\"\npath = \"/srv/b\"\nhealth.url = \"https://{address}/\"\n"
    );
    let config = Config::of_text(Path::new("hub.toml"), &text).unwrap();
    let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
    let ended: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let known = |server: String| {
        let known = Certificate { at: ended, server, until: Some(ended) };
        let mut around = Around { certificates: BTreeMap::from([("a/b".to_owned(), known)]), ..Around::default() };
        around.certificate(&config, now);
        let known = around.certificates["a/b"].clone();
        assert_eq!(known.at, now, "it was asked");
        known.until
    };
    assert_eq!(known(address.to_string()), Some(ended));
    assert_eq!(known("another.example:443".to_owned()), None);
    // What no health.url names any more is not told for ever.
    let of = |server: &str| Certificate { at: now, server: server.to_owned(), until: Some(ended) };
    for (server, is_kept) in [(address.to_string().as_str(), true), ("another.example:443", false)] {
        let certificates = BTreeMap::from([("a/b".to_owned(), of(server))]);
        let mut around = Around { certificates, ..Around::default() };
        around.forget(&config);
        assert_eq!(around.certificates.len(), usize::from(is_kept), "{server}");
    }
}

#[test]
fn a_systemd_that_does_not_answer_takes_back_nothing_that_it_said() {
    let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
    let silent = || Command::new("/nowhere/systemctl", LIMIT).succeed().map(|_| None);
    let mut around = Around::default();
    around.take_systemd(silent(), now);
    assert_eq!(around.systemd, Some((now, None)));
    around.take_systemd(Ok(Some("newer".to_owned())), now);
    around.take_systemd(silent(), now);
    assert_eq!(around.systemd, Some((now, Some("newer".to_owned()))));
    around.take_systemd(Ok(None), now);
    assert_eq!(around.systemd, Some((now, None)));
}

#[test]
fn what_a_sandbox_mounts_is_not_what_the_host_mounts() {
    let text = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 /systemd/inaccessible/dir /home rw - tmpfs tmpfs rw\n\
        3 1 8:1 /tmp/systemd-private-1-hub-watch.service-2/tmp /tmp rw - ext4 /dev/sda1 rw\n\
        4 1 8:2 / /srv/a\\040b rw shared:1 - xfs /dev/sdb rw\ntorn";
    assert_eq!(mounted(text).into_iter().collect::<Vec<_>>(), ["/", "/srv/a b"]);
}

#[test]
fn servers_are_those_of_https() {
    assert_eq!(server("https://a.example/x"), Some(("a.example".to_owned(), 443)));
    assert_eq!(server("https://[::1]:8443/"), Some(("[::1]".to_owned(), 8443)));
    assert_eq!(server("http://a.example/"), None);
}
