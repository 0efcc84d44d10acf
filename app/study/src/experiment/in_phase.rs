//! The settings that hold in a phase, and how many steps it has.

use super::{DataSpec, ModelSpec, OptimizerSpec, PhaseSpec, REGRESSION_DATASETS, RunConfig};

/// The settings that hold in one phase: its own, and the run's where it has none.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseSettings {
    /// Optimizer steps, at most.
    pub steps: u64,
    /// Rows of a batch of new data.
    pub batch_size: usize,
    /// Optimizer steps between evaluations, at least.
    pub eval_every: u64,
    /// Share of the steps of the phase so far by which the interval grows.
    pub eval_growth: f64,
    /// AdamW and its schedule.
    pub optimizer: OptimizerSpec,
}

impl RunConfig {
    /// The settings that hold in a phase.
    pub fn in_phase(&self, phase: usize) -> PhaseSettings {
        let own = self.of_phase(phase);
        let joint = phase > 0 && self.phases.get(phase).is_some_and(|spec| spec.joint);
        match joint {
            // Of the first phase's batches as many as this one's hold.
            true => PhaseSettings {
                steps: own.steps + self.first_steps(own.batch_size),
                optimizer: self.of_phase(0).optimizer,
                ..own
            },
            false => own,
        }
    }

    /// Steps of the first phase in batches of another size.
    fn first_steps(&self, batch_size: usize) -> u64 {
        let first = self.of_phase(0);
        (first.steps * first.batch_size as u64).div_ceil(batch_size.max(1) as u64)
    }

    /// Share of the rows of a phase that are of the first phase's data, where it is joint training.
    pub fn joint_share(&self, phase: usize) -> Option<f64> {
        let joint = phase > 0 && self.phases.get(phase)?.joint;
        let own = self.of_phase(phase);
        let first = self.first_steps(own.batch_size) as f64;
        joint.then(|| first / (first + own.steps as f64).max(1.0))
    }

    /// The settings of a phase, joint training apart.
    fn of_phase(&self, phase: usize) -> PhaseSettings {
        let of_run = &self.optimizer;
        let spec = self.phases.get(phase).cloned().unwrap_or_default();
        let batch_size = spec.batch_size.unwrap_or(self.training.batch_size);
        let own = &spec.optimizer;
        let warmup = |steps: Option<u64>, tokens: Option<u64>| {
            let of_tokens = tokens.map(|tokens| tokens.div_ceil(self.tokens_of(batch_size)));
            of_tokens.or(steps)
        };
        let of_all = warmup(Some(of_run.warmup_steps), of_run.warmup_tokens);
        PhaseSettings {
            steps: self.steps_of(&spec, batch_size),
            eval_every: spec.eval_every.unwrap_or(self.training.eval_every),
            eval_growth: self.training.eval_growth,
            optimizer: OptimizerSpec {
                lr: own.lr.unwrap_or(of_run.lr),
                warmup_steps: warmup(own.warmup_steps, own.warmup_tokens)
                    .or(of_all)
                    .unwrap_or(0),
                warmup_tokens: None,
                schedule: own.schedule.unwrap_or(of_run.schedule),
                beta1: own.beta1.unwrap_or(of_run.beta1),
                beta2: own.beta2.unwrap_or(of_run.beta2),
                eps: own.eps.unwrap_or(of_run.eps),
                weight_decay: own.weight_decay.unwrap_or(of_run.weight_decay),
            },
            batch_size,
        }
    }

    /// Optimizer steps of a phase, at most; 0 where it depends on files that were not looked at.
    fn steps_of(&self, phase: &PhaseSpec, batch_size: usize) -> u64 {
        let a_step = self.tokens_of(batch_size);
        if let ModelSpec::Bayesian(model) = &self.model
            && phase.dataset == REGRESSION_DATASETS[0]
        {
            model.pretraining_steps() as u64
        } else if let Some(tokens) = phase.tokens {
            tokens.div_ceil(a_step)
        } else if let Some(each) = phase.tokens_per_parameter {
            let parameters = self.counted_parameters().unwrap_or(0);
            ((each * parameters as f64).ceil() as u64).div_ceil(a_step)
        } else if let Some(epochs) = phase.epochs {
            let batches = self.training_rows(&phase.dataset).unwrap_or(0) / batch_size as u64;
            (epochs * batches as f64).ceil() as u64
        } else {
            phase.steps
        }
    }

    /// Tokens of a batch of new data, where all rows have as many.
    fn tokens_of(&self, batch_size: usize) -> u64 {
        let seq_len = match &self.data {
            DataSpec::Tokens(tokens) => tokens.seq_len,
            DataSpec::Digits { .. } | DataSpec::Text(_) | DataSpec::Regression(_) => 1,
        };
        (batch_size * seq_len).max(1) as u64
    }

    /// Parameters of a small model as its paper counts them (arXiv 2605.26097): 12·L·D² + D·V.
    pub fn counted_parameters(&self) -> Option<u64> {
        let (ModelSpec::Mini(model), DataSpec::Tokens(tokens)) = (&self.model, &self.data) else {
            return None;
        };
        let (d, l) = (model.d_model as u64, model.n_layers as u64);
        Some(12 * l * d * d + d * tokens.vocab_size? as u64)
    }

    /// Rows of a corpus that are trained on.
    fn training_rows(&self, dataset: &str) -> Option<u64> {
        let DataSpec::Tokens(tokens) = &self.data else {
            return None;
        };
        let corpus = tokens.datasets.iter().find(|d| d.name == dataset)?;
        Some(corpus.rows?.saturating_sub(tokens.held_out_rows))
    }

    /// Optimizer steps of every phase, at most.
    pub fn all_steps(&self) -> Vec<u64> {
        (0..self.phases.len())
            .map(|phase| self.in_phase(phase).steps)
            .collect()
    }

    /// Rows of the largest batch of new data.
    pub fn largest_batch(&self) -> usize {
        let own = self.phases.iter().filter_map(|phase| phase.batch_size);
        own.chain([self.training.batch_size]).max().unwrap_or(0)
    }
}

impl PhaseSettings {
    /// The evaluation that follows so many steps of the phase, in steps of the phase; the phase's end counts as one.
    pub fn next_evaluation(&self, done: u64) -> u64 {
        self.interval(done).1.min(self.steps)
    }

    /// The evaluation at or before so many steps of the phase, in steps of the phase; its start counts as one.
    pub fn interval_start(&self, done: u64) -> u64 {
        self.interval(done).0
    }

    fn interval(&self, done: u64) -> (u64, u64) {
        if self.eval_growth == 0.0 {
            let every = self.eval_every.max(1);
            let start = done / every * every;
            return (start, start + every);
        }
        let (mut start, mut next) = (0, 0);
        while next <= done {
            let grown = (next as f64 * self.eval_growth) as u64;
            (start, next) = (next, next + grown.max(self.eval_every).max(1));
        }
        (start, next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, resolve};
    use super::*;

    fn settings(every: u64, growth: f64) -> PhaseSettings {
        let mut config = resolve("toy-continual", &Overrides::default()).unwrap();
        config.training.eval_every = every;
        config.training.eval_growth = growth;
        config.phases[0].steps = 100;
        config.in_phase(0)
    }

    /// An evaluation that is skipped or met twice would make other figures, a resumed run others than the first.
    #[test]
    fn evaluations_come_at_intervals_that_may_grow() {
        let all = |every, growth| {
            let (settings, mut at) = (settings(every, growth), vec![0]);
            while *at.last().unwrap() < 100 {
                at.push(settings.next_evaluation(*at.last().unwrap()));
            }
            // Wherever a run stopped on the way, it goes on to the same ones.
            for done in 0..100 {
                let next = *at.iter().find(|&&step| step > done).unwrap();
                assert_eq!(settings.next_evaluation(done), next);
                let last = *at.iter().rfind(|&&step| step <= done).unwrap();
                assert_eq!(settings.interval_start(done), last);
            }
            at
        };
        assert_eq!(all(30, 0.0), [0, 30, 60, 90, 100]);
        assert_eq!(all(10, 0.5), [0, 10, 20, 30, 45, 67, 100]);
    }

    /// The control would be no upper bound if it had other tokens or another optimizer than pretraining.
    #[test]
    fn joint_training_is_as_long_as_both_phases() {
        let arm = |name: &str| {
            let overrides = Overrides {
                preset: Some("smoke".into()),
                arms: vec!["none".into(), name.into()],
                ..Overrides::default()
            };
            let config = resolve("method-comparison", &overrides).unwrap();
            assert_eq!(config.arms[1].name(), name);
            config.of_arm(&config.arms[1]).unwrap()
        };
        let (plain, joint) = (arm("none+lr=1e-9"), arm("none+joint=true"));
        let [first, second] = [0, 1].map(|phase| plain.in_phase(phase));
        assert_eq!(joint.in_phase(1).steps, first.steps + second.steps);
        assert_eq!(joint.in_phase(1).optimizer, first.optimizer);
        assert_eq!(joint.in_phase(0), first);
        let share = joint.joint_share(1).unwrap();
        assert_eq!(
            share,
            first.steps as f64 / (first.steps + second.steps) as f64
        );
        assert_eq!(plain.joint_share(1), None);
    }

    /// Else pretraining and finetuning would share what should set them apart.
    #[test]
    fn a_phase_has_settings_of_its_own() {
        let overrides = Overrides {
            set: [
                ("phases.sort.optimizer.lr", "0.5"),
                ("phases.sort.batch_size", "7"),
                ("phases.reversal.eval_every", "3"),
                ("phases.target_loss", "0.25"),
            ]
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
            ..Overrides::default()
        };
        let config = resolve("toy-continual", &overrides).unwrap();
        let of = |phase| config.in_phase(phase);
        assert_eq!((of(0).optimizer.lr, of(1).optimizer.lr), (3e-3, 0.5));
        assert_eq!((of(0).batch_size, of(1).batch_size), (256, 7));
        assert_eq!((of(0).eval_every, of(1).eval_every), (3, 20));
        assert!(config.phases.iter().all(|p| p.target_loss == Some(0.25)));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
    }
}
