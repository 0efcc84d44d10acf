//! The lab on a terminal, in tmux: what a researcher sees and presses.

use std::fs;
use std::path::PathBuf;

use forgetlab_study::printed::is_harmless;
use forgetlab_tests::{Lab, Table, binary, events, wait_for};

use crate::printed::evil_lab;
use crate::processes::Background;
use crate::terminal::Terminal;

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
            terminal.press(&["3"]);
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
    terminal.press(&["1"]);
    terminal.shows(&["2 runs, 0 live", "finished"]);
    terminal.press(&["Space"]);
    terminal.shows(&["1 marked"]);
    terminal.press(&["Space"]);
    terminal.shows(&["2 marked"]);
    terminal.press(&["Enter"]);
    // The same settings and seed gave the same numbers: every arm counts once, until its seeds are opened.
    let together = terminal.shows(&["2 runs, 0 live: ", "bos-prompted"]);
    assert_eq!(together.matches("finished").count(), 4, "{together}");
    terminal.press(&["o"]);
    terminal.shows(&["every arm here has one seed"]);
    terminal.press(&["e"]);
    terminal.shows(&["table as LaTeX"]);
    terminal.press(&["Enter"]);
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
        screen.contains("2 runs, 0 live: ") && !screen.contains("Written")
    });
    terminal.press(&["Escape"]);
    // Only then the next key: right behind an Escape it would be taken for Alt.
    terminal.shows(&["2 marked"]);
    terminal.press(&["?"]);
    terminal.shows(&["Help", "mark, to open several as one comparison"]);
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
    // The lab opens on what is live.
    again.shows(&["LIVE", "bos-prompted"]);
    again.press(&["1"]);
    again.shows(&["1 run, 1 live"]);
    // Leaving lets it run; the second time it is stopped.
    again.press(&["q"]);
    again.shows(&["Leave the lab", "Still running"]);
    again.press(&["l"]);
    again.shows(&["left with 0"]);
    assert_eq!(worker.pid(), Some(pid), "the same worker is at it");
    again.kill();
    let last = Terminal::open(&lab, 80, 24).expect("tmux");
    last.shows(&["LIVE"]);
    last.press(&["X"]);
    last.shows(&["Stop the run?"]);
    last.press(&["y"]);
    last.shows(&["interrupted"]);
    wait_for("the worker to end", || worker.pid().is_none());
    let name = run.file_name().and_then(|n| n.to_str()).expect("name");
    lab.forgetlab(&["stop", name])
        .exits(0)
        .says(&["is not running (interrupted)"]);
}

/// Else a sweep could not be watched where most of the lab is used: in a small terminal over SSH.
#[test]
fn a_sweep_is_opened_to_its_points_and_a_point_to_its_run() {
    let lab = Lab::new();
    let sweep = ["run", "pretrain-length", "--preset", "smoke", "--detach"];
    lab.forgetlab(&sweep).exits(0);
    let folder = lab.runs().pop().expect("a sweep");
    let name = folder.file_name().and_then(|n| n.to_str()).expect("name");
    let Some(terminal) = Terminal::open(&lab, 80, 24) else {
        return;
    };
    terminal.shows(&["1 sweep", name, "sweep "]);
    terminal.press(&["Enter"]);
    terminal.shows(&[name, "point", "length=", "first arm"]);
    terminal.until("every point to be finished", |screen| {
        screen.contains("100%") && screen.contains("2 of 2 points finished")
    });
    terminal.shows(&["points: none"]);
    terminal.press(&["Down"]);
    terminal.press(&["Enter"]);
    terminal.shows(&["finished", "self-generated", "verdict"]);
    terminal.press(&["Escape"]);
    terminal.shows(&["2 of 2 points finished"]);
    terminal.press(&["r"]);
    terminal.shows(&["nothing to resume"]);
    terminal.press(&["Escape"]);
    terminal.shows(&["1 sweep, 0 live", "sweep 2/2"]);
    terminal.press(&["q"]);
    terminal.shows(&["left with 0"]);
}

/// Else the form would start the one run that the points have in common.
#[test]
fn a_sweep_is_started_from_the_form() {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, 80, 24) else {
        return;
    };
    terminal.shows(&["experiment", "toy-continual", "Start"]);
    terminal.choose("▸ experiment", "pretrain-length");
    terminal.shows(&["Start a sweep of 5 points"]);
    // Its texts are not here, which is said before anything is left behind.
    terminal.press(&["s"]);
    terminal.shows(&["could not be started", "text-data"]);
    assert_eq!(lab.runs(), [] as [PathBuf; 0]);
    terminal.press(&["Enter"]);
    terminal.press(&["Down"]);
    terminal.choose("▸ preset", "smoke");
    terminal.shows(&["Start a sweep of 2 points"]);
    terminal.press(&["s"]);
    terminal.shows(&["2 of 2 points finished", "length=0.5-", "points: none"]);
    assert_eq!(lab.runs().len(), 1);
}

/// Else a sweep could not be ended from where it is watched, or not be gone on with.
#[test]
fn a_sweep_is_stopped_and_resumed_as_a_whole() {
    let lab = Lab::new();
    let endless = [
        "--set",
        "phases.steps=1000000",
        "--axis",
        "optimizer.lr=1e-3,2e-3,3e-3",
        "--workers",
        "2",
        "--detach",
    ];
    lab.smoke(&endless).exits(0);
    let Some(terminal) = Terminal::open(&lab, 80, 24) else {
        return;
    };
    terminal.shows(&["1 sweep, 1 live", "sweep 0/3"]);
    terminal.press(&["Enter"]);
    terminal.shows(&["lr=1e-3-", "0 of 3 points finished, 2 live", "waiting"]);
    for _ in 0..2 {
        terminal.press(&["X"]);
        terminal.shows(&["Stop the sweep?"]);
        terminal.press(&["y"]);
        terminal.shows(&["interrupted", "unfinished"]);
        terminal.press(&["r"]);
        terminal.shows(&["0 of 3 points finished, 2 live"]);
    }
    // The run of a point alone; the sweep goes on with the next.
    terminal.press(&["Enter"]);
    terminal.shows(&["LIVE", "lr=1e-3-"]);
    terminal.press(&["X"]);
    terminal.shows(&["Stop the run?"]);
    terminal.press(&["y"]);
    terminal.shows(&["interrupted"]);
    terminal.press(&["Escape"]);
    terminal.until("the next point", |screen| {
        !screen.contains("waiting") && screen.contains("unfinished")
    });
    terminal.press(&["q"]);
    terminal.shows(&["Leave the lab", "Still running"]);
    terminal.press(&["s"]);
    terminal.shows(&["left with 0"]);
    let sweep = lab.runs().remove(0);
    let name = sweep.file_name().and_then(|n| n.to_str()).expect("name");
    lab.forgetlab(&["stop", name]).exits(0);
    lab.forgetlab(&["stop", name])
        .exits(0)
        .says(&["is not running"]);
}

/// A resize while something is drawn must cost nothing but the frame, down to a terminal of one cell.
#[test]
fn the_lab_survives_a_storm_of_resizes() {
    let lab = Lab::new();
    lab.smoke(&[]).exits(0);
    let Some(terminal) = Terminal::open(&lab, 120, 36) else {
        return;
    };
    terminal.shows(&["1 run, 0 live"]);
    terminal.press(&["Enter"]);
    let resize = |width: u16, height: u16| {
        let size = [width.to_string(), height.to_string()];
        let mut tmux = terminal.tmux(&["resize-window", "-x", &size[0], "-y", &size[1]]);
        forgetlab_tests::run(&mut tmux);
    };
    for round in 0..6 {
        for (width, height) in [
            (200, 60),
            (1, 1),
            (79, 24),
            (80, 23),
            (2, 60),
            (500, 3),
            (81, 25),
        ] {
            resize(width, height);
        }
        terminal.press(&[["v", "z", "1", "2", "5", "3"][round]]);
    }
    resize(40, 10);
    terminal.shows(&["needs 80×24"]);
    resize(80, 24);
    terminal.press(&["2"]);
    terminal.shows(&["Watch", "finished"]);
    terminal.press(&["q"]);
    terminal.shows(&["left with 0"]);
}

/// Three runs that are put in line over lunch must all be there afterwards, whoever closes the laptop.
#[test]
fn a_queue_of_runs_survives_the_lab() {
    let lab = Lab::new();
    let Some(terminal) = Terminal::open(&lab, 120, 36) else {
        return;
    };
    terminal.choose_preset("smoke");
    for count in 1..=3 {
        terminal.press(&["3"]);
        terminal.shows(&["Start", "smoke"]);
        terminal.press(&["u"]);
        wait_for("a run to be put in line", || lab.runs().len() == count);
        terminal.shows(&["kept against learned"]);
    }
    terminal.kill();
    wait_for("every run of the line to finish", || {
        let list = lab.forgetlab(&["list"]).exits(0).out;
        list.matches("finished").count() == 3
    });
}

/// Else a slip of the finger would cost a run.
#[test]
fn pruning_asks_on_a_terminal_and_takes_a_yes_alone() {
    for (answer, left) in [("Enter", true), ("n", true), ("y", false)] {
        let lab = Lab::new();
        lab.smoke(&["--arms", "none"]).exits(0);
        let run = lab.runs().remove(0);
        let args = format!("runs prune {}", run.display());
        let Some(terminal) = Terminal::open_with(&lab, 120, 24, &args) else {
            return;
        };
        terminal.shows(&["1 run, ", "remove these runs? [y/N]"]);
        assert!(run.exists());
        terminal.press(&[answer]);
        if answer != "Enter" {
            terminal.press(&["Enter"]);
        }
        terminal.shows(&["left with 0"]);
        assert_eq!(run.exists(), left, "{answer}");
    }
}

/// Else a slip of the finger would cost hours of training.
#[test]
fn pruning_the_cache_asks_on_a_terminal_and_takes_a_yes_alone() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none"]).exits(0);
    let left = || {
        fs::read_dir(lab.path("results/cache"))
            .expect("cache")
            .count()
    };
    for (answer, count) in [("Enter", 1), ("n", 1), ("y", 0)] {
        let Some(terminal) = Terminal::open_with(&lab, 120, 24, "cache prune --all") else {
            return;
        };
        terminal.shows(&["1 entry, ", "remove these entries? [y/N]"]);
        terminal.press(&[answer]);
        if answer != "Enter" {
            terminal.press(&["Enter"]);
        }
        terminal.shows(&["left with 0"]);
        assert_eq!(left(), count, "{answer}");
    }
}

/// On a real terminal nothing that a run or its folder is called is obeyed, neither by commands nor in the lab.
#[test]
fn evil_names_leave_the_terminal_alone() {
    let lab = evil_lab();
    let run = "results/runs/ev*";
    let commands =
        ["attach", "compare", "resume"].map(|c| format!("{} {c} {run}", binary().display()));
    let args = format!("list; {}", commands.join("; "));
    let Some(terminal) = Terminal::open_with(&lab, 150, 50, &args) else {
        return;
    };
    let title = || {
        let title = terminal.tmux(&["display-message", "-p", "#{pane_title}"]);
        let told = { title }.output().expect("tmux").stdout;
        String::from_utf8_lossy(&told).into_owned()
    };
    terminal.shows(&["left with 3", "ev\\u{1b}]0;owned\\u{7}\\u{1b}[2J"]);
    assert!(!title().contains("owned"), "{}", title());
    terminal.kill();
    let terminal = Terminal::open(&lab, 150, 50).expect("tmux");
    terminal.press(&["1"]);
    terminal.shows(&["1 run", "ev\\u{1b}]0;owned"]);
    terminal.press(&["Enter"]);
    let screen = terminal.shows(&["failed", "ev\\u{1b}]0;owned"]);
    assert!(is_harmless(&screen), "{screen}");
    assert!(!title().contains("owned"), "{}", title());
}
