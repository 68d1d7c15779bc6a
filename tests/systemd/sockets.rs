//! The gateway's listening sockets outlive its process: who calls during a restart waits, and is answered.

use std::time::Duration;

use crate::gitops::{SOON, configure, show, start_hub};
use crate::journal::lines;
use crate::machine::Machine;

const PROXY: &str = "proxy.service";
const CALLERS: usize = 4;

/// Calls the public listener until /srv/enough is there, and prints a line for each call: the status, `cut` where the
/// connection ended without one, `refused` where there was none.
const CALLER: &str = r#"
while ! [ -e /srv/enough ]; do
    if ! { exec 3<>/dev/tcp/127.0.0.1/8085; } 2>/dev/null; then
        echo refused
        continue
    fi
    printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 2>/dev/null
    read -r -t 20 version status rest <&3 2>/dev/null && echo "$status" || echo cut
    exec 3<&-
done
"#;

/// What callers were told while `action` ran.
pub fn told(machine: &Machine, action: impl FnOnce()) -> Vec<String> {
    machine.run(&["rm", "-f", "/srv/enough"]);
    let outputs = std::thread::scope(|scope| {
        let call = || machine.run_for(&["bash", "-c", CALLER], None, 4 * SOON);
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        action();
        machine.ok(&["touch", "/srv/enough"]);
        callers.into_iter().map(|caller| caller.join().expect("a caller ends")).collect::<Vec<_>>()
    });
    let text: String = outputs.iter().map(|output| String::from_utf8_lossy(&output.stdout)).collect();
    text.lines().map(str::to_owned).collect()
}

pub fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|line| *line == what).count()
}

/// Runs `action` and waits until another process serves than before.
fn replaced(machine: &Machine, action: impl FnOnce()) {
    let before = show(machine, PROXY, "InvocationID");
    action();
    machine.wait_for("the next proxy", SOON, || {
        show(machine, PROXY, "InvocationID") != before && show(machine, PROXY, "SubState") == "running"
    });
}

/// The addresses that something listens on, sorted.
pub fn listening(machine: &Machine) -> Vec<String> {
    let table = machine.ok(&["ss", "--tcp", "--listening", "--numeric", "--no-header"]);
    let mut addresses: Vec<String> =
        table.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect();
    addresses.sort();
    addresses
}

#[test]
fn who_calls_during_a_restart_is_answered_by_the_next_process() {
    let Some(machine) = Machine::boot() else { return };
    configure(&machine, &[]);
    start_hub(&machine);
    assert_eq!(show(&machine, PROXY, "NFileDescriptorStore"), "2");

    let told_in_restarts = told(&machine, || {
        for _ in 0..5 {
            replaced(&machine, || drop(machine.ok(&["systemctl", "restart", PROXY])));
        }
    });
    let answered = count(&told_in_restarts, "200");
    eprintln!("5 restarts: {answered} of {} calls answered", told_in_restarts.len());
    assert!(answered > CALLERS && answered == told_in_restarts.len(), "{told_in_restarts:?}");

    let told_in_kills = told(&machine, || {
        for _ in 0..2 {
            let kill = ["systemctl", "kill", "--kill-whom=main", "--signal=KILL", PROXY];
            replaced(&machine, || drop(machine.ok(&kill)));
        }
    });
    let [answered, cut] = ["200", "cut"].map(|what| count(&told_in_kills, what));
    eprintln!("2 kills: {answered} of {} calls answered, {cut} cut", told_in_kills.len());
    // The process takes those with it that it was about to answer.
    assert!(answered + cut == told_in_kills.len() && cut <= 2 * CALLERS, "{told_in_kills:?}");

    assert_eq!(show(&machine, PROXY, "NFileDescriptorStore"), "2");
    let lines = lines(&machine, PROXY);
    let kept: Vec<bool> = lines.iter().filter_map(|line| line["sockets_kept"].as_bool()).collect();
    assert_eq!(kept, [&[false][..], &[true; 7]].concat());
}

#[test]
fn sockets_that_are_not_wanted_any_more_are_closed() {
    let Some(machine) = Machine::boot() else { return };
    start_hub(&machine);
    let restart = || drop(machine.ok(&["systemctl", "restart", PROXY]));
    assert_eq!(listening(&machine), ["127.0.0.1:8085", "127.0.0.1:8086"]);
    // The old socket would be in the way of the new one, and of the next after that.
    for listen in ["0.0.0.0:8085", "127.0.0.1:8085", "127.0.0.1:8095", "0.0.0.0:8095"] {
        machine.write("/etc/observability-hub/hub.toml", format!("[proxy]\nlisten = \"{listen}\"\n"));
        replaced(&machine, restart);
        let mut wanted = [listen, "127.0.0.1:8086"];
        wanted.sort_unstable();
        assert_eq!(listening(&machine), wanted);
        machine.wait_for("systemd to let go of the old socket", Duration::from_secs(10), || {
            show(&machine, PROXY, "NFileDescriptorStore") == "2"
        });
    }

    machine.ok(&["systemctl", "stop", PROXY]);
    assert_eq!(listening(&machine), [""; 0]);
    machine.ok(&["systemctl", "start", PROXY]);
    // A process that does not come back leaves nobody waiting.
    machine.write("/etc/observability-hub/hub.toml", "[proxy]\nlisten = 1\n");
    machine.run(&["systemctl", "restart", PROXY]);
    machine.wait_for("the proxy to be given up", SOON, || show(&machine, PROXY, "ActiveState") == "failed");
    assert_eq!(listening(&machine), [""; 0]);
}

/// Opens connections to alive.sock, prints how many were greeted, and holds them until it is killed.
const HOLDER: &str = "use IO::Socket::UNIX; $| = 1; my ($count, @held) = (0);\
    for (1 .. $ARGV[0]) { push @held, IO::Socket::UNIX->new('/run/observability-hub/alive.sock') || next; }\
    for (@held) { $count++ if $_->sysread(my $line, 64); }\
    open(OUT, '>', \"$ARGV[1].new\"); print OUT $count; close OUT; rename \"$ARGV[1].new\", $ARGV[1]; sleep";

#[test]
fn a_member_of_the_group_does_not_keep_the_gate_from_alive_sock() {
    let Some(machine) = Machine::boot() else { return };
    start_hub(&machine);
    for user in ["eve", "ada"] {
        machine.ok(&["useradd", "--groups", "hub", user]);
    }
    machine.ok(&["mkdir", "--mode=1777", "/srv/held"]);
    let hold = |user: &str, count: &str| {
        let (unit, told) = (format!("--unit=hold-{user}"), format!("/srv/held/{user}"));
        let uid = format!("--property=User={user}");
        machine.ok(&[
            "systemd-run",
            "--quiet",
            &unit,
            &uid,
            "--property=LimitNOFILE=8192",
            "perl",
            "-e",
            HOLDER,
            count,
            &told,
        ]);
        machine.wait_for("the connections", SOON, || machine.run(&["test", "-e", &told]).status.success());
        machine.ok(&["cat", &told]).trim().parse::<usize>().expect("a number")
    };
    // The proxy's sandbox shows it all users but root as one.
    assert_eq!(hold("eve", "4149"), 16);
    assert_eq!(hold("ada", "3"), 0);
    let root = "use IO::Socket::UNIX; IO::Socket::UNIX->new('/run/observability-hub/alive.sock')->sysread(my $line, 64); print $line";
    assert_eq!(machine.ok(&["perl", "-e", root]).trim().len(), 32, "root's place is kept");
    let pid = show(&machine, PROXY, "MainPID");
    let open = machine.ok(&["ls", &format!("/proc/{pid}/fd")]).lines().count();
    assert!(open < 100, "{open} descriptors");
    machine.wait_for("the refusal to be logged", SOON, || {
        lines(&machine, PROXY).iter().any(|line| line["msg"] == "alive_connections_refused")
    });
    machine.ok(&["systemctl", "stop", "hold-eve", "hold-ada"]);
}
