//! Requests in the queue, whoever wrote them there.

use super::Claims;
use crate::config::Config;
use crate::fuzz::fuzz;
use crate::gitops::git::is_commit;
use crate::state::Folder;

const SEEDS: &[&[u8]] = &[
    br#"{"repository":"acme/infra","since":"2026-01-01T00:00:00.000Z","latest":"2026-01-01T00:00:00.000Z","deliveries":["d-1","d-2"],"count":2}"#,
    br#"{"repository":"acme/infra","after":"1111111111111111111111111111111111111111"}"#,
    br#"{"repository":"acme/other","deliveries":[]}"#,
];

const WORDS: &[&[u8]] = &[
    b"acme/infra",
    b"ACME/Infra",
    b"acme/infra@x",
    b"../",
    b"null",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"\"repository\":",
    b"\"after\":",
    b"--upload-pack=x",
    b"\"deliveries\":[",
    b"\\u0000",
    b"\\u202e",
    b"\xff",
    b"refs/heads/main",
    b"1111111111111111111111111111111111111111",
];

#[test]
fn fuzz_requests() {
    let dir =
        tempfile::tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let file = dir.path().join("hub.toml");
    let text = "[[repository]]\nname = \"acme/infra\"\nurl = \"/srv/infra.git\"\npath = \"/srv/infra\"\n";
    std::fs::write(&file, format!("state_dir = \"{}\"\n{text}", dir.path().display())).unwrap();
    let config = Config::load(Some(&file)).unwrap();
    let root = Folder::open(dir.path()).unwrap();
    let gitops = root.sub_or_make("gitops", 0o750).unwrap();
    let queue = root.sub_or_make("proxy", 0o750).unwrap().sub_or_make("queue", 0o750).unwrap();
    fuzz("requests", SEEDS, WORDS, |input| {
        let mut claims = Claims::open(&gitops).unwrap();
        claims.open_queue(&root).unwrap();
        std::fs::write(queue.path().join("acme__infra.json"), input).unwrap();
        let taken = claims.take(&config.repositories, |_| false).unwrap();
        // Whatever it was, the queue is empty, and only a name of hub.toml and a commit come out of it.
        assert!(queue.entries(1).unwrap().is_empty());
        let answer = taken.first().map(|claim| claim.after.is_some());
        for claim in taken {
            assert_eq!(claim.repository.name, "acme/infra");
            assert!(claim.after.is_none_or(|after| is_commit(&after)));
            assert!(claims.finish(claim.repository).unwrap());
        }
        claims.end();
        assert!(gitops.sub("active").unwrap().entries(1).unwrap().is_empty());
        assert!(gitops.sub("failed").unwrap().entries(usize::MAX).unwrap().len() <= 402);
        answer
    });
}
