use super::*;

fn queue() -> (tempfile::TempDir, Queue) {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::open(dir.path()).unwrap();
    (dir, queue)
}

fn request(queue: &Queue, name: &str) -> Request {
    queue.folder().unwrap().read_json(name).unwrap().unwrap()
}

#[test]
fn a_request_gathers_deliveries_until_it_is_taken() {
    let (dir, queue) = queue();
    for number in 0..60 {
        queue.push("acme/infra", &format!("id-{number}"), None).unwrap();
    }
    let gathered = request(&queue, "acme__infra.json");
    assert_eq!((gathered.repository.as_str(), gathered.count), ("acme/infra", 60));
    assert_eq!(gathered.deliveries, (10..60).map(|n| format!("id-{n}")).collect::<Vec<_>>());
    assert!(gathered.since < gathered.latest);
    std::fs::remove_file(dir.path().join("proxy/queue/acme__infra.json")).unwrap();
    queue.push("acme/infra", "next", None).unwrap();
    assert_eq!(request(&queue, "acme__infra.json").count, 1);
}

#[test]
fn foreign_files_are_replaced_and_links_not_followed() {
    let (dir, queue) = queue();
    let file = dir.path().join("proxy/queue/acme__infra.json");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    queue.push("acme/infra", "1", None).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(request(&queue, "acme__infra.json").count, 1);
    for foreign in
        ["", "{\"repository\":", r#"{"repository":"other/one","since":"","latest":"","deliveries":[],"count":7}"#]
    {
        std::fs::write(&file, foreign).unwrap();
        queue.push("acme/infra", "2", None).unwrap();
        assert_eq!(request(&queue, "acme__infra.json").count, 1);
    }
}

#[test]
fn concurrent_pushes_are_all_there() {
    let (_dir, queue) = queue();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..20 {
                    queue.push(&format!("acme/r{}", number % 4), &format!("{thread}-{number}"), None).unwrap();
                }
            });
        }
    });
    let total: u64 = (0..4).map(|n| request(&queue, &format!("acme__r{n}.json")).count).sum();
    assert_eq!(total, 320);
    assert_eq!(queue.depth().unwrap().requests, 4);
}

#[test]
fn a_full_queue_takes_known_repositories_only() {
    let (dir, queue) = queue();
    queue.push("acme/infra", "1", None).unwrap();
    for number in 0..MOST_ENTRIES {
        std::fs::write(dir.path().join(format!("proxy/queue/{number}")), "").unwrap();
    }
    assert!(matches!(queue.push("acme/other", "1", None), Err(Error::Full(_))));
    assert!(matches!(queue.check(), Err(Error::Full(_))));
    queue.push("acme/infra", "2", None).unwrap();
}

#[test]
fn a_removed_folder_comes_back() {
    let (dir, queue) = queue();
    std::fs::remove_dir_all(dir.path().join("proxy")).unwrap();
    queue.push("acme/infra", "1", None).unwrap();
    queue.check().unwrap();
    assert_eq!(request(&queue, "acme__infra.json").count, 1);
}

#[test]
fn a_failed_write_is_reported_and_leaves_nothing() {
    let (dir, queue) = queue();
    let place = dir.path().join("proxy/queue/acme__infra.json");
    std::fs::create_dir_all(place.join("inside")).unwrap();
    assert!(matches!(queue.push("acme/infra", "1", None), Err(Error::State(_))));
    assert_eq!(std::fs::read_dir(dir.path().join("proxy/queue")).unwrap().count(), 1);
    queue.push("acme/other", "1", None).unwrap();
}

#[test]
fn unfinished_files_of_dead_writers_are_removed() {
    let (dir, _queue) = queue();
    let folder = dir.path().join("proxy/queue");
    let living = format!(".acme__infra.json.{}.0", std::process::id());
    for name in [".acme__infra.json.4194304.0", ".odd", &living] {
        std::fs::write(folder.join(name), "{").unwrap();
    }
    Queue::open(dir.path()).unwrap();
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [std::ffi::OsString::from(living)]);
}
