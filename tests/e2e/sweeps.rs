//! Sweeps: a run for each point of a grid, whatever happens to the processes that work on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forgetlab_tests::{Dice, Done, Figures, Lab, Live, Table, events, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// Two points of the smallest study, with a grid of one axis.
const SMALL: [&str; 12] = [
    "run",
    "method-comparison",
    "--preset",
    "smoke",
    "--arms",
    "none,true-data:kl",
    "--threads",
    "1",
    "--axis",
    "phases.en.tokens=2000,4000",
    "--out",
    "sweep",
];

/// The folders of a sweep's runs, by their names.
fn points(sweep: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sweep.join("points")).into_iter().flatten();
    let mut points: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    points.sort();
    points
}

fn names(sweep: &Path) -> Vec<String> {
    let text = fs::read_to_string(sweep.join("sweep.toml")).expect("sweep.toml");
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("name = \""));
    // Those of the points, not of axes, which have no hash.
    let names = lines.map(|name| name.trim_end_matches('"').to_owned());
    names.filter(|name| name.contains('-')).collect()
}

/// Else a study that is told of could not be run, or its figure not be drawn.
#[test]
fn every_sweep_runs_on_the_built_in_texts_with_its_figure() {
    let lab = Lab::new();
    for (study, figure) in [
        ("pretrain-length", "axis"),
        ("model-size", "axis"),
        ("learning-rate", "rates"),
        ("model-capacity", "frontier"),
        ("size-length-grid", "heat"),
    ] {
        let done = lab.forgetlab(&["run", study, "--preset", "smoke", "--out", study]);
        let sweep = lab.path(study);
        let count = names(&sweep).len();
        done.exits(0)
            .says(&[&format!("{count} of {count} points are finished")]);
        for file in [
            "points.csv".to_owned(),
            format!("figures/{figure}.png"),
            format!("figures/{figure}.svg"),
        ] {
            let path = sweep.join(&file);
            assert!(
                path.metadata().is_ok_and(|m| m.len() > 0),
                "{study}: {file}"
            );
        }
        for run in points(&sweep) {
            assert!(run.join("summary.csv").exists(), "{}", run.display());
        }
        // From its CSVs alone, as they are committed.
        for run in points(&sweep) {
            for file in ["events.jsonl", "events.index", "outcomes.jsonl"] {
                let _ = fs::remove_file(run.join(file));
            }
        }
        fs::remove_dir_all(sweep.join("figures")).expect("figures");
        lab.forgetlab(&["figure", study]).exits(0);
        assert!(
            sweep.join(format!("figures/{figure}.png")).exists(),
            "{study}"
        );
    }
}

/// A sweep is one thing: listed, compared and repeated as one.
#[test]
fn a_sweep_is_listed_compared_and_not_done_twice() {
    let lab = Lab::new();
    lab.forgetlab(&SMALL[..10])
        .exits(0)
        .says(&["[1/2] tokens=2000-"]);
    let sweep = &lab.runs()[0];
    let name = sweep.file_name().expect("name").to_str().expect("UTF-8");
    lab.forgetlab(&["list"])
        .exits(0)
        .says(&[name, "finished", "sweep: 2 of 2 points"]);
    let first = &names(sweep)[0];
    lab.forgetlab(&["list", name])
        .exits(0)
        .says(&[first, "100%"]);
    lab.forgetlab(&["attach", name])
        .exits(0)
        .says(&[first, "finished"]);
    lab.forgetlab(&["stop", name])
        .exits(0)
        .says(&["is not running"]);
    lab.forgetlab(&["compare", name]).exits(0);
    let point = sweep.join("points").join(first);
    lab.forgetlab(&["compare", &format!("{name}/{first}")])
        .exits(0)
        .says(&["true-data:kl"]);
    let rows = Table::read(&sweep.join("points.csv")).rows;
    assert_eq!(rows.len(), 8, "two points, two arms, two datasets");
    assert!(
        rows.iter()
            .any(|row| row["tokens"] == "4000" && row["point"].starts_with("tokens=4000"))
    );
    // Nothing is left to do.
    let before = fs::read(point.join("events.jsonl")).expect("events");
    lab.forgetlab(&["resume", name])
        .exits(0)
        .says(&["2 of 2 points are finished"]);
    lab.forgetlab(&["resume", name, "--point", first])
        .exits(0)
        .says(&["is finished"]);
    assert_eq!(
        fs::read(point.join("events.jsonl")).expect("events"),
        before
    );
    // Of a worker that was killed after its last event the tables are of earlier; they are made whole.
    let tables = ["metrics.csv", "summary.csv"].map(|table| point.join(table));
    let whole = tables.clone().map(|table| fs::read(table).expect("CSV"));
    for (args, lost) in [
        (&["resume", name][..], 0),
        (&["resume", name, "--point", first], 1),
    ] {
        fs::write(&tables[0], &whole[0][..whole[0].len() / 2]).expect("half");
        fs::remove_file(&tables[lost]).expect("remove");
        fs::remove_file(point.join("verdicts.csv")).expect("remove");
        lab.forgetlab(args).exits(0);
        assert_eq!(
            tables.clone().map(|table| fs::read(table).expect("CSV")),
            whole
        );
    }
    // One that was started by a process that is gone would go on with nobody to stop it.
    lab.forgetlab(&["resume", name, "--point", first, "--with-parent", "1"])
        .exits(1)
        .says(&["the process that works on the sweep is gone"]);
    lab.forgetlab(&["resume", name, "--skip-arm", "none"])
        .exits(2);
    lab.forgetlab(&["run", "toy-continual", "--workers", "2"])
        .exits(2)
        .says(&["--workers is for sweeps"]);
}

/// Processes of a sweep: the one that was started, and those that it started.
fn family(lab: &Lab) -> Vec<Pid> {
    let mark = format!("FORGETLAB_RESULTS={}\0", lab.path("results").display());
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    })
    .filter_map(Pid::from_raw)
    .collect()
}

/// A file that nobody needs any more must not keep the other points waiting.
#[test]
fn a_spoilt_configuration_of_a_point_that_is_over_is_in_nobodys_way() {
    let lab = Lab::new();
    lab.forgetlab(&SMALL).exits(0);
    let sweep = lab.path("sweep");
    let [first, second] = [0, 1].map(|i| names(&sweep).remove(i));
    fs::remove_dir_all(sweep.join("points").join(second)).expect("remove");
    let spoilt = sweep.join("configs").join(format!("{first}.toml"));
    fs::write(spoilt, "preset = ").expect("write");
    lab.forgetlab(&["resume", "sweep"])
        .exits(0)
        .says(&["2 of 2 points are finished"]);
    lab.forgetlab(&["compare", "sweep"]).exits(0);
}

/// Weeks of a cluster's time must survive whatever is killed: workers, the process that waits for them, all at once.
#[test]
fn a_sweep_that_is_killed_ten_times_ends_like_one_that_was_not() {
    let lab = Lab::new();
    let long = |out: &'static str| {
        let mut args = SMALL.to_vec();
        args[9] = "phases.en.tokens=60000,80000,100000,120000";
        args[11] = out;
        [
            &args[..],
            &[
                "--set",
                "training.checkpoint_seconds=0",
                "--workers",
                "2",
                "--no-cache",
            ],
        ]
        .concat()
    };
    lab.forgetlab(&long("whole")).exits(0);
    let mut dice = Dice(16);
    let mut args = long("killed");
    let mut kills = 0;
    while kills < 10 {
        let mut live = lab.start(&args);
        args = vec!["resume", "killed", "--workers", "2", "--no-cache"];
        std::thread::sleep(Duration::from_millis(150 + dice.below(500)));
        if !live.runs() {
            // It came to its end before it was killed.
            let said = live.end().exits(0);
            assert!(kills >= 5, "over after {kills} kills: {said}");
            break;
        }
        if !lab.path("killed/sweep.toml").exists() {
            // Not yet a sweep: there is nothing to go on with.
            args = long("killed");
            live.end();
            continue;
        }
        let own = live.pid();
        let others: Vec<Pid> = family(&lab).into_iter().filter(|pid| *pid != own).collect();
        match (dice.below(3), others.is_empty()) {
            (0, _) => live.signal(Signal::KILL),
            (1, false) => {
                let victim = others[dice.below(others.len() as u64) as usize];
                let _ = kill_process(victim, Signal::KILL);
                std::thread::sleep(Duration::from_millis(dice.below(300)));
                live.signal(Signal::KILL);
            }
            _ => others.iter().chain([&own]).for_each(|pid| {
                let _ = kill_process(*pid, Signal::KILL);
            }),
        }
        live.end();
        kills += 1;
    }
    lab.forgetlab(&["resume", "killed", "--workers", "2", "--no-cache"])
        .exits(0)
        .says(&["4 of 4 points are finished"]);
    for (whole, killed) in points(&lab.path("whole"))
        .iter()
        .zip(points(&lab.path("killed")))
    {
        assert_eq!(whole.file_name(), killed.file_name());
        Figures::of(&killed).must_equal(&Figures::of(whole), "a point of a sweep that was killed");
    }
}

/// Two machines that work on one sweep must share it, not do it twice.
#[test]
fn two_that_work_on_one_sweep_take_different_points() {
    let lab = Lab::new();
    let mut args = SMALL.to_vec();
    args[9] = "phases.en.tokens=4000,6000,8000,10000";
    let first = lab.start(&[&args[..], &["--workers", "1"]].concat());
    wait_for("a sweep", || lab.path("sweep/sweep.toml").exists());
    let second = lab.start(&["resume", "sweep", "--workers", "1"]);
    let said: Vec<Done> = vec![first.end().exits(0), second.end().exits(0)];
    for name in names(&lab.path("sweep")) {
        let began = said
            .iter()
            .filter(|done| done.out.contains(&format!("{name}: begins")));
        let finished = said
            .iter()
            .filter(|done| done.out.contains(&format!("{name}: finished")));
        assert_eq!((began.count() >= 1, finished.count()), (true, 1), "{name}");
        let events = fs::read_to_string(lab.path("sweep/points").join(&name).join("events.jsonl"));
        assert_eq!(
            events.expect("events").matches("worker_started").count(),
            1,
            "{name}"
        );
    }
}

/// Ctrl-C and `stop` must lose nothing and leave no process behind.
#[test]
fn a_sweep_that_is_stopped_goes_on_where_it_was() {
    let lab = Lab::new();
    let args = [
        &SMALL[..],
        &["--set", "phases.en.tokens=50000000", "--workers", "2"],
    ]
    .concat();
    // An axis and a setting of one key contradict each other.
    lab.forgetlab(&args)
        .exits(2)
        .says(&["--set gives it one value"]);
    let mut args = args;
    args[9] = "optimizer.lr=1e-2,2e-2";
    let stopped = |live: Live| {
        live.end()
            .exits(130)
            .says(&["interrupted; go on with `forgetlab resume"]);
        assert_eq!(family(&lab), Vec::<Pid>::new());
    };
    let mut live = lab.start(&args);
    wait_for("two live points", || points(&lab.path("sweep")).len() == 2);
    live.signal(Signal::INT);
    stopped(live);
    let live = lab.start(&["resume", "sweep"]);
    wait_for("a live point", || {
        lab.forgetlab(&["list", "sweep"]).out.contains(" live ")
    });
    lab.forgetlab(&["stop", "sweep"])
        .exits(0)
        .says(&["stopped; go on with"]);
    stopped(live);
    let is_live = || lab.forgetlab(&["list", "sweep"]).out.contains(" live ");
    let first = names(&lab.path("sweep")).remove(0);
    let run = lab.path("sweep/points").join(&first);
    let before = events(&run);
    let mut live = lab.start(&["resume", "sweep", "--point", &first]);
    wait_for("the point's run to go on", || events(&run) > before);
    let busy = lab.forgetlab(&["resume", "sweep", "--point", &first]);
    busy.exits(1).says(&["is being worked on by process"]);
    live.signal(Signal::TERM);
    live.end().exits(130);
    lab.forgetlab(&["list", "sweep"])
        .exits(0)
        .says(&["unfinished"]);
    lab.forgetlab(&["resume", "sweep", "--detach"])
        .exits(0)
        .says(&["in the background"]);
    wait_for("the sweep to be live", is_live);
    lab.forgetlab(&["stop", "sweep"]).exits(0);
    lab.forgetlab(&["attach", "sweep"])
        .exits(130)
        .says(&["unfinished"]);
}

/// What cannot be run must be said before anything is, or of its point alone.
#[test]
fn what_is_wrong_with_a_sweep_is_named() {
    let lab = Lab::new();
    let with = |axis: &'static str| {
        let mut args = SMALL.to_vec();
        args[9] = axis;
        lab.forgetlab(&args)
    };
    with("phases.en.token=1").exits(2).says(&["did you mean"]);
    with("phases.en.tokens=2000,2000")
        .exits(2)
        .says(&["has 2000 twice"]);
    with("optimizer.lr=1,1.0")
        .exits(2)
        .says(&["changes nothing"]);
    with("model.d_model=16,17")
        .exits(2)
        .says(&["must be a multiple"]);
    with("data.held_out_rows=10,100000")
        .exits(1)
        .says(&["no whole batch is left"]);
    assert!(
        !lab.path("sweep").exists(),
        "nothing is left of what was refused"
    );
    with("phases.en.tokens=2000,4000").exits(0);
    with("phases.en.tokens=2000,6000")
        .exits(1)
        .says(&["holds a sweep of other points"]);

    let sweep = lab.path("sweep");
    let [first, second] = [0, 1].map(|i| names(&sweep).remove(i));
    // A run that is another point's.
    let config = |name: &str| sweep.join("points").join(name).join("config.toml");
    let kept = fs::read(config(&first)).expect("config");
    fs::copy(config(&second), config(&first)).expect("copy");
    lab.forgetlab(&["resume", "sweep", "--point", &first])
        .exits(1)
        .says(&[
            "is not the run of its point: phases.0.tokens is 4000 there, and 2000 in the sweep",
        ]);
    for command in ["resume", "compare"] {
        lab.forgetlab(&[command, "sweep"])
            .exits(1)
            .says(&["is not the run of its point"]);
    }
    fs::write(config(&first), kept).expect("write");
    // A point that is missing is trained again; the other one stays.
    fs::remove_dir_all(sweep.join("points").join(&second)).expect("remove");
    lab.forgetlab(&["list", "sweep"])
        .exits(0)
        .says(&["waiting"]);
    lab.forgetlab(&["compare", "sweep"])
        .says(&["1 of 2 points are finished"]);
    let none = [
        "resume",
        "sweep",
        "--point",
        &second,
        "--skip-arm",
        "nothing",
    ];
    lab.forgetlab(&none)
        .exits(1)
        .says(&["the run has no arm `nothing`"]);
    lab.forgetlab(&["resume", "sweep", "--retry"]).exits(0);
    // A configuration that cannot be read, of a point that has not begun.
    fs::remove_dir_all(sweep.join("points").join(&second)).expect("remove");
    let path = sweep.join("configs").join(format!("{second}.toml"));
    let good = fs::read_to_string(&path).expect("config");
    fs::write(&path, good.replace("english.txt", "gone.txt")).expect("write");
    lab.forgetlab(&["resume", "sweep"]).exits(3).says(&[
        "refused",
        "gone.txt",
        "try these again with",
        "--retry",
    ]);
    lab.forgetlab(&["resume", "sweep"])
        .exits(3)
        .says(&["refused"]);
    fs::write(&path, good).expect("write");
    lab.forgetlab(&["resume", "sweep", "--retry"]).exits(0);
}

/// What a sweep will take must be known before it takes it; without the data, as far as it can be.
#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let lab = Lab::new();
    lab.forgetlab(&["run", "pretrain-length", "--preset", "smoke", "--dry-run"])
        .exits(0)
        .says(&[
            "2 points",
            "length=0.5-",
            "MiB",
            "Predicted from a few seconds",
        ]);
    lab.forgetlab(&["run", "toy-continual", "--preset", "smoke", "--dry-run"])
        .exits(0)
        .says(&["toy-continual", "MiB"]);
    for study in [
        "method-comparison",
        "model-capacity",
        "model-size",
        "pretrain-length",
        "learning-rate",
        "lr-vs-replay",
        "size-length-grid",
    ] {
        lab.forgetlab(&["run", study, "--preset", "paper", "--dry-run"])
            .exits(0)
            .says(&[
                "not all of it can be told here",
                ".bin is not here",
                "--set 'data.datasets.",
            ]);
    }
    assert!(!lab.path("results/runs").exists());
}
