//! The lab on a terminal while things happen to it and to the run that it shows: kills, changes, other labs, evil words.

use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_study::printed::is_harmless;
use forgetlab_tests::{Figures, Lab, SMOKE, events, events_say, wait_for};
use rustix::process::{Signal, kill_process};

use crate::processes::Background;
use crate::terminal::Terminal;

/// Some seconds, of which the second and third phase are most.
const LONG: [&str; 6] = [
    "--set",
    "phases.steps=500",
    "--set",
    "training.eval_every=25",
    "--set",
    "training.checkpoint_seconds=0.5",
];
/// The arm that is added.
const LATER: &str = "self-generated:kl:10+lr=1e-3";

/// What an uninterrupted run of some arms measures.
fn whole(lab: &Lab, arms: &str) -> Figures {
    lab.smoke(&[&LONG[..], &["--arms", arms, "--out", "whole"]].concat())
        .exits(0);
    Figures::of(&lab.path("whole")).in_any_order()
}

/// A run in the background, whose worker is held where its events say a text, and goes on when it is let.
fn held_at(lab: &Lab, arms: &str, text: &str) -> (PathBuf, Background) {
    lab.forgetlab(&[SMOKE, &LONG, &["--arms", arms, "--detach"]].concat())
        .exits(0);
    let run = lab.runs().pop().expect("a run");
    let worker = Background::of(run.clone());
    reaches(&run, text);
    worker.signal(Signal::STOP);
    (run, worker)
}

fn reaches(run: &Path, text: &str) {
    wait_for(text, || events_say(run, text));
}

/// Waits for the run on the screen to be finished, its reports written.
#[track_caller]
fn ends(terminal: &Terminal) {
    terminal.until("the end", |screen| {
        let headline = screen.lines().nth(1).unwrap_or_default();
        headline.contains("finished")
    });
}

/// A newcomer who reads the screen, and nothing else, must get to a table for the paper.
#[test]
fn from_an_empty_folder_to_a_table_for_a_paper() {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, 120, 36) else {
        return;
    };
    // The screen names the key of each step before it is pressed.
    terminal.choose_preset("smoke");
    terminal.shows(&["s start"]);
    terminal.press(&["s"]);
    ends(&terminal);
    terminal.shows(&["kept against learned", "e export"]);
    terminal.press(&["e"]);
    terminal.shows(&["table as LaTeX", "Enter choose"]);
    terminal.press(&["LaTeX"]);
    terminal.until("LaTeX alone", |screen| !screen.contains("as Markdown"));
    terminal.press(&["Enter"]);
    terminal.shows(&["Written", ".tex", "close the message"]);
    let files = fs::read_dir(lab.path("results")).expect("results");
    let mut files = files.map(|file| file.expect("entry").path());
    let table = files.find(|path| path.extension().is_some_and(|e| e == "tex"));
    let table = fs::read_to_string(table.expect("a table")).expect("read");
    for text in ["\\begin{tabular}", "true-data", "\\end{tabular}"] {
        assert!(table.contains(text), "{table}");
    }
    terminal.press(&["Enter"]);
    terminal.press(&["q"]);
    terminal.shows(&["left with 0"]);
}

/// Whatever dies, the screen must say what is, and the run come to the same figures.
#[test]
fn kills_of_the_worker_the_lab_and_both_cost_no_figure() {
    let lab = Lab::new();
    let arms = "none,true-data:kl";
    let whole = whole(&lab, arms);
    let (run, worker) = held_at(&lab, arms, "\"evaluated\"");
    let Some(terminal) = Terminal::open(&lab, 120, 36) else {
        return;
    };
    let kill_worker = || {
        worker.signal(Signal::KILL);
        wait_for("the worker to be gone", || worker.pid().is_none());
    };
    terminal.shows(&["LIVE", "true-data:kl"]);
    kill_worker();
    terminal.shows(&["crashed", "r resumes it"]);
    terminal.press(&["r"]);
    terminal.shows(&["LIVE"]);
    reaches(&run, r#""phase":1"#);
    worker.signal(Signal::STOP);

    // The lab alone: its worker does not notice.
    kill_process(terminal.lab_pid(), Signal::KILL).expect("kill");
    terminal.shows(&["left with 137"]);
    let before = events(&run);
    worker.signal(Signal::CONT);
    wait_for("the worker to go on", || events(&run) > before);
    worker.signal(Signal::STOP);
    terminal.kill();
    let again = Terminal::open(&lab, 120, 36).expect("tmux");
    again.shows(&["LIVE", "true-data:kl"]);

    kill_process(again.lab_pid(), Signal::KILL).expect("kill");
    kill_worker();
    again.kill();
    let last = Terminal::open(&lab, 80, 24).expect("tmux");
    last.shows(&["1 run, 0 live", "crashed"]);
    last.press(&["Enter"]);
    last.shows(&["r resumes it", "true-data:kl"]);
    last.press(&["r"]);
    ends(&last);
    Figures::of(&run)
        .in_any_order()
        .must_equal(&whole, "killed three times, resumed on the screen");
}

/// Else an arm added in the lab would be another one than it says, or stopping one would change the others.
#[test]
fn an_arm_is_added_and_another_stopped_on_the_screen() {
    let lab = Lab::new();
    let whole = whole(&lab, &format!("none,true-data:kl,{LATER}"));
    let (run, worker) = held_at(&lab, "none,true-data:kl", r#""phase":1"#);
    let Some(terminal) = Terminal::open(&lab, 120, 36) else {
        return;
    };
    terminal.shows(&["LIVE", "true-data:kl"]);
    terminal.press(&["a"]);
    terminal.shows(&["STRATEGY[:OBJECTIVE[:COEFF]]"]);
    terminal.press(&["-l", LATER]);
    terminal.press(&["Enter"]);
    wait_for("a request", || run.join("requests").exists());
    worker.signal(Signal::CONT);
    terminal.shows(&[&format!("done: add {LATER}")]);
    worker.signal(Signal::STOP);
    terminal.until("it in the table", |screen| {
        let stands = |line: &str| line.contains("waiting") || line.contains('▕');
        let row = |line: &str| line.contains("lr=1e-3") && stands(line);
        screen.lines().any(row)
    });
    // The line below the table tells which arm the cursor is on.
    let on = |screen: &str, name: &str| {
        let mut below = screen.lines().rev();
        below.any(|line| line.trim_start().starts_with(name))
    };
    // In an order that figures do not change while they come in.
    terminal.press(&[":"]);
    terminal.press(&["-l", "sort arm"]);
    terminal.press(&["Enter"]);
    terminal.press(&["End"]);
    terminal.until("the cursor on true-data", |screen| {
        on(screen, "true-data:kl")
    });
    terminal.press(&["DC"]);
    terminal.shows(&["Stop", "true-data:kl", "y yes"]);
    terminal.press(&["y"]);
    let asked = || fs::read_dir(run.join("requests")).is_ok_and(|mut all| all.next().is_some());
    wait_for("a request", asked);
    worker.signal(Signal::CONT);
    terminal.until("one to be skipped", |screen| {
        screen
            .lines()
            .any(|line| line.contains("true-data:kl") && line.contains("skipped"))
    });
    terminal.until("the others to finish", |screen| {
        let headline = screen.lines().nth(1).unwrap_or_default();
        !headline.contains("LIVE") && screen.matches("finished").count() >= 2
    });
    let figures = Figures::of(&run);
    for arm in ["none", LATER] {
        let own = |all: &Figures| all.of_arm(arm, "0").in_any_order();
        own(&figures).must_equal(&own(&whole), arm);
    }
    // Who watches later, or elsewhere, sees who did it.
    terminal.press(&[":"]);
    terminal.press(&["-l", "arrange log"]);
    terminal.press(&["Enter", "z"]);
    let by = format!("added {LATER}, as ");
    terminal.shows(&["─ log ─", &by, "stopped true-data-kl", "(process "]);
}

/// Two people at one box must not wonder who stopped the run.
#[test]
fn two_labs_watch_one_run_and_see_what_the_other_does() {
    let lab = Lab::new();
    lab.smoke(&[
        "--set",
        "phases.steps=1000000",
        "--arms",
        "none",
        "--detach",
    ])
    .exits(0);
    let run = lab.runs().pop().expect("a run");
    let _worker = Background::of(run.clone());
    let Some(one) = Terminal::open(&lab, 100, 30) else {
        return;
    };
    let other = Terminal::open_beside(&lab, 160, 50).expect("tmux");
    one.shows(&["LIVE", "none"]);
    other.shows(&["LIVE", "none"]);

    // One commands at a time, and the other is told who.
    let ada = r#"{"user":"ada","host":"box","pid":7,"since":0}"#;
    let commander = run.join("commander.json");
    fs::write(&commander, ada).expect("write");
    let held = fs::File::open(&commander).expect("open");
    held.lock().expect("lock");
    other.press(&["X"]);
    other.shows(&["Stop the run?"]);
    other.press(&["y"]);
    other.shows(&[
        "could not be stopped",
        "being commanded by ada@box (process 7)",
    ]);
    other.press(&["Enter"]);
    other.until("the run alone", |screen| !screen.contains("could not"));
    let name = run.to_str().expect("UTF-8");
    for args in [
        &["stop", name][..],
        &["stop", name, "--arm", "none"],
        &["add", name, "true-data:kl"],
    ] {
        lab.forgetlab(args).exits(1).says(&["ada@box (process 7)"]);
    }
    drop(held);

    one.press(&["X"]);
    one.shows(&["Stop the run?"]);
    one.press(&["y"]);
    let by = format!("(process {})", one.lab_pid().as_raw_nonzero());
    for terminal in [&one, &other] {
        terminal.shows(&["interrupted (forgetlab stop of ", &by]);
    }
    other.press(&["r"]);
    for terminal in [&other, &one] {
        terminal.until("it to be live again", |screen| {
            screen.contains("LIVE") && !screen.contains("r resumes it")
        });
    }
}

/// Notes, names and tags come from anybody who shares the folder; wide characters are no reason to lose a column.
#[test]
fn wide_and_evil_labels_are_shown_and_never_obeyed() {
    const EVIL: &str = r"模型テスト한국\u001b]0;owned\u0007\u001b[2J\u009b2J\u202ex";
    let lab = Lab::new();
    lab.smoke(&["--arms", "none"]).exits(0);
    let run = lab.runs().pop().expect("a run");
    let labels = format!("name = \"{EVIL}\"\nnote = \"{EVIL}\\nmore\"\ntags = [\"{EVIL}\"]\n");
    fs::write(run.join("labels.toml"), labels).expect("write");
    for (width, height) in [(80, 24), (200, 50)] {
        let Some(terminal) = Terminal::open(&lab, width, height) else {
            return;
        };
        let screen = terminal.shows(&["1 run, 0 live", "模型テスト한국", "finished"]);
        assert!(is_harmless(&screen), "{screen}");
        // A filter with them, and the note in its line.
        for key in ["n", "R", "t"] {
            terminal.press(&[key]);
            terminal.until("a prompt", |screen| screen.contains("takes "));
            assert!(is_harmless(&terminal.screen()));
            terminal.press(&["C-c"]);
            terminal.until("no prompt", |screen| !screen.contains("takes "));
        }
        terminal.press(&["Enter"]);
        let screen = terminal.shows(&["kept against learned", "none"]);
        assert!(is_harmless(&screen), "{screen}");
        let title = terminal.told("#{pane_title}");
        assert!(!title.contains("owned"), "{title}");
        terminal.press(&["q"]);
        terminal.shows(&["left with 0"]);
    }
}

/// A click on what looks like a tab must do what it looks like; after the lab the mouse is the terminal's again.
#[test]
fn a_click_on_a_tab_shows_its_screen() {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, 100, 30) else {
        return;
    };
    let screen = terminal.shows(&["experiment", "5 Machine", "Start"]);
    assert_eq!(
        terminal.told("#{mouse_standard_flag}#{mouse_sgr_flag}"),
        "11"
    );
    let header = screen.lines().next().expect("a header");
    let at = header.find("5 Machine").expect("a tab") + 2;
    for button in ['M', 'm'] {
        let click = format!("\u{1b}[<0;{at};1{button}");
        terminal.press(&["-l", &click]);
    }
    terminal.shows(&["cores", "memory"]);
    terminal.press(&["q"]);
    terminal.shows(&["left with 0"]);
    assert_eq!(
        terminal.told("#{mouse_standard_flag}#{mouse_sgr_flag}"),
        "00"
    );
}
