use super::key::{Key, PATH, TEXT, URL, Usual, Value, WORDS, key};

const CREDENTIAL: Value = Value::Text(r"^[A-Za-z0-9_][A-Za-z0-9._-]*$");
const NONE: &str = "none";
const NAME: Value = Value::Text(r"^[^/@]+(/[^/@]+)+$");
const ID: Value = Value::Text(r"^[^/@]+(/[^/@]+)+(@[^/@]+)?$");

const RULE: &[Key] = &[
    key(
        "paths",
        Value::List(&TEXT),
        Usual::Needed("[\"app/\"]"),
        "Files of the repository, or folders with a slash at the end.",
    ),
    key("units", Value::List(&TEXT), Usual::Needed("[\"app.service\"]"), "The units that a change there restarts."),
];

const HEALTH: &[Key] = &[
    key(
        "grace_seconds",
        Value::Whole("seconds", 0, u64::MAX),
        Usual::Is("10"),
        "How long units are watched after a deployment, and how long the URL may take to answer.",
    ),
    key(
        "url",
        URL,
        Usual::Else(NONE, "\"http://127.0.0.1:9000/healthz\""),
        "A URL that answers 2xx when the deployment is healthy.",
    ),
    key(
        "ca",
        PATH,
        Usual::Else("the authorities of the system", "\"/etc/ssl/own.pem\""),
        "The authority of an https URL where it is your own, or the certificate of the server itself (PEM).",
    ),
];

pub(super) const KEYS: &[Key] = &[
    key(
        "name",
        NAME,
        Usual::Needed("\"acme/infra\""),
        "owner/name as the forge sends it, on GitLab perhaps group/subgroup/name. Letter case does not matter.",
    ),
    key(
        "id",
        ID,
        Usual::Else("name", "\"acme/infra@staging\""),
        "What the repository is called on this host, in commands, state and records. Two branches of one repository are two \
         tables with the same name, two branches, two paths and an id for one of them.",
    ),
    key(
        "formerly",
        Value::List(&ID),
        Usual::Is("[]"),
        "What the repository was called before, such as [\"acme/old\"]. The next run takes over units, deployed commit, \
         mirror, holds and requests of that name.",
    ),
    key(
        "url",
        TEXT,
        Usual::Needed("\"https://github.com/acme/infra.git\""),
        "Where to fetch from: https://, ssh://, git@host:path, file:// or a path. http:// and git:// work on this host only.",
    ),
    key(
        "path",
        PATH,
        Usual::Needed("\"/srv/infra\""),
        "The checkout that is kept in sync. It is made when it is missing.",
    ),
    key(
        "user",
        TEXT,
        Usual::Else("the owner of path, else hub-checkout", "\"infra\""),
        "Who owns the checkout and runs git, build and after in it. Without the key that is decided once, when the checkout \
         is made or taken over, and root keeps it: a checkout that changes hands is refused. root only if you write it here.",
    ),
    key("branch", Value::Text("."), Usual::Is("\"main\""), "The branch that is deployed."),
    key(
        "units",
        TEXT,
        Usual::Is("\"systemd\""),
        "The folder of unit files in the repository. Write \"\" to deploy no units.",
    ),
    key(
        "build",
        WORDS,
        Usual::Else(NONE, "[\"/usr/bin/make\", \"build\"]"),
        "A command that runs in the checkout as its user before units are checked. HUB_REPOSITORY and HUB_COMMIT are set. \
         It is a list of words; no shell reads it.",
    ),
    key("after", WORDS, Usual::Else(NONE, "[\"/usr/bin/make\", \"migrate\"]"), "The same, after units were restarted."),
    key(
        "restart",
        Value::List(&Value::Table(RULE)),
        Usual::Is("[]"),
        "Which changed files restart which units: [{ paths = [\"app/\"], units = [\"app.service\"] }].",
    ),
    key(
        "dropins",
        Value::List(&TEXT),
        Usual::Is("[]"),
        "Units of packages for which the repository may have drop-ins, such as [\"ssh.service\"]. getty@.service stands for \
         all its instances.",
    ),
    key("own", Value::Switch, Usual::Is("false"), "Whether the repository may deploy the units of the hub itself."),
    key(
        "allowed_signers",
        PATH,
        Usual::Else(NONE, "\"/etc/observability-hub/allowed_signers\""),
        "The ssh keys whose signatures count, as ssh-keygen(1) describes them. With this key or gpg_keyring only signed \
         commits are deployed; one signature is enough.",
    ),
    key(
        "gpg_keyring",
        PATH,
        Usual::Else(NONE, "\"/etc/observability-hub/keys.gpg\""),
        "The OpenPGP keys whose signatures count, as gpg --export writes them.",
    ),
    key(
        "ssh_key",
        CREDENTIAL,
        Usual::Else(NONE, "\"infra-key\""),
        "The name of the credential that holds the ssh key of a private repository.",
    ),
    key(
        "token",
        CREDENTIAL,
        Usual::Else(NONE, "\"infra-token\""),
        "The name of the credential that holds the token of a private repository.",
    ),
    key(
        "status",
        Value::Switch,
        Usual::Is("false"),
        "Whether the forge shows beside each commit how it fared here, as the commit status hub/HOST.",
    ),
    key(
        "wait_for_checks",
        Value::Switch,
        Usual::Is("false"),
        "Whether a commit is deployed only when the statuses and checks of others at the forge are green.",
    ),
    key(
        "status_token",
        CREDENTIAL,
        Usual::Else("that of token", "\"status-token\""),
        "The name of the credential with the token for status and wait_for_checks.",
    ),
    key(
        "api",
        URL,
        Usual::Else("by the host of url", "\"https://git.acme.org/api/v1\""),
        "The API of the forge, where the name of its host does not show which forge it is: /api/v1 for Gitea and Forgejo, \
         /api/v3 for GitHub, /api/v4 for GitLab.",
    ),
    key(
        "poll_minutes",
        Value::Whole("minutes", 1, 43_200),
        Usual::Else("that of [gitops]", "5"),
        "How often this repository is looked at where no webhook comes.",
    ),
    key(
        "confirm_minutes",
        Value::Whole("minutes", 0, 1440),
        Usual::Is("0"),
        "A deployment of units is taken back unless somebody runs hub confirm in this time. 0 asks for no confirmation.",
    ),
    key(
        "health",
        Value::Table(HEALTH),
        Usual::Is("{ grace_seconds = 10 }"),
        "How to see that a deployment is healthy.",
    ),
];
