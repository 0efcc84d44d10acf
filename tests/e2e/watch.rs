//! `forgetlab watch`: how runs stand, where there is no screen.

use forgetlab_study::printed::is_harmless;
use forgetlab_tests::{Done, Lab, events_say, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::printed::evil_lab;

fn objects(done: &Done) -> Vec<Value> {
    let lines = done.out.lines();
    let parsed: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    parsed.unwrap_or_else(|error| panic!("{error}: {done}"))
}

/// A log of CI must tell how far a run is, and the job must fail where the run does.
#[test]
fn a_run_is_a_line_now_and_then_until_it_ends_with_its_exit_code() {
    let lab = Lab::new();
    let endless = [
        "--set",
        "phases.steps=1000000",
        "--arms",
        "none,true-data:kl",
    ];
    lab.smoke(&[&endless[..], &["--detach", "--out", "endless"]].concat())
        .exits(0);
    lab.smoke(&["--arms", "none", "--out", "whole"]).exits(0);
    let both = lab.start(&["watch", "whole", "endless", "--every", "0.2"]);
    let mut left = lab.start(&["watch", "endless", "--every", "0.2"]);
    let json = lab.start(&["watch", "endless", "--every", "0.2", "--json"]);
    let run = lab.path("endless");
    wait_for("scores", || events_say(&run, "\"evaluated\""));
    std::thread::sleep(std::time::Duration::from_secs(1));
    left.signal(Signal::INT);
    let left = left
        .end()
        .exits(0)
        .says(&["the run goes on", "attach endless"]);
    let figures = |line: &&str| line.contains("none kept ") || line.contains("none learned ");
    let told = left.out.lines().filter(figures);
    assert!(told.count() >= 2, "{left}");
    lab.forgetlab(&["stop", "endless"]).exits(0);
    let both = both.end().exits(130);
    for (run, says) in [("whole", "finished 100 %"), ("endless", "interrupted")] {
        let line = format!(" {run} {says}");
        assert!(both.out.contains(&line), "{line} is not in {both}");
    }
    both.says(&["whole/summary.csv", "go on with `forgetlab resume endless`"]);
    let json = json.end().exits(130);
    let all = objects(&json);
    let (first, last) = (&all[0], all.last().expect("objects"));
    assert_eq!(
        (&first["run"], &first["status"]),
        (&"endless".into(), &"live".into())
    );
    assert_eq!(
        (&last["status"], last["arms"].as_array().map(Vec::len)),
        (&"interrupted".into(), Some(2))
    );
    assert!(last["done"].as_f64() > first["done"].as_f64(), "{json}");
}

/// Figures that differ from those of the other commands would be believed.
#[test]
fn an_object_has_the_figures_of_the_list() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none,true-data:kl", "--seed", "3", "--seed", "5"])
        .exits(0);
    let run = lab.runs().remove(0);
    let run = run
        .file_name()
        .and_then(|name| name.to_str())
        .expect("name");
    let listed = objects(&lab.forgetlab(&["list", "--json"]).exits(0));
    for once in [&["--once"][..], &[]] {
        let args = [&["watch", run, "--json"], once].concat();
        let watched = objects(&lab.forgetlab(&args).exits(0));
        assert_eq!(watched.len(), 1);
        assert_eq!(watched[0]["arms"], listed[0]["arms_detail"]);
        assert_eq!(watched[0]["alerts"], serde_json::json!([]));
    }
}

/// Else the picture of a run could not be put into a note, a log or a page.
#[test]
fn a_frame_is_the_watch_screen_as_text() {
    let lab = Lab::new();
    lab.smoke(&["--out", "one"]).exits(0);
    lab.smoke(&["--arms", "none", "--seed", "7", "--out", "two"])
        .exits(0);
    let once = |more: &[&str]| lab.forgetlab(&[&["watch", "--once"], more].concat());
    let frame = once(&["one", "--size", "100x30"]).exits(0).says(&[
        "one",
        "finished",
        "verdict",
        "none",
        "true-data:kl",
        "reversal was never learned",
        "learned",
    ]);
    assert_eq!(frame.out.lines().count(), 30, "{frame}");
    assert!(
        frame
            .out
            .lines()
            .all(|line| line.chars().count() <= 100 && line.trim_end() == line),
        "{frame}"
    );
    assert!(is_harmless(&frame.out), "{frame}");
    assert!(!frame.out.contains("verdict is being computed"), "{frame}");
    // As large as most terminals where there is none.
    assert_eq!(once(&["one"]).exits(0).out.lines().count(), 36);
    let narrow = ["one", "--size", "80x24"];
    for (pane, says) in [
        ("curves", "accuracy of"),
        ("losses", "training loss"),
        ("matrix", "reversal"),
        ("log", "s "),
        ("panels", "self-generated"),
        ("arm", "none"),
    ] {
        once(&[&narrow[..], &["--pane", pane]].concat())
            .exits(0)
            .says(&[says]);
    }
    let replay = ["--pane", "replay", "--arm", "true-data:kl:10"];
    once(&[&narrow[..], &replay].concat())
        .exits(0)
        .says(&["<bos>", "true-data:kl:10  ·"]);
    let ascii = once(&["one", "--ascii"]).exits(0);
    assert!(
        ascii.out.is_ascii() && ascii.out.contains("reversal was never learned"),
        "{ascii}"
    );
    once(&["one", "two"])
        .exits(0)
        .says(&["2 runs, 0 live: one, two"]);
    for wrong in [
        &["--size", "10x10"][..],
        &["--size", "large"],
        &["--pane", "nothing"],
        &["--arm", "nothing"],
    ] {
        once(&[&["one"], wrong].concat()).exits(2);
    }
    lab.forgetlab(&["watch", "one", "--pane", "log"]).exits(2);
}

/// A run's names and messages must not command the terminal that shows them.
#[test]
fn what_is_printed_of_an_evil_run_is_harmless() {
    let lab = evil_lab();
    let run = lab.runs().remove(0);
    let run = run.to_str().expect("UTF-8");
    for more in [&[][..], &["--once"], &["--json"], &["--once", "--json"]] {
        let done = lab.forgetlab(&[&["watch", run], more].concat()).exits(3);
        assert!(is_harmless(&done.out) && is_harmless(&done.err), "{done}");
    }
}
