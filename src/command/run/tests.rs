use super::*;

fn sh(script: &str) -> Command {
    Command::new("sh", Duration::from_secs(20)).args(["-c", script])
}

#[test]
fn input_goes_in_and_output_comes_out() {
    let input = vec![b'x'; 3 << 20];
    let output = Command::new("cat", Duration::from_secs(20)).input(input.clone()).output_limit(4 << 20);
    assert_eq!(output.succeed().unwrap().stdout, input);
}

#[test]
fn a_failure_carries_code_and_reason() {
    let Err(error @ Error::Failed { code: Some(7), .. }) = sh("echo no disk >&2; exit 7").succeed() else {
        panic!("it must fail")
    };
    assert!(error.to_string().ends_with("ended with exit code 7: no disk"), "{error}");
}

#[test]
fn the_deadline_ends_the_whole_group() {
    let started = Instant::now();
    let command = Command::new("sh", Duration::from_millis(200)).args(["-c", "sleep 60 & sleep 60"]);
    assert!(matches!(command.run(), Err(Error::Deadline { .. })));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_flood_of_output_does_not_hold_up_the_deadline() {
    let started = Instant::now();
    let flood = Command::new("yes", Duration::from_millis(500)).output_tail();
    assert!(matches!(flood.run(), Err(Error::Deadline { .. })));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_a_command_leaves_behind_is_ended_and_not_waited_for() {
    let output = sh("sleep 60 & echo $!").succeed().unwrap();
    let pid: i32 = output.text().parse().unwrap();
    let gone = |pid| rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone(pid) && !state().contains(") Z ") {
        assert!(Instant::now() < deadline, "the background process lives: {}", state());
        std::thread::yield_now();
    }
    let started = Instant::now();
    assert!(sh("setsid sleep 20 & exit 0").succeed().is_ok());
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn more_output_than_accepted_is_an_error_and_the_tail_is_kept_where_asked_for() {
    let many = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo the end";
    assert!(matches!(sh(many).output_limit(1000).run(), Err(Error::TooMuchOutput { .. })));
    let output = sh(many).output_tail().succeed().unwrap();
    assert!(output.stdout.len() <= STDERR_KEPT && output.text().ends_with("the end"));
}

#[test]
fn a_prepared_command_gets_its_input_later() {
    let input = vec![b'x'; 3 << 20];
    let cat = || Command::new("cat", Duration::from_secs(20)).output_limit(4 << 20);
    assert_eq!(cat().prepare(None).unwrap().finish(&input).unwrap().stdout, input);
    assert_eq!(cat().prepare(Some(cat())).unwrap().finish(&input).unwrap().stdout, input);
    assert!(matches!(sh("exit 3").prepare(None).unwrap().finish(&input), Err(Error::Failed { code: Some(3), .. })));
    let marker = tempfile::tempdir().unwrap();
    drop(sh("cat; touch ended").folder(marker.path()).prepare(None).unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !marker.path().join("ended").exists() {
        assert!(Instant::now() < deadline, "its input does not end");
        std::thread::yield_now();
    }
}

#[test]
fn a_pipe_reports_the_side_that_failed() {
    let consumer = || Command::new("cat", Duration::from_secs(20)).output_limit(1 << 22);
    let both = |producer: Command, consumer| producer.prepare(Some(consumer)).unwrap().finish(b"");
    assert_eq!(both(sh("echo through"), consumer()).unwrap().text(), "through");
    let error = both(sh("echo first side >&2; exit 3"), consumer()).unwrap_err();
    assert!(error.to_string().contains("first side"), "{error}");
    let error = both(sh("cat /dev/zero"), sh("echo second side >&2; exit 4")).unwrap_err();
    assert!(error.to_string().contains("second side"), "{error}");
}

#[test]
fn a_missing_program_is_named() {
    let error = Command::new("no-such-program", Duration::from_secs(1)).run().unwrap_err();
    assert!(error.to_string().starts_with("no-such-program is not installed"), "{error}");
}
