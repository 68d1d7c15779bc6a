use super::*;

/// A service that says no, or counts how often it was asked.
#[derive(Default)]
struct Judge {
    objection: Option<&'static str>,
    prepared: std::cell::Cell<u32>,
}

impl Renew for Judge {
    type Prepared = ();

    fn prepare(&self, _: &Config) -> Result<(), String> {
        self.prepared.set(self.prepared.get() + 1);
        Ok(())
    }

    fn renew(&mut self, _: &Config, (): ()) -> Result<(), String> {
        self.objection.map_or(Ok(()), |objection| Err(objection.to_owned()))
    }
}

/// A hub.toml, a folder of credentials, and a clock that goes a second with every look.
struct Host {
    dir: tempfile::TempDir,
    renewal: Renewal,
    now: Instant,
}

impl Host {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("state/credentials")).unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, with_state(&dir, text)).unwrap();
        let renewal = Renewal::load(Some(&file)).unwrap();
        Self { dir, renewal, now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("hub.toml"), with_state(&self.dir, text)).unwrap();
    }

    /// The result of a look a second later: nothing, `judged` or `taken`.
    fn look(&mut self) -> &'static str {
        self.look_as(&mut Judge::default())
    }

    fn look_as(&mut self, judge: &mut Judge) -> &'static str {
        self.now += LOOK_EVERY;
        match self.renewal.look(self.now, judge) {
            Look::Nothing => "",
            Look::Judged => "judged",
            Look::Taken => "taken",
        }
    }

    fn looks(&mut self, count: usize) -> Vec<&'static str> {
        (0..count).map(|_| self.look()).collect()
    }

    fn port(&self) -> u16 {
        self.renewal.config().gate.port
    }

    fn reason(&self) -> &str {
        self.renewal.refused().map_or("", |refused| &refused.reason)
    }
}

fn with_state(dir: &tempfile::TempDir, text: &str) -> String {
    format!("state_dir = \"{}\"\n{text}", dir.path().join("state").display())
}

#[test]
fn a_changed_file_is_taken_when_it_has_rested_and_once() {
    let mut host = Host::new("");
    assert_eq!(host.looks(5), [""; 5]);
    host.write("[gate]\nport = 443");
    assert_eq!(host.looks(6), ["", "", "taken", "", "", ""]);
    assert_eq!(host.port(), 443);
    // Half of it is there for a second, and valid.
    host.write("[gate]");
    assert_eq!(host.look(), "");
    assert_eq!(host.look(), "");
    host.write("[gate]\nport = 10000");
    assert_eq!(host.looks(3), ["", "", "taken"]);
    assert_eq!(host.port(), 10000);
}

#[test]
fn what_says_the_same_is_no_change_and_an_older_time_hides_none() {
    let mut host = Host::new("[gate]\nport = 443");
    host.write("[gate]\nport = 443");
    assert_eq!(host.looks(5), [""; 5]);
    // A file of the same length with the time of the one before, put in its place as cp -p and mv do.
    let before = std::fs::metadata(host.path("hub.toml")).unwrap().modified().unwrap();
    for age in [0, 1_000_000] {
        let text = if age == 0 { "[gate]\nport = 444" } else { "[gate]\nport = 443" };
        let text = text.replace("444", "8443");
        std::fs::write(host.path("new"), with_state(&host.dir, &text)).unwrap();
        let time = before - Duration::from_secs(age);
        std::fs::File::options().write(true).open(host.path("new")).unwrap().set_modified(time).unwrap();
        std::fs::rename(host.path("new"), host.path("hub.toml")).unwrap();
        assert_eq!(host.looks(3), ["", "", "taken"], "{age}");
    }
    assert_eq!(host.port(), 443);
}

#[test]
fn what_cannot_be_used_is_refused_and_the_old_one_stays() {
    let mut host = Host::new("[gate]\nport = 443");
    let text = std::fs::read(host.path("hub.toml")).unwrap();
    for (wrong, part) in
        [("", "is empty"), (" \n\n", "is empty"), ("nonsense", "not TOML"), ("[gate]\nport = 1", ":2: gate.port")]
    {
        std::fs::write(host.path("hub.toml"), wrong).unwrap();
        assert_eq!(host.looks(4), ["", "", "judged", ""], "{wrong:?}");
        assert!(host.reason().contains(part), "{}", host.reason());
        assert_eq!(host.port(), 443);
        // It is judged again, and told once.
        assert_eq!(host.looks(30), [""; 30]);
        std::fs::write(host.path("hub.toml"), &text).unwrap();
        assert_eq!(host.looks(4), ["", "", "judged", ""], "right again");
        assert_eq!(host.reason(), "");
    }
    std::fs::rename(host.path("hub.toml"), host.path("away")).unwrap();
    assert_eq!(host.looks(3), ["", "", "judged"]);
    assert!(host.reason().contains("is gone"), "{}", host.reason());
    std::fs::rename(host.path("away"), host.path("hub.toml")).unwrap();
    assert_eq!(host.looks(3), ["", "", "judged"]);
    host.write("");
    std::fs::write(host.path("hub.toml"), "state_dir = \"/srv/elsewhere\"").unwrap();
    assert_eq!(host.looks(3), ["", "", "judged"]);
    assert!(host.reason().contains("state_dir is /srv/elsewhere now"), "{}", host.reason());
}

#[test]
fn what_a_judge_refuses_is_taken_when_the_cause_has_gone() {
    let mut host = Host::new("");
    host.write("[gate]\nport = 443");
    let mut judge = Judge { objection: Some("the port is taken"), ..Judge::default() };
    assert_eq!([(); 3].map(|()| host.look_as(&mut judge)), ["", "", "judged"]);
    assert_eq!((host.reason(), host.port()), ("the port is taken", 8443));
    let looks = host.looks(10);
    assert_eq!((looks.iter().filter(|look| **look == "taken").count(), host.port()), (1, 443), "{looks:?}");
}

#[test]
fn who_asks_does_not_wait_and_who_asks_often_is_heard_once_a_second() {
    let mut host = Host::new("");
    host.write("[gate]\nport = 443");
    host.renewal.ask();
    assert_eq!(host.look(), "taken");
    let mut judge = Judge::default();
    for _ in 0..1000 {
        host.renewal.ask();
        host.now += LOOK_EVERY / 100;
        host.renewal.look(host.now, &mut judge);
    }
    let judged = judge.prepared.get();
    assert!((9..=11).contains(&judged), "{judged}");
    assert_eq!(host.port(), 443);
}

#[test]
fn a_file_behind_links_is_taken_when_a_link_is_set_anew() {
    let mut host = Host::new("");
    for name in ["one", "two"] {
        std::fs::create_dir(host.path(name)).unwrap();
        let port = if name == "one" { 443 } else { 10000 };
        std::fs::write(host.path(name).join("hub.toml"), with_state(&host.dir, &format!("[gate]\nport = {port}")))
            .unwrap();
    }
    std::os::unix::fs::symlink("one", host.path("data")).unwrap();
    std::fs::remove_file(host.path("hub.toml")).unwrap();
    std::os::unix::fs::symlink("data/hub.toml", host.path("hub.toml")).unwrap();
    assert_eq!(host.looks(3), ["", "", "taken"]);
    assert_eq!(host.port(), 443);
    std::os::unix::fs::symlink("two", host.path("new")).unwrap();
    std::fs::rename(host.path("new"), host.path("data")).unwrap();
    assert_eq!(host.looks(3), ["", "", "taken"]);
    assert_eq!(host.port(), 10000);
}

#[test]
fn credentials_come_change_and_go_and_an_empty_one_is_refused() {
    let mut host = Host::new("");
    let secret = host.path("state/credentials/webhook-secret");
    for text in ["one", "two"] {
        std::fs::write(&secret, text).unwrap();
        assert_eq!(host.looks(4), ["", "", "taken", ""], "{text}");
    }
    std::fs::write(&secret, "").unwrap();
    assert_eq!(host.looks(3), ["", "", "judged"]);
    assert!(host.reason().contains("webhook-secret: is empty"), "{}", host.reason());
    // An unfinished one does not count.
    std::fs::write(host.path("state/credentials/.webhook-secret.new"), "three").unwrap();
    std::fs::remove_file(&secret).unwrap();
    assert_eq!(host.looks(4), ["", "", "taken", ""]);
    assert_eq!(host.reason(), "");
}

#[test]
fn without_a_file_the_first_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.toml");
    std::fs::write(&file, with_state(&dir, "")).unwrap();
    let mut renewal = Renewal::load(Some(&file)).unwrap();
    // As if it had not been there: the default path may be missing, and nothing else.
    renewal.used.clear();
    renewal.seen.clear();
    let look = |renewal: &mut Renewal, seconds| {
        let now = Instant::now() + Duration::from_secs(seconds);
        renewal.look(now, &mut Judge::default()) == Look::Taken
    };
    assert_eq!([1, 2, 4].map(|at| look(&mut renewal, at)), [false, false, true]);
}
