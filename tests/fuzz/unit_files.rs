//! Unit files: whatever is in them, what is read of them lies in them, and a link never leaves the folder of units.
//!
//! That systemd reads them alike is tests/it/unit_files.rs's, with `systemctl enable`.

use super::{Form, Install, Name};
use crate::fuzz::fuzz;
use crate::systemd::syntax;

const WORDS: &[&[u8]] = &[
    b"[Install]\n",
    b"[Unit]",
    b"]",
    b"WantedBy=",
    b"RequiredBy=",
    b"UpheldBy=",
    b"Alias=",
    b"Also=",
    b"DefaultInstance=",
    b"\\\n",
    b"\n#",
    b"\n;",
    b"\r",
    b"\n\r",
    b"\0",
    "\u{feff}".as_bytes(),
    "\u{a0}".as_bytes(),
    b"\"",
    b"'",
    b"%i",
    b"%n",
    b"%",
    b"../",
    b"/",
    b"a.service",
    b"b@.service",
    b"x.target",
    b"z@%i.target",
    b"-.slice",
];

#[test]
fn fuzz_unit_files() {
    let seeds: &[&[u8]] = &[
        b"[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
        b"\xef\xbb\xbf[Install]\r\nAlias=b.service \\\r\n# c\r\n \"d.service\"\r\nAlso=e.service\r\n",
        b"[Install]\nDefaultInstance=%p\nWantedBy=x.target z@%i.target\n[Install]\nWantedBy=\nRequiredBy=y.target\\",
    ];
    fuzz("unit files", seeds, WORDS, |input| {
        let Ok(found) = syntax::assignments(input) else { return (0, 0, 0) };
        let lines = 1 + input.iter().filter(|byte| b"\n\r\0".contains(byte)).count();
        let text = String::from_utf8_lossy(input);
        for one in &found {
            assert!((1..=lines).contains(&one.line), "{one:?}");
            // What is written in one piece is in the file in one piece; joins of continued lines are blanks.
            for part in one.key.split(' ').chain(one.value.split(' ')).chain(one.section.split(' ')) {
                assert!(text.contains(part), "{part:?}");
            }
            assert!(!one.value.contains(['\n', '\r', '\0']) && one.value.trim_matches([' ', '\t']) == one.value);
        }
        let mut links = 0;
        for unit in ["a.service", "t@.service", "t@one.service", "srv.mount"] {
            let Ok(install) = Install::read(unit, (unit, input), []) else { continue };
            assert!(install.also.iter().all(|also| Name::parse(also).is_some()));
            for (link, file) in install.links() {
                assert_eq!(file, unit);
                let (folder, name) = link.split_once('/').map_or((None, link.as_str()), |(a, b)| (Some(a), b));
                let name = Name::parse(name).expect("a unit's name");
                if let Some(folder) = folder {
                    let (target, list) = folder.rsplit_once('.').expect("a list");
                    assert!(Name::parse(target).is_some() && ["wants", "requires", "upholds"].contains(&list));
                }
                assert!(unit.contains('@') || name.form() == Form::Plain);
                links += 1;
            }
        }
        (1, found.len(), links)
    });
}
