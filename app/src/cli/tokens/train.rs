//! `forgetlab data train-tokenizer`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use forgetlab_engine::human_bytes;
use forgetlab_engine::pretrained::Hub;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::human_seconds;
use forgetlab_worker::data::{self, TrainTokenizer, train_tokenizer};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::super::{model::Downloads, out, signals};
use super::reading::Reading;
use super::{FieldArgs, all_threads};

/// Arguments of `data train-tokenizer`.
#[derive(clap::Args)]
pub struct Args {
    /// What `data preview` reads: files, folders of them, data sets on the hub; packed by gzip or zstd, or not
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Tokens of the vocabulary, with every byte and the reserved ones among them
    #[arg(long, value_name = "V", default_value_t = 4096)]
    vocab: usize,
    /// Reserved tokens that name datasets: ids 0, 1, …, named <|data0|>, <|data1|>, …; the next is EOS
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=1000))]
    markers: u16,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Threads
    #[arg(long, default_value_t = all_threads(), value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    #[command(flatten)]
    fields: FieldArgs,
}

/// Trains a tokenizer.
pub fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    data::fetch(&mut args.sources, &Hub::from_env(), &Downloads::default())?;
    // Learning merges cannot be interrupted, and nothing is written before its end.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signals::ends_at_once(signal)?;
    }
    let settings = TrainTokenizer {
        fields: args.fields.fields(),
        sources: args.sources,
        vocab_size: args.vocab,
        markers: args.markers.into(),
        threads: args.threads.into(),
    };
    let mut reading = Reading::new("reading");
    let trained = train_tokenizer(&settings, &args.out, &mut |progress| reading.show(progress));
    let seconds = reading.end();
    let trained = trained?;
    let mut out = out::stdout();
    write!(out, "vocabulary {} tokens", trained.vocab_size)?;
    match trained.vocab_size < args.vocab {
        true => writeln!(
            out,
            ": the text has no more to merge, {} were asked for",
            args.vocab
        )?,
        false => writeln!(out)?,
    }
    writeln!(out, "reserved   {} markers, then EOS", args.markers)?;
    writeln!(
        out,
        "text       {} documents, {}, {}",
        trained.documents,
        human_bytes(trained.text_bytes as f64),
        human_seconds(seconds)
    )?;
    writeln!(out, "wrote      {}", path_in_line(&args.out))?;
    Ok(ExitCode::SUCCESS)
}
