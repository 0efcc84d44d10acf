//! `forgetlab data tokenize`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use forgetlab_engine::human_bytes;
use forgetlab_engine::pretrained::Hub;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::human_seconds;
use forgetlab_worker::data::{
    self, Sidecar, TokenizeError, TokenizeSettings, Tokenized, sidecar_path,
};

use super::super::model::Downloads;
use super::super::signals::Signals;
use super::super::{exit, out, warn};
use super::reading::Reading;
use super::{FieldArgs, all_threads, open_tokenizer};

/// Arguments of `data tokenize`.
#[derive(clap::Args)]
pub struct Args {
    /// What `data preview` reads: files, folders of them, data sets on the hub; packed by gzip or zstd, or not
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Model folder, .gguf file, tokenizer.json, hub id, builtin:tiny-llama, or an arm of a run (RUN/ARM)
    #[arg(long, value_name = "MODEL")]
    tokenizer: PathBuf,
    /// File to write; what is known of it goes to FILE.json
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Token that ends every document, where it is not the tokenizer's EOS or <|endoftext|>
    #[arg(long, value_name = "TOKEN")]
    eos: Option<String>,
    /// Leave out documents that say what an earlier one says
    #[arg(long)]
    drop_duplicates: bool,
    /// What the licences of the sources ask for, kept in FILE.json
    #[arg(long, value_name = "TEXT", default_value = "")]
    licence: String,
    /// Threads that encode
    #[arg(long, default_value_t = all_threads(), value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    #[command(flatten)]
    fields: FieldArgs,
}

/// Writes a token file.
pub fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let signals = Signals::watch(false)?;
    data::fetch(&mut args.sources, &Hub::from_env(), &Downloads::default())?;
    let tokenizer = open_tokenizer(&args.tokenizer)?;
    let settings = TokenizeSettings {
        fields: args.fields.fields(),
        sources: args.sources,
        eos: args.eos,
        threads: args.threads.into(),
        drop_duplicates: args.drop_duplicates,
        licence: args.licence,
    };
    let mut reading = Reading::new("tokenizing");
    let done = data::tokenize(&settings, &tokenizer, &args.out, &mut |progress| {
        reading.show(progress);
        signals.caught().is_none()
    });
    let seconds = reading.end();
    let (sidecar, counts) = match (done, signals.caught()) {
        (Err(TokenizeError::Stopped), Some(signal)) => {
            let out = args.out.display();
            warn(format_args!(
                "interrupted by {signal}: {out} was not written"
            ));
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
        (done, _) => done?,
    };
    let mut out = out::stdout();
    show(&mut out, &sidecar, &counts, seconds)?;
    writeln!(
        out,
        "wrote      {} and {}",
        path_in_line(&args.out),
        path_in_line(&sidecar_path(&args.out))
    )?;
    if counts.reserved > 0 {
        let times = counts.reserved;
        warn(format_args!(
            "note: the texts spell out reserved tokens (markers or EOS) {times} times; they became those tokens"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    out: &mut impl Write,
    sidecar: &Sidecar,
    counts: &Tokenized,
    seconds: f64,
) -> io::Result<()> {
    writeln!(
        out,
        "documents  {}; left out: {} which say nothing, {} which say what an earlier one says",
        sidecar.documents, counts.empty, counts.duplicates
    )?;
    let (tokens, bytes) = (sidecar.tokens as f64, counts.bytes as f64);
    writeln!(
        out,
        "tokens     {} of {}, {:.3} a byte of text",
        sidecar.tokens,
        sidecar.dtype.name(),
        tokens / bytes
    )?;
    for source in &sidecar.sources {
        let path = path_in_line(&source.path);
        writeln!(out, "source     {path}, blake3 {}", &source.blake3[..16])?;
    }
    writeln!(
        out,
        "took       {}, {}/s of text",
        human_seconds(seconds),
        human_bytes(bytes / seconds)
    )
}
