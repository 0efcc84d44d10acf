//! The experiments that come with the program: `presets/<experiment>/<preset>.toml`.

use serde::Deserialize;

use super::{
    DataSpec, GridSpec, ModelSpec, OptimizerSpec, PhaseSpec, ReplaySpec, SpecError, TrainingSpec,
};

/// An experiment that comes with the program.
#[derive(Debug)]
pub struct Experiment {
    /// Name on the command line.
    pub name: &'static str,
    /// One-line summary.
    pub summary: &'static str,
    /// Preset used when none is given.
    pub default_preset: &'static str,
    presets: &'static [(&'static str, &'static str)],
}

/// A preset file: a run's configuration without what each run decides for itself (seeds, device,
/// threads), with a summary and the expected outcome.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// One-line summary.
    pub summary: String,
    /// What the run should show.
    pub expectation: String,
    /// Arms as written on the command line.
    pub arms: Vec<String>,
    /// Architecture of the student.
    pub model: ModelSpec,
    /// Where the datasets come from.
    pub data: DataSpec,
    /// Optimizer and schedule.
    pub optimizer: OptimizerSpec,
    /// Batches and intervals.
    pub training: TrainingSpec,
    /// Replay settings that all arms share.
    pub replay: ReplaySpec,
    /// Phases in order.
    pub phases: Vec<PhaseSpec>,
    /// Grids; with them it is a sweep.
    #[serde(default)]
    pub grids: Vec<GridSpec>,
}

const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "toy-continual",
        summary: "learn digit tasks one after another; replay decides what is left of the first",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/toy-continual/cpu.toml")),
            ("paper", include_str!("presets/toy-continual/paper.toml")),
            ("smoke", include_str!("presets/toy-continual/smoke.toml")),
        ],
    },
    Experiment {
        name: "instruct",
        summary: "finetune an instruction-tuned Llama; replay decides what it still knows",
        default_preset: "smollm2",
        presets: &[
            ("llama-1b", include_str!("presets/instruct/llama-1b.toml")),
            ("smollm2", include_str!("presets/instruct/smollm2.toml")),
            ("smoke", include_str!("presets/instruct/smoke.toml")),
        ],
    },
    Experiment {
        name: "method-comparison",
        summary: "pretrain a small model on English, finetune it on Spanish; every way of replay beside none",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/method-comparison/cpu.toml")),
            (
                "paper",
                include_str!("presets/method-comparison/paper.toml"),
            ),
            (
                "rates",
                include_str!("presets/method-comparison/rates.toml"),
            ),
            (
                "smoke",
                include_str!("presets/method-comparison/smoke.toml"),
            ),
        ],
    },
    Experiment {
        name: "lr-vs-replay",
        summary: "forget less by a low finetuning rate, or by a share of replay: which is faster at equal forgetting",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/lr-vs-replay/cpu.toml")),
            ("paper", include_str!("presets/lr-vs-replay/paper.toml")),
            ("smoke", include_str!("presets/lr-vs-replay/smoke.toml")),
        ],
    },
    Experiment {
        name: "model-capacity",
        summary: "does finetuning cross the frontier of mixtures: from a saturated model, from a young one",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/model-capacity/cpu.toml")),
            ("paper", include_str!("presets/model-capacity/paper.toml")),
            ("smoke", include_str!("presets/model-capacity/smoke.toml")),
        ],
    },
    Experiment {
        name: "model-size",
        summary: "do larger models forget less, from one old loss to one new",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/model-size/cpu.toml")),
            ("paper", include_str!("presets/model-size/paper.toml")),
            ("smoke", include_str!("presets/model-size/smoke.toml")),
        ],
    },
    Experiment {
        name: "pretrain-length",
        summary: "does longer pretraining forget more",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/pretrain-length/cpu.toml")),
            ("paper", include_str!("presets/pretrain-length/paper.toml")),
            ("smoke", include_str!("presets/pretrain-length/smoke.toml")),
        ],
    },
    Experiment {
        name: "learning-rate",
        summary: "do rates of pretraining and finetuning decide how much is forgotten",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/learning-rate/cpu.toml")),
            ("paper", include_str!("presets/learning-rate/paper.toml")),
            ("smoke", include_str!("presets/learning-rate/smoke.toml")),
        ],
    },
    Experiment {
        name: "size-length-grid",
        summary: "how far finetuning sets a model back in its pretraining, by size and length",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/size-length-grid/cpu.toml")),
            ("paper", include_str!("presets/size-length-grid/paper.toml")),
            ("smoke", include_str!("presets/size-length-grid/smoke.toml")),
        ],
    },
    Experiment {
        name: "regression-1d",
        summary: "learn one function of a line, then another beside it; a KL penalty keeps the first",
        default_preset: "cpu",
        presets: &[
            ("cpu", include_str!("presets/regression-1d/cpu.toml")),
            ("paper", include_str!("presets/regression-1d/paper.toml")),
            ("smoke", include_str!("presets/regression-1d/smoke.toml")),
        ],
    },
];

/// Every experiment.
pub fn experiments() -> &'static [Experiment] {
    EXPERIMENTS
}

/// An experiment by name.
pub fn experiment(name: &str) -> Result<&'static Experiment, SpecError> {
    EXPERIMENTS
        .iter()
        .find(|e| e.name == name)
        .ok_or_else(|| SpecError::unknown("experiment", name, EXPERIMENTS.iter().map(|e| e.name)))
}

impl Experiment {
    /// Names of the presets.
    pub fn presets(&self) -> impl Iterator<Item = &'static str> {
        self.presets.iter().map(|(name, _)| *name)
    }

    /// The text of a preset's file.
    pub fn preset_text(&self, preset: &str) -> Result<&'static str, SpecError> {
        self.presets
            .iter()
            .find(|(name, _)| *name == preset)
            .map(|(_, text)| *text)
            .ok_or_else(|| SpecError::unknown("preset", preset, self.presets()))
    }

    /// A preset by name.
    pub fn preset(&self, preset: &str) -> Result<Preset, SpecError> {
        let text = self.preset_text(preset)?;
        toml::from_str(text).map_err(|error| {
            SpecError::toml(format!("{}/{preset}.toml", self.name).into(), text, &error)
        })
    }
}
