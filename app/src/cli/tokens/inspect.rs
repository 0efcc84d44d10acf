//! `forgetlab data inspect`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forgetlab_engine::human_bytes;
use forgetlab_study::printed::{one_line, path_in_line};
use forgetlab_worker::data::{Progress, Scan, TokenFile, Tokenizer};

use super::super::{WhileRead, out, warn};
use super::open_tokenizer;
use super::reading::Reading;

/// Most frequent tokens that are shown.
const MOST_FREQUENT: usize = 10;

/// Arguments of `data inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// File of tokens
    file: PathBuf,
    /// Size of the vocabulary of a flat file of 16-bit tokens that has no FILE.json
    #[arg(long, value_name = "V")]
    vocab: Option<usize>,
    /// Tokenizer to show tokens with, where it is not where FILE.json says
    #[arg(long, value_name = "MODEL")]
    tokenizer: Option<PathBuf>,
    /// Number of rows to show
    #[arg(long, default_value_t = 2)]
    rows: u64,
    /// Tokens of a row
    #[arg(long, value_name = "T", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    seq_len: u32,
}

/// Says what a token file holds, and whether that is what it should be.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = match args.vocab {
        Some(vocab_size) => TokenFile::open_bare(&args.file, vocab_size)?,
        None => TokenFile::open(&args.file)?,
    };
    // Whoever reads the first lines alone still learns from the exit code whether the file is whole.
    let mut out = WhileRead(out::stdout());
    let bytes = file.tokens() * file.dtype().width() as u64;
    writeln!(
        out,
        "tokens     {} of {}, {}",
        file.tokens(),
        file.dtype().name(),
        human_bytes(bytes as f64)
    )?;
    show_sidecar(&mut out, &file)?;
    let tokenizer = tokenizer(&args, &file)?;
    let mut reading = Reading::new("reading");
    let scan = file.scan(&mut |bytes_read| {
        reading.show(&Progress {
            bytes_read,
            bytes,
            ..Progress::default()
        });
    });
    reading.end();
    let scan = scan?;
    file.expect(&scan.blake3)?;
    let told = match file.sidecar() {
        Some(_) => ", as its sidecar says",
        None => "",
    };
    writeln!(out, "content    blake3 {}{told}", &scan.blake3[..16])?;
    show_counts(&mut out, &file, &scan, tokenizer.as_ref())?;
    for row in 0..args.rows {
        let start = row * u64::from(args.seq_len);
        let count = u64::from(args.seq_len).min(file.tokens().saturating_sub(start));
        if count == 0 {
            break;
        }
        let tokens = file.read(start, count as usize)?;
        writeln!(out, "--- tokens {start} to {}", start + count - 1)?;
        match &tokenizer {
            Some(tokenizer) => writeln!(out, "{}", one_line(&tokenizer.decode(&tokens)?))?,
            None => writeln!(out, "{tokens:?}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_sidecar(out: &mut impl Write, file: &TokenFile) -> io::Result<()> {
    let Some(sidecar) = file.sidecar() else {
        return writeln!(out, "sidecar    none");
    };
    let about = &sidecar.about;
    writeln!(
        out,
        "documents  {}, {:.0} tokens each",
        sidecar.documents,
        sidecar.tokens as f64 / sidecar.documents.max(1) as f64
    )?;
    let markers = about.reserved.markers.iter().map(u32::to_string);
    let markers: Vec<String> = markers.collect();
    let eos = about
        .reserved
        .eos
        .map_or("none".into(), |id| id.to_string());
    let markers = match markers.is_empty() {
        true => "none".into(),
        false => markers.join(", "),
    };
    writeln!(out, "reserved   markers {markers}; EOS {eos}")?;
    let hash = about.tokenizer_hash.get(..16).unwrap_or_default();
    let tokenizer = one_line(&about.tokenizer);
    writeln!(out, "tokenizer  {tokenizer}, blake3 {hash}")?;
    for source in &sidecar.sources {
        let hash = source.blake3.get(..16).unwrap_or_default();
        writeln!(
            out,
            "source     {}, blake3 {hash}",
            path_in_line(&source.path)
        )?;
    }
    match about.licence.is_empty() {
        true => Ok(()),
        false => writeln!(out, "licence    {}", one_line(&about.licence)),
    }
}

/// The tokenizer that was asked for, or the one that the sidecar names, if it is there still.
fn tokenizer(args: &Args, file: &TokenFile) -> anyhow::Result<Option<Tokenizer>> {
    let about = file.sidecar().map(|sidecar| &sidecar.about);
    let is_other =
        |tokenizer: &Tokenizer| about.is_some_and(|about| about.tokenizer_hash != tokenizer.hash());
    if let Some(path) = &args.tokenizer {
        let tokenizer = open_tokenizer(path)?;
        if is_other(&tokenizer) {
            anyhow::bail!(
                "{} is not the tokenizer that {} was made with",
                path.display(),
                args.file.display()
            );
        }
        return Ok(Some(tokenizer));
    }
    let Some(about) = about else {
        return Ok(None);
    };
    let found = open_tokenizer(Path::new(&about.tokenizer)).ok();
    let found = found.filter(|tokenizer| !is_other(tokenizer));
    if found.is_none() {
        warn("note: the tokenizer is not where it was; name it with --tokenizer to see texts");
    }
    Ok(found)
}

/// Which tokens occur, and how evenly.
fn show_counts(
    out: &mut impl Write,
    file: &TokenFile,
    scan: &Scan,
    tokenizer: Option<&Tokenizer>,
) -> anyhow::Result<()> {
    let all = file.tokens() as f64;
    let occur = scan.counts.iter().filter(|&&count| count > 0);
    let shares = occur.clone().map(|&count| count as f64 / all);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    writeln!(
        out,
        "vocabulary {} tokens, of which {} occur",
        file.vocab_size(),
        occur.count()
    )?;
    writeln!(
        out,
        "entropy    {entropy:.3} nats a token: the loss of a model that knows frequencies alone"
    )?;
    let mut frequent: Vec<usize> = (0..scan.counts.len()).collect();
    frequent.sort_by_key(|&id| std::cmp::Reverse(scan.counts[id]));
    let frequent = frequent.into_iter().take(MOST_FREQUENT);
    let frequent = frequent.filter(|&id| scan.counts[id] > 0).map(|id| {
        let name = match tokenizer.map(|tokenizer| tokenizer.decode(&[id as u32])) {
            Some(Ok(text)) => format!("{:?}", one_line(&text)),
            _ => id.to_string(),
        };
        format!("{name} {:.1}%", 100.0 * scan.counts[id] as f64 / all)
    });
    let frequent: Vec<String> = frequent.collect();
    writeln!(out, "frequent   {}", frequent.join("  "))?;
    Ok(())
}
