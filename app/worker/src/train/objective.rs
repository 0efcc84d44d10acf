//! From new tokens and a replay batch to the weighted losses of a step (arXiv 2605.26097).
//!
//! `total = NTP(new) + coeff · replay_loss`. Every loss is a sum over targets divided as
//! [`Reduction`] says. `replace` puts the replayed rows into the new batch, without a term of
//! their own.

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::{LossBatch, RowLoss};
use forgetlab_plugin_host::{ReplayBatch, Teacher};
use forgetlab_study::experiment::{ArmSpec, Objective, ReplaySpec};
use forgetlab_study::run::Cost;

use crate::data::{Batch, Reduction};

/// What the loss of a replay batch is divided by; its targets count by their weight.
fn divisor(reduction: Reduction, batch: &ReplayBatch) -> f64 {
    let all = match reduction {
        Reduction::Positions => own_tokens(batch) as f64,
        Reduction::Targets => batch.weights.iter().map(|&w| f64::from(w)).sum(),
    };
    if all > 0.0 { all } else { 1.0 }
}

/// Tokens of a replay batch's rows, padding left out.
fn own_tokens(batch: &ReplayBatch) -> usize {
    batch.lengths.iter().map(|&len| len as usize).sum()
}

/// A batch with the weight of every token's losses in the total; owns what [`LossBatch`] borrows.
pub(super) struct WeightedBatch {
    tokens: Vec<u32>,
    seq_len: usize,
    ntp: Vec<f32>,
    kl: Vec<f32>,
    /// Tokens of each row, padding left out.
    lens: Vec<usize>,
    /// What its loss is divided by where it stands alone.
    count: f64,
}

impl WeightedBatch {
    /// Mean loss of each row over its targets, and the loss of the batch before the coefficient.
    ///
    /// Rows with a KL weight give their KL where `by_objective`, all others their cross entropy.
    pub(super) fn means(&self, rows: &[RowLoss], by_objective: bool) -> (Vec<f32>, f64) {
        let mut all = 0.0;
        let t = self.seq_len;
        let means = rows
            .iter()
            .zip(self.ntp.chunks_exact(t).zip(self.kl.chunks_exact(t)));
        let means = means
            .map(|(row, (ntp, kl))| {
                let is_kl = by_objective && kl.iter().any(|&w| w != 0.0);
                let sum = if is_kl { row.kl } else { row.ntp };
                all += sum;
                let targets = ntp
                    .iter()
                    .zip(kl)
                    .filter(|&(&a, &b)| a != 0.0 || b != 0.0)
                    .count();
                (sum / targets.max(1) as f64) as f32
            })
            .collect();
        (means, all / self.count)
    }

    pub(super) fn as_batch(&self) -> LossBatch<'_> {
        LossBatch {
            tokens: &self.tokens,
            seq_len: self.seq_len,
            ntp_weights: &self.ntp,
            kl_weights: &self.kl,
        }
    }

    /// Tokens and FLOPs of training on it, padding left out: forward and backward of every row with the tokens
    /// that have a weight scored, and a forward of the reference for rows with a KL weight. `adapters` is the
    /// number of their weights, where only those are trained.
    fn cost(&self, model: &ModelConfig, adapters: Option<usize>) -> Cost {
        let mut cost = Cost::default();
        let t = self.seq_len;
        let weights = self.ntp.chunks_exact(t).zip(self.kl.chunks_exact(t));
        for (&len, (ntp, kl)) in self.lens.iter().zip(weights) {
            let both = ntp.iter().zip(kl);
            let scored = both.filter(|&(&a, &b)| a != 0.0 || b != 0.0).count();
            let of_reference = kl.iter().filter(|&&weight| weight != 0.0).count();
            cost.tokens_trained += len as u64;
            cost.flops_train += model.training_flops(len, scored, adapters);
            if of_reference > 0 {
                cost.flops_reference += model.forward_flops(len, of_reference);
            }
        }
        cost
    }

    /// Every target weighted alike: `ntp` and `kl` in all, divided by `divisor`.
    fn uniform(batch: Batch, count: f64, divisor: f64, [ntp, kl]: [f64; 2]) -> Self {
        // The first token of a row is no target, so the last position predicts none.
        let is_target = batch.mask.iter().skip(1).chain([&false]);
        let weights = |all: f64| -> Vec<f32> {
            let each = (all / divisor) as f32;
            is_target
                .clone()
                .map(|&target| if target { each } else { 0.0 })
                .collect()
        };
        Self {
            ntp: weights(ntp),
            kl: weights(kl),
            lens: batch.lens,
            tokens: batch.tokens,
            seq_len: batch.seq_len,
            count,
        }
    }

    /// A replay batch whose loss weighs `coeff` in all, divided by `divisor`.
    fn replay(
        batch: &ReplayBatch,
        objective: Objective,
        count: f64,
        divisor: f64,
        coeff: f64,
    ) -> Self {
        let t = batch.seq_len;
        let scale = coeff / divisor;
        let mut ntp = vec![0.0; batch.tokens.len()];
        let mut kl = vec![0.0; batch.tokens.len()];
        for row in 0..batch.rows {
            let own = batch.row_objectives.as_ref().and_then(|all| all[row]);
            let weights = match own.unwrap_or(objective) {
                Objective::Kl => &mut kl,
                _ => &mut ntp,
            };
            // A weight on target t + 1 weighs the prediction made at position t.
            for i in row * t..row * t + t - 1 {
                weights[i] = (scale * f64::from(batch.weights[i + 1])) as f32;
            }
        }
        Self {
            tokens: batch.tokens.clone(),
            seq_len: t,
            ntp,
            kl,
            lens: batch.lengths.iter().map(|&len| len as usize).collect(),
            count,
        }
    }
}

/// Tokens and FLOPs of a step on these batches. `adapters` is the number of their weights, where only those are
/// trained.
pub(super) fn cost(
    batches: &[WeightedBatch],
    model: &ModelConfig,
    adapters: Option<usize>,
) -> Cost {
    let mut all = Cost::default();
    for batch in batches {
        let cost = batch.cost(model, adapters);
        all.tokens_trained += cost.tokens_trained;
        all.flops_train += cost.flops_train;
        all.flops_reference += cost.flops_reference;
    }
    all
}

/// Rows of replay an arm wants: those to be replaced, or a batch of its own.
pub(super) struct ReplayRows {
    /// In one step.
    pub now: usize,
    /// In any step.
    pub most: usize,
}

/// Rows of replay an arm wants in a step of the phase, with batches of new data of so many rows.
pub(super) fn replay_rows(
    arm: &ArmSpec,
    replay: &ReplaySpec,
    new_rows: usize,
    step: u64,
) -> ReplayRows {
    let (now, most) = match (arm.objective, arm.coeff) {
        (Some(Objective::Replace), Some(share)) => (
            replay.fractions.rows(share, new_rows, step),
            replay.fractions.most_rows(share, new_rows),
        ),
        (Some(Objective::KlNew) | None, _) => (0, 0),
        _ => (replay.batch_size, replay.batch_size),
    };
    ReplayRows { now, most }
}

/// Plain next-token prediction on new data.
pub(super) fn plain(new: Batch, reduction: Reduction) -> WeightedBatch {
    let count = reduction.count(&new);
    WeightedBatch::uniform(new, count, count, [1.0, 0.0])
}

/// The batches of a step: the new data first, then what is replayed.
///
/// # Errors
/// In words, where the batch asks for what the engine does not offer.
pub(super) fn batches(
    arm: &ArmSpec,
    mut new: Batch,
    replay: Option<&ReplayBatch>,
    reduction: Reduction,
) -> Result<Vec<WeightedBatch>, String> {
    let coeff = arm.coeff.unwrap_or(0.0);
    let objective = match (arm.objective, replay) {
        (Some(Objective::KlNew), _) => {
            let count = reduction.count(&new);
            return Ok(vec![WeightedBatch::uniform(
                new,
                count,
                count,
                [1.0, coeff],
            )]);
        }
        (None, _) | (_, None) => {
            return Ok(vec![plain(new, reduction)]);
        }
        (Some(objective), Some(_)) => objective,
    };
    let Some(replay) = replay else {
        return Ok(Vec::new());
    };
    if replay.teacher != Teacher::Reference {
        return Err(
            "the batch names a teacher other than the reference; kept snapshots and supplied \
                    log-probabilities are not supported by this version of the lab"
                .into(),
        );
    }
    let old_count = divisor(reduction, replay);
    if objective == Objective::Replace {
        new.truncate(new.rows().saturating_sub(replay.rows));
        let new_count = reduction.count(&new);
        // Each target weighs the same, whichever batch it stands in.
        let both = new_count + old_count;
        return Ok(vec![
            WeightedBatch::uniform(new, new_count, both, [1.0, 0.0]),
            WeightedBatch::replay(replay, Objective::Ntp, old_count, both, 1.0),
        ]);
    }
    let coeff = replay.coeff.unwrap_or(coeff);
    Ok(vec![
        plain(new, reduction),
        WeightedBatch::replay(replay, objective, old_count, old_count, coeff),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(objective: Objective, coeff: f64) -> ArmSpec {
        ArmSpec {
            strategy: "true-data".into(),
            objective: Some(objective),
            coeff: Some(coeff),
            ..ArmSpec::plain()
        }
    }

    fn new(rows: usize) -> Batch {
        Batch {
            seq_len: 3,
            tokens: vec![1; 3 * rows],
            mask: [false, true, true].repeat(rows),
            lens: vec![3; rows],
        }
    }

    fn replay(rows: usize) -> ReplayBatch {
        ReplayBatch {
            rows,
            seq_len: 3,
            tokens: vec![7; rows * 3],
            lengths: vec![3; rows],
            weights: [0.0, 1.0, 1.0].repeat(rows),
            row_objectives: None,
            teacher: Teacher::Reference,
            coeff: None,
        }
    }

    #[test]
    fn replay_is_a_term_of_its_own_divided_by_its_own_tokens() {
        let batch = replay(2);
        let kl = batches(
            &arm(Objective::Kl, 10.0),
            new(4),
            Some(&batch),
            Reduction::Positions,
        )
        .unwrap();
        let (new, old) = (&kl[0], &kl[1]);
        assert_eq!(new.ntp[..3], [1.0 / 12.0, 1.0 / 12.0, 0.0]);
        assert_eq!(old.kl[..3], [10.0 / 6.0, 10.0 / 6.0, 0.0]);
        assert!(old.ntp.iter().chain(&new.kl).all(|&w| w == 0.0));
    }

    /// Strategies that pick rows by their loss rely on these figures.
    #[test]
    fn row_means_are_over_targets_and_follow_each_rows_objective() {
        let mut batch = replay(2);
        batch.row_objectives = Some(vec![None, Some(Objective::Ntp)]);
        let both = batches(
            &arm(Objective::Kl, 10.0),
            new(4),
            Some(&batch),
            Reduction::Positions,
        )
        .unwrap();
        let rows = [RowLoss { ntp: 8.0, kl: 2.0 }, RowLoss { ntp: 6.0, kl: 9.0 }];
        assert_eq!(both[1].means(&rows, true), (vec![1.0, 3.0], 8.0 / 6.0));
        assert_eq!(both[1].means(&rows, false).0, [4.0, 3.0]);
    }

    #[test]
    fn replaced_rows_weigh_what_new_rows_weigh() {
        let batch = replay(1);
        let both = batches(
            &arm(Objective::Replace, 0.25),
            new(4),
            Some(&batch),
            Reduction::Positions,
        )
        .unwrap();
        assert_eq!(both[0].tokens.len() + both[1].tokens.len(), 12);
        assert_eq!(both[0].ntp[0], 1.0 / 12.0);
        assert_eq!(both[1].ntp[0], 1.0 / 12.0);
    }

    #[test]
    fn rows_may_choose_their_objective_and_the_batch_its_coefficient() {
        let mut batch = replay(2);
        batch.row_objectives = Some(vec![None, Some(Objective::Ntp)]);
        batch.coeff = Some(6.0);
        let both = batches(
            &arm(Objective::Kl, 10.0),
            new(4),
            Some(&batch),
            Reduction::Positions,
        )
        .unwrap();
        assert_eq!(both[1].kl, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(both[1].ntp, [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn kl_on_new_data_needs_no_replay() {
        let both = batches(
            &arm(Objective::KlNew, 2.0),
            new(2),
            None,
            Reduction::Positions,
        )
        .unwrap();
        assert_eq!(both.len(), 1);
        assert_eq!(both[0].ntp[0], 1.0 / 6.0);
        assert_eq!(both[0].kl[0], 2.0 / 6.0);
    }

    #[test]
    fn a_foreign_teacher_is_refused() {
        let mut batch = replay(1);
        batch.teacher = Teacher::Snapshot(1);
        assert!(
            batches(
                &arm(Objective::Kl, 1.0),
                new(2),
                Some(&batch),
                Reduction::Positions
            )
            .is_err()
        );
    }

    /// Else an arm's FLOPs would count padding, or a reference that no row asks for.
    #[test]
    fn flops_are_those_of_own_tokens_and_of_rows_that_ask_for_the_reference() {
        let model = ModelConfig::mini(4, 1, 2, 9);
        let mut both_kinds = replay(2);
        both_kinds.lengths = vec![3, 2];
        both_kinds.weights = vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0];
        both_kinds.row_objectives = Some(vec![Some(Objective::Ntp), None]);
        let spec = arm(Objective::Kl, 10.0);
        let step = batches(&spec, new(4), Some(&both_kinds), Reduction::Positions).unwrap();
        let paid = cost(&step, &model, None);
        assert_eq!(paid.tokens_trained, 4 * 3 + 3 + 2);
        let (whole, short) = (model.forward_flops(3, 2), model.forward_flops(2, 1));
        assert_eq!(paid.flops_train, 3.0 * (5.0 * whole + short));
        assert_eq!(paid.flops_reference, short);
        assert_eq!((paid.flops_generate, paid.flops_eval), (0.0, 0.0));

        let alone = [plain(new(4), Reduction::Positions)];
        let paid = cost(&alone, &model, Some(7));
        assert_eq!(
            paid.flops_train,
            4.0 * model.training_flops(3, 2, Some(7)),
            "adapters"
        );
        assert_eq!(paid.flops_reference, 0.0, "none was asked for");
    }

    /// A chat model's loss must not shrink because prompts and padding are long.
    #[test]
    fn a_masked_mean_counts_targets_alone() {
        let mut prompted = new(2);
        prompted.mask = vec![false, false, true, false, true, false];
        prompted.lens = vec![3, 2];
        let mut old = replay(2);
        old.weights = vec![0.0, 0.0, 1.0, 0.0, 0.5, 0.5];
        let spec = arm(Objective::Kl, 3.0);
        let both = batches(&spec, prompted, Some(&old), Reduction::Targets).unwrap();
        assert_eq!(both[0].ntp, [0.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
        assert_eq!(both[0].lens, [3, 2]);
        assert_eq!(both[1].kl, [0.0, 1.5, 0.0, 0.75, 0.75, 0.0]);
        let rows = [RowLoss { ntp: 3.0, kl: 0.0 }, RowLoss { ntp: 1.0, kl: 0.0 }];
        assert_eq!(both[0].means(&rows, false), (vec![3.0, 1.0], 2.0));
    }
}
