//! Tests of the machine's figures, with GPUs that are made up.

use forgetlab_study::experiment::{ArmInfo, Overrides, resolve};
use forgetlab_study::run::{Event, RunLock};
use forgetlab_tui::lab::{Gpu, GpuProcess};

use super::*;

/// GPUs with figures that are made up.
struct MadeUp(Result<Vec<Gpu>, String>);

impl Gpus for MadeUp {
    fn read(&self) -> Result<Vec<Gpu>, String> {
        self.0.clone()
    }
}

fn process(pid: u32, memory: u64) -> GpuProcess {
    GpuProcess {
        pid,
        memory: Some(memory),
        ..GpuProcess::default()
    }
}

/// A run that this process works on, in the middle of its second arm.
fn live_run(results: &Results) -> (String, RunLock) {
    let run = results.create("toy-continual").unwrap();
    let config = resolve("toy-continual", &Overrides::default()).unwrap();
    run.write_config(&config).unwrap();
    let lock = run.lock().unwrap();
    let mut events = run.writer(&lock).unwrap().writer;
    let arm = |name: &str| ArmInfo {
        name: name.into(),
        slug: name.into(),
        strategy: name.into(),
        objective: String::new(),
        coeff: None,
        lr: 1e-3,
        seed: 0,
        steps: Vec::new(),
    };
    events
        .append(Event::RunStarted {
            experiment: "toy-continual".into(),
            preset: "cpu".into(),
            arms: vec![arm("none"), arm("true-data")],
            phases: Vec::new(),
            config: None,
        })
        .unwrap();
    for arm in [0, 1] {
        events
            .append(Event::Progress {
                arm,
                phase: 0,
                step: 1,
                ntp: 1.0,
                replay: None,
                grad_norm: 1.0,
                tokens_per_second: 1.0,
            })
            .unwrap();
    }
    (run.name(), lock)
}

/// Else nobody could tell which of five runs has the memory of a GPU.
#[test]
fn a_worker_is_shown_with_its_arm_and_its_share_of_the_gpus() {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::new(dir.path().join("results"));
    let (name, lock) = live_run(&results);
    let own = std::process::id();
    let gpu = |index, processes| Gpu {
        index,
        processes,
        ..Gpu::default()
    };
    let gpus = vec![
        gpu(0, vec![process(own, 5 << 30), process(u32::MAX - 1, 1)]),
        gpu(1, vec![process(own, 2 << 30)]),
    ];
    let mut reader = Reader::with_gpus(results, Box::new(MadeUp(Ok(gpus)))).unwrap();
    let first = reader.read();
    assert_eq!((first.cpu.used, first.workers[0].cores), (None, None));
    std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
    let machine = reader.read();
    let [worker] = &machine.workers[..] else {
        panic!("{:?}", machine.workers);
    };
    assert_eq!(
        (&worker.run, worker.arm.as_deref(), worker.pid),
        (&name, Some("true-data"), Some(own))
    );
    assert_eq!(worker.gpu_memory, Some(7 << 30));
    assert!(worker.memory.unwrap() > 1 << 20 && worker.cores.unwrap() >= 0.0);
    let of_gpu = &machine.gpus[0].processes;
    assert_eq!((&of_gpu[0].run, &of_gpu[1].run), (&Some(name), &None));
    assert!(of_gpu[0].name.is_some() && of_gpu[1].name.is_none());
    drop(lock);
    assert_eq!(reader.read().workers, []);
}

/// A figure that cannot be would make all others doubtful; and a machine without a GPU has all others.
#[test]
fn figures_are_sane_and_no_gpu_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let problem = Err("there is none".to_owned());
    let results = Results::new(dir.path().join("not/yet"));
    let mut reader = Reader::with_gpus(results, Box::new(MadeUp(problem))).unwrap();
    reader.read();
    std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
    let machine = reader.read();
    assert_eq!(machine.gpu_problem.as_deref(), Some("there is none"));
    assert!(machine.gpus.is_empty() && machine.workers.is_empty());
    for room in [machine.memory, machine.disk.unwrap()] {
        assert!(0 < room.used && room.used <= room.total, "{room:?}");
    }
    let cpu = machine.cpu;
    assert!(cpu.count > 0 && cpu.cores.len() == cpu.count);
    assert!(cpu.cores.iter().all(|share| (0.0..=1.0).contains(share)));
    assert!((0.0..=1.0).contains(&cpu.used.unwrap()));
}

/// The lab reads the machine every second or two: a slow reading would be felt at every key.
#[test]
fn a_reading_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::new(dir.path().join("results"));
    let (_, _lock) = live_run(&results);
    let mut reader = Reader::with_gpus(results, Box::new(MadeUp(Ok(Vec::new())))).unwrap();
    reader.read();
    let quickest = (0..20).map(|_| {
        let begun = std::time::Instant::now();
        reader.read();
        begun.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest.as_millis() < 5, "{quickest:?}");
}
