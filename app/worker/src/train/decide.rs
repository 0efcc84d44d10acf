//! What a new run decides for itself before it starts.

use forgetlab_study::experiment::SAMPLES;

use crate::data::DataError;
use crate::eval::Prompts;

use super::predict::plain_arm;
use super::prepare::{Prepared, Work, demand_here, free_memory};
use super::settings;

/// The most that continued prompts may cost of what an arm that replays nothing pays, in FLOPs.
const MOST: f64 = 0.02;

/// Decides whether the students of a new run continue prompts, where its configuration leaves that open: not where that
/// would cost too much, or memory for it would have to be made by having fewer arms in it.
///
/// # Errors
/// Where its data cannot be read any more.
pub fn decide_samples(prepared: &mut Prepared) -> Result<(), DataError> {
    let Prepared { config, work, .. } = prepared;
    let Work::Tokens(work) = work else {
        return Ok(());
    };
    if config.training.samples.is_some() {
        return Ok(());
    }
    let prompts = Prompts::of(&work.suite, SAMPLES);
    let (plain, evaluations) = plain_arm(config, work)?;
    let flops = evaluations as f64 * prompts.flops(&settings::model(config, &work.suite));
    let cheap = plain.flops().is_some_and(|all| flops <= MOST * all);
    let demand = demand_here(
        config,
        &work.suite,
        &work.plugins,
        &work.questions,
        &prompts,
    );
    let free = free_memory(config);
    let fits = demand.learners == work.demand.learners
        && free.is_none_or(|free| demand.memory().total() <= free);
    config.training.samples = Some(if cheap && fits { SAMPLES } else { 0 });
    if cheap && fits {
        (work.prompts, work.demand) = (prompts, demand);
    }
    Ok(())
}
