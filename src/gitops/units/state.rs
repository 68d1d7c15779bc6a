use std::collections::HashMap;
use std::time::Duration;

use crate::systemd::Block;

/// What the manager says of a unit (`systemctl show`).
#[derive(Clone, Debug, Default)]
pub(in crate::gitops) struct UnitState {
    /// Its own name; it may have been asked for by an alias.
    pub id: String,
    pub load: String,
    pub active: String,
    pub sub: String,
    /// `Type=` of a service; empty for other units.
    pub kind: String,
    /// A oneshot that stays active when its commands have ended.
    pub remains: bool,
    pub file_state: String,
    pub result: String,
    pub restarts: u64,
    /// Changes with every start.
    pub invocation: String,
    /// False also where `RefuseManualStart=` forbids it.
    pub can_start: bool,
    /// False also where `RefuseManualStop=` forbids it.
    pub can_stop: bool,
    pub can_reload: bool,
    /// How long its start and its stop may take; none where there is no limit.
    pub start_limit: Option<Duration>,
    pub stop_limit: Option<Duration>,
    /// A service that the bus starts when somebody calls it.
    pub on_bus: bool,
    /// The units that its stop stops, and its restart restarts.
    pub dependents: Vec<String>,
    /// The units that are only stopped with it.
    pub stopped_along: Vec<String>,
    /// Those of its dependents that cannot start without it.
    pub required_by: Vec<String>,
    /// The units that its start starts.
    pub wanted: Vec<String>,
    /// The units that its start stops.
    pub conflicts: Vec<String>,
    /// The units that are started when it fails or ends (`OnFailure=`, `OnSuccess=`).
    pub raised: Vec<String>,
    /// True where another unit has it started again whenever it is down (`Upholds=`).
    pub upheld: bool,
    /// The units that it starts on an event: those of a socket, timer or path.
    pub triggers: Vec<String>,
    pub triggered_by: Vec<String>,
}

impl UnitState {
    /// The properties that are asked for.
    pub const PROPERTIES: [&str; 34] = [
        "Id",
        "LoadState",
        "ActiveState",
        "SubState",
        "Type",
        "RemainAfterExit",
        "UnitFileState",
        "Result",
        "NRestarts",
        "InvocationID",
        "CanStart",
        "CanStop",
        "CanReload",
        "TimeoutStartUSec",
        "TimeoutStopUSec",
        "TimeoutUSec",
        "BusName",
        "RequiredBy",
        "RequisiteOf",
        "BoundBy",
        "ConsistsOf",
        "PropagatesStopTo",
        "Requires",
        "Requisite",
        "BindsTo",
        "Wants",
        "Upholds",
        "Conflicts",
        "ConflictedBy",
        "Triggers",
        "TriggeredBy",
        "OnFailure",
        "OnSuccess",
        "UpheldBy",
    ];

    /// Reads a unit's block of `KEY=VALUE` lines.
    pub fn read(block: Block<'_>) -> Self {
        let mut state = Self::default();
        let names = |value: &str| value.split_whitespace().map(unquoted).collect::<Vec<_>>();
        for (key, value) in block.properties() {
            match key {
                "Id" => value.clone_into(&mut state.id),
                "LoadState" => value.clone_into(&mut state.load),
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "Type" => value.clone_into(&mut state.kind),
                "RemainAfterExit" => state.remains = value == "yes",
                "UnitFileState" => value.clone_into(&mut state.file_state),
                "Result" => value.clone_into(&mut state.result),
                "NRestarts" => state.restarts = value.parse().unwrap_or(0),
                "InvocationID" => value.clone_into(&mut state.invocation),
                "CanStart" => state.can_start = value == "yes",
                "CanStop" => state.can_stop = value == "yes",
                "CanReload" => state.can_reload = value == "yes",
                "TimeoutStartUSec" => state.start_limit = time_span(value),
                "TimeoutStopUSec" => state.stop_limit = time_span(value),
                // Sockets, mounts and swaps have one for both.
                "TimeoutUSec" => (state.start_limit, state.stop_limit) = (time_span(value), time_span(value)),
                "BusName" => state.on_bus = !value.is_empty(),
                "RequiredBy" | "RequisiteOf" | "BoundBy" => {
                    state.dependents.extend(names(value));
                    state.required_by.extend(names(value));
                }
                "ConsistsOf" => state.dependents.extend(names(value)),
                "PropagatesStopTo" => state.stopped_along.extend(names(value)),
                "Requires" | "Requisite" | "BindsTo" | "Wants" | "Upholds" => state.wanted.extend(names(value)),
                "Conflicts" | "ConflictedBy" => state.conflicts.extend(names(value)),
                "OnFailure" | "OnSuccess" => state.raised.extend(names(value)),
                "UpheldBy" => state.upheld = !value.is_empty(),
                "Triggers" => state.triggers = names(value),
                "TriggeredBy" => state.triggered_by = names(value),
                _ => {}
            }
        }
        // Targets, timers, paths and slices have nothing to wait for.
        if !block.properties().any(|(key, _)| key.starts_with("Timeout")) {
            (state.start_limit, state.stop_limit) = (Some(Duration::ZERO), Some(Duration::ZERO));
        }
        state
    }

    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "activating")
    }

    pub fn is_failed(&self) -> bool {
        self.active == "failed" || self.sub == "auto-restart"
    }

    /// True for a oneshot that is done when its commands have ended: it counts as not running, and is neither started nor
    /// killed.
    pub fn is_passing(&self) -> bool {
        self.kind == "oneshot" && !self.remains
    }

    /// True for a service that ends by itself when it has nothing to do, and is started again when it is needed.
    /// The first of the looks that has a unit counts.
    pub fn is_on_demand(&self, looks: &[&HashMap<String, Self>]) -> bool {
        let is_up = |unit: &String| looks.iter().find_map(|look| look.get(unit)).is_some_and(Self::is_active);
        self.on_bus || self.triggered_by.iter().any(is_up)
    }
}

/// A name of a list: one with a backslash is in quotes, and its backslashes are doubled.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace(r"\\", r"\"),
        None => name.to_owned(),
    }
}

/// A time span as systemd prints it (`1min 30s`, `infinity`); none for no limit.
fn time_span(text: &str) -> Option<Duration> {
    let seconds = |unit: &str| match unit {
        "us" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "min" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        "w" => Some(604_800.0),
        "month" => Some(2_629_800.0),
        "y" => Some(31_557_600.0),
        _ => None,
    };
    let mut sum = 0.0;
    for part in text.split_whitespace() {
        let unit = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = part[..part.len() - unit.len()].parse().ok()?;
        sum += number * seconds(unit).or((number == 0.0).then_some(0.0))?;
    }
    Duration::try_from_secs_f64(sum).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_systemd_prints_them() {
        for (text, expected) in [
            ("1min 30s", Some(90_000)),
            ("10min", Some(600_000)),
            ("1.500s", Some(1500)),
            ("500ms", Some(500)),
            ("1h 2min 3s 4ms", Some(3_723_004)),
            ("0", Some(0)),
            ("infinity", None),
            ("", Some(0)),
            ("5 parsecs", None),
        ] {
            assert_eq!(time_span(text).map(|span| span.as_millis()), expected, "{text}");
        }
    }

    #[test]
    fn a_block_of_properties_is_read() {
        let state = UnitState::read(Block::of(
            "Type=oneshot\nRemainAfterExit=yes\nTimeoutStartUSec=infinity\nTimeoutStopUSec=1min 30s\nNRestarts=2\nId=a.service\n\
             Requires=x.service \"y\\\\x2dz.service\"\nWants=z.service\nRequiredBy=b.service\nConsistsOf=c.service\nActiveState=active",
        ));
        assert_eq!((state.id.as_str(), state.restarts, state.remains), ("a.service", 2, true));
        assert_eq!((state.start_limit, state.stop_limit), (None, Some(Duration::from_secs(90))));
        assert_eq!(state.wanted, ["x.service", "y\\x2dz.service", "z.service"]);
        assert_eq!(state.dependents, ["b.service", "c.service"]);
        assert_eq!(state.required_by, ["b.service"]);
        assert!(state.is_active() && !state.is_passing());
        let target = UnitState::read(Block::of("Id=a.target\nActiveState=inactive"));
        assert_eq!((target.start_limit, target.is_active()), (Some(Duration::ZERO), false));
    }
}
