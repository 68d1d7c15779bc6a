//! Every key of hub.toml with what it takes, its default and a text: hub.toml(5) and the JSON Schema are made of it, and tests
//! hold it against the parser and `contrib/hub.toml`. The programs themselves do not read it.

mod key;
mod limits;
mod notify;
mod pipeline;
mod repository;
mod services;

pub use key::{Key, Section, Usual, Value};

/// All tables, in the order of `contrib/hub.toml`.
pub const SECTIONS: &[Section] = &[
    Section { name: "", many: false, text: "These keys stand before the first table.", keys: services::TOP },
    Section {
        name: "proxy",
        many: false,
        text: "The gateway that takes webhooks and shows the status.",
        keys: services::PROXY,
    },
    Section {
        name: "database",
        many: false,
        text: "Where samples, events and the rows of pipelines are stored.",
        keys: services::DATABASE,
    },
    Section { name: "gitops", many: false, text: "How repositories are fetched and deployed.", keys: services::GITOPS },
    Section {
        name: "repository",
        many: true,
        text: "A repository that this host keeps in sync. Write one table for each.",
        keys: repository::KEYS,
    },
    Section {
        name: "gate",
        many: false,
        text: "The gate that opens Tailscale Funnel while the gateway is healthy.",
        keys: services::GATE,
    },
    Section { name: "metrics", many: false, text: "How long samples of this host are kept.", keys: services::METRICS },
    Section {
        name: "limits",
        many: false,
        text: "When a value of this host becomes a reason in hub status and a notice. All limits are on by default. \
               Write false to turn one off.",
        keys: limits::KEYS,
    },
    Section { name: "notify", many: false, text: "Where this host sends notices, and when.", keys: notify::KEYS },
    Section {
        name: "pipeline",
        many: true,
        text: "A pipeline that moves documents into a table of the database. Write one table for each.",
        keys: pipeline::KEYS,
    },
];
