//! How long a run will take here, from a few seconds of bench.

use std::time::Duration;

use forgetlab_engine::{Batching, Demand, EngineError, Hardware};
use forgetlab_study::experiment::{Objective, RunConfig, expand};

use super::{Bench, Shape, Work};

/// Time that each kind of work is measured for.
const TIME: Duration = Duration::from_millis(500);

/// How fast this machine is, in model FLOPs a second, at the smallest and at the largest of some models.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    /// FLOPs of a token, and FLOPs a second of training, generation and evaluation.
    measured: Vec<(f64, [f64; 3])>,
}

impl Speeds {
    /// Measures on a device.
    ///
    /// # Errors
    /// When the device cannot be used.
    pub fn measure(demands: &[&Demand], device: &str) -> Result<Self, EngineError> {
        let cost = |demand: &&Demand| demand.model.forward_flops(demand.seq_len, demand.seq_len);
        let mut sorted: Vec<&Demand> = demands.to_vec();
        sorted.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let mut ends: Vec<&Demand> = sorted
            .first()
            .into_iter()
            .chain(sorted.last())
            .copied()
            .collect();
        ends.dedup_by(|a, b| cost(&&**a) == cost(&&**b));
        let measured = ends.into_iter().map(|demand| measure(demand, device));
        Ok(Self {
            measured: measured.collect::<Result<_, _>>()?,
        })
    }

    /// FLOPs a second at a model whose token takes so many, of training, generation and evaluation: between the
    /// measured ones a line in logarithms.
    fn at(&self, flops: f64) -> [f64; 3] {
        let (Some((low, slow)), Some((high, fast))) = (self.measured.first(), self.measured.last())
        else {
            return [f64::NAN; 3];
        };
        let share = match high > low {
            true => ((flops.ln() - low.ln()) / (high.ln() - low.ln())).clamp(0.0, 1.0),
            false => 0.0,
        };
        [0, 1, 2].map(|i| (slow[i].ln() + share * (fast[i].ln() - slow[i].ln())).exp())
    }

    /// Seconds that a run takes, at most; the calls of strategies and checkpoints do not count.
    pub fn seconds(&self, config: &RunConfig, demand: &Demand) -> f64 {
        let t = demand.seq_len;
        let token = demand.model.forward_flops(t, t) / t as f64;
        let [training, generation, evaluation] = self.at(token);
        let row = token * t as f64;
        let mut seconds = 0.0;
        // Of a phase: evaluations, each of all held-out rows by student and reference, and steps.
        let mut phase = |own: &RunConfig, at: usize, a_step: f64| {
            let settings = own.in_phase(at);
            let (mut done, mut evaluations) = (0, 1.0);
            while done < settings.steps {
                done = settings.next_evaluation(done);
                evaluations += 1.0;
            }
            let references = if at > 0 { 2.0 } else { 1.0 };
            seconds += evaluations * references * token * demand.held_out as f64 / evaluation;
            seconds += settings.steps as f64 * a_step;
        };
        for arm in expand(config) {
            for at in 1..arm.config.phases.len() {
                let new = arm.config.in_phase(at).batch_size as f64;
                let replayed = arm.config.replay.batch_size as f64;
                // In forwards of a row: training takes three, a reference one.
                let rows = match arm.spec.objective {
                    None | Some(Objective::Replace) => 3.0 * new,
                    Some(Objective::KlNew) => 4.0 * new,
                    Some(Objective::Ntp) => 3.0 * (new + replayed),
                    Some(Objective::Kl) => 3.0 * new + 4.0 * replayed,
                };
                let samples = arm.spec.strategy != "true-data" && arm.spec.strategy != "none";
                let generated = match arm.spec.objective {
                    Some(Objective::Replace) if samples => new * arm.spec.coeff.unwrap_or(0.0),
                    Some(Objective::Kl | Objective::Ntp) if samples => replayed,
                    _ => 0.0,
                };
                phase(
                    &arm.config,
                    at,
                    row * (rows / training + generated / generation),
                );
            }
        }
        for _ in &config.seeds {
            let new = config.in_phase(0).batch_size as f64;
            phase(config, 0, row * 3.0 * new / training);
        }
        seconds
    }
}

fn measure(demand: &Demand, device: &str) -> Result<(f64, [f64; 3]), EngineError> {
    let t = demand.seq_len;
    let shape = Shape {
        name: "of a run",
        model: demand.model,
        seq_len: t,
        batch_size: demand.batches.first().copied().unwrap_or(1),
        replay_rows: demand.batches.get(1).copied().unwrap_or(1),
        generated: demand.generated.max(1),
    };
    let hardware = Hardware {
        device: device.to_owned(),
        threads: demand.threads,
        precision: demand.gpu.unwrap_or_default(),
    };
    let speed = |work: Work| -> Result<f64, EngineError> {
        let mut bench = Bench::new(shape, work, &hardware, Batching::default())?;
        // The first steps grow the buffers.
        bench.run(TIME / 5)?;
        let measured = bench.run(TIME)?;
        Ok(measured.flops / measured.seconds)
    };
    let token = demand.model.forward_flops(t, t) / t as f64;
    Ok((
        token,
        [
            speed(Work::Train)?,
            speed(Work::Generate)?,
            speed(Work::Evaluate)?,
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prediction for a model between two that were measured lies between theirs.
    #[test]
    fn speeds_lie_between_those_measured() {
        let speeds = Speeds {
            measured: vec![(1e6, [1e9, 2e9, 4e9]), (1e8, [1e11, 2e9, 4e9])],
        };
        let [training, generation, _] = speeds.at(1e7);
        assert!((training / 1e10 - 1.0).abs() < 1e-9 && (generation / 2e9 - 1.0).abs() < 1e-9);
        assert_eq!(speeds.at(1.0)[0].round(), 1e9);
        assert_eq!(speeds.at(1e12)[0].round(), 1e11);
    }
}
