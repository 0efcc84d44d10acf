//! A run that is changed while it goes on: arms are added and stopped, and the others never notice.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use forgetlab_tests::{Figures, Lab, Live, SMOKE, events_say, wait_for};

/// Some seconds, of which the second and third phase are most.
const LONG: [&str; 4] = [
    "--set",
    "phases.steps=500",
    "--set",
    "training.eval_every=25",
];
const BOTH_SEEDS: [&str; 4] = ["--seed", "0", "--seed", "1"];
/// The arm that is added.
const LATER: &str = "self-generated:kl:10+lr=1e-3";

/// What a run that had all arms from its start has measured.
fn whole() -> &'static Figures {
    static WHOLE: OnceLock<Figures> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let lab = Lab::new();
        let arms = format!("none,true-data:kl,{LATER}");
        let more = ["--arms", &arms, "--out", "run"];
        lab.smoke(&[&LONG[..], &BOTH_SEEDS, &more].concat())
            .exits(0);
        Figures::of(&lab.path("run")).in_any_order()
    })
}

/// Starts the run without the arm that comes later.
fn start(lab: &Lab, more: &[&str]) -> Live {
    let arms = ["--arms", "none,true-data:kl", "--out", "run"];
    lab.start(&[SMOKE, &LONG, &BOTH_SEEDS, &arms, more].concat())
}

fn reaches(live: &mut Live, run: &Path, text: &str) {
    wait_for(text, || events_say(run, text) || !live.runs());
    assert!(live.runs(), "the run ended before {text}");
}

#[track_caller]
fn must_be_whole(run: &Path, why: &str) {
    Figures::of(run).in_any_order().must_equal(whole(), why);
}

/// Else an arm that came to mind later would need the whole study again, or be another arm than it says.
#[test]
fn an_arm_added_to_a_live_run_has_the_figures_of_one_that_was_there_from_the_start() {
    let lab = Lab::new();
    let run = lab.path("run");
    let mut live = start(&lab, &[]);
    reaches(&mut live, &run, r#""phase":1"#);
    // What is wrong is told at once, in the words of `run`.
    for (arm, texts) in [
        ("none", &["arm `none`: is given twice"][..]),
        ("true-data:kl:x", &["coefficient `x` is not a number"]),
        ("nowhere:kl", &["nowhere", "no strategy"]),
        ("none+lr=fast", &["lr"]),
        ("self-generated:kl+nonsense=1", &["nonsense"]),
    ] {
        lab.forgetlab(&["add", "run", LATER, arm])
            .exits(2)
            .says(texts);
    }
    lab.forgetlab(&["add", "run", LATER])
        .exits(0)
        .says(&[&format!("done: add {LATER}")]);
    assert!(live.runs(), "it was added while the run was live");
    live.end().exits(0).says(&[&format!("{LATER}: added")]);
    must_be_whole(&run, "added while live");
    let left = fs::read_dir(run.join("requests"))
        .expect("requests")
        .count();
    assert_eq!(left, 0, "answered requests are removed");
    let environment = fs::read_to_string(run.join("environment.json")).expect("environment");
    assert!(environment.contains("self-generated"), "{environment}");
    // The run is one of three arms from now on, wherever it is read.
    lab.forgetlab(&["resume", "run"])
        .exits(0)
        .says(&["is finished"]);
    lab.forgetlab(&["compare", "run"]).exits(0).says(&[LATER]);
    lab.forgetlab(&["run", "run/config.toml", "--out", "again"])
        .exits(0);
    must_be_whole(&lab.path("again"), "its configuration, run again");
}

/// Else the system would end the run, with all of its arms, for one that was too much.
#[test]
fn an_arm_that_does_not_fit_beside_the_others_is_refused_with_its_memory() {
    let lab = Lab::new();
    let run = lab.path("run");
    let large = "--set model.n_layers=64 --set training.micro_batch=1048576 \
                 --set phases.steps=40 --arms none --out run";
    let large: Vec<&str> = large.split_whitespace().collect();
    let mut live = lab.start(&[SMOKE, &large].concat());
    reaches(&mut live, &run, r#""event":"trained""#);
    // All of its million rows at a time.
    lab.forgetlab(&["add", "run", "none+batch=1048576"])
        .exits(1)
        .says(&[
            "refused to add",
            "does not fit beside the other arms",
            "GiB",
        ]);
    live.end().exits(0).says(&["a request was refused"]);
}

/// Else a crash after the answer would lose the arm, or the run with it.
#[test]
fn an_added_arm_survives_a_kill_also_between_the_events_and_the_configuration() {
    let lab = Lab::new();
    let run = lab.path("run");
    let more = ["--set", "training.checkpoint_seconds=0.5"];
    let mut live = start(&lab, &more);
    reaches(&mut live, &run, r#""phase":1"#);
    let before = fs::read(run.join("config.toml")).expect("config");
    lab.forgetlab(&["add", "run", LATER]).exits(0);
    reaches(&mut live, &run, r#""arm":5,"phase":1"#);
    live.kill();
    // As if it had been killed before it came to the file.
    let after = fs::read(run.join("config.toml")).expect("config");
    assert_ne!(before, after);
    fs::write(run.join("config.toml"), before).expect("write");
    let mut live = lab.start(&["resume", "run"]);
    reaches(&mut live, &run, r#""resumed":true"#);
    live.kill();
    assert_eq!(fs::read(run.join("config.toml")).expect("config"), after);
    lab.forgetlab(&["resume", "run"]).exits(0);
    must_be_whole(&run, "added, killed, resumed");
}

/// Else a finished study could not be given one more arm, or its configuration be one that its events do not explain.
#[test]
fn an_arm_is_added_to_a_finished_run_and_gone_with_the_events_that_told_of_it() {
    let lab = Lab::new();
    let run = lab.path("run");
    start(&lab, &[]).end().exits(0);
    let without = Figures::of(&run);
    // Two requests at once, of which one can be met; and what is none.
    lab.forgetlab(&["add", "run", LATER])
        .exits(0)
        .says(&["waits: add", "forgetlab resume"]);
    lab.forgetlab(&["add", "run", LATER])
        .exits(2)
        .says(&["is given twice"]);
    let requests = run.join("requests");
    let waiting = fs::read_dir(&requests).expect("requests").next();
    let waiting = waiting.expect("a request").expect("entry").path();
    fs::copy(&waiting, requests.join("9999999999999-1-a.json")).expect("copy");
    fs::write(requests.join("0-torn.json"), r#"{"stop_arm":"no"#).expect("write");
    fs::create_dir(requests.join("1-folder.json")).expect("folder");
    fs::write(requests.join("2-none.json"), r#"{"stop_arm":"\u001b[2J"}"#).expect("write");
    lab.forgetlab(&["resume", "run"]).exits(0).says(&[
        &format!("{LATER}: added"),
        "a request was refused: the request cannot be read: EOF",
        "it is a folder",
        "the run has no arm `\\u{1b}[2J`",
        "is given twice",
    ]);
    must_be_whole(&run, "added to a finished run");
    // The folder that could not be removed keeps nobody busy.
    lab.forgetlab(&["resume", "run"])
        .exits(0)
        .says(&["is finished"]);

    // The events are damaged where it was added: so it never was.
    let events = fs::read_to_string(run.join("events.jsonl")).expect("events");
    let at = events.find(r#""event":"arm_added""#).expect("the event");
    let mut damaged = events.into_bytes();
    damaged[at + 9] = b'X';
    fs::write(run.join("events.jsonl"), damaged).expect("write");
    lab.forgetlab(&["resume", "run"])
        .exits(1)
        .says(&["its checksum does not fit"]);
    lab.forgetlab(&["resume", "run", "--go-back"])
        .says(&[&format!(
            "arm {LATER}, which was added later, is no longer the run's"
        )])
        .exits(0);
    Figures::of(&run).must_equal(&without, "gone back");
    // Where what it would start from is gone, nothing is trained in silence.
    lab.forgetlab(&["runs", "prune", "run", "--checkpoints-only", "--yes"])
        .exits(0);
    lab.forgetlab(&["cache", "prune", "--all", "--yes"])
        .exits(0);
    lab.forgetlab(&["add", "run", LATER]).exits(0);
    lab.forgetlab(&["resume", "run"]).exits(0).says(&[
        "a request was refused: the weights at the end of the first phase (seed 0) are gone",
    ]);
    Figures::of(&run).must_equal(&without, "refused");
}

/// Else an arm that has shown what it is would go on costing time, or its end would be that of the others.
#[test]
fn one_arm_is_stopped_and_stays_stopped_while_the_others_go_on() {
    let lab = Lab::new();
    let run = lab.path("run");
    let mut live = start(&lab, &["--set", "training.checkpoint_seconds=0.5"]);
    reaches(&mut live, &run, r#""phase":1"#);
    lab.forgetlab(&["stop", "run", "--arm", "self-generated:kl"])
        .exits(2)
        .says(&["the run has no arm `self-generated:kl`; its arms are none, true-data:kl:10"]);
    lab.forgetlab(&["stop", "run", "--arm", "true-data:kl"])
        .exits(0)
        .says(&[
            "done: stop #0 true-data:kl:10",
            "done: stop #1 true-data:kl:10",
        ]);
    lab.forgetlab(&["stop", "run", "--arm", "true-data:kl"])
        .exits(0)
        .says(&["#0 true-data:kl:10 is over: skipped"]);
    assert!(live.runs(), "the others go on");
    live.kill();
    // Nobody is there: the wish waits for whoever comes.
    lab.forgetlab(&["stop", "run", "--arm", "#1 none"])
        .exits(0)
        .says(&["waits: stop #1 none", "forgetlab resume"]);
    let done = lab.forgetlab(&["resume", "run"]).exits(3);
    done.says(&["stopped on request"]);
    let count = |text: &str| {
        let events = fs::read_to_string(run.join("events.jsonl")).expect("events");
        events.lines().filter(|line| line.contains(text)).count()
    };
    assert_eq!(count(r#""event":"arm_skipped""#), 3);
    assert_eq!(count(r#""event":"arm_finished""#), 1);
    lab.forgetlab(&["sample", "run/true-data:kl:10", "--prompt", "x"]);
    // The arm that went on is what it would have been.
    let alone = Figures::of(&run).in_any_order().of_arm("none", "0");
    alone.must_equal(&whole().of_arm("none", "0"), "beside stopped arms");
}

/// Else an arm that is stopped, or added, while all share the first phase would break it for the others.
#[test]
fn arms_come_and_go_during_the_first_phase() {
    let lab = Lab::new();
    let run = lab.path("run");
    let mut live = start(&lab, &["--no-cache"]);
    reaches(&mut live, &run, r#""step":50"#);
    lab.forgetlab(&["add", "run", LATER])
        .exits(0)
        .says(&["done: add"]);
    lab.forgetlab(&["stop", "run", "--arm", "true-data:kl"])
        .exits(0)
        .says(&["done: stop"]);
    assert!(!events_say(&run, r#""phase":1"#), "it was the first phase");
    live.end().exits(3);
    for (arm, seed) in [("none", "0"), ("none", "1"), (LATER, "0"), (LATER, "1")] {
        let own = Figures::of(&run).in_any_order().of_arm(arm, seed);
        own.must_equal(&whole().of_arm(arm, seed), arm);
    }
}

/// Else an arm would make a point another than its sweep says, which then refuses to go on.
#[test]
fn a_point_of_a_sweep_takes_no_arm() {
    let lab = Lab::new();
    let sweep = [
        "run",
        "method-comparison",
        "--preset",
        "smoke",
        "--arms",
        "none",
    ];
    let axis = ["--axis", "phases.en.tokens=2000,4000", "--out", "sweep"];
    lab.forgetlab(&[&sweep[..], &axis].concat()).exits(0);
    let points = fs::read_dir(lab.path("sweep/points")).expect("points");
    let point = points.map(|entry| entry.expect("entry").path()).next();
    let point = point.expect("a point").display().to_string();
    lab.forgetlab(&["add", &point, "true-data:kl"])
        .exits(1)
        .says(&["is a point of a sweep", "forgetlab run "]);
    lab.forgetlab(&["add", "sweep", "true-data:kl"])
        .exits(1)
        .says(&["is a sweep of several runs"]);
    lab.forgetlab(&["stop", "sweep", "--arm", "none"])
        .exits(2)
        .says(&["--arm is for one run"]);
    lab.forgetlab(&["resume", "sweep"]).exits(0);
}

/// Else the study on a line alone could not be changed.
#[test]
fn a_regression_takes_and_stops_arms_too() {
    let lab = Lab::new();
    let small = "run regression-1d --preset smoke --set model.hidden=[6,5] --set model.map.steps=120 \
                 --set model.sghmc.burn_in=40 --set training.eval_every=50 --seed 0 --seed 1";
    let small: Vec<&str> = small.split_whitespace().collect();
    let short = ["--set", "phases.new.steps=2000"];
    let all = ["--arms", "none,true-data:kl:1,none+lr=1e-5", "--out", "all"];
    lab.forgetlab(&[&small[..], &short, &all].concat()).exits(0);
    let some = ["--arms", "none,true-data:kl:1", "--out", "run"];
    let mut live = lab.start(&[&small[..], &short, &some].concat());
    let run = lab.path("run");
    // Of the second seed: the first has come to its end, or is about to.
    reaches(
        &mut live,
        &run,
        r#""event":"phase_started","arm":2,"phase":1"#,
    );
    lab.forgetlab(&["add", "run", "none+lr=1e-5"])
        .exits(0)
        .says(&["done: add"]);
    lab.forgetlab(&["add", "run", "self-generated:kl"])
        .exits(2)
        .says(&["`none` and `true-data:kl:COEFF`"]);
    live.end().exits(0);
    let all = Figures::of(&lab.path("all")).in_any_order();
    Figures::of(&run).in_any_order().must_equal(&all, "added");
    lab.forgetlab(&["add", "run", "none+lr=2e-5"]).exits(0);
    lab.forgetlab(&["resume", "run"]).exits(0);
    lab.forgetlab(&["stop", "run", "--arm", "none"])
        .exits(0)
        .says(&["#0 none is over: finished"]);
}
