use super::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn reason(key: &str, level: Level) -> Reason {
    let (about, reason) = (key.to_owned(), format!("{key} is so"));
    Reason { key: key.to_owned(), level, about, reason, ..Reason::default() }
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What one look says.
fn say(book: &mut Book, minute: i64, reasons: &[&Reason], is_quiet: bool) -> Vec<String> {
    let reasons: Vec<Reason> = reasons.iter().map(|reason| (*reason).clone()).collect();
    book.look(&reasons, at(minute), DAY, true);
    let told = book.tell(at(minute), is_quiet);
    told.into_iter().flat_map(|(events, _)| events).map(|event| format!("{:?} {}", event.kind, event.key)).collect()
}

#[test]
fn a_reason_is_told_when_it_appears_gets_worse_stays_a_day_and_goes() {
    let mut book = Book::default();
    let (bad, worse) = (reason("a", Level::Degraded), reason("a", Level::Failed));
    assert_eq!(say(&mut book, 0, &[&bad], false), ["Raised a"]);
    assert_eq!(say(&mut book, 1, &[&bad], false), [""; 0]);
    assert_eq!(say(&mut book, 2, &[&worse], false), ["Worse a"]);
    assert_eq!(say(&mut book, 3, &[&bad], false), [""; 0], "better is no news");
    assert_eq!(say(&mut book, 2 + 24 * 60, &[&bad], false), ["Still a"]);
    assert_eq!(say(&mut book, 3 + 24 * 60, &[], false), ["Cleared a"]);
    assert_eq!(say(&mut book, 4 + 24 * 60, &[], false), [""; 0]);
}

#[test]
fn quiet_hours_hold_back_what_is_no_failure() {
    let mut book = Book::default();
    let (bad, failed) = (reason("a", Level::Degraded), reason("b", Level::Failed));
    assert_eq!(say(&mut book, 0, &[&bad, &failed], true), ["Raised b"]);
    assert_eq!(say(&mut book, 1, &[&bad], true), [""; 0], "that it is well again can wait");
    assert_eq!(say(&mut book, 2, &[], true), [""; 0]);
    assert_eq!(say(&mut book, 3, &[], false), ["Cleared b", "Passed a"]);
    // What went and came back was never told to be gone.
    assert_eq!(say(&mut book, 4, &[&bad], false), ["Raised a"]);
    assert_eq!(say(&mut book, 5, &[], true), [""; 0]);
    assert_eq!(say(&mut book, 6, &[&bad], true), [""; 0]);
    assert_eq!(say(&mut book, 7, &[&bad], false), ["Still a"]);
}

#[test]
fn an_hour_has_twelve_messages_and_the_rest_is_told_in_one() {
    let mut book = Book::default();
    let mut messages = 0;
    let mut told = Vec::new();
    for minute in 0..120 {
        let reasons: Vec<Reason> = (0..=minute.min(59)).map(|n| reason(&format!("r{n:02}"), Level::Failed)).collect();
        let reasons: Vec<&Reason> = reasons.iter().collect();
        let said = say(&mut book, minute, &reasons, false);
        messages += usize::from(!said.is_empty());
        told.extend(said);
        assert!(minute >= 60 || messages <= 12, "{messages} in {minute} minutes");
    }
    assert!(messages <= 24);
    let mut all: Vec<String> = (0..60).map(|n| format!("Raised r{n:02}")).collect();
    all.sort();
    told.sort();
    assert_eq!(told, all, "each exactly once");
}

#[test]
fn a_clock_that_is_set_back_or_ahead_silences_nobody() {
    let mut book = Book::default();
    let a = reason("a", Level::Failed);
    assert_eq!(say(&mut book, 1_000_000, &[&a], false), ["Raised a"]);
    assert_eq!(say(&mut book, 0, &[&a], false), ["Still a"], "since nobody knows how long it was");
    assert_eq!(say(&mut book, 1, &[&a], false), [""; 0]);
    for minute in 2..20 {
        say(&mut book, minute, &[&a, &reason(&format!("r{minute}"), Level::Failed)], false);
    }
    assert_eq!(say(&mut book, -1_000_000, &[], false).len(), 9, "and all that waited");
}

#[test]
fn who_is_to_be_told_first_hears_of_all_that_is_open() {
    let mut book = Book::default();
    let (a, b) = (reason("a", Level::Failed), reason("b", Level::Degraded));
    book.look(&[a.clone(), b], at(0), DAY, false);
    book.look(std::slice::from_ref(&a), at(1), DAY, false);
    assert_eq!(book.tell(at(1), false), None);
    assert_eq!(say(&mut book, 2, &[&a], false), ["Raised a"]);
}
