//! Where the database is looked for, and what a build without an engine says.
#![allow(clippy::print_stdout, reason = "a test may fail anywhere, and a child talks to its parent")]

use crate::support;
use std::process::Command;

use crate::support::Host;
use observability_hub::config::Config;
use observability_hub::store::{Error, Store};

#[test]
#[ignore = "the child of the_first_of_environment_credential_file_and_default_wins"]
fn child_that_shows_the_url() {
    match Config::load(None).and_then(|config| config.database_url()) {
        Ok(url) => println!("\nurl: {} {:?} | {url} {url:?}", url.expose(), url.expose_password()),
        Err(error) => println!("\nurl: {error}"),
    }
}

fn url(host: &Host, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "store_config::child_that_shows_the_url", "--nocapture"]);
    for name in [
        "DATABASE_URL",
        "DB_HOST",
        "DB_PORT",
        "DB_USER",
        "DB_NAME",
        "SERVER_DB_PASSWORD",
        "CREDENTIALS_DIRECTORY",
        "PORT",
    ] {
        command.env_remove(name);
    }
    command
        .env("HUB_CONFIG", host.path("hub.toml"))
        .env("HUB_STATE_DIR", host.state())
        .envs(environment.iter().copied());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    output.lines().find_map(|line| line.strip_prefix("url: ")).unwrap_or_else(|| panic!("{output}")).to_owned()
}

#[test]
fn the_first_of_environment_credential_file_and_default_wins() {
    let host = Host::new();
    host.configure("");
    assert_eq!(url(&host, &[]), "sqlite:hub.db None | sqlite:hub.db sqlite:hub.db");
    host.configure("[database]\nurl = \"postgres://file@db/m\"\n");
    assert!(url(&host, &[]).starts_with("postgres://file@db/m None |"));
    assert!(url(&host, &[("SERVER_DB_PASSWORD", "geheim")]).starts_with("postgres://file@db/m Some(\"geheim\") |"));
    host.credential("database-url", "postgres://credential:geheim@db/m\n");
    assert_eq!(url(&host, &[]), "postgres://credential:geheim@db/m None | postgres://db/m postgres://db/m");
    let parts = [("DB_HOST", "/var/run/postgresql"), ("DB_USER", "me@home"), ("DB_NAME", "m")];
    assert!(url(&host, &parts).starts_with("postgres://me%40home@%2Fvar%2Frun%2Fpostgresql:5432/m None |"));
    assert!(url(&host, &[("DB_PORT", "5433"), ("DB_HOST", "")]).starts_with("postgres://localhost:5433 None |"));
    let all = [parts.as_slice(), &[("DATABASE_URL", "sqlite:/env.db")]].concat();
    assert!(url(&host, &all).starts_with("sqlite:/env.db "));
}

#[test]
fn a_wrong_url_names_its_source_and_not_its_text() {
    let host = Host::new();
    host.configure("");
    let error = url(&host, &[("DATABASE_URL", "mysql://root:geheim@db")]);
    assert!(
        error.starts_with("environment DATABASE_URL: write \"sqlite:hub.db\"") && !error.contains("geheim"),
        "{error}"
    );
    assert!(url(&host, &[("DB_PORT", "x")]).starts_with("environment DB_PORT: \"x\" is not a port"));
    host.credential("database-url", "root:geheim@db");
    let error = url(&host, &[]);
    assert!(error.starts_with("credential database-url: write") && !error.contains("geheim"), "{error}");
}

#[test]
fn a_build_without_the_engine_names_the_build_that_has_it() {
    for (built_in, url, feature) in [
        (cfg!(feature = "sqlite"), "sqlite:hub.db", "sqlite"),
        (cfg!(feature = "postgres"), "postgres://hub@%2Fnonexistent/hub", "postgres"),
    ] {
        let error = Store::open(&support::rows::config(&Host::new(), url, "")).err();
        if built_in {
            assert!(!matches!(error, Some(Error::Config(_))), "{error:?}");
        } else {
            let text = error.unwrap().to_string();
            assert!(text.contains(&format!("--features {feature}")), "{text}");
        }
    }
}
