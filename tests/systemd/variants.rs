//! One deployment after another, each with another relation between units, another kind of unit, or another owner of one.
//! A case is two commits of a repository of its own, beside units that are nobody's; NN stands for its name.
//! `HUB_TEST_CASES` names the cases that are played, with commas; all else.

use std::time::Duration;

use crate::gitops::{File, Gone, Run, Text, push, repository};
use crate::machine::Machine;
use crate::moved::{failing, states, svc};

/// So many are played at once.
const WORKERS: usize = 4;

/// A case: what the second commit comes to, and the units that are up then.
struct Case {
    name: &'static str,
    /// Units that are nobody's, started after the first commit; a path with a slash is a drop-in.
    foreign: Vec<(&'static str, String)>,
    first: Vec<(&'static str, String)>,
    /// What an operator stops after the first commit.
    stopped: &'static str,
    /// Changes; empty texts are files that go.
    second: Vec<(&'static str, String)>,
    exit: i32,
    up: &'static str,
    down: &'static str,
}

fn quiet(text: &str) -> String {
    text.replace("[Install]\nWantedBy=multi-user.target\n", "")
}

fn gone() -> String {
    String::new()
}

/// A service that fails after a while.
fn late(unit: &str) -> String {
    svc(unit, "").replace("/usr/bin/sleep infinity", "/usr/bin/sh -c 'sleep 0.7; exit 1'")
}

fn once(unit: &str, exec: &str) -> String {
    format!("[Unit]\n{unit}\n[Service]\nType=oneshot\nExecStart={exec}\n")
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let app = || ("NN-a.service", svc("", ""));
    let broken = || ("NN-a.service", failing(""));
    let timer =
        |unit: &str, timer: &str| format!("[Unit]\n{unit}\n[Timer]\n{timer}\n[Install]\nWantedBy=timers.target\n");
    let socket = |unit: &str, name: &str| {
        format!("[Unit]\n{unit}\n[Socket]\nListenStream=/run/{name}.sock\n[Install]\nWantedBy=sockets.target\n")
    };
    let path = |unit: &str, line: &str| format!("[Unit]\n{unit}\n[Path]\n{line}\n[Install]\nWantedBy=paths.target\n");
    let mount = |unit: &str, place: &str| {
        format!(
            "[Unit]\n{unit}\n[Mount]\nWhat=tmpfs\nWhere={place}\nType=tmpfs\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    let target = |unit: &str| format!("[Unit]\n{unit}\n[Install]\nWantedBy=multi-user.target\n");
    let case = |name, foreign, first, second, exit, up, down| Case { name, foreign, first, stopped: "", second, exit, up, down };
    let pulled = |name, foreign, wants: &str, more: Vec<(&'static str, String)>, stopped, up, down| Case {
        name, foreign, first: [vec![("NN-a.service", svc(&format!("Wants={wants}"), ""))], more].concat(), stopped, second: vec![broken()], exit: 3, up, down,
    };
    vec![
        // What somebody had stopped stays down, though what comes back wants it.
        pulled("stopped", vec![], "NN-b.service", vec![("NN-b.service", svc("", ""))], "b.service", "a.service", "b.service"),
        pulled("stopped2", vec![("NN-c.service", svc("", "")), ("NN-d.service", svc("", ""))], "NN-b.service", vec![("NN-b.service", svc("Wants=NN-c.service NN-d.service", ""))], "b.service c.service", "a.service d.service", "b.service c.service"),
        pulled("stopinst", vec![("NN-t@.service", quiet(&svc("", "")))], "NN-t@one.service NN-t@two.service", vec![], "", "a.service", "t@one.service t@two.service"),
        pulled("stopneed", vec![("NN-b.timer", timer("", "OnCalendar=yearly")), ("NN-b.service", once("", "/bin/true"))], "NN-b.timer", vec![], "b.timer", "a.service", "b.timer"),
        // What a failed unit took down is up again.
        case("sock", vec![("NN-b.socket", socket("BindsTo=NN-a.service\nAfter=NN-a.service", "NN")), ("NN-b.service", quiet(&svc("", "")))], vec![app()], vec![broken()], 3, "a.service b.socket", ""),
        case("sockrun", vec![("NN-b.service", svc("Requires=NN-a.service NN-b.socket\nAfter=NN-a.service", "")), ("NN-b.socket", socket("PartOf=NN-a.service", "NN"))], vec![app()], vec![broken()], 3, "a.service b.service b.socket", ""),
        case("path", vec![("NN-b.path", path("PartOf=NN-a.service", "PathExists=/srv/never")), ("NN-b.service", once("", "/bin/true"))], vec![app()], vec![broken()], 3, "a.service b.path", ""),
        case("mnt", vec![("mnt-NN.mount", mount("Requires=NN-a.service\nAfter=NN-a.service", "/mnt/NN")), ("NN-c.service", svc("RequiresMountsFor=/mnt/NN/x", ""))], vec![app()], vec![broken()], 3, "a.service c.service mnt-NN.mount", ""),
        case("grp", vec![("NN-g.target", target("Requires=NN-a.service\nAfter=NN-a.service")), ("NN-c.service", svc("PartOf=NN-g.target\nAfter=NN-g.target", ""))], vec![app()], vec![broken()], 3, "a.service c.service g.target", ""),
        case("propag", vec![("NN-b.service", svc("StopPropagatedFrom=NN-a.service", "")), ("NN-c.service", svc("BindsTo=NN-b.service\nAfter=NN-b.service", ""))], vec![app()], vec![broken()], 3, "a.service b.service c.service", ""),
        case("dropin", vec![("NN-b.service", svc("", "")), ("NN-b.service.d/x.conf", "[Unit]\nRequisite=NN-a.service\nAfter=NN-a.service\n".into()), ("NN-c.service", svc("", "")), ("NN-c.service.requires/NN-b.service", "link".into())], vec![app()], vec![broken()], 3, "a.service b.service c.service", ""),
        case("shy", vec![("NN-b.service", svc("Requires=NN-a.service\nAfter=NN-a.service\nRefuseManualStart=yes", "")), ("NN-p.service", svc("Wants=NN-b.service", ""))], vec![app()], vec![broken()], 3, "a.service b.service p.service", ""),
        case("shystop", vec![("NN-b.service", svc("Requires=NN-a.service\nAfter=NN-a.service\nRefuseManualStop=yes", ""))], vec![app()], vec![broken()], 3, "a.service b.service", ""),
        case("lazy", vec![("NN-b.service", svc("Requires=NN-a.service\nAfter=NN-a.service\nStopWhenUnneeded=yes", "")), ("NN-p.service", svc("Wants=NN-b.service", ""))], vec![app()], vec![broken()], 3, "a.service b.service p.service", ""),
        // What changes well takes along what depends on it, whatever that is.
        case("oksock", vec![("NN-b.socket", socket("BindsTo=NN-a.service\nAfter=NN-a.service", "NN")), ("NN-b.service", svc("Requires=NN-b.socket\nAfter=NN-b.socket", ""))], vec![app()], vec![("NN-a.service", svc("", "Nice=1"))], 0, "a.service b.socket b.service", ""),
        case("okmnt", vec![("mnt-NN.mount", mount("PartOf=NN-a.service\nAfter=NN-a.service", "/mnt/NN")), ("NN-c.service", svc("RequiresMountsFor=/mnt/NN/x", ""))], vec![app()], vec![("NN-a.service", svc("", "Nice=1"))], 0, "a.service c.service mnt-NN.mount", ""),
        case("oklazy", vec![], vec![("NN-a.service", svc("Wants=NN-h.service\nAfter=NN-h.service", "")), ("NN-h.service", quiet(&svc("StopWhenUnneeded=yes", "")))], vec![("NN-a.service", svc("Wants=NN-h.service\nAfter=NN-h.service", "Nice=1"))], 0, "a.service h.service", ""),
        case("okshy", vec![("NN-b.service", svc("PartOf=NN-a.service\nAfter=NN-a.service\nRefuseManualStart=yes", "")), ("NN-p.service", svc("Wants=NN-b.service", ""))], vec![app(), ("NN-z.service", svc("", ""))], vec![("NN-a.service", gone())], 0, "b.service p.service", "a.service"),
        case("worker", vec![], vec![("NN-w.target", target("Wants=NN-q@1.service NN-q@2.service")), ("NN-q@.service", quiet(&svc("BindsTo=NN-w.target\nAfter=NN-w.target", "")))], vec![("NN-q@.service", quiet(&svc("BindsTo=NN-w.target\nAfter=NN-w.target", "Nice=1")))], 0, "w.target q@1.service q@2.service", ""),
        case("unwant", vec![], vec![("NN-w.target", target("Wants=NN-h.service")), ("NN-h.service", quiet(&svc("StopWhenUnneeded=yes", "")))], vec![("NN-w.target", target("After=NN-h.service"))], 0, "w.target", ""),
        // Conflicts.
        case("cdrop", vec![("NN-a.service", svc("", "")), ("NN-a.service.d/x.conf", "[Unit]\nConflicts=NN-b.service\n".into())], vec![("NN-z.service", svc("", ""))], vec![("NN-b.service", failing(""))], 3, "a.service", "b.service"),
        case("ctimer", vec![("NN-a.service", svc("", ""))], vec![("NN-z.service", svc("", ""))], vec![("NN-b.timer", timer("Conflicts=NN-a.service", "OnActiveSec=0.3")), ("NN-b.service", once("", "/bin/false"))], 3, "a.service", "b.timer"),
        case("ctwo", vec![("NN-a.service", svc("", "")), ("NN-d.service", svc("BindsTo=NN-a.service\nAfter=NN-a.service", ""))], vec![("NN-z.service", svc("", ""))], vec![("NN-b.service", svc("Requires=NN-c.service\nAfter=NN-c.service", "ExecStartPre=/bin/false")), ("NN-c.service", quiet(&svc("Conflicts=NN-a.service", "")))], 3, "a.service d.service", "b.service c.service"),
        case("ctmpl", vec![("NN-a@one.service", svc("", ""))], vec![("NN-z.service", svc("", ""))], vec![("NN-b@.service", late("Conflicts=NN-a@%i.service").replace("[Install]", "[Install]\nDefaultInstance=one"))], 3, "a@one.service", "b@one.service"),
        case("ctarget", vec![("NN-a.service", svc("", ""))], vec![("NN-z.service", svc("", ""))], vec![("NN-b.target", target("Conflicts=NN-a.service\nRequires=NN-c.service\nAfter=NN-c.service")), ("NN-c.service", quiet(&failing("")))], 3, "a.service", "b.target"),
        case("cwell", vec![("NN-a.service", svc("", "")), ("NN-d.timer", timer("BindsTo=NN-a.service\nAfter=NN-a.service", "OnCalendar=2090-01-01")), ("NN-d.service", once("", "/bin/true"))], vec![("NN-z.service", svc("", ""))], vec![("NN-b.socket", socket("Conflicts=NN-a.service", "NN-b")), ("NN-b.service", quiet(&svc("", "")))], 0, "b.socket z.service", "a.service d.timer"),
        // Green while something fails.
        case("gtimer", vec![], vec![app()], vec![("NN-b.timer", timer("", "OnActiveSec=0.2\nAccuracySec=10ms")), ("NN-b.service", once("", "/bin/false"))], 3, "a.service", "b.timer"),
        case("gpath", vec![], vec![app()], vec![("NN-b.path", path("", "PathExists=/etc/passwd")), ("NN-b.service", once("", "/bin/false"))], 3, "a.service", "b.path"),
        case("glink", vec![("NN-d.service", svc("", ""))], vec![app()], vec![("NN-b.service", failing("").replace("multi-user.target", "NN-d.service"))], 3, "a.service d.service", ""),
        case("gup", vec![], vec![app()], vec![("NN-a.service", svc("Upholds=NN-c.service", "")), ("NN-c.service", quiet(&late("")))], 3, "a.service", "c.service"),
        case("gmount", vec![], vec![app()], vec![("mnt-NN.mount", mount("", "/mnt/NN").replace("Type=tmpfs", "Type=tmpfs\nOptions=nosuchoption=1"))], 3, "a.service", "mnt-NN.mount"),
        case("gstart", vec![], vec![app()], vec![("NN-a.service", svc("", "Type=notify\nTimeoutStartSec=2"))], 3, "a.service", ""),
        case("gdbus", vec![], vec![app()], vec![("NN-a.service", svc("", "ExecStartPost=/bin/false"))], 3, "a.service", ""),
        case("grestart", vec![], vec![app()], vec![("NN-a.service", late("").replace("[Install]", "Restart=always\nRestartSec=100ms\n[Install]"))], 3, "a.service", ""),
        // Another name, or gone.
        case("rtmpl", vec![], vec![("NN-o@.service", svc("", "").replace("[Install]", "[Install]\nDefaultInstance=x")), ("NN-app.service", svc("Requires=NN-o@x.service\nAfter=NN-o@x.service", ""))], vec![("NN-o@.service", gone()), ("NN-n@.service", svc("", "").replace("[Install]", "[Install]\nDefaultInstance=x")), ("NN-app.service", svc("Requires=NN-n@x.service\nAfter=NN-n@x.service", ""))], 0, "n@x.service app.service", "o@x.service"),
        case("rsock", vec![], vec![("NN-o.socket", socket("", "NN")), ("NN-o.service", quiet(&svc("", ""))), ("NN-app.service", svc("Requires=NN-o.socket", ""))], vec![("NN-o.socket", gone()), ("NN-o.service", gone()), ("NN-n.socket", socket("", "NN")), ("NN-n.service", quiet(&svc("", ""))), ("NN-app.service", svc("Requires=NN-n.socket", ""))], 0, "n.socket app.service", "o.socket"),
        case("rtimer", vec![], vec![("NN-o.timer", timer("", "OnCalendar=2090-01-01")), ("NN-o.service", once("", "/bin/true")), app()], vec![("NN-o.timer", gone()), ("NN-o.service", gone()), ("NN-n.timer", timer("", "OnCalendar=2090-01-01\nUnit=NN-n.service")), ("NN-n.service", once("", "/bin/true"))], 0, "n.timer a.service", "o.timer"),
        case("rmount", vec![], vec![("mnt-NN.mount", mount("", "/mnt/NN")), ("NN-app.service", svc("RequiresMountsFor=/mnt/NN/data", ""))], vec![("mnt-NN.mount", gone()), ("NN-app.service", svc("", "Nice=1"))], 0, "app.service", "mnt-NN.mount"),
        case("rback", vec![], vec![("NN-o.socket", socket("", "NN")), ("NN-o.service", svc("Requires=NN-o.socket\nAfter=NN-o.socket", "")), app()], vec![("NN-o.socket", gone()), ("NN-o.service", svc("", "")), broken()], 3, "o.socket o.service a.service", ""),
        case("tofore", vec![("NN-t.timer", timer("", "OnCalendar=2090-01-01\nUnit=NN-x.service"))], vec![app(), ("NN-x.service", once("", "/bin/true"))], vec![("NN-x.service", gone())], 5, "a.service t.timer", ""),
        case("need1", vec![("NN-b.service", svc("", "")), ("NN-b.service.d/x.conf", "[Unit]\nBindsTo=NN-a.service\nAfter=NN-a.service\n".into())], vec![app(), ("NN-z.service", svc("", ""))], vec![("NN-a.service", gone())], 5, "a.service b.service z.service", ""),
        case("need2", vec![("NN-b@.service", quiet(&svc("Requires=NN-%i.service\nAfter=NN-%i.service", ""))), ("NN-c.service", svc("Requires=NN-b@a.service\nAfter=NN-b@a.service", ""))], vec![app(), ("NN-z.service", svc("", ""))], vec![("NN-a.service", gone())], 5, "a.service b@a.service c.service z.service", ""),
        case("need3", vec![("NN-b.timer", timer("Requires=NN-a.service\nAfter=NN-a.service", "OnCalendar=2090-01-01")), ("NN-b.service", once("", "/bin/true"))], vec![app(), ("NN-z.service", svc("", ""))], vec![("NN-a.service", gone())], 5, "a.service b.timer z.service", ""),
        case("need4", vec![("NN-b.service", svc("RequiresMountsFor=/mnt/NN/x", ""))], vec![("mnt-NN.mount", mount("", "/mnt/NN")), ("NN-z.service", svc("", ""))], vec![("mnt-NN.mount", gone())], 0, "b.service z.service", ""),
        case("stuck", vec![], vec![app(), ("NN-s.service", svc("", "TimeoutStopSec=1").replace("/usr/bin/sleep infinity", "/usr/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'"))], vec![("NN-s.service", gone())], 0, "a.service", "s.service"),
        // Kinds that change.
        case("k1", vec![], vec![("NN-a.service", svc("", "Type=notify\nNotifyAccess=all").replace("/usr/bin/sleep infinity", "/usr/bin/sh -c 'systemd-notify --ready; sleep infinity'"))], vec![("NN-a.service", once("", "/bin/true") + "RemainAfterExit=yes\n[Install]\nWantedBy=multi-user.target\n")], 0, "a.service", ""),
        case("k2", vec![], vec![("NN-a.service", once("", "/bin/true") + "RemainAfterExit=yes\n[Install]\nWantedBy=multi-user.target\n")], vec![app()], 0, "a.service", ""),
        case("k3", vec![("NN-b.service", svc("Requires=NN-a.service\nAfter=NN-a.service", ""))], vec![app()], vec![("NN-a.service", once("", "/bin/true"))], 0, "b.service", ""),
        case("k4", vec![], vec![("NN-a.service", once("", "/bin/true") + "RemainAfterExit=yes\n[Install]\nWantedBy=multi-user.target\n"), ("NN-b.service", svc("BindsTo=NN-a.service\nAfter=NN-a.service", ""))], vec![("NN-a.service", once("", "/bin/true") + "[Install]\nWantedBy=multi-user.target\n"), ("NN-b.service", svc("After=NN-a.service", ""))], 0, "b.service", ""),
        case("k5", vec![], vec![("NN-a.service", svc("", ""))], vec![("NN-a.service", gone()), ("NN-a@.service", svc("", "").replace("[Install]", "[Install]\nDefaultInstance=x"))], 0, "a@x.service", "a.service"),
        case("k6", vec![], vec![("NN-a@.service", svc("", "").replace("[Install]", "[Install]\nDefaultInstance=x")), ("NN-b.service", svc("BindsTo=NN-a@x.service\nAfter=NN-a@x.service", ""))], vec![("NN-a@.service", failing("").replace("[Install]", "[Install]\nDefaultInstance=x"))], 3, "a@x.service b.service", ""),
        case("k7", vec![], vec![("NN-a.service", svc("", "")), ("NN-a.socket", socket("", "NN"))], vec![("NN-a.socket", socket("", "NN").replace("[Install]", "SocketMode=0600\n[Install]")), ("NN-a.service", failing(""))], 3, "a.service a.socket", ""),
        case("race", vec![("NN-client.service", svc("", "").replace("/usr/bin/sleep infinity", "/usr/bin/perl -e 'use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(\"/run/NN.sock\"); sleep 1000'"))], vec![("NN-a.socket", socket("", "NN")), ("NN-a.service", quiet(&svc("", "")))], vec![("NN-a.socket", socket("", "NN").replace("[Install]", "SocketMode=0600\n[Install]"))], 0, "a.socket a.service client.service", ""),
        case(SLOW, vec![], vec![app()], vec![("NN-a.service", svc("", "TimeoutStartSec=45\nExecStartPre=/usr/bin/sleep 25\nExecStartPre=/usr/bin/sleep 25\nExecStartPre=/usr/bin/sleep 25\nExecStartPre=/usr/bin/sleep 25\nExecStartPre=/usr/bin/sleep 25"))], 0, "a.service", ""),
        // More.
        case("shy2", vec![("NN-b.service", svc("Requires=NN-a.service\nAfter=NN-a.service\nRefuseManualStart=yes", "")), ("NN-c.service", svc("Requires=NN-b.service\nAfter=NN-b.service", "")), ("NN-p.service", svc("Wants=NN-b.service", ""))], vec![app()], vec![broken()], 3, "a.service b.service c.service p.service", ""),
        case("shysock", vec![("NN-b.socket", socket("BindsTo=NN-a.service\nAfter=NN-a.service\nRefuseManualStart=yes", "NN")), ("NN-b.service", quiet(&svc("", ""))), ("NN-p.service", svc("Wants=NN-b.socket", ""))], vec![app()], vec![broken()], 3, "a.service b.socket p.service", ""),
        case("mopt", vec![], vec![("mnt-NN.mount", mount("", "/mnt/NN")), app()], vec![("mnt-NN.mount", mount("", "/mnt/NN").replace("Type=tmpfs", "Type=tmpfs\nOptions=nosuch=1"))], 3, "a.service mnt-NN.mount", ""),
        case("alias", vec![("NN-b.service", svc("Requires=NN-other.service\nAfter=NN-other.service", ""))], vec![("NN-a.service", svc("", "") + "Alias=NN-other.service\n")], vec![("NN-a.service", failing("") + "Alias=NN-other.service\n")], 3, "a.service b.service", ""),
        case("alias2", vec![("NN-b.service", svc("Requires=NN-old.service\nAfter=NN-old.service", ""))], vec![("NN-old.service", svc("", "")), app()], vec![("NN-old.service", gone()), ("NN-new.service", svc("", "") + "Alias=NN-old.service\n")], 0, "a.service b.service new.service", ""),
        case("alias3", vec![("NN-b.service", svc("Conflicts=NN-other.service", ""))], vec![app()], vec![("NN-c.service", failing("") + "Alias=NN-other.service\n")], 3, "a.service b.service", ""),
        case("cond", vec![], vec![app()], vec![("NN-c.service", svc("ConditionPathExists=/nowhere", "")), ("NN-a.service", svc("Wants=NN-c.service", ""))], 0, "a.service", "c.service"),
        case("trun", vec![], vec![("NN-t.timer", timer("", "OnActiveSec=0.1\nAccuracySec=10ms")), ("NN-t.service", once("", "/usr/bin/sleep 40"))], vec![("NN-t.timer", timer("", "OnActiveSec=1h"))], 0, "t.timer", ""),
        case("pathdep", vec![("NN-p.path", path("", "PathExists=/srv/never\nUnit=NN-x.service"))], vec![app(), ("NN-x.service", once("", "/bin/true"))], vec![("NN-x.service", gone())], 5, "a.service p.path", ""),
        case("sockdep", vec![("NN-p.socket", socket("", "NN").replace("[Install]", "Service=NN-x.service\n[Install]"))], vec![app(), ("NN-x.service", quiet(&svc("", "")))], vec![("NN-x.service", gone())], 5, "a.service p.socket", ""),
        case("along", vec![("NN-b.service", svc("StopPropagatedFrom=NN-a.service", "")), ("NN-c.service", svc("PartOf=NN-b.service", ""))], vec![app(), ("NN-z.service", svc("", ""))], vec![("NN-a.service", gone())], 0, "b.service c.service z.service", "a.service"),
        case("succ", vec![("NN-x.service", svc("", "")), ("NN-h.service", quiet(&svc("Conflicts=NN-x.service", "")))], vec![app()], vec![("NN-a.service", svc("OnSuccess=NN-h.service", "").replace("/usr/bin/sleep infinity", "/usr/bin/sleep 0.3")), ("NN-b.service", late(""))], 3, "a.service x.service", "h.service"),
        case("alias4", vec![("NN-b.service", svc("Requires=NN-o.service\nAfter=NN-o.service", ""))], vec![("NN-old.service", svc("", "") + "Alias=NN-o.service\n"), app()], vec![("NN-old.service", gone()), ("NN-new.service", svc("", "") + "Alias=NN-o.service\n")], 0, "a.service b.service new.service o.service", "old.service"),
        case("alias5", vec![], vec![app()], vec![("NN-n.service", svc("", "") + "Alias=NN-db.service\n"), ("NN-app.service", svc("Requires=NN-db.service\nAfter=NN-db.service", ""))], 0, "a.service n.service app.service db.service", ""),
        case("alias6", vec![("NN-b.service", svc("Requires=NN-o.service\nAfter=NN-o.service", ""))], vec![("NN-c.service", svc("", "")), ("NN-a.service", svc("", "") + "Alias=NN-o.service\n")], vec![("NN-a.service", svc("", "")), ("NN-c.service", svc("", "") + "Alias=NN-o.service\n")], 0, "a.service b.service c.service o.service", ""),
        case("alias7", vec![("NN-b.service", svc("Requires=NN-old.service\nAfter=NN-old.service", ""))], vec![("NN-old.service", svc("", "")), app()], vec![("NN-old.service", gone()), ("NN-new.service", late("") + "Alias=NN-old.service\n")], 3, "a.service b.service old.service", "new.service"),
        case("alias8", vec![("NN-t.timer", timer("", "OnCalendar=2090-01-01\nUnit=NN-x.service"))], vec![app(), ("NN-x.service", quiet(&svc("", "")))], vec![("NN-x.service", gone()), ("NN-y.service", svc("", "") + "Alias=NN-x.service\n")], 0, "a.service t.timer y.service", ""),
        case("twofail", vec![("NN-d.service", svc("BindsTo=NN-a.service NN-b.service\nAfter=NN-a.service NN-b.service", ""))], vec![app(), ("NN-b.service", svc("", ""))], vec![broken(), ("NN-b.service", late(""))], 3, "a.service b.service d.service", ""),
        case("swapname", vec![], vec![("NN-a.service", svc("", "")), ("NN-b.service", svc("Conflicts=NN-c.service", "")), ("NN-c.service", quiet(&svc("", "")))], vec![("NN-b.service", gone()), ("NN-c.service", svc("", ""))], 0, "a.service c.service", "b.service"),
        case("instgone", vec![("NN-d.service", svc("Wants=NN-t@two.service\nAfter=NN-t@two.service", ""))], vec![("NN-t@.service", svc("", "").replace("[Install]", "[Install]\nDefaultInstance=one")), app()], vec![("NN-t@.service", gone())], 0, "a.service d.service", "t@one.service t@two.service"),
    ]
}

/// Plays a case; returns what was wrong. The worker's state is its own, so that several can be played at once.
fn play(machine: &Machine, case: &Case, worker: usize) -> Option<String> {
    let Case { name, foreign, first, stopped, second, exit, up, down } = case;
    let named = |text: &str| text.replace("NN", name);
    let config = format!("/etc/worker-{worker}.toml");
    let state = format!("state_dir = \"/var/lib/worker-{worker}\"\n");
    machine.write(&config, state + &repository(name, "health = { grace_seconds = 2 }"));
    let put = |files: &[(&str, String)]| {
        let files: Vec<(String, String)> =
            files.iter().map(|(path, text)| (format!("systemd/{}", named(path)), named(text))).collect();
        let all = files.iter().map(|(path, text)| if text.is_empty() { Gone(path) } else { Text(path, text) });
        push(machine, name, &all.collect::<Vec<File>>());
        let argv = ["gitops-sync", "--json", "--config", &config, &format!("acme/{name}")];
        Run::new(&machine.run_for(&argv, None, Duration::from_secs(300)))
    };
    let run = put(first);
    if run.exit != 0 {
        return Some(format!("{name}: the first commit ended with {}: {}", run.exit, run.reason()));
    }
    for (path, text) in foreign {
        let place = format!("/etc/systemd/system/{}", named(path));
        if text == "link" {
            let (folder, unit) = place.rsplit_once('/').expect("a folder");
            machine.ok(&["mkdir", "-p", folder]);
            machine.ok(&["ln", "-s", &format!("/etc/systemd/system/{unit}"), &place]);
        } else {
            machine.write(&place, named(text));
        }
    }
    machine.ok(&["systemctl", "daemon-reload"]);
    let stop: Vec<String> = stopped.split_whitespace().map(|unit| format!("{name}-{unit}")).collect();
    let is_started = |text: &str| text.contains("[Install]") && !text.contains("RefuseManualStart");
    let mut start: Vec<String> = foreign
        .iter()
        .filter(|(path, text)| !path.contains('/') && is_started(text))
        .map(|(path, _)| named(path))
        .collect();
    start.sort_by_key(|unit| !unit.ends_with(".socket"));
    start.iter().for_each(|unit| drop(machine.ok(&["systemctl", "start", unit])));
    stop.iter().for_each(|unit| drop(machine.ok(&["systemctl", "stop", unit])));
    let run = put(second);
    let full = |unit: &str| if unit.contains("NN") { named(unit) } else { format!("{name}-{unit}") };
    let all = |units: &str, state: &str| -> Vec<String> {
        units.split_whitespace().map(|unit| format!("{} {state}", full(unit))).collect()
    };
    let expected = [all(up, "active"), all(down, "inactive")].concat();
    let units: Vec<&str> = expected.iter().filter_map(|line| line.split(' ').next()).collect();
    let found = states(machine, &units);
    let pattern = format!("*{name}-*");
    let failed = machine.ok(&["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", &pattern]);
    let is_right = run.exit == *exit && found == expected && failed.is_empty();
    let (reason, actions) = (run.reason(), run.actions());
    let wrong =
        format!("{name}: exit {} ({exit}) {reason}\n  found {found:?}\n  failed {failed}\n  did {actions:?}", run.exit);
    (!is_right).then_some(wrong)
}

/// The case of a start that takes longer than the limit of one command.
const SLOW: &str = "slow";

#[test]
fn what_is_promised_holds_for_other_relations_kinds_and_owners() {
    let Some(machine) = Machine::boot() else { return };
    let only = std::env::var("HUB_TEST_CASES").ok();
    let is_meant =
        |case: &Case| only.as_ref().map_or(case.name != SLOW, |only| only.split(',').any(|name| name == case.name));
    let cases: Vec<Case> = cases().into_iter().filter(is_meant).collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let (machine, cases) = (&machine, &cases);
        let play_all = move |worker: usize| -> Vec<String> {
            let own = cases.iter().enumerate().filter(|(number, _)| number % WORKERS == worker);
            own.filter_map(|(_, case)| play(machine, case, worker)).collect()
        };
        let threads: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || play_all(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no worker panics")).collect()
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Alone: after a daemon-reload, which other cases bring, systemd counts the limit of a start from its beginning.
#[test]
fn a_start_of_several_commands_is_given_the_time_of_all() {
    let Some(machine) = Machine::boot() else { return };
    let slow = cases().into_iter().find(|case| case.name == SLOW).expect("the case is in the table");
    assert_eq!(play(&machine, &slow, 0), None);
}
