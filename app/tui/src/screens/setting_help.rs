//! What every setting of a run does, and what it takes.

/// What a setting does; empty for one that is not known. A setting of one phase, dataset or set of questions is told as
/// that of all of them.
pub fn about(key: &str) -> &'static str {
    if let Some((_, text)) = HELP.iter().find(|(known, _)| *known == key) {
        return text;
    }
    // `phases.sort.optimizer.lr`, `data.questions.csqa.most`, `phases.optimizer.lr`
    let parts: Vec<&str> = key.split('.').collect();
    let candidates = (1..parts.len()).flat_map(|from| {
        let rest = parts[from..].join(".");
        [format!("{}.{rest}", parts[0]), rest]
    });
    let of_items = (3..parts.len())
        .map(|from| format!("{}.{}.{}", parts[0], parts[1], parts[from..].join(".")));
    let all: Vec<String> = of_items.chain(candidates).collect();
    let mut known = all
        .iter()
        .filter_map(|name| HELP.iter().find(|(known, _)| known == name));
    known.next().map_or("", |(_, text)| text)
}

/// Keys as `--set` takes them, without the names of phases and datasets.
const HELP: &[(&str, &str)] = &[
    (
        "threads",
        "CPU threads of the engine. Other threads give other last bits.",
    ),
    (
        "precision",
        "Format of the matrix products' inputs: \"f32\", \"bf16\" (GPUs), \"f64\" (regression).",
    ),
    (
        "model.d_model",
        "Width of the residual stream, a multiple of head_dim.",
    ),
    ("model.n_layers", "Number of blocks."),
    (
        "model.head_dim",
        "Size of an attention head; there are d_model / head_dim heads.",
    ),
    (
        "model.pretrained",
        "The model to finetune: a Hugging Face folder, a .gguf file or a hub id ORG/NAME@REVISION, in quotes.",
    ),
    (
        "model.lora_rank",
        "Rank of the adapters; 0 trains the weights.",
    ),
    (
        "model.lora_alpha",
        "Adapters are multiplied by alpha / rank.",
    ),
    (
        "model.hidden",
        "Widths of the hidden layers, e.g. [50, 50].",
    ),
    (
        "model.prior_std",
        "Standard deviation of the prior of the weights.",
    ),
    (
        "model.map.steps",
        "Steps to the most likely weights, where the chains start.",
    ),
    (
        "model.map.lr_start",
        "Learning rate of these steps at their start.",
    ),
    (
        "model.map.lr_end",
        "Learning rate of these steps at their end.",
    ),
    (
        "model.map.clip",
        "Largest norm of a gradient in these steps.",
    ),
    (
        "model.map.init_std",
        "Standard deviation of the random weights they start from.",
    ),
    (
        "model.sghmc.step_size",
        "Step size of the Hamiltonian Monte Carlo (SGHMC).",
    ),
    (
        "model.sghmc.friction",
        "Friction of the Hamiltonian Monte Carlo.",
    ),
    (
        "model.sghmc.temperature",
        "Temperature of the posterior; 1 is Bayes'.",
    ),
    (
        "model.sghmc.chains",
        "Chains, each with samples of its own.",
    ),
    (
        "model.sghmc.burn_in",
        "Steps of a chain before its first sample.",
    ),
    ("model.sghmc.thinning", "Steps between two samples."),
    (
        "model.sghmc.particles",
        "Samples that are kept of all chains.",
    ),
    ("model.sghmc.clip", "Largest norm of a gradient in a chain."),
    ("model.finetuning.student", "What is finetuned."),
    (
        "model.finetuning.kl_std",
        "Standard deviation by which outputs are compared in the penalty.",
    ),
    (
        "model.finetuning.clip",
        "Largest norm of a gradient in finetuning.",
    ),
    (
        "data.kind",
        "What the data are: \"digits\", \"text\", \"chat\" or \"regression\".",
    ),
    ("data.n_digits", "Digits of a row."),
    (
        "data.held_out",
        "Share of the rows that are held out for evaluation.",
    ),
    (
        "data.held_out_rows",
        "Rows of each dataset that are held out for evaluation.",
    ),
    (
        "data.split_seed",
        "Seed of the split into training and held-out rows: the same for all seeds of a run.",
    ),
    ("data.seq_len", "Tokens of a row."),
    ("data.vocab_size", "Tokens of the vocabulary."),
    ("data.tokenizer", "File of the tokenizer, in quotes."),
    ("data.datasets.files", "Files of the texts, a list."),
    ("data.datasets.file", "File of the texts."),
    ("data.datasets.name", "Name of the dataset."),
    (
        "data.datasets.marker",
        "Token before every row that tells the dataset.",
    ),
    ("data.rows.seq_len", "Tokens of a row."),
    (
        "data.rows.text",
        "How texts become rows: \"packed\" one after another, or one a row.",
    ),
    (
        "data.rows.held_out",
        "Rows of each dataset that are held out for evaluation.",
    ),
    (
        "data.rows.separator",
        "What stands between texts in packed rows.",
    ),
    (
        "data.rows.too_long",
        "What becomes of rows that are too long: cut, or left out.",
    ),
    (
        "data.rows.chat.date",
        "The date that a chat's template is told.",
    ),
    ("data.rows.chat", "How conversations become rows."),
    ("data.questions.file", "File of multiple-choice questions."),
    ("data.questions.most", "Questions that are asked, at most."),
    ("data.questions.name", "Name of the set of questions."),
    (
        "data.questions.style",
        "How questions are asked: in plain text, or as a chat.",
    ),
    (
        "data.questions.when",
        "When they are asked: at every evaluation, or at the ends of a phase alone.",
    ),
    ("data.old.from", "Left end of the old data's interval."),
    ("data.old.to", "Right end of the old data's interval."),
    ("data.old.points", "Points of the old data."),
    (
        "data.old.noise",
        "Standard deviation of the old data's noise.",
    ),
    ("data.new.from", "Left end of the new data's interval."),
    ("data.new.to", "Right end of the new data's interval."),
    ("data.new.points", "Points of the new data."),
    (
        "data.new.noise",
        "Standard deviation of the new data's noise.",
    ),
    ("data.grid", "Points at which functions are compared."),
    (
        "data.picture",
        "Interval that the picture of the functions shows.",
    ),
    ("data.picture_points", "Points of that picture."),
    ("optimizer.lr", "Peak learning rate."),
    (
        "optimizer.warmup_steps",
        "Steps of linear warm-up at the start of each phase.",
    ),
    (
        "optimizer.warmup_tokens",
        "Tokens of linear warm-up, in place of steps.",
    ),
    (
        "optimizer.schedule",
        "What follows the warm-up: \"constant\" or \"cosine\".",
    ),
    ("optimizer.beta1", "AdamW: decay of the first moment."),
    ("optimizer.beta2", "AdamW: decay of the second moment."),
    (
        "optimizer.eps",
        "AdamW: added to the root of the second moment.",
    ),
    ("optimizer.weight_decay", "AdamW: weight decay."),
    ("training.batch_size", "Rows of a batch of new data."),
    ("training.eval_every", "Steps between two evaluations."),
    (
        "training.eval_growth",
        "By what share intervals between evaluations grow with the steps of the phase; 0 for none.",
    ),
    (
        "training.eval_rows",
        "Held-out rows of each dataset that are evaluated, at most.",
    ),
    ("training.eval_batch", "Rows that are evaluated at a time."),
    (
        "training.checkpoint_every",
        "Evaluations between two checkpoints.",
    ),
    (
        "training.checkpoint_seconds",
        "Seconds of training after which a checkpoint is written at the next evaluation.",
    ),
    (
        "training.concurrent_arms",
        "Arms that are in memory together; 0 for as many as fit.",
    ),
    (
        "training.micro_batch",
        "Rows that go through the model at a time; 0 for as many as fit. Decides no numbers but last bits.",
    ),
    (
        "training.recompute",
        "Whether activations are computed again in the backward pass, for less memory.",
    ),
    (
        "training.generation_bytes",
        "Bytes of rows that a GPU generates at a time, at least one row. Decides no numbers but last bits.",
    ),
    (
        "training.look_rows",
        "Rows of a replay batch that are kept as text.",
    ),
    (
        "training.samples",
        "Prompts of each dataset that the student continues at every evaluation; 0 for none.",
    ),
    (
        "training.generation_batch",
        "Rows that are generated at a time.",
    ),
    (
        "training.grad_clip",
        "Largest norm of a gradient; 0 for none.",
    ),
    ("replay.batch_size", "Rows of a replay batch."),
    (
        "replay.coeff",
        "Weight of the replay loss of arms that name none.",
    ),
    (
        "replay.fractions",
        "Shares of the old tasks in a replay batch; empty for equal ones.",
    ),
    (
        "replay.call_deadline_seconds",
        "Seconds that a call of a strategy may take; then the run ends and names it.",
    ),
    (
        "verdict.margin_accuracy",
        "Share of accuracy above which old data counts as lost. Decides no numbers.",
    ),
    (
        "verdict.margin_ntp",
        "Nats a token above which old data counts as lost. Decides no numbers.",
    ),
    (
        "verdict.margin_error",
        "Error above which old data of a regression counts as lost. Decides no numbers.",
    ),
    ("phases.dataset", "Dataset that the phase trains on."),
    ("phases.steps", "Optimizer steps."),
    ("phases.tokens", "Tokens of new data, in place of steps."),
    (
        "phases.tokens_per_parameter",
        "Tokens of new data for each weight of the model, in place of steps.",
    ),
    ("phases.epochs", "Epochs, in place of steps."),
    (
        "phases.batch_size",
        "Rows of a batch of new data in this phase.",
    ),
    (
        "phases.eval_every",
        "Steps between two evaluations in this phase.",
    ),
    (
        "phases.target_loss",
        "Held-out loss of the new data that ends a phase.",
    ),
    (
        "phases.patience",
        "Evaluations without a lower held-out loss after which a phase ends.",
    ),
    ("phases.seconds", "Seconds of training that end a phase."),
    (
        "phases.joint",
        "Whether the phase trains on all datasets so far together.",
    ),
    (
        "phases.mix",
        "Other datasets whose rows are mixed into the phase, and their shares.",
    ),
    (
        "phases.mix.dataset",
        "Dataset that is mixed into the phase.",
    ),
    ("phases.mix.share", "Its share of the rows."),
];

#[cfg(test)]
mod tests {
    use forgetlab_study::experiment::{Overrides, experiments, resolve, settings};

    use super::*;

    /// A setting without a word on it is changed by guessing.
    #[test]
    fn every_setting_of_every_preset_is_explained() {
        let mut missing: Vec<String> = Vec::new();
        for experiment in experiments() {
            for preset in experiment.presets() {
                let overrides = Overrides {
                    preset: Some(preset.to_owned()),
                    ..Overrides::default()
                };
                let config = resolve(experiment.name, &overrides).unwrap();
                let keys = settings(&config).into_iter().map(|(key, _)| key);
                let own = ["seeds", "device"];
                let keys = keys.filter(|key| !own.contains(&key.as_str()));
                missing.extend(keys.filter(|key| about(key).is_empty()));
            }
        }
        missing.sort();
        missing.dedup();
        assert_eq!(missing, Vec::<String>::new());
        assert_eq!(about("phases.sort.optimizer.lr"), about("optimizer.lr"));
        assert_eq!(
            about("data.questions.csqa.most"),
            about("data.questions.most")
        );
        assert_eq!(about("no.such"), "");
    }
}
