use super::*;

/// Runs a program once as a job and waits for its end.
fn run_once(job: &mut Job, launch: &Launch) -> Instant {
    job.start(launch, Instant::now());
    wait_and_reap(job)
}

fn wait_and_reap(job: &mut Job) -> Instant {
    let mut ended = [rustix::event::PollFd::new(job.ended_fd().unwrap(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    let now = Instant::now();
    job.reap(now, false);
    now
}

fn program(path: &str) -> Launch {
    Launch { program: path.into(), environment: Vec::new() }
}

fn pause(job: &Job, now: Instant) -> u64 {
    job.due().unwrap().duration_since(now).as_secs()
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_run_that_leaves_its_queue_as_it_was_is_repeated_with_patience() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::new("gitops-sync", Schedule::Every(HOUR), Some(dir.path().to_owned()));
    std::fs::write(dir.path().join("stuck.json"), "{}").unwrap();
    for expected in [1, 2, 4] {
        let now = run_once(&mut job, &program("true"));
        assert_eq!(pause(&job, now), expected);
        // Another look at the same entry does not shorten the pause.
        job.look_at_queue(now);
        assert_eq!(pause(&job, now), expected);
    }
    std::fs::remove_file(dir.path().join("stuck.json")).unwrap();
    let now = run_once(&mut job, &program("true"));
    assert_eq!(pause(&job, now), 3600);
    job.look_at_queue(now);
    assert_eq!(pause(&job, now), 3600);
    std::fs::write(dir.path().join("new.json"), "{}").unwrap();
    job.look_at_queue(now);
    assert_eq!(pause(&job, now), 0);
}

#[test]
fn what_arrives_during_a_run_is_taken_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::new("gitops-sync", Schedule::Every(HOUR), Some(dir.path().to_owned()));
    job.start(&program("true"), Instant::now());
    std::fs::write(dir.path().join("new.json"), "{}").unwrap();
    let now = wait_and_reap(&mut job);
    assert_eq!(pause(&job, now), 0);
}

#[test]
fn a_daily_run_comes_when_a_file_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::new("reading-sync", Schedule::Daily(10), None);
    let now = Instant::now();
    let counts = |name: &OsStr| name == "a.jsonl";
    std::fs::create_dir(dir.path().join("processed")).unwrap();
    job.set_inboxes(vec![dir.path().to_owned()], counts, now);
    assert!(job.due().unwrap() > now);
    std::fs::write(dir.path().join("a.jsonl"), "{}").unwrap();
    job.look_at_queue(now);
    assert_eq!(pause(&job, now), 0);
}

#[test]
fn a_refused_run_waits_for_its_timer_and_a_crashed_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::new("gitops-sync", Schedule::Every(HOUR), Some(dir.path().to_owned()));
    let now = run_once(&mut job, &program("false"));
    assert_eq!(pause(&job, now), 3600);
    let script = dir.path().join("crash");
    std::fs::write(&script, "kill -9 $$\n").unwrap();
    let mut job = Job::new("gitops-sync", Schedule::Every(HOUR), None);
    let now = run_once(&mut job, &Launch { program: "bash".into(), environment: vec![("BASH_ENV", script)] });
    assert_eq!(pause(&job, now), 1);
}

#[test]
fn what_cannot_be_started_is_tried_again() {
    let mut job = Job::new("proxy", Schedule::Always, None);
    let now = Instant::now();
    job.start(&program("/nonexistent"), now);
    assert!(!job.is_running());
    assert_eq!(pause(&job, now), 1);
}
