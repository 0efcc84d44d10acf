//! `forgetlab experiments`.

use std::io::{self, Write};
use std::process::ExitCode;

use forgetlab_study::experiment::{
    Experiment, MiniSpec, ModelSpec, PhaseSpec, Preset, experiment, experiments, shortest,
};

use serde_json::{Value, json};

use super::out;

/// Arguments of `experiments`.
#[derive(clap::Args)]
pub struct Args {
    /// Show the presets of this experiment
    name: Option<String>,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// Lists experiments, or shows one.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = out::stdout();
    match &args.name {
        _ if args.json => {
            for line in as_json(args.name.as_deref())? {
                out.json(&line)?;
            }
        }
        Some(name) => show(experiment(name)?, &mut out)?,
        None => {
            for experiment in experiments() {
                writeln!(out, "{:<18}  {}", experiment.name, experiment.summary)?;
                let presets: Vec<&str> = experiment.presets().collect();
                writeln!(
                    out,
                    "{:<18}  presets: {} (default: {})",
                    "",
                    presets.join(", "),
                    experiment.default_preset
                )?;
            }
            writeln!(out, "\nmore about one: forgetlab experiments NAME")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An object an experiment, or of one experiment an object a preset.
fn as_json(name: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let Some(name) = name else {
        let line = |experiment: &Experiment| {
            json!({
                "experiment": experiment.name,
                "summary": experiment.summary,
                "presets": experiment.presets().collect::<Vec<_>>(),
                "default_preset": experiment.default_preset,
            })
        };
        return Ok(experiments().iter().map(line).collect());
    };
    let experiment = experiment(name)?;
    let mut presets = Vec::new();
    for name in experiment.presets() {
        let preset = experiment.preset(name)?;
        let phases = preset.phases.iter().map(|phase| phase.dataset.as_str());
        presets.push(json!({
            "experiment": experiment.name,
            "preset": name,
            "default": name == experiment.default_preset,
            "summary": preset.summary,
            "expectation": preset.expectation.trim(),
            "phases": phases.collect::<Vec<_>>(),
            "arms": preset.arms,
            "lr": preset.optimizer.lr,
        }));
    }
    Ok(presets)
}

fn show(experiment: &Experiment, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}: {}", experiment.name, experiment.summary)?;
    for name in experiment.presets() {
        let Preset {
            summary,
            expectation,
            arms,
            model,
            optimizer,
            training,
            phases,
            ..
        } = experiment.preset(name)?;
        let default = if name == experiment.default_preset {
            " (default)"
        } else {
            ""
        };
        writeln!(out, "\n{name}{default}: {summary}")?;
        wrap(out, &expectation)?;
        let length = |phase: &PhaseSpec| match &model {
            ModelSpec::Bayesian(model) if phase.steps == 0 => {
                format!("{} steps", model.pretraining_steps())
            }
            _ => phase.length(),
        };
        let phases: Vec<String> = phases
            .iter()
            .map(|phase| format!("{} ({})", phase.dataset, length(phase)))
            .collect();
        writeln!(out, "  phases: {}", phases.join(", "))?;
        writeln!(out, "  arms: {}", arms.join(", "))?;
        let batch = match training.batch_size {
            0 => "all points at every step".to_owned(),
            rows => format!("batch {rows}"),
        };
        let (model, lr) = (sizes(&model), shortest(optimizer.lr));
        writeln!(out, "  model: {model}; {batch}, learning rate {lr}")?;
    }
    writeln!(
        out,
        "\nrun it:  forgetlab run {} --preset {}",
        experiment.name, experiment.default_preset
    )?;
    Ok(())
}

fn sizes(model: &ModelSpec) -> String {
    match model {
        ModelSpec::Mini(MiniSpec {
            d_model,
            n_layers,
            head_dim,
            ..
        }) => format!("width {d_model}, {n_layers} layers, heads of {head_dim}"),
        ModelSpec::Pretrained(model) => model.pretrained.clone(),
        ModelSpec::Bayesian(model) => {
            let widths: Vec<String> = model.hidden.iter().map(usize::to_string).collect();
            format!(
                "{} functions, tanh, widths {}",
                model.functions(),
                widths.join("-")
            )
        }
    }
}

/// Indented, at most 80 columns.
fn wrap(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut line = String::from(" ");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 80 {
            writeln!(out, "{line}")?;
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}")
}
