//! Tests of the lab on this machine.

use forgetlab_study::experiment::{ArmInfo, ArmSpec};
use forgetlab_study::run::{Cost, Event, PhaseInfo, Role, Score};

use super::*;

#[test]
fn two_arms_may_differ_in_their_settings_alone() {
    let arm = |name: &str| ArmSpec {
        bare: Vec::new(),
        ..ArmSpec::parse(name, 10.0).unwrap()
    };
    let names = [
        "self-generated:kl:10",
        "self-generated:kl:10+lr=1e-3+temperature=0.5",
    ];
    let request = StartRequest {
        experiment: "toy-continual".into(),
        preset: "cpu".into(),
        device: "cpu".into(),
        seeds: vec![3, 4],
        arms: names.map(arm).into(),
        set: Vec::new(),
        queue: false,
    };
    let config = config(&request).unwrap();
    let text = toml::to_string(&config).unwrap();
    let back: RunConfig = toml::from_str(&text).unwrap();
    assert_eq!(back, config, "the worker reads what the form said");
    assert_eq!(back.seeds, [3, 4]);
    assert_eq!(
        back.arms.iter().map(ArmSpec::name).collect::<Vec<_>>(),
        names
    );
}

#[test]
fn every_preset_can_be_chosen_and_the_default_comes_first() {
    let mut lab = LocalLab::new(Results::new("nowhere".into()), Vec::new(), Vec::new());
    let experiments = lab.catalog().experiments().unwrap();
    let toy = experiments
        .iter()
        .find(|e| e.name == "toy-continual")
        .unwrap();
    assert_eq!(toy.presets[0].name, "cpu");
    assert_eq!(toy.presets[0].config.arms[0].strategy, "none");
    assert_eq!(lab.runs().unwrap(), [], "no results folder yet is no error");
}

/// One run with spoilt files must not take the list of all others with it.
#[test]
fn an_unreadable_run_is_listed_with_its_problem() {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::new(dir.path().join("results"));
    let config = experiment::resolve("toy-continual", &Overrides::default()).unwrap();
    let runs: Vec<RunDir> = (0..3)
        .map(|_| {
            let run = results.create("toy-continual").unwrap();
            run.write_config(&config).unwrap();
            run
        })
        .collect();
    fs::write(runs[0].events_path(), "no events\n").unwrap();
    fs::create_dir(runs[1].events_path()).unwrap();
    let mut lab = LocalLab::new(results, Vec::new(), Vec::new());
    for run in lab.runs().unwrap() {
        let spoilt = run.name != runs[2].name();
        assert_eq!(run.problem.is_some(), spoilt, "{:?}", run.problem);
    }
}

/// Everything of a run of one arm but its end.
fn events_of_a_run() -> Vec<Event> {
    let config = experiment::resolve("toy-continual", &Overrides::default()).unwrap();
    let arms: Vec<ArmInfo> = experiment::expand(&config)
        .into_iter()
        .map(|arm| arm.info)
        .take(1)
        .collect();
    let (phase, step) = (0, 10);
    let score = Score {
        dataset: "reversal".into(),
        role: Role::New,
        ntp: Some(1.5),
        kl: Some(0.0),
        accuracy: Some(0.5),
        fit: None,
        choices: None,
        outcomes: None,
        rows_kept: false,
    };
    vec![
        Event::RunStarted {
            experiment: config.experiment,
            preset: config.preset,
            arms,
            config: None,
            phases: vec![PhaseInfo {
                dataset: "reversal".into(),
                steps: step,
            }],
        },
        Event::PhaseStarted {
            arm: 0,
            phase,
            step: 0,
        },
        Event::Evaluated {
            arm: 0,
            phase,
            step,
            cost: Cost::default(),
            scores: vec![score],
        },
        Event::ArmFinished { arm: 0, step },
    ]
}

#[test]
fn the_list_and_the_feed_tell_a_crashed_run_from_a_finished_one() {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::new(dir.path().join("results"));
    let config = experiment::resolve("toy-continual", &Overrides::default()).unwrap();
    let run = results.create("toy-continual").unwrap();
    run.write_config(&config).unwrap();
    let rest = events_of_a_run();
    let lock = run.lock().unwrap();
    let mut writer = run.writer(&lock).unwrap().writer;
    for event in &rest {
        writer.append(event.clone()).unwrap();
    }
    let mut lab = LocalLab::new(results, Vec::new(), Vec::new());
    assert_eq!(lab.runs().unwrap()[0].status, RunStatus::Live);
    let mut feed = lab.open(&run.name()).unwrap();
    let update = feed.poll().unwrap();
    assert_eq!(update.status, RunStatus::Live);
    assert_eq!(
        *update.before.expect("all so far"),
        run.load_state().unwrap()
    );
    assert!(update.records.is_empty());
    lab.stop(&run.name()).unwrap();
    assert!(run.stop_request().pending());
    drop(lock);
    // A process that another test is just starting may hold a copy of the lock for a moment.
    let started = Instant::now();
    while lab.runs().unwrap()[0].status != RunStatus::Crashed {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let lock = run.lock().unwrap();
    let mut writer = run.writer(&lock).unwrap().writer;
    writer.append(Event::RunFinished {}).unwrap();
    drop(lock);
    while feed.poll().unwrap().status != RunStatus::Finished {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(lab.runs().unwrap()[0].status, RunStatus::Finished);
    let two = [run.name(), run.name()];
    let paths = lab.export(&two).unwrap();
    assert!(paths.iter().all(|path| path.is_file()), "{paths:?}");
}

/// Else a run that waits would look like one that hangs.
#[test]
fn a_run_in_line_is_listed_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::new(dir.path().join("results"));
    let config = experiment::resolve("toy-continual", &Overrides::default()).unwrap();
    let queue = Queue::of(&results);
    let mut locks = Vec::new();
    let mut names = Vec::new();
    for wait in [false, true, true] {
        let run = results.create("toy-continual").unwrap();
        run.write_config(&config).unwrap();
        locks.push(run.lock().unwrap());
        if wait {
            queue.join(run.path(), "cpu").unwrap();
        }
        names.push(run.name());
    }
    let mut lab = LocalLab::new(results, Vec::new(), Vec::new());
    let runs = lab.runs().unwrap();
    let place = |name: &String| runs.iter().find(|run| run.name == *name).unwrap().queued;
    assert_eq!(
        [0, 1, 2].map(|i| place(&names[i])),
        [None, Some(1), Some(2)]
    );
    assert!(runs.iter().all(|run| run.status == RunStatus::Live));
    // The one before it was killed: nothing of its own has changed.
    locks.remove(1);
    let runs = lab.runs().unwrap();
    let last = runs.iter().find(|run| run.name == names[2]);
    assert_eq!(last.unwrap().queued, Some(1));
}
