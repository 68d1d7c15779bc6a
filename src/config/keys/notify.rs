use super::key::{Key, PATH, URL, Usual, Value, WORDS, key};

const MAIL: Value = Value::Text("^[^@]+@[^@]+$");
const NONE: &str = "none";

pub(super) const KEYS: &[Key] = &[
    key(
        "url",
        URL,
        Usual::Else(NONE, "\"https://ntfy.sh/my-host-4711\""),
        "Where notices go. The credential `notify-url` comes before it. Whoever knows the name of an ntfy topic can read it.",
    ),
    key(
        "format",
        Value::Word(&["ntfy", "slack", "json"]),
        Usual::Is("\"ntfy\""),
        "The form of a notice. slack is for Slack, Mattermost, Rocket.Chat and /slack of Discord. json is Standard Webhooks, \
         signed where there is a credential `notify-secret`.",
    ),
    key(
        "command",
        WORDS,
        Usual::Else(NONE, "[\"/usr/local/bin/tell\"]"),
        "A command that gets each notice as JSON on standard input, beside the URL or instead. It runs as hub-watch.",
    ),
    key(
        "mail",
        MAIL,
        Usual::Else(NONE, "\"you@example.org\""),
        "Who gets notices by e-mail, beside the URL or instead.",
    ),
    key(
        "mail_from",
        MAIL,
        Usual::Else("observability-hub at the name of this host", "\"hub@example.org\""),
        "The sender of these mails.",
    ),
    key(
        "mail_server",
        Value::Text(r"^.+:[0-9]+$"),
        Usual::Is("\"127.0.0.1:25\""),
        "The mail server of this host. Postfix, for instance, has a queue and knows the way.",
    ),
    key(
        "ca",
        PATH,
        Usual::Else("the authorities of the system", "\"/etc/ssl/own.pem\""),
        "The authority of url and heartbeat, where it is your own (PEM).",
    ),
    key(
        "repeat_hours",
        Value::Whole("hours", 1, 720),
        Usual::Is("24"),
        "After how long a notice is sent again for what is still wrong.",
    ),
    key(
        "deployments",
        Value::Switch,
        Usual::Is("false"),
        "Whether you get a notice of deployments that went well, too.",
    ),
    key(
        "quiet",
        Value::Text("^[0-2][0-9]:[0-5][0-9] *- *[0-2][0-9]:[0-5][0-9]$"),
        Usual::Else(NONE, "\"23:00-07:00\""),
        "Hours of the day, in the time zone of the host, in which only failures are sent.",
    ),
    key(
        "heartbeat",
        URL,
        Usual::Else(NONE, "\"https://hc-ping.com/uuid\""),
        "A URL that is called while the host is well, as healthchecks.io has it, and with /fail where something failed. \
         The credential `heartbeat-url` comes before it.",
    ),
    key("heartbeat_minutes", Value::Whole("minutes", 1, 43_200), Usual::Is("1"), "The time between two heartbeats."),
];
