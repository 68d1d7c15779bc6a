use super::*;

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

#[test]
fn publish_replaces_whole_files_and_leaves_nothing_else() {
    let (_dir, folder) = folder();
    folder.publish("a.json", b"one", 0o640).unwrap();
    folder.publish("a.json", b"two", 0o640).unwrap();
    assert_eq!(folder.read("a.json", 10).unwrap().unwrap(), b"two");
    assert_eq!(folder.entries(10).unwrap().len(), 1);
}

#[test]
fn what_a_killed_writer_left_is_in_nobodys_way() {
    let (dir, folder) = folder();
    for number in 0..20 {
        std::fs::write(dir.path().join(format!(".a.json.{}.{number}", std::process::id())), "torn").unwrap();
    }
    folder.publish("a.json", b"one", 0o640).unwrap();
    assert_eq!(folder.entries(1).unwrap()[0].name, "a.json");
}

#[test]
fn a_folder_that_is_opened_again_has_the_same_path() {
    let (dir, folder) = folder();
    let again = folder.again().unwrap();
    // What is compared with it by its text: "/x/." is another one.
    assert_eq!(again.path().as_os_str(), dir.path().as_os_str());
    again.publish("a", b"one", 0o640).unwrap();
    assert_eq!(folder.read("a", 10).unwrap().unwrap(), b"one");
}

#[test]
fn links_pipes_and_long_files_are_not_read() {
    let (dir, folder) = folder();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).unwrap();
    assert!(matches!(folder.read("link", 10), Err(Error::NotRegular(_))));
    fs::mkfifoat(fs::CWD, dir.path().join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(folder.read("pipe", 10), Err(Error::NotRegular(_))));
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    assert!(matches!(folder.read("sub", 10), Err(Error::NotRegular(_))));
    std::fs::write(dir.path().join("long"), [b'x'; 11]).unwrap();
    assert!(matches!(folder.read("long", 10), Err(Error::TooLarge { .. })));
    assert!(folder.read("missing", 10).unwrap().is_none());
}

#[test]
fn a_linked_folder_is_not_entered() {
    let (dir, folder) = folder();
    std::os::unix::fs::symlink("/tmp", dir.path().join("queue")).unwrap();
    assert!(folder.sub("queue").is_err());
    assert!(folder.sub_or_make("queue", 0o750).is_err());
}

#[test]
fn what_root_makes_has_the_group_of_its_folder() {
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, folder) = folder();
    std::os::unix::fs::chown(dir.path(), None, Some(4242)).unwrap();
    folder.publish("file", b"x", 0o640).unwrap();
    let sub = folder.sub_or_make("sub", 0o750).unwrap();
    sub.replace("file", b"x", 0o640).unwrap();
    for path in ["file", "sub", "sub/file"] {
        let found = std::fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (0, 4242), "{path}");
    }
}

#[test]
fn a_tree_is_removed_however_deep_it_is_and_no_link_is_followed() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("kept"), "x").unwrap();
    let mut fd = fs::openat(fs::CWD, dir.path(), OPEN_FOLDER, Mode::empty()).unwrap();
    // Deeper than a path or the number of open files allows.
    for _ in 0..5000 {
        fs::mkdirat(&fd, "deep", Mode::from_raw_mode(0o755)).unwrap();
        fs::symlinkat(outside.path(), &fd, "link").unwrap();
        fd = fs::openat(&fd, "deep", OPEN_FOLDER, Mode::empty()).unwrap();
    }
    let mut budget = 100_000;
    assert!(folder.remove_tree(OsStr::new("deep"), &mut budget).unwrap());
    assert!(folder.remove_tree(OsStr::new("link"), &mut budget).unwrap());
    assert_eq!((std::fs::read_dir(dir.path()).unwrap().count(), budget), (0, 100_000 - 2 * 4999 - 1));
    assert!(outside.path().join("kept").exists());
}

#[test]
fn a_folder_that_becomes_a_link_while_it_is_removed_leads_nowhere() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // Fails while they are not there.
                let _ = fs::renameat_with(&folder.fd, "tree/a", &folder.fd, "tree/b", fs::RenameFlags::EXCHANGE);
            }
        });
        let mut failed = None;
        for round in 0..1000 {
            std::fs::write(outside.path().join("kept"), "x").unwrap();
            std::fs::create_dir_all(dir.path().join("tree/a")).unwrap();
            std::os::unix::fs::symlink(outside.path(), dir.path().join("tree/b")).unwrap();
            // What it leaves, because somebody works in there, goes the next time.
            let removed = (0..10).any(|_| folder.remove_tree(OsStr::new("tree"), &mut 1000).unwrap_or(false));
            if !removed || !outside.path().join("kept").exists() {
                failed = Some((round, removed));
                break;
            }
        }
        ended.store(true, Ordering::Relaxed);
        assert_eq!(failed, None, "the round, and whether the tree was removed in it");
    });
}

#[test]
fn what_is_filled_meanwhile_or_too_large_is_left_for_the_next_time() {
    let (dir, folder) = folder();
    for number in 0..50 {
        std::fs::create_dir_all(dir.path().join(format!("large/{number}/{number}"))).unwrap();
    }
    assert!(!folder.remove_tree(OsStr::new("large"), &mut 60).unwrap());
    assert!(folder.remove_tree(OsStr::new("large"), &mut 1000).unwrap());
    assert!(folder.remove_left_trees(&mut 1000).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    std::fs::create_dir(dir.path().join("filled")).unwrap();
    let filled = Folder::open(&dir.path().join("filled")).unwrap();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..u64::MAX {
                // Fails once the folder is gone.
                let made = fs::mkdirat(&filled.fd, format!("x{number}"), Mode::from_raw_mode(0o755));
                if ended.load(Ordering::Relaxed) || made == Err(Errno::NOENT) {
                    break;
                }
            }
        });
        let mut budget = 20_000;
        // It comes to an end, whatever it comes to.
        folder.remove_tree(OsStr::new("filled"), &mut budget).unwrap();
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_name_is_free_at_once_whatever_is_left_of_what_it_stood_for() {
    let (dir, folder) = folder();
    for number in 0..50 {
        std::fs::create_dir_all(dir.path().join(format!("large/{number}/{number}"))).unwrap();
    }
    let mut budget = 60;
    assert!(!folder.clear_away(OsStr::new("large"), &mut budget).unwrap());
    assert!(!dir.path().join("large").exists() && budget == 0);
    assert!(folder.remove_left_trees(&mut 1000).unwrap());
    assert!(folder.clear_away(OsStr::new("large"), &mut 0).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
