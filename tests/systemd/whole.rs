//! Random units with random relations, changed at random: what a deployment promises about the whole host holds each time.
//! A seed is a repository with a few units, some of them the operator's, and three commits; after each run the states are
//! compared with those before. Several repositories are deployed at once, each by a worker with a state of its own.
//!
//! `HUB_TEST_SEEDS` sets the number of seeds (default 20, the long form has 300), `HUB_TEST_SEED` the first one (default 1):
//! whether a change is good does not depend on the second in which it was tried. Even seeds have more kinds of units and relations, and drop-ins.
#![allow(clippy::print_stderr, reason = "a long run says how it goes")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::crash::Random;
use crate::gitops::{File, Gone, Text, push};
use crate::machine::Machine;

/// So many are deployed at once.
const WORKERS: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Runs,
    FailsAtOnce,
    FailsLater,
    Remains,
    Timer,
    Target,
}

/// A unit as it is to be: what it does, and how it is related to others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unit {
    kind: Kind,
    /// `Requires=`, `After=` … with a number.
    relations: BTreeSet<(&'static str, usize)>,
    version: u64,
    foreign: bool,
    enabled: bool,
    /// Whether its relations are in a drop-in.
    dropped: bool,
}

type Units = BTreeMap<usize, Unit>;

/// True for a seed with more kinds of units and relations, and with drop-ins.
fn is_wide(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

fn name(seed: u64, number: usize, units: &Units) -> String {
    let kind = match units.get(&number).map(|unit| unit.kind) {
        Some(Kind::Timer) => "timer",
        Some(Kind::Target) => "target",
        _ => "service",
    };
    format!("s{seed}-{number}.{kind}")
}

fn relations(seed: u64, units: &Units, unit: &Unit) -> String {
    let line = |(relation, other): &(&str, usize)| format!("{relation}={}\n", name(seed, *other, units));
    unit.relations.iter().map(line).collect()
}

/// The files of a unit, below the folder of units.
fn unit_files(seed: u64, number: usize, units: &Units, unit: &Unit) -> Vec<(String, String)> {
    let name = name(seed, number, units);
    let mut files = vec![(name.clone(), text(seed, units, unit))];
    if unit.dropped {
        files.push((format!("{name}.d/s{seed}-x.conf"), format!("[Unit]\n{}", relations(seed, units, unit))));
    }
    files
}

fn text(seed: u64, units: &Units, unit: &Unit) -> String {
    let mut text = format!("[Unit]\nDescription=version {}\n", unit.version);
    if !unit.dropped {
        text += &relations(seed, units, unit);
    }
    text += match unit.kind {
        Kind::Runs => "[Service]\nExecStart=/usr/bin/sleep infinity\n",
        Kind::FailsAtOnce => "[Service]\nExecStart=/usr/bin/false\n",
        Kind::FailsLater => "[Service]\nExecStart=/usr/bin/sh -c 'sleep 1; exit 1'\n",
        Kind::Remains => "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n",
        Kind::Timer => "[Timer]\nOnCalendar=2090-01-01\nUnit=systemd-tmpfiles-clean.service\n",
        Kind::Target => "",
    };
    if unit.enabled {
        text += "[Install]\nWantedBy=multi-user.target\n";
    }
    text
}

fn random_relations(
    random: &mut Random,
    number: usize,
    others: &[usize],
    is_wide: bool,
) -> BTreeSet<(&'static str, usize)> {
    const KINDS: [&str; 10] = [
        "Requires",
        "BindsTo",
        "PartOf",
        "Wants",
        "Requisite",
        "Conflicts",
        "After",
        "PropagatesStopTo",
        "StopPropagatedFrom",
        "OnFailure",
    ];
    let kinds = if is_wide { &KINDS[..] } else { &KINDS[..7] };
    let mut relations = BTreeSet::new();
    for &other in others.iter().filter(|other| **other != number) {
        if random.below(10) >= 4 {
            continue;
        }
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        // In one direction only, so that no order is a circle.
        let (kind, is_before) =
            if kind == "Conflicts" && random.below(2) == 0 { ("Wants", true) } else { (kind, other < number) };
        if kind == "Conflicts" || is_before && other < number {
            relations.insert((kind, other));
            if kind != "Conflicts" && random.below(4) > 0 {
                relations.insert(("After", other));
            }
        }
    }
    relations
}

fn random_unit(random: &mut Random, number: usize, others: &[usize], is_first: bool, is_wide: bool) -> Unit {
    let mut kind = match random.below(if is_first { 8 } else { 12 }) {
        6 => Kind::Remains,
        7 => Kind::Timer,
        8 | 9 => Kind::FailsAtOnce,
        10 => Kind::FailsLater,
        _ => Kind::Runs,
    };
    let relations = random_relations(random, number, others, is_wide);
    let (version, enabled) = (random.below(1 << 20), random.below(6) > 0);
    if is_wide && kind == Kind::Runs && random.below(8) == 0 {
        kind = Kind::Target;
    }
    let dropped = is_wide && !relations.is_empty() && random.below(3) == 0;
    Unit { kind, relations, version, foreign: false, enabled, dropped }
}

/// The same units, some of them otherwise, some gone, some new.
fn changed(random: &mut Random, units: &Units, is_wide: bool) -> Units {
    let mut next = units.clone();
    let numbers: Vec<usize> = units.keys().copied().collect();
    for &number in &numbers {
        if units[&number].foreign {
            continue;
        }
        match random.below(8) {
            0..=2 => {
                let unit = next.get_mut(&number).expect("it is there");
                unit.version += 1;
            }
            3 | 4 => {
                let kind = units[&number].kind;
                let mut unit = random_unit(random, number, &numbers, false, is_wide);
                // Another kind of unit would have another name.
                let is_service = |kind: Kind| kind != Kind::Timer && kind != Kind::Target;
                if kind != unit.kind && !(is_service(kind) && is_service(unit.kind)) {
                    unit.kind = kind;
                }
                unit.enabled = units[&number].enabled;
                next.insert(number, unit);
            }
            5 => {
                next.remove(&number);
            }
            _ => {}
        }
    }
    if random.below(2) == 0 {
        let number = numbers.last().map_or(0, |last| last + 1);
        next.insert(number, random_unit(random, number, &numbers, false, is_wide));
    }
    // What requires a unit that goes follows it, mostly.
    let left: BTreeSet<usize> = next.keys().copied().collect();
    for unit in next.values_mut().filter(|unit| !unit.foreign) {
        if random.below(5) > 0 {
            unit.relations.retain(|(_, other)| left.contains(other));
        }
    }
    next
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    active: String,
    sub: String,
    invocation: String,
    conflicts: BTreeSet<String>,
    needs: BTreeSet<String>,
}

impl State {
    fn is_up(&self) -> bool {
        self.active == "active"
    }

    fn is_failed(&self) -> bool {
        self.active == "failed" || self.sub == "auto-restart"
    }
}

fn states(machine: &Machine, names: &BTreeSet<String>) -> BTreeMap<String, State> {
    let properties = "Id,ActiveState,SubState,InvocationID,Conflicts,ConflictedBy,Requires,Requisite,BindsTo,Wants";
    let mut argv = vec!["systemctl", "show", "-p", properties, "--"];
    argv.extend(names.iter().map(String::as_str));
    let text = machine.ok(&argv);
    let read = |block: &str| {
        let mut state = State::default();
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            let words = || value.split_whitespace().map(str::to_owned);
            match key {
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "InvocationID" => value.clone_into(&mut state.invocation),
                "Conflicts" | "ConflictedBy" => state.conflicts.extend(words()),
                "Requires" | "Requisite" | "BindsTo" | "Wants" => state.needs.extend(words()),
                _ => {}
            }
        }
        state
    };
    names.iter().cloned().zip(text.split("\n\n").map(read)).collect()
}

fn files(machine: &Machine, seed: u64) -> String {
    let script = format!(
        "cd /etc/systemd/system; find . -name 's{seed}-*' -printf '%p %l\\n' | sort; cat s{seed}-* s{seed}-*/* 2>/dev/null; true"
    );
    machine.ok(&["sh", "-c", &script])
}

/// What is not as it was promised, after a run.
fn broken(
    exit: i32,
    units: (&Units, &Units),
    names: impl Fn(usize) -> String,
    before: &BTreeMap<String, State>,
    after: &BTreeMap<String, State>,
) -> Vec<String> {
    let mut broken = Vec::new();
    let (old, new) = units;
    if exit != 0 {
        for (unit, was) in before {
            let now = &after[unit];
            if (was.is_up(), was.is_failed()) != (now.is_up(), now.is_failed()) {
                broken.push(format!("{unit} was {} and is {}", was.active, now.active));
            }
            if exit == 5 && was.invocation != now.invocation {
                broken.push(format!("{unit} was touched by a refused commit"));
            }
        }
        return broken;
    }
    let of_commit: BTreeSet<String> =
        new.iter().filter(|(_, unit)| !unit.foreign).map(|(number, _)| names(*number)).collect();
    let removed: BTreeSet<String> =
        old.keys().filter(|number| !new.contains_key(number)).map(|number| names(*number)).collect();
    let well = |unit: &String| after[unit].is_up();
    let mut displaced: BTreeSet<String> =
        of_commit.iter().filter(|unit| well(unit)).flat_map(|unit| after[unit].conflicts.clone()).collect();
    loop {
        let more: Vec<String> = after
            .iter()
            .filter(|(unit, state)| {
                !displaced.contains(*unit) && !state.is_up() && !state.needs.is_disjoint(&displaced)
            })
            .map(|(unit, _)| unit.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        displaced.extend(more);
    }
    for (unit, was) in before.iter().filter(|(_, was)| was.is_up()) {
        if !after[unit].is_up() && !removed.contains(unit) && !displaced.contains(unit) {
            broken.push(format!("{unit} was {} and is {}", was.active, after[unit].active));
        }
    }
    for unit in &of_commit {
        if after[unit].is_failed() && !before[unit].is_failed() {
            broken.push(format!("{unit} failed"));
        }
    }
    broken
}

/// Plays a seed; returns what was broken, and how the runs ended.
fn play(machine: &Machine, seed: u64, worker: u64) -> (Vec<String>, Vec<i32>) {
    // The first numbers of such a generator are alike for seeds that are.
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let repository = format!("s{seed}");
    let config = format!("/etc/worker-{worker}.toml");
    machine.write(
        &config,
        format!(
            "state_dir = \"/var/lib/worker-{worker}\"\n[[repository]]\nname = \"acme/{repository}\"\nurl = \"/srv/origin/{repository}.git\"\n\
             path = \"/srv/{repository}\"\nhealth = {{ grace_seconds = 2 }}\n"
        ),
    );
    let mut units = Units::new();
    let count = 3 + random.below(4) as usize;
    for number in 0..count {
        let others: Vec<usize> = (0..number).collect();
        let mut unit = random_unit(&mut random, number, &others, true, is_wide(seed));
        unit.foreign = random.below(5) == 0;
        units.insert(number, unit);
    }
    let (mut problems, mut exits) = (Vec::new(), Vec::new());
    let mut live = Units::new();
    for (number, unit) in units.iter().filter(|(_, unit)| unit.foreign) {
        live.insert(*number, unit.clone());
        for (file, text) in unit_files(seed, *number, &units, unit) {
            machine.write(&format!("/etc/systemd/system/{file}"), text);
        }
    }
    let mut started = false;
    let mut pushed = live.clone();
    for round in 0..3 {
        let next = if round == 0 { units.clone() } else { changed(&mut random, &live, is_wide(seed)) };
        let all: Units =
            live.iter().chain(&pushed).chain(&next).map(|(number, unit)| (*number, unit.clone())).collect();
        let names: BTreeSet<String> = all.keys().map(|number| name(seed, *number, &all)).collect();
        if started && random.below(4) == 0 && !all.is_empty() {
            // An operator stops something.
            let victim = random.below(all.len() as u64) as usize;
            machine.run(&["systemctl", "stop", names.iter().nth(victim).expect("there are as many")]);
        }
        let texts: Vec<(String, String)> = next
            .iter()
            .filter(|(_, unit)| !unit.foreign)
            .flat_map(|(number, unit)| unit_files(seed, *number, &all, unit))
            .map(|(file, text)| (format!("systemd/{file}"), text))
            .collect();
        let gone: Vec<String> = pushed
            .iter()
            .filter(|(_, unit)| !unit.foreign)
            .flat_map(|(number, unit)| unit_files(seed, *number, &all, unit))
            .map(|(file, _)| format!("systemd/{file}"))
            .filter(|file| texts.iter().all(|(there, _)| there != file))
            .collect();
        let round_file = round.to_string();
        let mut changes: Vec<File> = texts.iter().map(|(path, text)| Text(path, text)).collect();
        changes.extend(gone.iter().map(|path| Gone(path)));
        changes.push(Text("round", &round_file));
        push(machine, &repository, &changes);
        let (before, before_files) = (states(machine, &names), files(machine, seed));
        let argv = ["gitops-sync", "--json", "--config", &config, &format!("acme/{repository}")];
        let output = machine.run_for(&argv, None, Duration::from_secs(600));
        let exit = output.status.code().unwrap_or(-1);
        let (after, after_files) = (states(machine, &names), files(machine, seed));
        let mut wrong = broken(exit, (&live, &next), |number| name(seed, number, &all), &before, &after);
        if exit != 0 && before_files != after_files {
            wrong.push(format!("the files differ:\n{before_files}\n--\n{after_files}"));
        }
        if ![0, 3, 5].contains(&exit) {
            wrong.push(format!("it ended with {exit}"));
        }
        if !wrong.is_empty() {
            let texts: Vec<String> = next
                .iter()
                .flat_map(|(number, unit)| unit_files(seed, *number, &all, unit))
                .map(|(file, text)| format!("# {file}\n{text}"))
                .collect();
            problems.push(format!(
                "seed {seed}, round {round}: {}\nbefore: {live:#?}\nunits:\n{}\n{}\n{}",
                wrong.join("; "),
                texts.join("\n"),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        exits.push(exit);
        pushed = next.clone();
        if exit == 0 {
            live = next;
        }
        if !started {
            for (number, _) in units.iter().filter(|(_, unit)| unit.foreign) {
                machine.run(&["systemctl", "start", &name(seed, *number, &units)]);
            }
            started = true;
        }
    }
    // The next seeds have the machine without these.
    let script = format!(
        "systemctl stop 's{seed}-*'; find /etc/systemd/system -name 's{seed}-*' -delete; systemctl reset-failed 's{seed}-*'; true"
    );
    machine.run(&["sh", "-c", &script]);
    // A long run is worth something also where it is ended early.
    eprintln!("seed {seed}: {exits:?}, {} broken promises", problems.len());
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    (problems, exits)
}

#[test]
fn random_units_run_after_a_deployment_as_it_promises() {
    let Some(machine) = Machine::boot() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("HUB_TEST_SEEDS").unwrap_or(20);
    let first = number("HUB_TEST_SEED").unwrap_or(1);
    eprintln!("{count} seeds from {first}");
    let results: Vec<(Vec<String>, Vec<i32>)> = std::thread::scope(|scope| {
        let machine = &machine;
        let play_all = move |worker: u64| -> Vec<(Vec<String>, Vec<i32>)> {
            (first..first + count)
                .filter(|seed| seed % WORKERS == worker)
                .map(|seed| play(machine, seed, worker))
                .collect()
        };
        let threads: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || play_all(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no worker panics")).collect()
    });
    let mut exits: BTreeMap<i32, u32> = BTreeMap::new();
    for exit in results.iter().flat_map(|(_, exits)| exits) {
        *exits.entry(*exit).or_default() += 1;
    }
    let problems: Vec<&String> = results.iter().flat_map(|(problems, _)| problems).collect();
    eprintln!("runs by exit code: {exits:?}; {} broken promises", problems.len());
    let shown: Vec<String> = problems.iter().map(|problem| (*problem).clone()).collect();
    assert!(problems.is_empty(), "{}", shown.join("\n\n"));
    // Random units that are never deployed, or never fail, would show nothing.
    assert!(count < 10 || exits.contains_key(&0) && exits.contains_key(&3), "{exits:?}");
}
