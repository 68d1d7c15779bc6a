//! A look of `hub watch`, as it is nearly always: nothing new; and one that has something to tell, beside `hub status`, in
//! turns. CPU time, bytes and memory as in `metrics.rs`, children included. Where systemd runs, `systemctl show` is one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod figures;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use figures::{Runs, figure, median, ms, setting};
use serde_json::json;
use support::notice_server::Server;
use support::status::record;
use support::{Host, free_address};

fn main() {
    let rounds = setting("HUB_BENCH_ROUNDS", 120).max(1);
    println!("watch: a look at a host with twenty repositories, {rounds} in turns, medians");
    figures::machine();
    let server = Server::start();
    let host = Host::new();
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    let repository = |number| {
        format!("[[repository]]\nname = \"acme/r{number}\"\nurl = \"/srv/r{number}.git\"\npath = \"/srv/r{number}\"\n")
    };
    let repositories: String = (0..20).map(repository).collect();
    host.configure(&format!("[proxy]\n{addresses}[notify]\nurl = \"{}/topic\"\n{repositories}", server.url));
    // A real sample of this host.
    assert!(host.command("system-metrics").stdout(Stdio::null()).status().unwrap().success());
    let gitops = |status| record(&host, "gitops", "gitops-sync", 30, json!({ "status": status }));
    let look = || {
        let mut command = host.command("hub");
        command.arg("watch");
        command
    };
    gitops("unchanged");
    assert!(look().stdout(Stdio::null()).status().unwrap().success());
    let [mut quiet, mut speaks, mut nothing] = [(); 3].map(|()| Runs::default());
    for round in 0..rounds {
        quiet.add(look());
        gitops(if round % 2 == 0 { "failed" } else { "unchanged" });
        speaks.add(look());
        nothing.add(Command::new("true"));
    }
    quiet.show("hub watch, nothing new");
    speaks.show("hub watch, with something to tell");
    nothing.show("true: starting a program at all");
    println!("  {} notices came", server.got().len());
    let cpu = ms(median(&quiet.cpu));
    figure("CPU time of a look", format!("{cpu:.2} ms"), "<= 15 ms", cpu <= 15.0);
    println!("  {:<58} {:>9.1} MB", "written a day, a look a minute", quiet.mean_written() * 1440.0 / 1000.0);
}
