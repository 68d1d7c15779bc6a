use super::key::{Key, PATH, TEXT, Usual, Value, key};

const ADDRESS: Value = Value::Text(r"^.+:[0-9]+$");
const SECONDS: Value = Value::Whole("seconds", 1, u32::MAX as u64);
/// Zero keeps all.
const DAYS: Value = Value::Whole("days", 0, u32::MAX as u64);

pub(super) const TOP: &[Key] = &[key(
    "state_dir",
    PATH,
    Usual::Else(
        "/var/lib/observability-hub where it exists, else ~/.local/state/observability-hub",
        "\"/var/lib/observability-hub\"",
    ),
    "The folder in which each service keeps its state. The environment variable HUB_STATE_DIR comes before it. \
     A change needs a restart.",
)];

pub(super) const PROXY: &[Key] = &[
    key(
        "listen",
        ADDRESS,
        Usual::Is("\"127.0.0.1:8085\""),
        "The public listener, which takes webhooks. The funnel exposes this one. The environment variable PORT replaces \
         the port.",
    ),
    key(
        "admin_listen",
        ADDRESS,
        Usual::Is("\"127.0.0.1:8086\""),
        "The admin listener: status page, API and /metrics. It is never exposed. Every user of this host can read it unless \
         there is a credential `admin-token`, and an address that other hosts reach needs one.",
    ),
    key(
        "admin_hosts",
        Value::List(&TEXT),
        Usual::Is("[]"),
        "Names besides localhost that the admin listener answers to.",
    ),
    key("max_body", Value::Size, Usual::Is("\"3 MiB\""), "The longest webhook body, from 1 KiB to 25 MiB."),
];

pub(super) const DATABASE: &[Key] = &[key(
    "url",
    Value::Text("^(sqlite:|postgres(ql)?://)."),
    Usual::Is("\"sqlite:hub.db\""),
    "A file of SQLite, relative to the folder data of the state, or the URL of a PostgreSQL server as psql takes it. \
     The credential `database-url` comes before it, and may hold a password.",
)];

pub(super) const GITOPS: &[Key] = &[
    key("units_dir", PATH, Usual::Is("\"/etc/systemd/system\""), "Where unit files are installed."),
    key(
        "known_hosts",
        PATH,
        Usual::Is("\"/etc/observability-hub/known_hosts\""),
        "The host keys of the ssh servers that repositories come from, as ssh-keyscan(1) prints them.",
    ),
    key("fetch_timeout_seconds", SECONDS, Usual::Is("300"), "The longest time that one fetch may take."),
    key(
        "command_timeout_seconds",
        SECONDS,
        Usual::Is("900"),
        "The longest time for build or after, and for the start of a unit that sets no limit itself.",
    ),
    key(
        "fetch_max",
        Value::Size,
        Usual::Is("\"1 GiB\""),
        "The most that one fetch may bring, from 1 MiB on. Some of the disk stays free in any case.",
    ),
    key(
        "guard",
        Value::List(&Value::Word(&["remote", "ssh", "tailscale"])),
        Usual::Is("[\"remote\", \"ssh\", \"tailscale\"]"),
        "What must still answer after a deployment of units: the remote of the commit, the ssh server and tailscaled of this \
         host. If one that answered before is silent, the deployment is taken back.",
    ),
    key(
        "poll_minutes",
        Value::Whole("minutes", 1, 43_200),
        Usual::Is("60"),
        "How often a repository is looked at where no webhook comes. gitops-sync.timer runs every five minutes.",
    ),
];

pub(super) const GATE: &[Key] = &[
    key("port", Value::Number(&[443, 8443, 10000]), Usual::Is("8443"), "The port of the funnel: 443, 8443 or 10000."),
    key(
        "socket",
        Value::Text("^(/.*)?$"),
        Usual::Is("\"\""),
        "The socket of tailscaled where it is not the usual one. For the snap that is \
         /var/snap/tailscale/common/socket/tailscaled.sock.",
    ),
];

pub(super) const METRICS: &[Key] = &[
    key(
        "retention_days",
        DAYS,
        Usual::Is("14"),
        "How long samples are kept; 0 keeps all. A table that the hub did not make is never trimmed unless you write this key.",
    ),
    key(
        "hourly_days",
        DAYS,
        Usual::Is("730"),
        "How long minimum, mean and maximum of each hour are kept (table metrics_hourly); 0 keeps all.",
    ),
];
