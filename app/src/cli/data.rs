//! `forgetlab data`: training data for language models, looked at and prepared.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, Subcommand};
use crossterm::style::Stylize;
use forgetlab_engine::pretrained::Hub;
use forgetlab_study::experiment::{
    ChatSettings, NaiveDate, QuestionStyle, Separator, TextRows, TokenSetSettings, TooLong,
};
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_worker::data::{self, Rows, TokenSet, Tokenizer, read_questions};
use forgetlab_worker::eval::{ChoiceRequest, ChoiceTask, Wanted};
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::model::Downloads;
use super::out;
use super::tokens::{FieldArgs, inspect, open_tokenizer, tokenize, train};

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
        /// Show the rows that `prepare` holds out at this share of the documents, instead of all rows
        #[arg(long, value_name = "SHARE", conflicts_with = "questions")]
        held_out: Option<f64>,
        /// Number of rows to show
        #[arg(long, default_value_t = 3)]
        rows: usize,
        /// SOURCE holds multiple-choice questions: show how they are asked
        #[arg(long)]
        questions: bool,
        /// Ask them in a chat or in plain text; without it, in a chat where the model has a template
        #[arg(long, value_name = "chat|plain", requires = "questions", value_parser = word::<QuestionStyle>)]
        style: Option<QuestionStyle>,
    },
    /// Write rows of tokens, ready to train on and to evaluate on
    Prepare {
        #[command(flatten)]
        make: Make,
        /// Share of the documents to hold out, chosen by a hash of what they say
        #[arg(long, value_name = "SHARE", default_value_t = TokenSetSettings::default().held_out)]
        held_out: f64,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Train a tokenizer on texts: byte-level BPE
    TrainTokenizer(train::Args),
    /// Write texts as a flat file of tokens, for pretraining
    Tokenize(tokenize::Args),
    /// Say what a flat file of tokens holds, and check it
    Inspect(inspect::Args),
}

/// What rows are made from, and how.
#[derive(Args)]
struct Make {
    /// Files in txt, jsonl, json, csv or parquet, folders of them, data sets on the hub
    /// (hub:OWNER/NAME:PATH, PATH being how the wanted files begin), or built-in (builtin:verilog.jsonl)
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Model folder, .gguf file, tokenizer.json, hub id, builtin:tiny-llama, or an arm of a run (RUN/ARM)
    #[arg(long, value_name = "MODEL")]
    tokenizer: PathBuf,
    /// The most tokens of a row
    #[arg(long, default_value_t = TokenSetSettings::default().seq_len)]
    seq_len: usize,
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
    #[command(flatten)]
    fields: FieldArgs,
}

/// One word of a setting with few.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let deserializer: StrDeserializer<ValueError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|e| e.to_string())
}

impl Make {
    fn settings(&self, held_out: f64) -> TokenSetSettings {
        TokenSetSettings {
            seq_len: self.seq_len,
            held_out,
            text: if self.windows {
                TextRows::Windows
            } else {
                TextRows::Packed
            },
            separator: self.separator,
            too_long: self.too_long,
            bos: self.bos.clone(),
            chat: self.chat(),
            ignore: self.fields.ignore.clone(),
        }
    }

    fn chat(&self) -> ChatSettings {
        ChatSettings { date: self.date }
    }

    /// Fetches the sources that are on the hub.
    fn fetch(&mut self) -> anyhow::Result<()> {
        data::fetch(&mut self.sources, &Hub::from_env(), &Downloads::default())?;
        Ok(())
    }

    fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        open_tokenizer(&self.tokenizer)
    }

    fn token_set(
        &self,
        tokenizer: &Tokenizer,
        settings: &TokenSetSettings,
    ) -> anyhow::Result<TokenSet> {
        Ok(TokenSet::from_files(
            &self.sources,
            &self.fields.fields(),
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
            held_out,
            rows,
            questions,
            style,
        } => {
            make.fetch()?;
            match questions {
                false => preview(&make, held_out, rows),
                true => preview_questions(&make, rows, style),
            }
        }
        Command::Prepare {
            mut make,
            held_out,
            out,
        } => {
            make.fetch()?;
            prepare(&make, held_out, out)
        }
        Command::TrainTokenizer(args) => train::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Inspect(args) => inspect::run(args),
    }
}

fn prepare(make: &Make, held_out: f64, path: PathBuf) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    let set = make.token_set(&tokenizer, &make.settings(held_out))?;
    set.save(&path)?;
    let mut out = out::stdout();
    show_counts(&mut out, &set)?;
    for source in &set.provenance.sources {
        writeln!(
            out,
            "source     {}, blake3 {}",
            path_in_line(&source.path),
            &source.blake3[..16]
        )?;
    }
    writeln!(
        out,
        "tokenizer  {}, blake3 {}",
        tokenizer.name(),
        &tokenizer.hash()[..16]
    )?;
    writeln!(out, "wrote      {}", path_in_line(&path))?;
    Ok(ExitCode::SUCCESS)
}

fn show_counts(out: &mut impl Write, set: &TokenSet) -> io::Result<()> {
    let counts = &set.counts;
    writeln!(
        out,
        "documents  {}: {} to train on, {} held out; {} say what an earlier one says",
        counts.documents,
        counts.documents - counts.held_out - counts.empty,
        counts.held_out,
        counts.duplicates
    )?;
    if counts.empty > 0 {
        let empty = counts.empty;
        writeln!(out, "empty      {empty} left out, which say nothing")?;
    }
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

fn preview(make: &Make, held_out: Option<f64>, count: usize) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    // Unless asked for, nothing is held out: the first rows are those of the first documents.
    let set = make.token_set(&tokenizer, &make.settings(held_out.unwrap_or(0.0)))?;
    let mut page = Page::new(&tokenizer);
    let (rows, kind): (&Rows, &str) = match held_out {
        Some(_) => (&set.held_out, "held-out row"),
        None => (&set.train, "row"),
    };
    for (i, (tokens, mask)) in rows.iter().take(count).enumerate() {
        let targets = mask.iter().filter(|&&target| target).count();
        writeln!(
            page.out,
            "--- {kind} {} of {}: {} tokens, {targets} of them targets",
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

fn preview_questions(
    make: &Make,
    count: usize,
    style: Option<QuestionStyle>,
) -> anyhow::Result<ExitCode> {
    let tokenizer = make.tokenizer()?;
    let mut questions = Vec::new();
    for source in &make.sources {
        questions.extend(read_questions(source)?);
    }
    let all = questions.len();
    ensure!(count > 0, "--rows 0 shows no question; ask for 1 or more");
    questions.truncate(count);
    let style = style.unwrap_or(match tokenizer.template() {
        Some(_) => QuestionStyle::Chat,
        None => QuestionStyle::Plain,
    });
    let task = ChoiceTask::of(&questions, style, &tokenizer, &make.chat())?;
    let mut page = Page::new(&tokenizer);
    for (i, ChoiceRequest { tokens, wanted }) in task.requests().iter().enumerate() {
        writeln!(page.out, "--- request {}", i + 1)?;
        match wanted {
            Wanted::Span(span) => page.show(tokens, |i| span.contains(&i))?,
            Wanted::Next(candidates) => {
                page.show(tokens, |_| false)?;
                page.show_next(tokens, candidates)?;
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
            one_line(&question.place.to_string()),
            one_line(&question.choices[question.answer])
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tokens on standard output.
struct Page<'a> {
    tokenizer: &'a Tokenizer,
    out: out::Out,
    colour: bool,
}

impl<'a> Page<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            tokenizer,
            out: out::stdout(),
            colour: out::is_terminal() && !no_colour,
        }
    }

    /// Writes tokens. Those that are targets stand in brackets, or in two colours in turn; the
    /// others are plain, or dim.
    fn show(&mut self, tokens: &[u32], target: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        for (range, text) in self.tokenizer.decode_parts(tokens)? {
            let first = range.start;
            // A character whose tokens are of both kinds is a target.
            let target = range.into_iter().any(&target);
            self.write(&text, target, first % 2 == 0)?;
        }
        writeln!(self.out)?;
        Ok(())
    }

    /// Writes each of the tokens that may come next, as it reads there.
    fn show_next(&mut self, tokens: &[u32], candidates: &[u32]) -> anyhow::Result<()> {
        for (i, &candidate) in candidates.iter().enumerate() {
            let with = [tokens, &[candidate]].concat();
            let last = self.tokenizer.decode_parts(&with)?.pop();
            self.write(
                &last.map_or(String::new(), |(_, text)| text),
                true,
                i % 2 == 0,
            )?;
        }
        writeln!(self.out)?;
        Ok(())
    }

    fn write(&mut self, text: &str, target: bool, even: bool) -> io::Result<()> {
        let text = visible(text);
        match (target, self.colour) {
            (true, true) if even => self.out.styled(text.as_str().cyan()),
            (true, true) => self.out.styled(text.as_str().yellow()),
            (false, true) => self.out.styled(text.as_str().dim()),
            (true, false) => write!(self.out, "[{text}]"),
            (false, false) => write!(self.out, "{text}"),
        }
    }
}

/// Text in which line ends and tabs can be seen.
fn visible(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(one_line).collect();
    lines.join("\\n\n")
}
