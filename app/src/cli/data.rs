//! `forgetlab data`: training data for language models, looked at and prepared.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, Subcommand};
use crossterm::style::Stylize;
use forgetlab_engine::pretrained::{self, Hub, is_hub_id};
use forgetlab_study::experiment::{
    ChatSettings, NaiveDate, Separator, TextRows, TokenSetSettings, TooLong,
};
use forgetlab_worker::data::{self, Chat, Fields, Rows, TokenSet, Tokenizer, read_questions};
use forgetlab_worker::eval::{ChoiceRequest, ChoiceTask, Wanted};
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::model::Downloads;

/// Training data.
#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show rows as tokens: targets in brackets, or in colour on a terminal
    Preview {
        #[command(flatten)]
        make: Make,
        /// Number of rows to show
        #[arg(long, default_value_t = 3)]
        rows: usize,
        /// SOURCE holds multiple-choice questions: show how they are asked
        #[arg(long)]
        questions: bool,
    },
    /// Write rows of tokens, ready to train on and to evaluate on
    Prepare {
        #[command(flatten)]
        make: Make,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What rows are made from, and how.
#[derive(Args)]
struct Make {
    /// Files in txt, jsonl, csv or parquet, folders of them, data sets on the hub
    /// (hub:OWNER/NAME:PATH, PATH being how the wanted files begin), or built-in (builtin:verilog.jsonl)
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Model folder, .gguf file, tokenizer.json, hub id or builtin:tiny-llama
    #[arg(long, value_name = "MODEL")]
    tokenizer: PathBuf,
    /// The most tokens of a row
    #[arg(long, default_value_t = TokenSetSettings::default().seq_len)]
    seq_len: usize,
    /// Share of the documents to hold out, chosen by a hash of what they say
    #[arg(long, default_value_t = TokenSetSettings::default().held_out)]
    held_out: f64,
    /// Begin a row with every text, instead of packing texts one after the other
    #[arg(long)]
    windows: bool,
    /// Between packed texts: eos, bos or none
    #[arg(long, default_value = "eos", value_parser = word::<Separator>)]
    separator: Separator,
    /// Conversations longer than a row: drop or truncate
    #[arg(long, default_value = "drop", value_parser = word::<TooLong>)]
    too_long: TooLong,
    /// Token that begins rows of text, where it is not the model's BOS
    #[arg(long, value_name = "TOKEN")]
    bos: Option<String>,
    /// Day that chat templates are told
    #[arg(long, value_name = "YYYY-MM-DD", default_value_t = ChatSettings::default().date)]
    date: NaiveDate,
    /// Field that holds plain text
    #[arg(long, value_name = "FIELD")]
    text: Option<String>,
    /// Field that holds a list of messages
    #[arg(long, value_name = "FIELD")]
    messages: Option<String>,
    /// Field that holds what the user asks
    #[arg(long, value_name = "FIELD")]
    prompt: Option<String>,
    /// Field that holds what the assistant answers
    #[arg(long, value_name = "FIELD")]
    completion: Option<String>,
}

/// One word of a setting with few.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let deserializer: StrDeserializer<ValueError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|e| e.to_string())
}

impl Make {
    fn settings(&self) -> TokenSetSettings {
        TokenSetSettings {
            seq_len: self.seq_len,
            held_out: self.held_out,
            text: if self.windows {
                TextRows::Windows
            } else {
                TextRows::Packed
            },
            separator: self.separator,
            too_long: self.too_long,
            bos: self.bos.clone(),
            chat: ChatSettings { date: self.date },
        }
    }

    /// Fetches the sources that are on the hub.
    fn fetch(&mut self) -> anyhow::Result<()> {
        data::fetch(&mut self.sources, &Hub::from_env(), &Downloads::default())?;
        Ok(())
    }

    fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        let is_file = |id: &str| [".json", ".gguf"].iter().any(|ending| id.ends_with(ending));
        match self.tokenizer.to_str() {
            Some(id) if is_hub_id(id) && !is_file(id) && !self.tokenizer.exists() => {
                let model = pretrained::open(id, &Hub::from_env(), &Downloads::default())?;
                Ok(Tokenizer::of(&model)?)
            }
            _ => Ok(Tokenizer::open(&self.tokenizer)?),
        }
    }

    fn token_set(
        &self,
        tokenizer: &Tokenizer,
        settings: &TokenSetSettings,
    ) -> anyhow::Result<TokenSet> {
        let fields = Fields {
            text: self.text.clone(),
            messages: self.messages.clone(),
            prompt: self.prompt.clone(),
            completion: self.completion.clone(),
        };
        Ok(TokenSet::from_files(
            &self.sources,
            &fields,
            tokenizer,
            settings,
        )?)
    }
}

/// Runs `forgetlab data`.
pub fn run(args: DataArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Preview {
            mut make,
            rows,
            questions,
        } => {
            make.fetch()?;
            match questions {
                false => preview(&make, rows),
                true => preview_questions(&make, rows),
            }
        }
        Command::Prepare { mut make, out } => {
            make.fetch()?;
            prepare(&make, out)
        }
    }
}

fn prepare(make: &Make, path: PathBuf) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    let set = make.token_set(&tokenizer, &make.settings())?;
    set.save(&path)?;
    let mut out = io::stdout().lock();
    show_counts(&mut out, &set)?;
    for source in &set.provenance.sources {
        writeln!(
            out,
            "source     {}, blake3 {}",
            source.path.display(),
            &source.blake3[..16]
        )?;
    }
    writeln!(
        out,
        "tokenizer  {}, blake3 {}",
        tokenizer.name(),
        &tokenizer.hash()[..16]
    )?;
    writeln!(out, "wrote      {}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn show_counts(out: &mut impl Write, set: &TokenSet) -> io::Result<()> {
    let counts = &set.counts;
    writeln!(
        out,
        "documents  {}: {} to train on, {} held out; {} say what an earlier one says",
        counts.documents,
        counts.documents - counts.held_out,
        counts.held_out,
        counts.duplicates
    )?;
    writeln!(
        out,
        "too long   {} dropped, {} truncated at {} tokens",
        counts.dropped, counts.truncated, set.settings.seq_len
    )?;
    for (name, rows) in [("train", &set.train), ("held out", &set.held_out)] {
        writeln!(
            out,
            "{name:<9}  {} rows, {} tokens, {} of them targets",
            rows.len(),
            rows.tokens(),
            rows.targets()
        )?;
    }
    Ok(())
}

fn preview(make: &Make, count: usize) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    // Nothing is held out, so that the first rows are those of the first documents.
    let settings = TokenSetSettings {
        held_out: 0.0,
        ..make.settings()
    };
    let set = make.token_set(&tokenizer, &settings)?;
    let mut page = Page::new(&tokenizer);
    let rows: &Rows = &set.train;
    for (i, (tokens, mask)) in rows.iter().take(count).enumerate() {
        let targets = mask.iter().filter(|&&target| target).count();
        writeln!(
            page.out,
            "--- row {} of {}: {} tokens, {targets} of them targets",
            i + 1,
            rows.len(),
            tokens.len()
        )?;
        page.show(tokens, |i| mask[i])?;
        writeln!(page.out)?;
    }
    show_counts(&mut page.out, &set)?;
    Ok(ExitCode::SUCCESS)
}

fn preview_questions(make: &Make, count: usize) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    let mut questions = Vec::new();
    for source in &make.sources {
        questions.extend(read_questions(source)?);
    }
    let all = questions.len();
    ensure!(count > 0, "--rows 0 shows no question; ask for 1 or more");
    questions.truncate(count);
    let task = match tokenizer.template() {
        Some(_) => {
            let chat = Chat::new(&tokenizer, &ChatSettings { date: make.date })?;
            ChoiceTask::chat(&questions, &tokenizer, &chat)?
        }
        None => ChoiceTask::plain(&questions, &tokenizer, tokenizer.special_tokens().bos)?,
    };
    let mut page = Page::new(&tokenizer);
    for (i, ChoiceRequest { tokens, wanted }) in task.requests().iter().enumerate() {
        writeln!(page.out, "--- request {}", i + 1)?;
        match wanted {
            Wanted::Span(span) => page.show(tokens, |i| span.contains(&i))?,
            Wanted::Next(candidates) => {
                page.show(tokens, |_| false)?;
                page.show(candidates, |_| true)?;
            }
        }
        writeln!(page.out)?;
    }
    writeln!(
        page.out,
        "{all} questions; what is scored is marked, the right answers are:"
    )?;
    for question in &questions {
        writeln!(
            page.out,
            "  {}: {}",
            question.place, question.choices[question.answer]
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tokens on standard output.
struct Page<'a> {
    tokenizer: &'a Tokenizer,
    out: io::StdoutLock<'static>,
    colour: bool,
}

impl<'a> Page<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            tokenizer,
            out: io::stdout().lock(),
            colour: io::stdout().is_terminal() && !no_colour,
        }
    }

    /// Writes tokens. Those that are targets stand in brackets, or in two colours in turn; the
    /// others are plain, or dim.
    fn show(&mut self, tokens: &[u32], target: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        let mut start = 0;
        for end in 1..=tokens.len() {
            let text = self.tokenizer.decode(&tokens[start..end])?;
            let same = end < tokens.len() && target(end) == target(start);
            if same && text.ends_with(char::REPLACEMENT_CHARACTER) {
                // Part of a character; the next token has the rest.
                continue;
            }
            let text = visible(&text);
            match (target(start), self.colour) {
                (true, true) if start % 2 == 0 => write!(self.out, "{}", text.cyan())?,
                (true, true) => write!(self.out, "{}", text.yellow())?,
                (false, true) => write!(self.out, "{}", text.dim())?,
                (true, false) => write!(self.out, "[{text}]")?,
                (false, false) => write!(self.out, "{text}")?,
            }
            start = end;
        }
        writeln!(self.out)?;
        Ok(())
    }
}

/// Text in which line ends can be seen, and which does nothing to the terminal.
fn visible(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n\n"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
