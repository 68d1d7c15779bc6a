use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde_json::{Map, Value};

use crate::hint::hint;
use crate::kinds;
use crate::metrics::Error;
use crate::metrics::baseline::Moment;
use crate::metrics::context::Context;
use crate::metrics::counters::{Barred, Stuck, StuckMounts};
use crate::metrics::mounts::{self, Mount};
use crate::metrics::payload::{Payload, Put, Report, percent};
use crate::metrics::space::{self, Answer, Space};
use crate::text::exact;

/// How long all questions that may hang may take together.
const BUDGET: Duration = Duration::from_secs(5);
/// How long a stuck file system is left alone, in seconds: first, and at most.
const FIRST_WAIT: f64 = 300.0;
const LONGEST_WAIT: f64 = 3600.0;

/// The columns of a mount in the `disk` row, in bytes; `free` is what users without privileges may take, and the
/// percentage is df's: of what they can reach. Where more is used than they may take, nothing is free. Where more is free
/// than there is, how much is used is not known.
fn row(mount: &Mount, space: &Space) -> Payload {
    let bytes = |blocks: u64| blocks.saturating_mul(space.unit);
    let [free, available, inodes_free] = [space.free, space.available, space.inodes_free].map(amount);
    let mut row = Map::new();
    row.put("total", bytes(space.blocks));
    if has_more_than_all(space) {
        row.put("free", bytes(available));
    } else {
        let used = space.blocks - free;
        row.put("used", bytes(used));
        row.put("free", bytes(available));
        row.put("used_percent", percent(used as f64, used as f64 + available as f64));
        row.put("reserved", bytes(free.saturating_sub(available)));
    }
    if space.inodes > 0 {
        row.put("inodes", space.inodes);
        row.put("inodes_free", inodes_free);
        let used = space.inodes.checked_sub(inodes_free);
        row.put_some("inodes_used_percent", used.map(|used| percent(used as f64, space.inodes as f64)));
    }
    row.put("read_only", mount.read_only);
    row.put("device", mount.source.as_str());
    row.put("fstype", mount.kind.as_str());
    row
}

/// What is free: nothing where it is below 0.
fn amount(free: i64) -> u64 {
    u64::try_from(free).unwrap_or(0)
}

fn has_more_than_all(space: &Space) -> bool {
    amount(space.free.max(space.available)) > space.blocks
}

/// The folder on the way to a mount that this user may not enter; none where the way is free, as it is to a FUSE mount of
/// another user, which itself refuses everybody (fuse(8), allow_other).
fn barring(root: &Path, path: &Path) -> Option<String> {
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| above.starts_with(root)).collect();
    let closed = above.into_iter().rev().find(|above| access(*above, Access::EXEC_OK) == Err(Errno::ACCESS))?;
    Some(exact(Path::new("/").join(closed.strip_prefix(root).unwrap_or(closed)).as_os_str().as_bytes()))
}

/// Leaves out ZFS data sets that share what their pool has left: each would show the whole pool again. A data set
/// with a quota or a reservation of its own has another amount left and stays. Amounts within a hundredth are the
/// same: the pool is written to between two questions.
fn without_shared_pools(found: Vec<(Mount, Space)>) -> Vec<(Mount, Space)> {
    let mut pools: Vec<(String, u64)> = Vec::new();
    let mut is_shared = |mount: &Mount, space: &Space| {
        if mount.kind != "zfs" {
            return false;
        }
        let pool = mount.source.split('/').next().unwrap_or_default();
        let left = amount(space.available).saturating_mul(space.unit);
        let known = pools.iter().any(|(name, other)| name == pool && other.abs_diff(left) <= left / 100);
        if !known {
            pools.push((pool.to_owned(), left));
        }
        known
    };
    found.into_iter().filter(|(mount, space)| !is_shared(mount, space)).collect()
}

/// Leaves out the file system that holds the writable layer of the root, where it is mounted too: Docker mounts files
/// of it at `/etc/hosts` and its like.
fn without_layers(found: Vec<(Mount, Space)>) -> Vec<(Mount, Space)> {
    let Some(root) = found.iter().find(|(mount, _)| mount.is_layered_root()).map(|(_, space)| *space) else {
        return found;
    };
    let is_same = |space: &Space| {
        (space.unit, space.blocks, space.inodes) == (root.unit, root.blocks, root.inodes)
            && space.available.abs_diff(root.available) <= amount(root.available) / 100
    };
    let is_other = |mount: &Mount| mount.is_layered_root() || mount.kind == "tmpfs";
    found.into_iter().filter(|(mount, space)| is_other(mount) || !is_same(space)).collect()
}

/// Which stuck file systems are left alone now, and the record after the answers are known.
fn remember(stuck: &StuckMounts, now: &Moment, answers: &[(String, bool)]) -> StuckMounts {
    let mut next = stuck.clone();
    for (key, hangs) in answers {
        if !hangs {
            next.remove(key);
            continue;
        }
        let known = stuck.get(key);
        let wait = known.map_or(FIRST_WAIT, |known| (known.wait * 2.0).min(LONGEST_WAIT));
        let since = known.map_or(now.wall, |known| known.since);
        next.insert(key.clone(), Stuck { since, again: now.clock + wait, wait });
    }
    next
}

/// Collects the `disk` row, by mount point.
pub(super) fn collect(context: &Context) -> Result<Report, Error> {
    let mounts = mounts::read(&context.roots)?;
    let (remote, local): (Vec<Mount>, Vec<Mount>) = mounts.into_iter().partition(Mount::may_hang);
    let mut found = Vec::new();
    let mut notes = Vec::new();
    let mut barred = Barred::new();
    for mount in local {
        let path = mounts::reach(&context.roots, &mount);
        match space::ask(&path) {
            Ok(space) => found.push((mount, space)),
            Err(error) => match barring(&context.roots.root, &path) {
                Some(folder) => drop(barred.insert(mount.key(), folder)),
                None => notes.push(error.to_string()),
            },
        }
    }
    let mounted = |key: &String| remote.iter().any(|mount| mount.key() == *key);
    let mut stuck: StuckMounts = context.stuck.clone();
    stuck.retain(|key, _| mounted(key));
    let left_alone = |mount: &Mount| stuck.get(&mount.key()).is_some_and(|stuck| context.moment.clock < stuck.again);
    let (waiting, asked): (Vec<Mount>, Vec<Mount>) = remote.iter().cloned().partition(left_alone);
    let paths: Vec<PathBuf> = asked.iter().map(|mount| mounts::reach(&context.roots, mount)).collect();
    let mut answers = space::ask_isolated(&paths, BUDGET);
    let mut outcome = Vec::new();
    for (mount, path) in asked.into_iter().zip(paths) {
        let key = mount.key();
        let answer = answers.remove(&path);
        outcome.push((key.clone(), matches!(answer, Some(Answer::Stuck))));
        match answer {
            Some(Answer::Space(space)) => found.push((mount, space)),
            Some(Answer::NotAllowed) => barred.extend(barring(&context.roots.root, &path).map(|folder| (key, folder))),
            Some(Answer::Failed(error)) => notes.push(error.to_string()),
            Some(Answer::Stuck) => {
                notes.push(format!("{key} ({}) does not answer; it is left alone for a while", mount.kind))
            }
            None => notes.push(format!("{key} ({}) was not asked: the run's time was used up", mount.kind)),
        }
    }
    notes.extend(
        waiting
            .iter()
            .map(|mount| format!("{} ({}) did not answer before and is not asked yet", mount.key(), mount.kind)),
    );
    let stuck = remember(&stuck, &context.moment, &outcome);
    let sentence = |(mount, folder): (&String, &String)| {
        format!(
            "{mount} is not measured: this user may not enter {folder}; {} shows what lets it in",
            hint("hub", "doctor")
        )
    };
    let mut lasting: Vec<String> = barred.iter().map(sentence).collect();
    found.sort_by(|(one, _), (two, _)| one.point.cmp(&two.point));
    let mut payload = Map::new();
    // A file system of no blocks has no space to run out of.
    for (mount, space) in without_layers(without_shared_pools(found)).iter().filter(|(_, space)| space.blocks > 0) {
        payload.put(&mount.key(), Value::Object(row(mount, space)));
        if has_more_than_all(space) {
            let key = mount.key();
            lasting.push(format!(
                "{key} ({}) reports more free space than it has: how full it is is not known",
                mount.kind
            ));
        }
    }
    let rows = if payload.is_empty() { Vec::new() } else { vec![(kinds::disk::KIND.name, payload)] };
    Ok(Report { rows, notes, lasting, stuck: Some(stuck), barred, ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> Mount {
        mounts::parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn percent_is_df_s() {
        // 100 blocks, 5 of them reserved for root, 40 free for all: df says 55 / (55 + 40).
        let space = Space { unit: 4096, blocks: 100, free: 45, available: 40, inodes: 0, inodes_free: 0 };
        let row = row(&mount("1 0 8:1 / / rw - ext4 /dev/sda1 ro"), &space);
        assert_eq!((&row["total"], &row["used"], &row["free"]), (&409_600.into(), &225_280.into(), &163_840.into()));
        assert_eq!(
            (&row["used_percent"], &row["reserved"], &row["read_only"]),
            (&57.89.into(), &20480.into(), &true.into())
        );
        assert!(!row.contains_key("inodes"), "made as needed");
    }

    #[test]
    fn what_is_over_full_or_odd_is_never_shown_as_empty() {
        let mount = mount("1 0 8:1 / / rw - ext4 /dev/sda1 rw");
        let space = Space { unit: 1024, blocks: 100, free: 2, available: -3, inodes: 10, inodes_free: -1 };
        let over = row(&mount, &space);
        assert_eq!((&over["used"], &over["free"], &over["used_percent"]), (&100_352.into(), &0.into(), &100.0.into()));
        assert_eq!((&over["reserved"], &over["inodes_used_percent"]), (&2048.into(), &100.0.into()));
        let used_up = row(&mount, &Space { free: -7, ..space });
        assert_eq!((&used_up["used"], &used_up["used_percent"]), (&102_400.into(), &100.0.into()));
        for (free, available) in [(101, 50), (50, 101), (101, 101)] {
            let odd = row(&mount, &Space { free, available, inodes_free: 11, ..space });
            assert_eq!(odd["total"], 102_400);
            for key in ["used", "used_percent", "inodes_used_percent"] {
                assert!(!odd.contains_key(key), "{key}");
            }
        }
    }

    #[test]
    fn data_sets_that_share_a_pool_are_shown_once() {
        let space =
            |available| Space { unit: 1024, blocks: 1000, free: available, available, inodes: 0, inodes_free: 0 };
        let found = vec![
            (mount("1 0 0:30 / / rw - zfs rpool/ROOT/debian rw"), space(700)),
            (mount("2 0 0:31 / /home rw - zfs rpool/home rw"), space(700)),
            (mount("3 0 0:32 / /quota rw - zfs rpool/quota rw"), space(50)),
            (mount("4 0 0:33 / /tank rw - zfs tank rw"), space(700)),
        ];
        let kept = without_shared_pools(found);
        let points: Vec<String> = kept.iter().map(|(mount, _)| mount.key()).collect();
        assert_eq!(points, ["/", "/quota", "/tank"]);
    }

    #[test]
    fn what_holds_the_layers_of_the_root_is_shown_as_the_root() {
        let space =
            |blocks, available| Space { unit: 4096, blocks, free: available, available, inodes: 9, inodes_free: 5 };
        let root = (mount("1 0 0:60 / / rw - overlay overlay rw"), space(1000, 500));
        let hosts = (mount("2 1 8:1 /c/hosts /etc/hosts rw - ext4 /dev/sda1 rw"), space(1000, 499));
        let data = (mount("3 1 8:2 / /data rw - ext4 /dev/sda2 rw"), space(1000, 100));
        let points = |found: &[&(Mount, Space)]| {
            let kept = without_layers(found.iter().map(|one| (*one).clone()).collect());
            kept.iter().map(|(mount, _)| mount.key()).collect::<Vec<_>>()
        };
        assert_eq!(points(&[&root, &hosts, &data]), ["/", "/data"]);
        assert_eq!(points(&[&hosts, &data]), ["/etc/hosts", "/data"]);
    }

    #[test]
    fn a_stuck_mount_is_left_alone_longer_each_time_and_forgotten_when_it_answers() {
        let at = |clock| Moment { clock, wall: 1000.0 + clock, ..Moment::default() };
        let once = remember(&StuckMounts::new(), &at(10.0), &[("/nfs".into(), true)]);
        assert_eq!(once["/nfs"], Stuck { since: 1010.0, again: 310.0, wait: 300.0 });
        let twice = remember(&once, &at(320.0), &[("/nfs".into(), true)]);
        assert_eq!(twice["/nfs"], Stuck { since: 1010.0, again: 920.0, wait: 600.0 });
        assert!(remember(&twice, &at(1000.0), &[("/nfs".into(), false)]).is_empty());
    }
}
