//! How long a run will take here, from a few seconds of bench.

use std::time::Duration;

use forgetlab_engine::{Batching, Demand, EngineError, Hardware};
use forgetlab_study::run::Cost;

use super::{Bench, Shape, Work};

/// FLOPs that most CPUs do in a second.
const A_SECOND: f64 = 3e10;

/// How fast this machine is, in model FLOPs a second, at the smallest and at the largest of some models.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    /// FLOPs of a token, and FLOPs a second of training, generation and evaluation.
    measured: Vec<(f64, [f64; 3])>,
}

impl Speeds {
    /// Measures on a device, each kind of work for so long at least.
    ///
    /// # Errors
    /// When the device cannot be used.
    pub fn measure(demands: &[&Demand], device: &str, time: Duration) -> Result<Self, EngineError> {
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
        let measured = ends.into_iter().map(|demand| measure(demand, device, time));
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

    /// Seconds that work takes; the calls of strategies and checkpoints do not count.
    pub fn seconds(&self, cost: &Cost, demand: &Demand) -> f64 {
        let t = demand.seq_len;
        let token = demand.model.forward_flops(t, t) / t as f64;
        let [training, generation, evaluation] = self.at(token);
        (cost.flops_train + cost.flops_reference) / training
            + cost.flops_generate / generation
            + cost.flops_eval / evaluation
    }
}

fn measure(demand: &Demand, device: &str, time: Duration) -> Result<(f64, [f64; 3]), EngineError> {
    let t = demand.seq_len;
    let row = demand.model.forward_flops(t, t);
    // On a CPU a part of a large batch tells as much, in the time there is.
    let fitting = |rows: usize, flops: f64| match demand.gpu {
        Some(_) => rows,
        None => rows.clamp(1, (A_SECOND * time.as_secs_f64() / flops).max(1.0) as usize),
    };
    let shape = Shape {
        name: "of a run",
        model: demand.model,
        seq_len: t,
        batch_size: fitting(demand.batches.first().copied().unwrap_or(1), 3.0 * row),
        replay_rows: demand.batches.get(1).copied().unwrap_or(1),
        generated: fitting(demand.generated.max(1), row),
    };
    let hardware = Hardware {
        device: device.to_owned(),
        threads: demand.threads,
        precision: demand.gpu.unwrap_or_default(),
    };
    let speed = |work: Work| -> Result<f64, EngineError> {
        let mut bench = Bench::new(shape, work, &hardware, Batching::default())?;
        // The first steps grow the buffers.
        bench.run(time / 5)?;
        let measured = bench.run(time)?;
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
