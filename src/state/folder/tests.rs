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
