//! What changes in unit files, line by line, for people. What may be a secret in them is not repeated.

use super::Host;
use super::disk::OnDisk;
use super::plan::{Action, Plan};
use crate::gitops::Error;
use crate::records::Difference;
use crate::text;

/// Lines around a change that are shown with it.
const AROUND: usize = 3;
/// So many pairs of lines are compared; of more than that, all is taken for changed.
const MOST_PAIRS: usize = 1 << 20;
/// How long the differences of one file and of all may become, in bytes.
const LONGEST: usize = 32 << 10;
const LONGEST_ALL: usize = 256 << 10;
/// The keys whose values are secrets often enough (systemd.exec(5)).
const MASKED: [&str; 3] = ["Environment", "SetCredential", "SetCredentialEncrypted"];
const MASK: &str = "***";

impl Host {
    /// What a plan changes in each file, by what is on the disk now.
    pub fn differences(&self, plan: &Plan) -> Result<Vec<Difference>, Error> {
        let (mut all, mut length) = (Vec::new(), 0);
        for line in plan.acting() {
            let old = match self.folder.look(&line.file)? {
                OnDisk::File(content) => String::from_utf8_lossy(&content).into_owned(),
                OnDisk::Link(target) => format!("-> {}\n", target.display()),
                OnDisk::Missing | OnDisk::Masked | OnDisk::Other => String::new(),
            };
            let new = plan.desired.files.get(&line.file).filter(|_| line.action != Action::Remove);
            let new = new.map_or_else(String::new, |new| {
                if new.is_link { format!("-> {}\n", new.content) } else { new.content.clone() }
            });
            let mut diff = text::cut(&unified(&old, &new), LONGEST).into_owned();
            length += diff.len();
            if length > LONGEST_ALL {
                diff = "(left out: all differences together are too long)".to_owned();
            }
            let (file, action, reason) = (line.file.clone(), line.action.word().to_owned(), line.reason.clone());
            all.push(Difference { file, action, reason, diff });
        }
        Ok(all)
    }
}

/// The lines of a unit file with and without what may be secret in them.
fn lines(content: &str) -> Vec<(&str, String)> {
    let mut goes_on = false;
    content
        .lines()
        .map(|line| {
            let key = line.split_once('=').map(|(key, _)| key.trim());
            let is_comment = line.trim_start().starts_with(['#', ';']);
            let shown = if goes_on && !is_comment {
                MASK.to_owned()
            } else {
                match key.filter(|key| !is_comment && MASKED.contains(key)) {
                    Some(key) => format!("{key}={MASK}"),
                    None => text::shown(&line.replace('\t', "    ")).into_owned(),
                }
            };
            // A comment between the lines of a value ends nothing (systemd.syntax(7)).
            if !is_comment {
                goes_on = line.ends_with('\\') && (goes_on || key.is_some_and(|key| MASKED.contains(&key)));
            }
            (line, shown)
        })
        .collect()
}

/// What has to be done to the lines of one text to have those of another: ` ` stays, `-` goes, `+` comes; with the text.
fn changes<'a>(old: &'a [(&str, String)], new: &'a [(&str, String)]) -> Vec<(char, &'a str)> {
    let start = old.iter().zip(new).take_while(|(old, new)| old.0 == new.0).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old.0 == new.0).count();
    let (a, b) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut all: Vec<(char, &str)> = old[..start].iter().map(|line| (' ', line.1.as_str())).collect();
    let (mut i, mut j) = (0, 0);
    if a.len().saturating_mul(b.len()) <= MOST_PAIRS {
        // The longest common subsequence, from behind.
        let width = b.len() + 1;
        let mut longest = vec![0_u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                longest[i * width + j] = if a[i].0 == b[j].0 {
                    longest[(i + 1) * width + j + 1] + 1
                } else {
                    longest[(i + 1) * width + j].max(longest[i * width + j + 1])
                };
            }
        }
        while i < a.len() && j < b.len() {
            if a[i].0 == b[j].0 {
                all.push((' ', &a[i].1));
                (i, j) = (i + 1, j + 1);
            } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
                all.push(('-', &a[i].1));
                i += 1;
            } else {
                all.push(('+', &b[j].1));
                j += 1;
            }
        }
    }
    all.extend(a[i..].iter().map(|line| ('-', line.1.as_str())));
    all.extend(b[j..].iter().map(|line| ('+', line.1.as_str())));
    all.extend(old_rest[old_rest.len() - end..].iter().map(|line| (' ', line.1.as_str())));
    all
}

/// The differences of two unit files in the form of diff(1), `-u`.
fn unified(old: &str, new: &str) -> String {
    let (old, new) = (lines(old), lines(new));
    let all = changes(&old, &new);
    let is_near = |place: usize| {
        let around = place.saturating_sub(AROUND)..all.len().min(place + AROUND + 1);
        all[around].iter().any(|(kind, _)| *kind != ' ')
    };
    let mut shown = String::new();
    let (mut place, mut at) = (0, [1, 1]);
    let pass = |at: &mut [usize; 2], kind: char| {
        at[0] += usize::from(kind != '+');
        at[1] += usize::from(kind != '-');
    };
    while place < all.len() {
        if !is_near(place) {
            pass(&mut at, all[place].0);
            place += 1;
            continue;
        }
        let length = (place..all.len()).take_while(|place| is_near(*place)).count();
        let hunk = &all[place..place + length];
        let count = |without: char| hunk.iter().filter(|(kind, _)| *kind != without).count();
        let counts = [count('+'), count('-')];
        // What has no lines is said to be before the first.
        let [from, to] = [0, 1].map(|side| at[side] - usize::from(counts[side] == 0));
        shown += &format!("@@ -{from},{} +{to},{} @@\n", counts[0], counts[1]);
        for (kind, line) in hunk {
            shown += &format!("{kind}{line}\n");
            pass(&mut at, *kind);
        }
        place += length;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_diff() {
        let old: Vec<String> = (1..=20).map(|number| format!("line{number}")).collect();
        let mut new = old.clone();
        new[2] = "other".to_owned();
        new.remove(15);
        new.push("last".to_owned());
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let dir = tempfile::tempdir().unwrap();
        for (old, new) in [
            (text(&old), text(&new)),
            (text(&new), text(&old)),
            (String::new(), text(&new)),
            (text(&old), String::new()),
            (text(&old), text(&old)),
        ] {
            std::fs::write(dir.path().join("a"), &old).unwrap();
            std::fs::write(dir.path().join("b"), &new).unwrap();
            let output =
                std::process::Command::new("diff").args(["-u", "a", "b"]).current_dir(dir.path()).output().unwrap();
            let expected: String = String::from_utf8(output.stdout).unwrap().split_inclusive('\n').skip(2).collect();
            assert_eq!(unified(&old, &new), expected);
        }
    }

    #[test]
    fn secrets_of_units_are_not_repeated() {
        let old = "[Service]\nEnvironment=A=secret1\nExecStart=/bin/true\n";
        let new = "[Service]\n Environment = \"A=secret2\" \\\n# Environment=x\n  B=secret3 \\\n  C=secret4\nExecStart=/bin/true\n\
                   SetCredential=x:secret5\nEnvironmentFile=/etc/app\nX=\u{202e}\n";
        let diff = unified(old, new);
        assert!(!diff.contains("secret"), "{diff}");
        for line in
            ["-Environment=***", "+Environment=***", "+***", " ExecStart=/bin/true", "+EnvironmentFile=/etc/app"]
        {
            assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
        }
        assert!(diff.contains("+X=\\u{202e}"), "{diff}");
        // One value for another is a change, too.
        assert_eq!(
            unified("Environment=A=1\n", "Environment=A=2\n"),
            "@@ -1,1 +1,1 @@\n-Environment=***\n+Environment=***\n"
        );
        // So many lines are not compared one by one.
        let many: String = (0..2000).map(|number| format!("{number}\n")).collect();
        assert!(unified(&many, &many.replace('1', "x")).lines().count() > 2000);
    }
}
