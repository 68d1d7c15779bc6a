//! The sandbox of units is in force in a machine as on a host, so that a test of our hardened units means something.
//! Each directive is probed by what it must prevent, not by whether the unit starts: systemd leaves out in silence
//! what its surroundings cannot do.

use std::process::Output;

use crate::machine::{Machine, describe};

/// A directive and a shell script that succeeds under it and fails without it.
///
/// Not probed, since root in a container has not got the capability anyway and so sees no difference: ProtectClock=,
/// ProtectKernelLogs=. Not in force on any Debian 12, whose systemd is built without BPF programs of its own:
/// SocketBindDeny=, RestrictNetworkInterfaces=, RestrictFileSystems=.
const PROBES: &[(&str, &str)] = &[
    ("AmbientCapabilities=CAP_NET_BIND_SERVICE", "grep -q 'CapAmb:.*0400$' /proc/self/status"),
    ("CapabilityBoundingSet=", "grep -q 'CapEff:.0*$' /proc/self/status"),
    ("DevicePolicy=closed", "! mknod /srv/device c 1 11"),
    ("DynamicUser=yes", "test $(id -u) -ge 61184"),
    ("InaccessiblePaths=/srv/marker", "! test -s /srv/marker"),
    (
        "IPAddressDeny=any",
        r#"! perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0);
           exit !send(S, "x", 0, pack_sockaddr_in(9, inet_aton("127.0.0.1")))'"#,
    ),
    ("LoadCredential=name:/srv/marker", "test -s $CREDENTIALS_DIRECTORY/name"),
    ("LockPersonality=yes", "! setarch --addr-no-randomize true"),
    (
        "MemoryDenyWriteExecute=yes",
        // mmap(2) of a page that is writable and executable.
        "perl -e 'exit(syscall(`uname -m` =~ /x86_64/ ? 9 : 222, 0, 4096, 7, 0x22, -1, 0) != -1)'",
    ),
    ("NoNewPrivileges=yes", "grep -q 'NoNewPrivs:.1' /proc/self/status"),
    ("PrivateDevices=yes", "! test -e /dev/probe"),
    ("PrivateIPC=yes", "test $(readlink /proc/self/ns/ipc) != $(readlink /proc/1/ns/ipc)"),
    ("PrivateNetwork=yes", "test $(readlink /proc/self/ns/net) != $(readlink /proc/1/ns/net)"),
    ("PrivateTmp=yes", "! test -e /tmp/probe"),
    ("PrivateUsers=yes", "! grep -qw 4294967295 /proc/self/uid_map"),
    ("ProcSubset=pid", "! test -e /proc/meminfo"),
    ("ProtectControlGroups=yes", "! mkdir /sys/fs/cgroup/probe"),
    ("ProtectHome=yes", "! test -e /root/probe"),
    ("ProtectHostname=yes", "test $(readlink /proc/self/ns/uts) != $(readlink /proc/1/ns/uts)"),
    ("ProtectKernelModules=yes", "! test -e /usr/lib/modules/probe"),
    ("ProtectKernelTunables=yes", "! sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'"),
    ("ProtectProc=invisible", "! setpriv --reuid hub --regid hub --clear-groups test -e /proc/1"),
    ("ProtectSystem=strict", "! touch /etc/probe"),
    ("ReadOnlyPaths=/srv", "! touch /srv/marker"),
    ("RestrictAddressFamilies=AF_UNIX", "! perl -MSocket -e 'exit !socket(S, PF_INET, SOCK_STREAM, 0)'"),
    ("RestrictNamespaces=yes", "! unshare --net true"),
    ("RestrictRealtime=yes", "! chrt --fifo 1 true"),
    ("RestrictSUIDSGID=yes", "! chmod u+s /srv/marker"),
    ("SystemCallFilter=@system-service", "! mount -t tmpfs none /mnt"),
    ("TemporaryFileSystem=/srv", "! test -e /srv/marker"),
];

fn transient(machine: &Machine, properties: &[&str], script: &str) -> Output {
    let properties: Vec<String> = properties.iter().map(|property| format!("--property={property}")).collect();
    let mut argv = vec!["systemd-run", "--wait", "--pipe", "--quiet", "--collect"];
    argv.extend(properties.iter().map(String::as_str));
    argv.extend(["sh", "-c", script]);
    machine.run(&argv)
}

#[test]
fn every_directive_prevents_what_it_should() {
    let Some(machine) = Machine::boot() else { return };
    for path in ["/root/probe", "/usr/lib/modules/probe", "/srv/marker", "/tmp/probe", "/dev/probe"] {
        machine.write(path, "content\n");
    }
    let mut wrong = Vec::new();
    for (directive, script) in PROBES {
        // Without the directive last, for then the script leaves things behind.
        let with = transient(&machine, &[directive], script);
        let without = transient(&machine, &[], script);
        machine.ok(&["rm", "-f", "/srv/device", "/etc/probe"]);
        if !with.status.success() || without.status.success() {
            wrong.push(format!("{directive}\n  with it: {}\n  without: {}", describe(&with), describe(&without)));
        }
    }
    assert!(wrong.is_empty(), "not in force, or the probe cannot tell:\n{}", wrong.join("\n"));
}

/// Where the host keeps its controllers in cgroup v1 hierarchies a machine has none, so limits have no effect; where
/// it has them they have. Either way the machine says so in cgroup.controllers.
#[test]
fn limits_are_in_force_where_the_machine_has_controllers() {
    let Some(machine) = Machine::boot() else { return };
    let controllers = machine.read("/sys/fs/cgroup/cgroup.controllers");
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    let fork = transient(&machine, &["TasksMax=4"], "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    assert_eq!(!fork.status.success(), has("pids"), "{controllers}: {}", describe(&fork));
    let limits = ["MemoryMax=32M", "MemorySwapMax=0"];
    let grow = transient(&machine, &limits, "perl -e '$x = q(x) x 200_000_000; exit 0'");
    assert_eq!(!grow.status.success(), has("memory"), "{controllers}: {}", describe(&grow));
}

/// The whole block that our services carry, together.
#[test]
fn a_fully_hardened_service_starts() {
    let Some(machine) = Machine::boot() else { return };
    machine.write("/etc/credstore/secret", "s3cret");
    machine.write(
        "/etc/systemd/system/hard.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/secret; echo; id -u'\n\
         DynamicUser=yes\nLoadCredential=secret\nStateDirectory=hard\nRuntimeDirectory=hard\nCapabilityBoundingSet=\n\
         UMask=0077\nProtectSystem=strict\nProtectHome=yes\nProtectClock=yes\nProtectHostname=yes\n\
         ProtectKernelLogs=yes\nProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectControlGroups=yes\n\
         ProtectProc=invisible\nProcSubset=pid\nPrivateTmp=yes\nPrivateDevices=yes\nPrivateUsers=yes\n\
         PrivateNetwork=yes\nPrivateIPC=yes\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n\
         RestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\nLockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\nNoNewPrivileges=yes\nRemoveIPC=yes\nKeyringMode=private\n\
         SystemCallArchitectures=native\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n\
         IPAddressDeny=any\nIPAddressAllow=localhost\nMemoryMax=128M\nTasksMax=128\nLimitNOFILE=4096\n",
    );
    machine.ok(&["systemctl", "daemon-reload"]);
    let started = machine.run(&["systemctl", "start", "hard.service"]);
    let journal = machine.journal("hard.service");
    assert!(started.status.success(), "{} {journal:?}", describe(&started));
    let said = |text: &str| journal.iter().any(|entry| entry["MESSAGE"] == text);
    assert!(said("s3cret") && !said("0"), "{journal:?}");
    // A directive that systemd does not know would be ignored, with a warning.
    assert!(!journal.iter().any(|entry| entry["PRIORITY"] == "4"), "{journal:?}");
}
