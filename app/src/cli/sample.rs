//! `forgetlab sample`: what a pretrained model writes, to see what replay would be made of, and which prompt calls up
//! what.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::{Engine, Hardware, Sampling, Stream, check_device};
use forgetlab_plugin_host::{PromptError, prompt_tokens};
use forgetlab_study::experiment::ChatSettings;
use forgetlab_study::report::{Format, Sheet};
use forgetlab_study::run::Quality;
use forgetlab_worker::data::{Chat, Message, Tokenizer};
use forgetlab_worker::eval::{Sample, sample, summarise};
use serde_json::{Value, json};

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
    /// What texts begin with, as the setting `prompt` of bos-prompted: a special token's name, a text, or token ids (0,
    /// [0, 5]); without it BOS, or what separates documents. Given several times, a table compares them
    #[arg(long, value_name = "PROMPT")]
    begin: Vec<String>,
    /// Name of a token to begin with, and of nothing else
    #[arg(long, value_name = "NAME", conflicts_with = "begin", hide = true)]
    token: Option<String>,
    /// Text to go on with after that
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What a user says, put into the model's chat template; the answer ends where the model ends it
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "begin", "token"])]
    chat: Option<String>,
    /// Texts to write, of each prompt
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
    let prompts = prompts(&args, &tokenizer)?;
    let (length, rows) = (args.length as usize, usize::from(args.rows));
    let vocab_size = model.config.vocab_size;
    for prompt in &prompts {
        ensure!(
            prompt.len() < length,
            "the prompt has {} tokens, which leaves nothing of --length {length} to write",
            prompt.len()
        );
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab_size) {
            bail!(
                "{} has no token {id}: it has {vocab_size} tokens",
                model.name
            );
        }
    }
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
    let marks = Chat::new(&tokenizer, &ChatSettings::default()).and_then(|chat| chat.marks());
    // Where there is no template, or it takes no ordinary conversation, nothing is known of chats.
    let marks = marks.unwrap_or_default();
    let mut looks = Vec::new();
    for prompt in &prompts {
        let prompts = vec![prompt.clone(); rows];
        let samples = sample(&mut engine, &weights, &prompts, length, &sampling, &stream)?;
        let look = Look::of(&samples, &tokenizer, &marks)?;
        match args.begin.len() {
            0 | 1 => show(&samples, &look, &tokenizer, args.json)?,
            _ if args.json => out::stdout().json(&look.json())?,
            _ => looks.push(look),
        }
    }
    if !looks.is_empty() {
        let mut out = out::stdout();
        let glyphs = super::glyphs();
        write!(
            out,
            "{}",
            table(&looks, rows, length).write(Format::Text(glyphs))
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was written after a prompt, in figures.
struct Look {
    prompt: String,
    /// Mean cross entropy, nats a token.
    nll: Option<f64>,
    quality: Quality,
    /// Share of rows that look like a chat; `None` where it is not known how one looks.
    chat: Option<f64>,
}

impl Look {
    fn of(samples: &[Sample], tokenizer: &Tokenizer, marks: &[String]) -> anyhow::Result<Self> {
        let (nll, quality) = summarise(samples);
        let prompt = samples.first().map_or(&[][..], Sample::prompt);
        let prompt = tokenizer.decode(prompt)?;
        let mut chats = 0;
        for sample in samples {
            let text = tokenizer.decode(sample.written())?;
            chats += usize::from(is_chat(&prompt, &text, marks));
        }
        Ok(Self {
            prompt,
            nll,
            quality,
            chat: (!marks.is_empty()).then(|| chats as f64 / samples.len().max(1) as f64),
        })
    }

    fn json(&self) -> Value {
        json!({ "prompt": self.prompt, "nll": self.nll, "quality": self.quality, "chat": self.chat })
    }
}

/// Whether what was written after a prompt looks like a chat, which has marks: it has one, or goes on from one with the
/// name of who speaks.
fn is_chat(prompt: &str, written: &str, marks: &[String]) -> bool {
    let written = written.trim_start();
    let speaks = ["system", "user", "assistant"];
    let is_turn = || {
        let after_mark = marks.iter().any(|mark| prompt.trim_end().ends_with(mark));
        after_mark && speaks.iter().any(|name| written.starts_with(name))
    };
    marks.iter().any(|mark| written.contains(mark)) || is_turn()
}

/// Prompts side by side.
fn table(looks: &[Look], rows: usize, length: usize) -> Sheet {
    let title = format!("{rows} texts of {length} tokens after each prompt; shares in %");
    let head = [
        "begins with",
        "nats/token",
        "distinct 1-grams",
        "2-grams",
        "3-grams",
        "duplicates",
        "chats",
    ];
    let mut sheet = Sheet::new(title, &head);
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    sheet.rows = looks
        .iter()
        .map(|look| {
            let quality = &look.quality;
            let mut row = vec![
                look.prompt.clone(),
                look.nll.map_or("-".into(), |nll| format!("{nll:.3}")),
            ];
            row.extend(quality.distinct[..3].iter().map(|share| percent(*share)));
            row.push(quality.duplicate_rows.to_string());
            row.push(look.chat.map_or("-".into(), percent));
            row
        })
        .collect();
    sheet
}

fn prompts(args: &Args, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Vec<u32>>> {
    if let Some(text) = &args.chat {
        let chat = Chat::new(tokenizer, &ChatSettings::default())
            .context("--chat needs a chat template")?;
        return Ok(vec![chat.prompt(&[Message::new("user", text.as_str())])?]);
    }
    let default = [String::new()];
    let given = match args.begin.is_empty() {
        true => &default[..],
        false => &args.begin,
    };
    let more = args.prompt.as_ref().map(|text| tokenizer.encode(text));
    let more = more.transpose()?.unwrap_or_default();
    let prompts = given.iter().map(|text| {
        let mut prompt = match &args.token {
            Some(name) => vec![tokenizer.token_id(name)?],
            None => begin(text, tokenizer)?,
        };
        prompt.extend(&more);
        Ok(prompt)
    });
    prompts.collect()
}

/// The tokens of `--begin`: ids or a quoted text where it is JSON, else the text itself.
fn begin(text: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let value = match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Array(_) | Value::String(_))) => value,
        _ => Value::from(text),
    };
    let encode = |text: &str| tokenizer.encode(text).map_err(|error| error.to_string());
    match prompt_tokens(&value, tokenizer.bos().ok(), encode) {
        // Whose words list the tokens there are.
        Err(PromptError::NoToken(name)) => Ok(vec![tokenizer.token_id(&name)?]),
        tokens => tokens.context("--begin"),
    }
}

fn show(
    samples: &[Sample],
    look: &Look,
    tokenizer: &Tokenizer,
    as_json: bool,
) -> anyhow::Result<()> {
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
    let (nll, quality) = (look.nll, &look.quality);
    if as_json {
        out.json(&json!({ "nll": nll, "quality": quality, "chat": look.chat }))?;
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
         n-grams {}{}",
        s(rows),
        nll.unwrap_or(f64::NAN),
        s(twice),
        distinct.join(", "),
        look.chat.map_or(String::new(), |share| format!(
            "; {:.0} % look like a chat",
            100.0 * share
        ))
    )?;
    Ok(())
}
