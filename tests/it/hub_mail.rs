//! Notices by e-mail, to a real Postfix and to servers that do what no server should.

use std::net::SocketAddr;
use std::process::Output;

use crate::support::notice_server::{greets, raw};
use crate::support::postfix::Postfix;
use crate::support::status::record;
use crate::support::{Host, free_address};
use serde_json::{Value, json};

fn configure(host: &Host, to: &str, server: &str) {
    let addresses = format!("listen = \"{}\"\nadmin_listen = \"{}\"\n", free_address(), free_address());
    host.configure(&format!(
        "[proxy]\n{addresses}[notify]\nmail = \"{to}\"\nmail_from = \"hub@example.org\"\nmail_server = \"{server}\"\n"
    ));
}

fn host(to: &str, server: SocketAddr) -> Host {
    let host = Host::new();
    configure(&host, to, &server.to_string());
    record(&host, "gitops", "gitops-sync", 30, json!({ "status": "unchanged" }));
    host
}

fn fail(host: &Host) {
    let error = "disk <full>\u{202e} büx\r\nBcc: evil@example.org\r\n.\r\nQUIT";
    record(host, "gitops", "gitops-sync", 30, json!({ "status": "failed", "error": error }));
}

fn watch(host: &Host) {
    let output = host.run("hub", &["watch"]);
    assert!(output.status.success(), "{output:?}");
}

/// What the last look left.
fn last(host: &Host) -> Value {
    host.json("state/watch/run.json")
}

fn test(host: &Host) -> (Output, String) {
    let output = host.run("hub", &["notify", "test"]);
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned();
    (output, said)
}

#[test]
fn a_real_postfix_takes_a_notice_once_and_says_later_or_never() {
    let Some(postfix) = Postfix::start() else { return };
    let host = host("you@example.org", postfix.address);
    let (output, said) = test(&host);
    assert!(
        output.status.success() && said.contains("taken: you@example.org: ") && said.contains("answered 250"),
        "{said}"
    );
    assert_eq!(postfix.mails("you", 1).len(), 1);
    watch(&host);
    fail(&host);
    watch(&host);
    watch(&host);
    let mails = postfix.mails("you", 3);
    assert_eq!(mails.len(), 3, "the test, how it began, and the failure once: {mails:#?}");
    let mail = mails.iter().find(|mail| mail.contains(": gitops-sync failed")).unwrap();
    let (head, body) = mail.split_once("\n\n").unwrap();
    assert!(head.contains("\nFrom: hub@example.org\n") && head.contains("\nTo: you@example.org\n"), "{head}");
    assert!(head.contains("\nAuto-Submitted: auto-generated") && !head.contains("evil"), "{head}");
    assert!(body.replace("=\n", "").contains("Bcc: evil@example.org"), "the reason is in the text: {body}");

    configure(&host, "later@example.org", &postfix.address.to_string());
    record(&host, "gitops", "gitops-sync", 30, json!({ "status": "unchanged" }));
    watch(&host);
    let run = last(&host);
    assert!(run["error"].as_str().unwrap().contains("not now"), "{run:#}");
    assert_eq!(run["counts"]["waiting"], 1, "{run:#}");
    configure(&host, "you@example.org", &postfix.address.to_string());
    watch(&host);
    assert_eq!(postfix.mails("you", 4).len(), 4);
    assert_eq!(last(&host)["status"], "told");

    configure(&host, "nobody-knows@example.org", &postfix.address.to_string());
    fail(&host);
    watch(&host);
    let output = host.run("hub", &["status"]);
    // Lines end where the terminal does.
    let shown = String::from_utf8(output.stdout).unwrap();
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        shown.contains("User unknown in virtual mailbox table") && shown.contains("look at mail and mail_from"),
        "{shown}"
    );

    configure(&host, "hub@[127.0.0.1]", &postfix.address.to_string());
    let (output, said) = test(&host);
    assert!(output.status.success(), "{said}");
    assert_eq!(postfix.mails("hub", 1).len(), 1);
}

#[test]
fn a_server_that_is_not_there_says_nothing_or_closes_early_costs_a_few_seconds() {
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    for (server, part) in [
        (free_address().to_string(), "is there a mail server on this host?"),
        (address(greets(b"220 hello\r\n")), "127.0.0.1:"),
        (address(greets(b"HTTP/1.1 400 no\r\n\r\n")), "127.0.0.1:"),
        (address(greets(b"554 go away\r\n")), "go away"),
        (address(raw(b"")), "127.0.0.1:"),
    ] {
        let host = host("you@example.org", free_address());
        configure(&host, "you@example.org", &server);
        let began = std::time::Instant::now();
        let (output, said) = test(&host);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("not taken: ") && said.contains(part), "{said}");
        assert!(began.elapsed().as_secs() < 13, "{:?}", began.elapsed());
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_named() {
    let host = Host::new();
    for (to, server, part) in [
        ("you", "127.0.0.1:25", "notify.mail: \\\"you\\\" is no address for e-mail; write one such as"),
        ("you@example.org, me@example.org", "127.0.0.1:25", "is no address for e-mail"),
        ("you@example.org", "192.0.2.1:25", "is no mail server of this host; write a loopback address"),
        ("you@example.org", "localhost", "is no mail server of this host"),
    ] {
        configure(&host, to, server);
        let output = host.run("hub", &["watch", "--check"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(part), "{said}");
    }
}
