//! `forgetlab model`: what a pretrained model is, and a model for others to load.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use forgetlab_engine::memory::available_memory;
use forgetlab_engine::model::{Layout, Mlp, ModelConfig, Norms, QkGains};
use forgetlab_engine::pretrained::{
    self, Export, Family, Pretrained, PretrainedError, Source, Storage, builtin,
};
use forgetlab_engine::{Asked, Batching, Demand, PromptLen, human_bytes};
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_worker::data::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::trained_arm::{self, Model};
use super::{out, warn};

/// Pretrained models.
#[derive(clap::Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what a model is, and the memory it takes to train and to sample here
    Inspect(Inspect),
    /// Write a model as a Hugging Face folder, which transformers loads
    Export(ExportArgs),
}

#[derive(clap::Args)]
struct Inspect {
    /// Folder, .gguf file, hub id (ORG/NAME, ORG/NAME@REVISION), builtin:tiny-llama, or an arm of a run
    /// (RUN/ARM)
    model: String,
    /// Rows of a batch, for the prediction of memory
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536))]
    rows: u32,
    /// Tokens of a row
    #[arg(long, value_name = "T", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1048576))]
    seq_len: u32,
    /// CPU threads of the engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
}

#[derive(clap::Args)]
struct ExportArgs {
    /// An arm of a run (RUN/ARM), or a model: folder, .gguf file, hub id, builtin:tiny-llama
    #[arg(value_name = "RUN/ARM|MODEL")]
    model: String,
    /// Folder to write, which must not hold anything
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How numbers are stored
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    dtype: Dtype,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

/// Runs `forgetlab model`.
pub fn run(args: ModelArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Inspect(args) => inspect(&args)?,
        Command::Export(args) => export(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(args: &Inspect) -> anyhow::Result<()> {
    let given = Model::open(&args.model, &Downloads::default())?;
    let model = &given.pretrained;
    let storage = model.storage()?;
    let c = &model.config;
    let mut out = out::stdout();
    writeln!(out, "{}", one_line(&model.name))?;
    let mut line = |what: &str, text: String| writeln!(out, "  {what:14} {}", one_line(&text));

    if let Some(arm) = &given.arm {
        line("trained as", arm.in_words()?)?;
    }
    line("source", source_in_words(&model.source))?;
    line("weights", weights_in_words(&model.source, &storage))?;
    let architecture = model.family.map_or(
        "the paper's small model (QK-norm, GELU)",
        Family::model_type,
    );
    line("architecture", architecture.into())?;
    if let Some(parts) = parts_in_words(c) {
        line("unlike Llama", parts)?;
    }
    let sizes = format!(
        "width {}, {} blocks, {} query heads on {} key/value heads of {}, MLP {}",
        c.d_model, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.d_ff
    );
    line("sizes", sizes)?;
    let head = match c.tied_embeddings {
        true => "output embedding tied to the input's",
        false => "output embedding of its own",
    };
    line(
        "parameters",
        format!("{}, {head}", grouped(Layout::new(*c).len)),
    )?;
    let scaling = c.rope.scaling.map_or(String::new(), |s| {
        format!(
            ", llama3 scaling by {} beyond {}",
            s.factor, s.original_max_positions
        )
    });
    let longest = model
        .max_positions
        .map_or(String::new(), |n| format!(", up to {n} positions"));
    line("rope", format!("base {}{scaling}{longest}", c.rope.base))?;
    let gains = if c.norm_gains { "with" } else { "without" };
    line("norm", format!("RMSNorm {gains} gains, eps {}", c.norm_eps))?;
    line("vocabulary", format!("{} tokens", c.vocab_size))?;
    if let Ok(tokenizer) = Tokenizer::of(model)
        && let Err(error) = tokenizer.fits()
    {
        line("tokenizer", error.to_string())?;
    }
    line("special tokens", special_tokens(model))?;
    line(
        "chat template",
        if has_chat_template(model) {
            "yes"
        } else {
            "no"
        }
        .into(),
    )?;

    let (rows, seq_len) = (args.rows as usize, args.seq_len as usize);
    let demand =
        |rows_trained: Option<usize>| demand(c, args.threads.into(), rows_trained, rows, seq_len);
    let what = format!(
        "{rows} rows of {seq_len} tokens, f32 on the CPU, {} threads",
        args.threads
    );
    writeln!(out, "memory predicted for {what}")?;
    for (work, bytes) in [
        ("to train against a frozen reference", demand(Some(rows))),
        ("to sample", demand(None)),
    ] {
        writeln!(out, "  {work:36} {}", human_bytes(bytes))?;
    }
    if let Some(bytes) = available_memory() {
        writeln!(out, "  {:36} {}", "available now", human_bytes(bytes))?;
    }
    Ok(())
}

/// What the model has that Llama has not.
fn parts_in_words(c: &ModelConfig) -> Option<String> {
    let parts = &c.parts;
    let mut words: Vec<String> = Vec::new();
    let mut say = |is_there: bool, what: &str| {
        if is_there {
            words.push(what.into());
        }
    };
    say(parts.qkv_bias, "biases of q, k and v");
    match parts.qk_gains {
        QkGains::None => {}
        QkGains::Head => say(true, "norms of q and k by head"),
        QkGains::Projection => say(true, "norms of all q and all k together"),
    }
    match parts.norms {
        Norms::Before => {}
        Norms::After => say(true, "norms after attention and MLP"),
        Norms::Around => say(true, "norms around attention and MLP"),
    }
    say(c.mlp == Mlp::GeGlu, "GeGLU");
    for (what, factor) in [
        ("embeddings", parts.embedding_scale),
        ("residuals", parts.residual_scale),
        ("logits", parts.logits_scale),
        ("attention", parts.attention_scale.unwrap_or(1.0)),
    ] {
        say(factor != 1.0, &format!("{what} times {factor}"));
    }
    let unrotated = parts.unrotated.count();
    say(unrotated > 0, &format!("{unrotated} blocks without RoPE"));
    if let Some(window) = &parts.window {
        let rope = window.rope.map_or(String::new(), |rope| {
            format!(", RoPE of base {} there", rope.base)
        });
        let (blocks, len) = (window.blocks.count(), window.len);
        say(
            true,
            &format!("{blocks} blocks attend to {len} positions{rope}"),
        );
    }
    (!words.is_empty()).then(|| words.join("; "))
}

fn source_in_words(source: &Source) -> String {
    match source {
        Source::Folder(_) => "Hugging Face folder".into(),
        Source::Gguf(_) => "GGUF file".into(),
        Source::Builtin => "built in".into(),
        Source::Reference(_) => "folder of the paper's reference implementation".into(),
        Source::Hub(snapshot) => {
            let (revision, commit) = (&snapshot.revision, &snapshot.commit);
            format!("hub, revision {revision}, commit {commit}")
        }
    }
}

fn weights_in_words(source: &Source, storage: &Storage) -> String {
    let dtypes = storage.dtypes.iter();
    let dtypes: Vec<String> = dtypes
        .map(|(dtype, n)| format!("{n} tensors {dtype}"))
        .collect();
    let size = human_bytes(storage.bytes as f64);
    match (source, dtypes.is_empty()) {
        (Source::Builtin, _) => "random, drawn when loaded, the same every time".into(),
        (_, true) => format!("{size} on disk, not fetched yet"),
        (_, false) => format!("{size} on disk, {}", dtypes.join(", ")),
    }
}

/// Bytes of training a student on so many rows, or of sampling rows alone.
fn demand(
    model: &ModelConfig,
    threads: usize,
    trained: Option<usize>,
    rows: usize,
    seq_len: usize,
) -> f64 {
    let training = trained.is_some();
    let demand = Demand {
        model: *model,
        gpu: None,
        threads,
        batching: Batching::default(),
        seq_len,
        // A student and its reference; who only samples has one copy of the weights, added below.
        learners: usize::from(training),
        shared_references: None,
        lora: None,
        batches: trained.into_iter().collect(),
        replaced: 0,
        kl: Vec::new(),
        scored: trained.unwrap_or(0),
        asked: Asked::default(),
        reference: training,
        generated: if training { 0 } else { rows },
        prompt: PromptLen::UpTo(1),
        buffers: 0,
        held_out: 0,
        program: 0.0,
    };
    let weights = 4 * Layout::new(*model).len;
    demand.memory().total() + if training { 0.0 } else { weights as f64 }
}

/// The most ends of a text that are listed.
const MOST_ENDS: usize = 16;

/// Ids with their texts, where these are known; all at which a text ends.
fn special_tokens(model: &Pretrained) -> String {
    let tokenizer = Tokenizer::of(model).ok();
    let text = |id: u32| match &model.source {
        Source::Gguf(gguf) => gguf.token(id).map(str::to_owned),
        _ => tokenizer.as_ref()?.token_name(id),
    };
    let describe = |name: &str, ids: &[u32]| {
        let ids = ids.iter().map(|&id| match text(id) {
            Some(text) => format!("{id} {text}"),
            None => id.to_string(),
        });
        let mut ids: Vec<String> = ids.collect();
        if ids.len() > MOST_ENDS {
            let more = ids.split_off(MOST_ENDS).len();
            ids.push(format!("{more} more"));
        }
        match &ids[..] {
            [] => format!("{name} none"),
            ids => format!("{name} {}", ids.join(" and ")),
        }
    };
    let ids = &model.ids;
    let begin = tokenizer
        .as_ref()
        .and_then(|tokenizer| tokenizer.bos().ok());
    let mut ends = ids.eos.clone();
    let stops = tokenizer.as_ref().map_or(&[][..], Tokenizer::stop_tokens);
    ends.extend(stops.iter().filter(|id| !ids.eos.contains(id)));
    let mut words = vec![
        describe("bos", ids.bos.as_slice()),
        describe("eos", &ends),
        describe("pad", ids.pad.as_slice()),
    ];
    if begin != ids.bos && tokenizer.is_some() {
        words.push(describe("texts begin with", begin.as_slice()));
    }
    words.join(", ")
}

fn tokenizer_config(model: &Pretrained) -> Option<Value> {
    let text = builtin::read(&model.folder()?.join("tokenizer_config.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

fn has_chat_template(model: &Pretrained) -> bool {
    if let Source::Gguf(gguf) = &model.source {
        return gguf.text("tokenizer.chat_template").is_some();
    }
    let files = model.tokenizer_files();
    files
        .iter()
        .any(|file| file.ends_with("chat_template.jinja"))
        || tokenizer_config(model).is_some_and(|config| !config["chat_template"].is_null())
}

/// `134 515 008`
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let progress = Downloads::default();
    if trained_arm::find(&args.model)?.is_some_and(|arm| arm.began_as().is_none()) {
        return Err(PretrainedError::NoFamily)
            .with_context(|| format!("cannot export {}", args.model));
    }
    let given = Model::open_whole(&args.model, &progress)?;
    let params = given.params(&progress)?;
    let model = given.pretrained;
    // Other kinds of models have the file, and it is copied.
    let tokenizer = match model.source {
        Source::Gguf(_) => Some(Tokenizer::of(&model).and_then(|tokenizer| tokenizer.to_json())),
        _ => None,
    };
    let what = Export {
        tokenizer_json: tokenizer.as_ref().and_then(|json| json.as_deref().ok()),
        dtype: match args.dtype {
            Dtype::F32 => pretrained::Dtype::F32,
            Dtype::Bf16 => pretrained::Dtype::Bf16,
        },
        ..Export::of(Some(&model))
    };
    let exported = pretrained::export(&params, &what, &args.to)?;
    let mut out = out::stdout();
    let (dir, size) = (path_in_line(&args.to), human_bytes(exported.bytes as f64));
    writeln!(out, "wrote {dir}, {size}: {}", exported.files.join(", "))?;
    if !exported.files.iter().any(|file| file == "tokenizer.json") {
        let why = match tokenizer {
            Some(Err(error)) => error.to_string(),
            _ => format!("{} has none to give on", model.name),
        };
        writeln!(out, "no tokenizer.json: {}", one_line(&why))?;
    }
    Ok(())
}

/// A bar a file on a terminal, a line otherwise.
#[derive(Default)]
pub(super) struct Downloads {
    bar: RefCell<Option<ProgressBar>>,
}

impl pretrained::DownloadProgress for Downloads {
    fn started(&self, file: &str, bytes: u64) {
        let mut bar = self.bar.borrow_mut();
        if !out::errors_on_terminal() {
            if bar.is_none() {
                warn(format_args!(
                    "fetching {file}, {}",
                    human_bytes(bytes as f64)
                ));
                *bar = Some(ProgressBar::hidden());
            }
            return;
        }
        let bar = bar.get_or_insert_with(|| ProgressBar::with_draw_target(None, out::bars()));
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        out::set_message(bar, file);
        bar.set_length(bytes);
        bar.set_position(0);
    }

    fn advanced(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.inc(bytes);
        }
    }

    fn finished(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
