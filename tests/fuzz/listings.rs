//! What git says of trees, checkouts and changes: names are the committer's, any bytes.

use super::parse_tree;
use crate::fuzz::fuzz;
use crate::gitops::look::{Touched, parse_files, parse_status};

const HASH: &[u8; 20] = &[0xab; 20];

#[test]
fn fuzz_trees() {
    let seeds: Vec<Vec<u8>> = vec![
        [&b"100644 app.service\0"[..], HASH, b"40000 app.service.d\0", HASH, b"120000 link\0", HASH].concat(),
        [&b"100755 a b\n\0"[..], HASH, b"160000 sub\0", HASH, b"100664 \xff\0", HASH].concat(),
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    let words: &[&[u8]] = &[
        b"100644 ",
        b"40000 ",
        b"120000 ",
        b"160000 ",
        b"0 ",
        b"77777777777777777777 ",
        b"\0",
        HASH,
        b"..",
        b"/",
        b".git",
        b"+40000 ",
    ];
    fuzz("trees", &seeds, words, |input| {
        let Some(nodes) = parse_tree(input, HASH.len()) else { return (0, 0, 0) };
        let mut bytes = 0;
        for (name, (mode, object)) in &nodes {
            assert!(!name.is_empty() && !name.contains(&0), "{name:?}");
            assert!(object.len() == 2 * HASH.len() && object.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!([0o100644, 0o100755, 0o040000, 0o120000, 0o160000].contains(mode), "{mode:o}");
            bytes += name.len() + HASH.len() + 2;
        }
        assert!(bytes <= input.len());
        (1, nodes.len(), nodes.values().map(|(mode, _)| *mode).fold(0, |all, mode| all | mode))
    });
}

#[test]
fn fuzz_looks() {
    let head = "1".repeat(40);
    let status = format!(
        "# branch.oid {head}\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +0 -0\0\
         1 .M N... 100644 100644 100644 {head} {head} a b\n#\0u UU N... 1 1 1 1 {head} {head} {head} x\0? new\0! old\0"
    );
    let seeds: &[&[u8]] = &[
        status.as_bytes(),
        b"? new dir/\0? \xff\n\0H seen\0h assumed\0S skipped\0s both\0",
        b"# branch.oid (initial)\0",
    ];
    let words: &[&[u8]] = &[
        b"# branch.",
        b"oid ",
        b"head ",
        b"(detached)",
        b"1 .M N... ",
        b"2 R. ",
        b"u UU ",
        b"? ",
        b"\0",
        b"/",
        b"..",
        b"H ",
        b"S ",
    ];
    fuzz("looks", seeds, words, |input| {
        let look = parse_status(input);
        let files = parse_files(input);
        let untracked = files.as_ref().map_or(0, |files| files.untracked.len());
        if let Some(files) = &files {
            assert!(files.untracked.iter().chain(&files.assumed).chain(&files.skipped).all(|path| !path.is_empty()));
            let changes: Vec<_> = files
                .untracked
                .iter()
                .map(|path| crate::gitops::git::Change { kind: b'A', path: path.clone() })
                .collect();
            let touched = Touched::new(&changes);
            for path in files.assumed.iter().chain(&files.untracked) {
                assert!(!touched.has(path) || touched.overlaps(path));
            }
        }
        if let Some(look) = &look {
            assert!(look.head.as_ref().is_none_or(|head| crate::gitops::git::is_commit(head)));
        }
        (look.is_some(), look.map_or(0, |look| look.changed.len()), files.is_some(), untracked)
    });
}
