//! One turn: the steps of an arm to its next evaluation. The first phase takes the same turns: it is an arm
//! without a strategy, whose events are those of all arms that share it.
//!
//! A turn in order, and the file behind each part:
//! - draw the new batch: `data/suite.rs`
//! - ask the strategy what to replay: `strategy.rs`, which calls the plugin host
//! - look at what is replayed, for the screen: `look.rs`
//! - weigh the losses of every token, new and replayed: `objective.rs`
//! - forward and backward, then update: `learner/mod.rs`, on `engine/src/engine.rs`
//! - let the strategy observe the losses: `strategy.rs`
//! - record the figures of training, and report progress: `pace.rs`
//! - evaluate: `eval/scores.rs`; let the student continue the run's prompts: `eval/prompts.rs`
//! - write a checkpoint: `arm.rs`

use std::time::Instant;

use forgetlab_plugin_host::{ReplayBatch, StepMetrics};
use forgetlab_study::experiment::PhaseSpec;
use forgetlab_study::run::{
    Evaluation, Event, Level, PhaseEnd, Progress, RunError, SampleLook, TrainingStep,
};

use crate::data::Batch;

use super::arm::ArmRun;
use super::context::RunContext;
use super::error::{ArmError, TrainError};
use super::learner::{Learner, TrainingPoint};
use super::look::look;
use super::objective::{self, WeightedBatch};
use super::pace::Pace;
use super::settings;

/// How a turn ended.
pub(super) enum Turn {
    /// At an evaluation; there are more.
    Paused,
    /// At the last step.
    Finished,
    /// The run is to stop. The arm can be saved as it is, or went back to its last checkpoint.
    Stopped { savable: bool },
    /// The arm is over before its time.
    Failed(ArmError),
}

/// Trains an arm to its next evaluation.
///
/// # Errors
/// Where the run as a whole cannot go on.
pub(super) fn turn(context: &mut RunContext, run: &mut ArmRun) -> Result<Turn, TrainError> {
    match steps(context, run) {
        Err(ArmError::Run(error)) => Err(error),
        Err(ArmError::Cancelled) => Ok(Turn::Stopped { savable: false }),
        Err(error) => {
            // Its last steps tell what went wrong.
            record(context, run, true)?;
            Ok(Turn::Failed(error))
        }
        Ok(turn) => Ok(turn),
    }
}

fn steps(context: &mut RunContext, run: &mut ArmRun) -> Result<Turn, ArmError> {
    if run.is_over() {
        return Ok(Turn::Finished);
    }
    if run.learner.phase_is_over(&run.config) {
        if (context.stop)() {
            return Ok(Turn::Stopped { savable: true });
        }
        run.start_next_phase(context)?;
    }
    let mut pace = Pace::new();
    for _ in 0..run.learner.steps_to_evaluation(&run.config) {
        if (context.stop)() {
            return Ok(Turn::Stopped { savable: true });
        }
        let stepped = step(context, run);
        run.report_metrics(context)?;
        let stepped = stepped?;
        record(context, run, false)?;
        report_progress(context, run, &mut pace, stepped)?;
        if run.learner.end_at_time(&run.config) {
            break;
        }
    }
    evaluate(context, run)?;
    record(context, run, false)?;
    tell_phase_end(context, run)?;
    run.save_if_due(context)?;
    Ok(match run.is_over() {
        true => Turn::Finished,
        false => Turn::Paused,
    })
}

/// One optimizer step.
fn step(context: &mut RunContext, run: &mut ArmRun) -> Result<Progress, ArmError> {
    let new = draw(context, run)?;
    let replay = ask(context, run, &new)?;
    if let Some(replay) = &replay {
        look(context, run, replay)?;
    }
    let batches = weigh(context, run, new, replay.as_ref())?;
    if run.replaces() {
        let replaced = replay.as_ref().map_or(0, |replay| replay.rows);
        run.learner.point.replaced += replaced as u64;
    }

    let step = run.learner.point.step;
    let learning_rate = run.learner.learning_rate(&run.config);
    let losses: Vec<_> = batches.iter().map(WeightedBatch::as_batch).collect();
    let adapters = settings::lora(&run.config).map(|_| run.learner.student.trained_len());
    let cost = objective::cost(&batches, &context.engine.layout().config, adapters);
    let start = Instant::now();
    let report = run.learner.forward_backward(&mut context.engine, &losses)?;
    let grad_norm = run.learner.update(&mut context.engine, learning_rate)?;
    run.learner.pay(&cost, &report, start.elapsed());

    let (new_row_losses, new_loss) = batches[0].means(&report.rows[0], false);
    let replay = batches
        .get(1)
        .map(|replay| replay.means(&report.rows[1], true));
    let (replay_row_losses, replay_loss) = replay.unzip();
    let metrics = StepMetrics {
        step,
        new_loss,
        replay_loss,
        grad_norm,
        learning_rate,
        new_row_losses,
        replay_row_losses: replay_row_losses.unwrap_or_default(),
    };
    run.learner.point.stretch.add(TrainingStep {
        loss: new_loss,
        replay: replay_loss,
        grad_norm,
        lr: learning_rate,
    });
    if let Some(strategy) = &mut run.strategy {
        strategy.observe(context, &mut run.learner, &metrics)?;
    }
    Ok(Progress {
        ntp: metrics.new_loss,
        replay: metrics.replay_loss,
        grad_norm,
        tokens_per_second: 0.0,
    })
}

/// The batch of new data of the coming step.
fn draw(context: &RunContext, run: &mut ArmRun) -> Result<Batch, TrainError> {
    let start = Instant::now();
    let new = run.learner.new_batch(&run.config, context.suite)?;
    run.learner.cost.seconds_new += start.elapsed().as_secs_f64();
    Ok(new)
}

/// What the strategy replays in the coming step.
fn ask(
    context: &mut RunContext,
    run: &mut ArmRun,
    new: &Batch,
) -> Result<Option<ReplayBatch>, ArmError> {
    let Some(rows) = run.rows_to_ask() else {
        return Ok(None);
    };
    let Some(strategy) = &mut run.strategy else {
        return Ok(None);
    };
    let start = Instant::now();
    let replay = strategy.next_batch(context, &mut run.learner, new, rows)?;
    let seconds = start.elapsed().as_secs_f64();
    run.learner.cost.seconds_generate += seconds;
    run.learner.train_for(run.learner.point.step, seconds);
    Ok(replay)
}

/// The batches of the step, the new one first, with the weight of every token's loss in the total.
fn weigh(
    context: &RunContext,
    run: &ArmRun,
    new: Batch,
    replay: Option<&ReplayBatch>,
) -> Result<Vec<WeightedBatch>, ArmError> {
    let batches = objective::batches(&run.spec, new, replay, context.suite.reduction());
    batches.map_err(|what| ArmError::Unsupported {
        strategy: run.spec.strategy.clone(),
        what,
    })
}

/// Puts the figures of training since the last ones into the events, where that is due, or `now`.
pub(super) fn record(context: &RunContext, run: &mut ArmRun, now: bool) -> Result<(), RunError> {
    let Some(stretch) = run.learner.end_stretch(&run.config, now) else {
        return Ok(());
    };
    for &arm in &run.members {
        context.journal.emit(stretch.event(arm))?;
    }
    if run.strategy.is_none() {
        run.training.push(stretch);
    }
    Ok(())
}

/// Tells of live progress, where that is due.
fn report_progress(
    context: &RunContext,
    run: &ArmRun,
    pace: &mut Pace,
    progress: Progress,
) -> Result<(), ArmError> {
    if let Some(tokens_per_second) = pace.due(run.learner.cost.tokens_trained) {
        let progress = Progress {
            tokens_per_second,
            ..progress
        };
        let point = run.learner.point;
        for &arm in &run.members {
            let event = progress.event(arm, point.phase, point.step);
            context.journal.emit(event)?;
        }
    }
    Ok(())
}

/// Tells of the end of the phase, where it is over.
pub(super) fn tell_phase_end(context: &RunContext, run: &ArmRun) -> Result<(), RunError> {
    let Some(by) = run.learner.phase_end(&run.config) else {
        return Ok(());
    };
    let TrainingPoint {
        phase, step, best, ..
    } = run.learner.point;
    let PhaseSpec {
        dataset,
        target_loss,
        ..
    } = &run.config.phases[phase];
    let missed = target_loss.zip(best).filter(|_| by == PhaseEnd::Steps);
    for &arm in &run.members {
        if let Some((target, best)) = missed {
            let message = format!(
                "phase {phase} ends by its steps: the lowest held-out loss of {dataset} is {best:.4}, not the \
                 {target} that was wanted"
            );
            context.journal.log(Level::Warn, Some(arm), message)?;
        }
        context.journal.emit(Event::PhaseEnded {
            arm,
            phase,
            step,
            by,
        })?;
    }
    Ok(())
}

/// Evaluates every dataset, lets the student continue the run's prompts, and puts both into the events.
///
/// # Errors
/// Where the device or the disk fails.
pub(super) fn evaluate(context: &mut RunContext, run: &mut ArmRun) -> Result<(), TrainError> {
    let mut scored = |learner: &mut Learner| {
        let (suite, questions) = (context.suite, context.questions);
        learner.evaluate(&run.config, suite, questions, &mut context.engine)
    };
    let mut scores = scored(&mut run.learner)?;
    let started = run.learner.point.step > run.learner.point.phase_start;
    if started && run.learner.end_at_loss(&run.config, context.suite, &scores) {
        // Some questions are asked at the end of a phase alone.
        if !context.questions.is_empty() {
            scores = scored(&mut run.learner)?;
        }
    }
    let samples = sample(context, &mut run.learner)?;
    run.learner.cost.replaced = run.realised_share();
    let evaluation = Evaluation {
        phase: run.learner.point.phase,
        step: run.learner.point.step,
        cost: run.learner.cost,
        scores,
    };
    for &arm in &run.members {
        context.journal.emit(evaluation.event(arm))?;
        if let Some(look) = &samples {
            context.journal.emit(look.event(arm))?;
        }
    }
    if run.strategy.is_none() {
        run.evaluations.push(evaluation);
        run.samples.extend(samples);
    }
    Ok(())
}

/// How the student continues the run's prompts now; `None` where the run has none.
fn sample(
    context: &mut RunContext,
    learner: &mut Learner,
) -> Result<Option<SampleLook>, TrainError> {
    if context.prompts.is_empty() {
        return Ok(None);
    }
    let start = Instant::now();
    let (suite, step) = (context.suite, learner.point.step);
    let engine = &mut context.engine;
    let look = context
        .prompts
        .write(engine, &learner.student, suite, step)?;
    learner.cost.flops_eval += context.prompts.flops(&context.engine.layout().config);
    learner.cost.seconds_eval += start.elapsed().as_secs_f64();
    Ok(Some(look))
}
