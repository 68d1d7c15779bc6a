use std::net::SocketAddr;

use super::findings::{Finding, Findings};
use super::patient::Patient;
use crate::config::{Config, is_exposed};
use crate::listeners;

/// Whether other hosts reach the listeners: by hub.toml, and by the sockets that are really there.
pub(super) fn listeners(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = Findings::new("listeners");
    let Some(config) = &patient.config else { return findings.all };
    let sockets = listening();
    for (key, address, purpose) in addresses(config) {
        let edit = format!("editor {}   # {key}", patient.path.display());
        let own: Vec<&SocketAddr> = sockets.iter().filter(|socket| socket.port() == address.port()).collect();
        if is_exposed(address) {
            let finding = format!("{key} = \"{address}\" can be reached from other hosts, and {purpose}");
            findings.warning(finding, edit);
        } else if let Some(open) = own.iter().find(|socket| is_exposed(***socket)) {
            let finding = format!(
                "something listens on {open}, which other hosts can reach, and {key} is {address}: another program, or a \
                 proxy that has refused hub.toml as it is now"
            );
            findings.problem(finding, format!("ss -ltnp 'sport = :{}'", address.port()));
        } else if let Some(finding) = open_to_users(patient, key, address) {
            findings.warning(finding, patient.hub("admin-token"));
        } else if own.is_empty() {
            findings.ok(format!("{key} is {address}, on this host only; nobody listens there now"));
        } else {
            findings.ok(format!("{key} is {address}, on this host only"));
        }
    }
    findings.all
}

/// What other people on this host see, where there are any and no token keeps them out.
fn open_to_users(patient: &Patient<'_>, key: &str, address: SocketAddr) -> Option<String> {
    let has_token =
        || patient.credentials().is_some_and(|credentials| !matches!(credentials.read("admin-token"), Ok(None)));
    if key != "proxy.admin_listen" || !patient.sees_all() || has_token() {
        return None;
    }
    let people = people(&std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    (people.len() > 1).then(|| {
        let names = crate::text::listed(&people, ", ");
        format!(
            "{key} is {address}, and every user of this host ({names}) can read there what is deployed and what failed, \
             and start pipelines"
        )
    })
}

/// The accounts that people log in with: passwd(5), with the range of useradd(8) on Debian, and a shell.
fn people(passwd: &str) -> Vec<String> {
    let person = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, _, _, _, shell] = fields[..] else { return None };
        let logs_in = !shell.ends_with("/nologin") && !shell.ends_with("/false");
        ((1_000..60_000).contains(&uid.parse::<u32>().ok()?) && logs_in).then(|| name.to_owned())
    };
    passwd.lines().filter_map(person).collect()
}

fn addresses(config: &Config) -> [(&'static str, SocketAddr, &'static str); 2] {
    let public = "only a front on this host (the funnel, a reverse proxy) should";
    let admin = "whoever has the admin token sees and starts everything";
    [("proxy.listen", config.proxy.listen, public), ("proxy.admin_listen", config.proxy.admin_listen, admin)]
}

/// The addresses on which this host listens; none where the kernel does not tell.
fn listening() -> Vec<SocketAddr> {
    listeners::all().0.into_iter().map(|found| found.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_those_who_can_log_in() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000:,,,:/home/alice:/bin/bash\n\
                      infra:x:1001:1001::/srv/infra:/usr/sbin/nologin\nbob:x:1002:1002::/home/bob:\n\
                      nobody:x:65534:65534::/:/usr/sbin/nologin\nbroken:x:1003\nhub:x:990:990::/:/bin/false\n";
        assert_eq!(people(passwd), ["alice", "bob"]);
    }

    #[test]
    fn a_real_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening().contains(&listener.local_addr().unwrap()));
    }
}
