//! The lab on a terminal, in tmux: what a researcher sees and presses.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use forgetlab_tests::{Lab, Table, binary, events, wait_for};

use crate::processes::Background;

/// A tmux server of its own with the lab in its only window.
struct Terminal<'a> {
    lab: &'a Lab,
}

impl<'a> Terminal<'a> {
    /// `None` only where tmux is missing on somebody's own machine; CI has it.
    fn open(lab: &'a Lab, width: u16, height: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI needs tmux");
            eprintln!("skipped: there is no tmux");
            return None;
        }
        let terminal = Self { lab };
        let mut new = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        let size = [("-x", width), ("-y", height)];
        for (flag, cells) in size {
            new.arg(flag).arg(cells.to_string());
        }
        new.arg(format!(
            "{}; echo left with $?; sleep 1000",
            binary().display()
        ));
        forgetlab_tests::run(&mut new);
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        let model = self.lab.command(&[]);
        command.envs(model.get_envs().filter_map(|(k, v)| Some((k, v?))));
        for name in ["TMUX", "FORGETLAB_PLUGINS", "LC_ALL", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.current_dir(self.lab.path(""));
        command.arg("-u").arg("-S").arg(self.lab.path("tmux"));
        command.args(args);
        command
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, named as tmux names them.
    fn press(&self, keys: &[&str]) {
        forgetlab_tests::run(self.tmux(&["send-keys"]).args(keys));
    }

    /// Waits for the screen to be as it should.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            let waited = start.elapsed().as_secs();
            assert!(waited < 120, "{what} never came to be on:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits for texts to be on the screen together.
    #[track_caller]
    fn shows(&self, texts: &[&str]) -> String {
        self.until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    /// Chooses a preset in the form of a new run.
    fn choose_preset(&self, name: &str) {
        self.shows(&["experiment", "toy-continual", "Start"]);
        self.press(&["Down"]);
        self.shows(&["▸ preset"]);
        let chosen = |screen: &str| {
            let line = screen.lines().find(|line| line.contains("▸ preset"));
            let (_, choice) = line?.split_once('◂')?;
            Some(choice.split_once('▸')?.0.trim().to_owned())
        };
        for _ in 0..10 {
            let before = chosen(&self.screen());
            if before.as_deref() == Some(name) {
                return;
            }
            self.press(&["Right"]);
            // Only this key changes it, whatever else on the screen is still being read.
            self.until("another preset", |screen| {
                chosen(screen).is_some_and(|now| Some(now) != before)
            });
        }
        panic!("no preset {name} on:\n{}", self.screen());
    }

    fn kill(&self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_watch_compare_leave(width: u16, height: u16) {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, width, height) else {
        return;
    };
    let mut known: Vec<PathBuf> = Vec::new();
    for round in 1..=2 {
        if round == 1 {
            terminal.choose_preset("smoke");
        } else {
            terminal.press(&["1"]);
            terminal.shows(&["Start", "smoke"]);
        }
        terminal.press(&["s"]);
        wait_for("a run to begin", || lab.runs().len() == round);
        // Both may have begun in the same second, and sort either way.
        let mut runs = lab.runs().into_iter();
        let run = runs.find(|run| !known.contains(run)).expect("a new run");
        let name = run.file_name().and_then(|n| n.to_str()).expect("name");
        let screen = terminal.shows(&[name, "finished", "self-generated"]);
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines.len(), usize::from(height), "{screen}");
        known.push(run);
    }
    terminal.press(&["3"]);
    terminal.until("two finished runs", |screen| {
        screen.contains("2 runs") && screen.matches("finished").count() == 2
    });
    terminal.press(&["Space"]);
    terminal.shows(&["1 marked"]);
    terminal.press(&["Space"]);
    terminal.shows(&["2 marked"]);
    terminal.press(&["c"]);
    terminal.shows(&["2 runs, 8 arms"]);
    terminal.press(&["e"]);
    // The message comes when all is written, and has to be closed.
    terminal.shows(&["Written", "close the message"]);
    let files = fs::read_dir(lab.path("results")).expect("results");
    let mut files = files.map(|f| f.expect("entry").path());
    let csv = files.find(|f| f.extension().is_some_and(|e| e == "csv"));
    let joined = Table::read(&csv.expect("CSV"));
    assert_eq!(joined.rows.len(), 8 * 3);
    assert_eq!(joined.values("run").len(), 2);
    terminal.press(&["Enter"]);
    terminal.until("the comparison alone", |screen| {
        screen.contains("2 runs, 8 arms") && !screen.contains("Written")
    });
    terminal.press(&["Escape"]);
    // Only then the next key: right behind an Escape it would be taken for Alt.
    terminal.shows(&["2 marked"]);
    terminal.press(&["?"]);
    terminal.shows(&["Help", "mark for comparison", "Everywhere"]);
    terminal.press(&["q"]);
    terminal.shows(&["2 marked"]);
    terminal.press(&["q"]);
    terminal.shows(&["left with 0"]);
}

/// Else the lab could not be used where most of it is used: in a small terminal over SSH.
#[test]
fn at_80x24_a_run_is_started_watched_and_compared() {
    start_watch_compare_leave(80, 24);
}

/// Else a large terminal would show less, or nothing.
#[test]
fn at_160x50_a_run_is_started_watched_and_compared() {
    start_watch_compare_leave(160, 50);
}

/// Else a lost connection would end the study it was only watching.
#[test]
fn a_run_outlives_its_terminal_and_is_attached_to_again() {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, 80, 24) else {
        return;
    };
    // Minutes long: it will not be over.
    terminal.choose_preset("cpu");
    terminal.press(&["s"]);
    wait_for("a run to begin", || lab.runs().len() == 1);
    let run = lab.runs().pop().expect("a run");
    let worker = Background::of(run.clone());
    terminal.shows(&["LIVE", "none"]);
    wait_for("events", || events(&run) > 8);
    terminal.kill();
    let before = events(&run);
    wait_for("the worker to go on without a terminal", || {
        events(&run) > before + 2
    });
    let pid = worker.pid().expect("it runs");

    let again = Terminal::open(&lab, 160, 50).expect("tmux");
    again.press(&["3"]);
    again.shows(&["1 run", "live"]);
    again.press(&["Enter"]);
    again.shows(&["LIVE", "bos-prompted"]);
    // Leaving lets it run; the second time it is stopped.
    again.press(&["q"]);
    again.shows(&["Leave the lab", "Still running"]);
    again.press(&["l"]);
    again.shows(&["left with 0"]);
    assert_eq!(worker.pid(), Some(pid), "the same worker is at it");
    again.kill();
    let last = Terminal::open(&lab, 80, 24).expect("tmux");
    last.press(&["3"]);
    last.shows(&["1 run", "live"]);
    last.press(&["x"]);
    last.shows(&["stop it"]);
    last.press(&["y"]);
    last.shows(&["interrupted"]);
    wait_for("the worker to end", || worker.pid().is_none());
    let name = run.file_name().and_then(|n| n.to_str()).expect("name");
    lab.forgetlab(&["stop", name])
        .exits(0)
        .says(&["is not running (interrupted)"]);
}
