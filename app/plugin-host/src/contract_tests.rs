//! Strategies that break the contract in ways that no single call shows: the check must name each.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use forgetlab_plugin_api::{
    self as api, Batch, Error, Host, Phase, ReplayBuffer, Sequences, Settings, Step, Strategy,
};

use super::{
    Capabilities, DryRunError, InstanceOptions, OnLate, dry_run,
    made_up::{MadeUpLab, phase},
    tests::{plugin, report_of},
};

/// What the check finds wrong.
#[track_caller]
fn fault<T: Strategy>() -> DryRunError {
    let on_late: OnLate = Arc::new(|_| {});
    let checked = dry_run(&plugin::<T>(), &Default::default(), &on_late, &mut |_| {});
    checked.expect_err("the check finds it")
}

/// Rows of one token that a strategy decided on.
fn rows_of(token: u32, step: &Step) -> Option<Batch> {
    let rows = vec![vec![1, token, token]; step.rows];
    Some(Sequences::from_rows(&rows, 0).into())
}

/// A strategy with one number, and nothing of it in its saved state unless it says so.
macro_rules! strategy {
    ($type:ident, $name:literal, $capabilities:expr) => {
        const NAME: &'static str = $name;
        const SUMMARY: &'static str = "for the check";
        const CAPABILITIES: api::Capabilities = $capabilities;

        fn create(_: &Settings, _: &mut Host) -> Result<Self, Error> {
            Ok($type::default())
        }
    };
    (saves nothing) => {
        fn save(&self) -> Result<Vec<u8>, Error> {
            Ok(Vec::new())
        }
        fn load(&mut self, _: u32, _: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
            Ok(())
        }
    };
    (saves its buffer) => {
        fn save(&self) -> Result<Vec<u8>, Error> {
            Ok(self.buffer.save())
        }
        fn load(
            &mut self,
            version: u32,
            state: &[u8],
            _: Option<&Phase>,
            _: &mut Host,
        ) -> Result<(), Error> {
            self.buffer = ReplayBuffer::load(version, state)?;
            Ok(())
        }
    };
}

/// Learns from the losses which rows to give, and forgets it when it is saved.
#[derive(Default)]
struct Learner {
    mean: f64,
}

impl Strategy for Learner {
    strategy!(Learner, "learner", api::Capabilities::NONE);
    strategy!(saves nothing);

    fn next_batch(&mut self, step: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        Ok(rows_of(if self.mean > 2.0 { 8 } else { 9 }, step))
    }
    fn observe(&mut self, seen: &api::Observation, _: &mut Host) -> Result<(), Error> {
        self.mean = 0.9 * self.mean + 0.1 * seen.new_loss;
        Ok(())
    }
}

/// Else an arm whose strategy learns would go on as a beginner after every resume, without a word.
#[test]
fn what_was_learnt_from_observe_and_is_not_saved_is_missed() {
    let fault = fault::<Learner>();
    assert!(matches!(fault, DryRunError::NotResumable { .. }), "{fault}");
    assert!(fault.to_string().contains("`observe`"), "{fault}");
}

/// Fills a buffer with samples of the reference and keeps it over the end of the phase.
#[derive(Default)]
struct Keeper {
    buffer: ReplayBuffer,
}

impl Strategy for Keeper {
    strategy!(Keeper, "keeper", api::Capabilities::NEEDS_GENERATION);
    strategy!(saves its buffer);

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        let prompts = |rows| step.phase.prompts_in_equal_shares(rows);
        let samples = self.buffer.next_samples(step, host, 16, prompts)?;
        Ok(Some(samples.into()))
    }
}

/// Else samples of an older model would be replayed in a new phase, and the study be about another method.
#[test]
fn samples_of_the_reference_before_are_known_again() {
    let fault = fault::<Keeper>();
    assert!(
        matches!(fault, DryRunError::StaleSample { step: 0, .. }),
        "{fault}"
    );
}

/// Old rows that are kept over a phase are no fault: they are as true as they were.
#[derive(Default)]
struct Memory {
    buffer: ReplayBuffer,
}

impl Strategy for Memory {
    strategy!(Memory, "memory", api::Capabilities::NEEDS_OLD_DATA);
    strategy!(saves its buffer);

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        if self.buffer.is_empty() {
            self.buffer.refill(host.draw_old(step.rows * 16)?);
        }
        Ok(Some(self.buffer.take(step.rows).into()))
    }
}

/// Else an honest strategy would be refused.
#[test]
fn true_rows_may_be_kept_over_a_phase() {
    let report = report_of::<Memory>();
    assert!(
        report.contains("the true old data, nothing undeclared"),
        "{report}"
    );
}

/// Promises to look neither at the student nor at losses, and does.
macro_rules! liar {
    ($type:ident, $name:literal, $capabilities:expr, $next:item, $observe:item) => {
        #[derive(Default)]
        struct $type {
            loss: f64,
        }

        impl Strategy for $type {
            strategy!(
                $type,
                $name,
                $capabilities.and(api::Capabilities::INDEPENDENT_OF_STUDENT)
            );
            $next
            $observe
            fn save(&self) -> Result<Vec<u8>, Error> {
                Ok(self.loss.to_le_bytes().to_vec())
            }
            fn load(
                &mut self,
                _: u32,
                state: &[u8],
                _: Option<&Phase>,
                _: &mut Host,
            ) -> Result<(), Error> {
                self.loss = f64::from_le_bytes(*state.first_chunk().ok_or("torn")?);
                Ok(())
            }
        }
    };
}

liar!(
    AsksTheStudent,
    "asks-the-student",
    api::Capabilities::NEEDS_SCORES,
    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        let row = Sequences::from_rows(&[vec![1, 8, 9]], 0);
        let scores = host.score(api::Model::Student, &row, 0)?;
        Ok(rows_of(8 + (scores.log_probs[1].to_bits() % 8), step))
    },
    fn observe(&mut self, _: &api::Observation, _: &mut Host) -> Result<(), Error> {
        Ok(())
    }
);

liar!(
    HeedsLosses,
    "heeds-losses",
    api::Capabilities::NONE,
    fn next_batch(&mut self, step: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        Ok(rows_of(if self.loss > 2.0 { 8 } else { 9 }, step))
    },
    fn observe(&mut self, seen: &api::Observation, _: &mut Host) -> Result<(), Error> {
        self.loss = seen.new_loss;
        Ok(())
    }
);

liar!(
    CountsLosses,
    "counts-losses",
    api::Capabilities::NONE,
    fn next_batch(&mut self, step: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        Ok(rows_of(8 + self.loss as u32 % 8, step))
    },
    fn observe(&mut self, _: &api::Observation, _: &mut Host) -> Result<(), Error> {
        self.loss += 1.0;
        Ok(())
    }
);

/// Else batches asked for ahead would not be those of the strategy.
#[test]
fn a_promise_that_is_not_kept_is_named() {
    for (fault, how) in [
        (fault::<AsksTheStudent>(), "with another student"),
        (fault::<HeedsLosses>(), "with other losses"),
        (fault::<CountsLosses>(), "asked for ahead"),
    ] {
        assert!(
            matches!(fault, DryRunError::BrokenPromise { .. }),
            "{fault}"
        );
        assert!(fault.to_string().contains(how), "{fault}");
    }
}

/// Uses a service that it does not declare, beside one that it does.
#[derive(Default)]
struct Silent;

impl Strategy for Silent {
    strategy!(Silent, "silent", api::Capabilities::NEEDS_OLD_DATA);
    strategy!(saves nothing);

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        let bos = host.special_tokens()?.bos.unwrap_or(0);
        Ok(rows_of(bos, step))
    }
}

/// Else a run that does not offer the service would begin, and fail hours later.
#[test]
fn a_service_that_is_not_declared_is_named() {
    let fault = fault::<Silent>();
    assert!(matches!(fault, DryRunError::Undeclared(_)), "{fault}");
    assert!(fault.to_string().contains("a tokenizer"), "{fault}");
}

/// Takes its rows in the order of a hash map, which is another one each time.
#[derive(Default)]
struct Disorderly;

impl Strategy for Disorderly {
    strategy!(Disorderly, "disorderly", api::Capabilities::NONE);
    strategy!(saves nothing);

    fn next_batch(&mut self, step: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        let tokens: HashSet<u32> = (8..28).collect();
        Ok(rows_of(tokens.into_iter().next().unwrap_or(0), step))
    }
}

/// Counts in a variable of the library, not of the instance.
#[derive(Default)]
struct Shared;

static BATCHES: AtomicU32 = AtomicU32::new(0);

impl Strategy for Shared {
    strategy!(Shared, "shared", api::Capabilities::NONE);
    strategy!(saves nothing);

    fn next_batch(&mut self, step: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        let batches = BATCHES.fetch_add(1, Ordering::Relaxed);
        Ok(rows_of(8 + batches % 16, step))
    }
}

/// Else the same run would give other numbers each time, and nobody know why.
#[test]
fn batches_that_no_two_instances_agree_on_are_noticed() {
    for fault in [fault::<Disorderly>(), fault::<Shared>()] {
        let noticed = matches!(
            fault,
            DryRunError::NotRepeatable { .. } | DryRunError::NotResumable { .. }
        );
        assert!(noticed, "{fault}");
    }
}

/// Asks for as much as it may of each service, and for one row more.
#[derive(Default)]
struct Greedy;

impl Strategy for Greedy {
    strategy!(
        Greedy,
        "greedy",
        api::Capabilities::NEEDS_OLD_DATA
            .and(api::Capabilities::NEEDS_GENERATION)
            .and(api::Capabilities::NEEDS_SCORES)
    );
    strategy!(saves nothing);

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        let most = step.phase.max_rows * api::abi::MAX_BATCHES as usize;
        let drawn = host.draw_old(most)?;
        assert_eq!(drawn.rows(), most);
        let refused = |error: Error| {
            let error = error.to_string();
            assert!(error.contains("are given at once"), "{error}");
        };
        refused(host.draw_old(most + 1).expect_err("draws"));
        let prompts = vec![vec![1]; most + 1];
        refused(
            host.generate(&api::Generate::new(prompts, 4))
                .expect_err("generates"),
        );
        let rows = Sequences::from_rows(&vec![vec![1, 2]; most + 1], 0);
        refused(
            host.score(api::Model::Reference, &rows, 0)
                .expect_err("scores"),
        );
        Ok(Some(drawn.select(0..step.rows).into()))
    }
}

/// Else one number in a strategy would take all memory of the machine, and every run on it.
#[test]
fn no_request_is_served_beyond_its_cap() {
    let mut lab = MadeUpLab::default();
    let options = InstanceOptions {
        arm: "greedy:kl:1".into(),
        offered: Capabilities::ALL,
        breadcrumb: None,
        deadline: None,
    };
    let greedy = plugin::<Greedy>().instantiate(&Default::default(), options, &mut lab);
    let (mut greedy, phase) = (greedy.expect("made"), phase(1, Capabilities::ALL));
    greedy.phase_started(&phase, &mut lab).expect("starts");
    let batch = greedy.next_batch(phase.first_step, &mut lab);
    assert!(batch.expect("its own checks hold").is_some());
}
