use super::*;
use crate::experiment::{AxisSpec, Overrides, points};

fn sweep(path: &Path) -> (SweepDir, Vec<Point>) {
    let overrides = Overrides {
        axes: vec![AxisSpec::parse("model.d_model=32,64").unwrap()],
        ..Overrides::default()
    };
    let points = points("toy-continual", &overrides).unwrap().unwrap();
    (SweepDir::create(path, &points).unwrap(), points)
}

fn begin(sweep: &SweepDir, point: &Point) -> RunDir {
    let path = sweep.point_path(&point.name);
    let super::super::OutFolder::Fresh(run) = RunDir::out(&path).unwrap() else {
        panic!()
    };
    run.write_config(&point.config).unwrap();
    run
}

fn own(taken: Taken) -> Lease {
    match taken {
        Taken::Own(lease) => lease,
        Taken::Busy(holder) => panic!("{holder:?}"),
    }
}

/// Else a sweep could not be gone on with.
#[test]
fn a_sweep_comes_back_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (sweep, points) = sweep(&dir.path().join("s"));
    assert_eq!(SweepDir::open(sweep.path()).unwrap(), sweep);
    let spec = sweep.spec().unwrap();
    assert_eq!(spec.experiment, "toy-continual");
    for (point, known) in points.iter().zip(&spec.points) {
        assert_eq!((&known.name, &known.place), (&point.name, &point.place));
        assert_eq!(sweep.config(&point.name).unwrap(), {
            let mut config = point.config.clone();
            config.arms.iter_mut().for_each(|arm| arm.bare.clear());
            config
        });
    }
    assert_eq!(sweep.find("d_model=64").unwrap().name, points[1].name);
    assert!(matches!(
        sweep.find("d_model"),
        Err(RunError::Ambiguous { .. })
    ));
    assert!(matches!(sweep.find("x"), Err(RunError::NotFound { .. })));
    let again = SweepDir::create(sweep.path(), &points).unwrap_err();
    assert!(again.to_string().contains("sweep.toml"), "{again}");
}

/// `--out` into a folder of one's own must not mix a sweep into it, nor overwrite what lies there.
#[test]
fn an_occupied_folder_is_refused_and_a_killed_beginning_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, points) = sweep(&dir.path().join("a"));
    let configs = dir.path().join("b/configs");
    fs::create_dir_all(&configs).unwrap();
    let own = format!("{}.toml", points[0].name);
    fs::copy(whole.join("configs").join(&own), configs.join(&own)).unwrap();
    fs::write(configs.join(".tmp-1"), "").unwrap();
    SweepDir::create(&dir.path().join("b"), &points).unwrap();
    fs::remove_file(dir.path().join("b/sweep.toml")).unwrap();
    fs::write(configs.join("mine.txt"), "").unwrap();
    let error = SweepDir::create(&dir.path().join("b"), &points).unwrap_err();
    assert!(error.to_string().contains("mine.txt"), "{error}");
    // One that was moved away is not made anew.
    fs::rename(whole.path(), dir.path().join("c")).unwrap();
    assert!(whole.refuse("x", "y").is_err() && whole.log_path("x").is_err());
    assert!(!whole.path().exists());
}

/// A point's status decides whether it is trained, again, or never.
#[test]
fn status_comes_from_lease_run_and_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let (sweep, points) = sweep(dir.path());
    let name = &points[0].name;
    let status = || sweep.status(name).unwrap();
    assert_eq!(status(), PointStatus::Waiting);
    let lease = own(sweep.take(name).unwrap());
    assert_eq!(status(), PointStatus::Live);
    sweep.refuse(name, "no such file").unwrap();
    drop(lease);
    assert_eq!(status(), PointStatus::Refused("no such file".into()));
    let lease = own(sweep.take(name).unwrap());
    sweep.retry(name, &lease).unwrap();
    drop(lease);
    assert_eq!(status(), PointStatus::Waiting);
    let run = begin(&sweep, &points[0]);
    assert_eq!(status(), PointStatus::Unfinished);
    let lock = run.lock().unwrap();
    assert_eq!(status(), PointStatus::Live);
    drop(lock);
    let words: Vec<&str> = sweep
        .statuses()
        .unwrap()
        .iter()
        .map(|(_, s)| s.word())
        .collect();
    assert_eq!(words, ["unfinished", "waiting"]);
}

/// A run of other settings in a point's place would be a wrong figure.
#[test]
fn a_foreign_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (sweep, points) = sweep(dir.path());
    sweep.check_run(&points[0].name).unwrap();
    let run = begin(&sweep, &points[0]);
    sweep.check_run(&points[0].name).unwrap();
    run.write_config(&points[1].config).unwrap();
    let error = sweep.check_run(&points[0].name).unwrap_err().to_string();
    assert!(
        error.contains("model.d_model is 64 there, and 32 in the sweep"),
        "{error}"
    );
}

/// A name in a file must not lead out of the folder.
#[test]
fn a_spoilt_list_of_points_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (sweep, points) = sweep(dir.path());
    let text = fs::read_to_string(sweep.join(SWEEP)).unwrap();
    for (to, says) in [("../a", "no name of a point"), (&*points[1].name, "twice")] {
        fs::write(sweep.join(SWEEP), text.replace(&points[0].name, to)).unwrap();
        let error = sweep.spec().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Else a sweep would be shown as interrupted whenever its process goes from one point to the next.
#[test]
fn a_sweep_is_live_between_two_points() {
    let dir = tempfile::tempdir().unwrap();
    let (sweep, _) = sweep(dir.path());
    let status = || {
        let statuses = sweep.statuses().unwrap();
        sweep.counts(&statuses).unwrap().status()
    };
    assert_eq!(status(), RunStatus::Interrupted);
    let lease = sweep.work_through().unwrap().unwrap();
    assert_eq!(status(), RunStatus::Live);
    assert!(sweep.work_through().unwrap().is_none(), "one says it");
    drop(lease);
    assert_eq!(status(), RunStatus::Interrupted);
}
