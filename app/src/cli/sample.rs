//! `forgetlab sample`: what a pretrained model writes, to see what replay would be made of.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::{Engine, Hardware, Sampling, Stream, check_device};
use forgetlab_study::experiment::ChatSettings;
use forgetlab_worker::data::{Chat, Message, Tokenizer};
use forgetlab_worker::eval::{Sample, sample, summarise};
use serde_json::json;

use super::bench::Dtype;
use super::model::Downloads;
use super::out;
use super::trained_arm::Model;

/// Arguments of `sample`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder, .gguf file, hub id (ORG/NAME, ORG/NAME@REVISION), builtin:tiny-llama, or an arm of a run
    /// (RUN/ARM)
    model: String,
    /// Text to go on with, after the first token
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What a user says, put into the model's chat template; the answer ends where the model ends it
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "token"])]
    chat: Option<String>,
    /// Special token to begin with, instead of BOS
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
    /// Texts to write
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    rows: u16,
    /// Tokens of a text, prompt included
    #[arg(long, value_name = "T", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1048576))]
    length: u32,
    /// Logits are divided by it; 0 takes the most likely token
    #[arg(long, default_value_t = 1.0, value_parser = temperature)]
    temperature: f32,
    /// Choose among so many most likely tokens
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Choose among the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f32>,
    /// End a text at the model's end tokens, as --chat does
    #[arg(long)]
    stop: bool,
    /// Seed of the random choices
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// CPU threads of the engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Format of the linear layers' inputs
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    dtype: Dtype,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(x) if (0.0..=100.0).contains(&x) => Ok(x),
        _ => Err("give a number from 0 to 100".into()),
    }
}

fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("give a share above 0, at most 1".into()),
    }
}

/// Writes texts, and says how likely and how varied they are.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    check_device(&args.device)?;
    let progress = Downloads::default();
    let given = Model::open_whole(&args.model, &progress)?;
    let model = &given.pretrained;
    let tokenizer = Tokenizer::of(model)?;
    let prompt = prompt(&args, &tokenizer)?;
    let (length, rows) = (args.length as usize, usize::from(args.rows));
    ensure!(
        prompt.len() < length,
        "the prompt has {} tokens, which leaves nothing of --length {length} to write",
        prompt.len()
    );
    let vocab_size = model.config.vocab_size;
    ensure!(
        prompt.iter().all(|&id| (id as usize) < vocab_size),
        "the tokenizer of {} has ids that its model, with {vocab_size} tokens, has not",
        model.name
    );
    let hardware = Hardware {
        device: args.device.clone(),
        threads: args.threads.into(),
        precision: Precision::from(args.dtype),
    };
    let mut engine = Engine::new(model.config, &hardware)?;
    let weights = engine.weights(given.params(&progress)?)?;
    let stops = args.stop || args.chat.is_some();
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        stop_tokens: match stops {
            true => tokenizer.stop_tokens().to_vec(),
            false => Vec::new(),
        },
    };
    let stream = Stream::new(args.seed, "samples");
    let prompts = vec![prompt; rows];
    let samples = sample(&mut engine, &weights, &prompts, length, &sampling, &stream)?;
    show(&samples, &tokenizer, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn prompt(args: &Args, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    if let Some(text) = &args.chat {
        let chat = Chat::new(tokenizer, &ChatSettings::default())
            .context("--chat needs a chat template")?;
        return Ok(chat.prompt(&[Message::new("user", text.as_str())])?);
    }
    let first = match &args.token {
        Some(name) => tokenizer.token_id(name)?,
        None => tokenizer.bos()?,
    };
    let mut prompt = vec![first];
    if let Some(text) = &args.prompt {
        prompt.extend(tokenizer.encode(text)?);
    }
    Ok(prompt)
}

fn show(samples: &[Sample], tokenizer: &Tokenizer, as_json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    for (i, sample) in samples.iter().enumerate() {
        let (prompt, written) = sample.tokens.split_at(sample.prompt_len);
        let [prompt, text] = [tokenizer.decode(prompt)?, tokenizer.decode(written)?];
        if as_json {
            let tokens = &sample.tokens;
            let row =
                json!({ "prompt": prompt, "text": text, "nll": sample.nll, "tokens": tokens });
            out.json(&row)?;
            continue;
        }
        let nll = sample.nll.unwrap_or(f64::NAN);
        writeln!(
            out,
            "── {} ── {} tokens, {nll:.3} nats a token",
            i + 1,
            written.len()
        )?;
        writeln!(out, "{prompt}▸{text}\n")?;
    }
    let (nll, quality) = summarise(samples);
    if as_json {
        out.json(&json!({ "nll": nll, "quality": quality }))?;
        return Ok(());
    }
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let (rows, tokens, twice) = (quality.rows, quality.tokens, quality.duplicate_rows);
    let distinct: Vec<String> = (quality.distinct.iter().enumerate())
        .map(|(n, share)| format!("{}: {:.0} %", n + 1, 100.0 * share))
        .collect();
    writeln!(
        out,
        "{rows} text{}, {tokens} tokens written: {:.3} nats a token, {twice} duplicate{}, distinct \
         n-grams {}",
        s(rows),
        nll.unwrap_or(f64::NAN),
        s(twice),
        distinct.join(", ")
    )?;
    Ok(())
}
