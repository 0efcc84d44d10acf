//! A tokenizer for texts of one's own: byte-level BPE, as GPT-2 has it.
//!
//! Ids 0, 1, … are dataset markers, the next is EOS, then come the 256 bytes and the merges. No text is without
//! tokens, and none becomes a reserved one unless it spells it out.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use forgetlab_study::run::write_atomically;
use rayon::ThreadPoolBuilder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::source::{self, Meter, Part, cut};
use super::tokenize::{EOS, Progress, TokenizeError, marker};
use super::{Content, Fields, SourceError, TokenFileError, TokenizerError};

/// Bytes of a text that are split into words at a time, about, and at most.
const PIECE: usize = 1 << 11;
const MOST_TEXT: usize = 1 << 16;
/// Words that occur less often teach no merges.
const LEAST_FREQUENCY: u64 = 2;

/// What a tokenizer is trained on, and how.
#[derive(Clone, Debug, Default)]
pub struct TrainTokenizer {
    /// Files, folders and data sets.
    pub sources: Vec<PathBuf>,
    /// Which fields of records hold a document.
    pub fields: Fields,
    /// Tokens of the vocabulary, reserved ones included.
    pub vocab_size: usize,
    /// Number of dataset markers.
    pub markers: usize,
    /// Threads that count words.
    pub threads: usize,
}

/// What was read, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// Tokens of the vocabulary: fewer than were asked for where the text is too short for more.
    pub vocab_size: usize,
    /// Documents that were read.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
}

/// Trains a tokenizer on the documents of sources and writes it as a `tokenizer.json`. The same text gives the same
/// file. `progress` is told now and then how much was read.
///
/// # Errors
/// [`TokenizeError`] names the file and the line, or what the vocabulary needs at least.
pub fn train_tokenizer(
    settings: &TrainTokenizer,
    out: &Path,
    progress: &mut (dyn FnMut(&Progress) + Send),
) -> Result<TrainedTokenizer, TokenizeError> {
    let reserved: Vec<String> = (0..settings.markers)
        .map(marker)
        .chain([EOS.into()])
        .collect();
    let least = reserved.len() + 256;
    if settings.vocab_size < least {
        let what = "a vocabulary holds every byte, the dataset markers, and EOS";
        return Err(TokenizeError::File(TokenFileError::Setting {
            name: "vocab",
            value: format!("{} (at least {least})", settings.vocab_size),
            what,
        }));
    }
    let reserved = reserved
        .into_iter()
        .map(|name| AddedToken::from(name, true));
    let trainer = BpeTrainer::builder()
        .vocab_size(settings.vocab_size)
        .min_frequency(LEAST_FREQUENCY)
        .special_tokens(reserved.collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let mut tokenizer = Inner::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(ByteLevel::default()));
    let told = feed(settings, &mut tokenizer, trainer, progress)?;
    let failed = |problem: tokenizers::Error| {
        TokenizeError::Tokenizer(TokenizerError::Failed {
            name: out.display().to_string(),
            problem: problem.to_string(),
        })
    };
    let json = tokenizer.to_string(true).map_err(failed)?;
    write_atomically(out, |file| file.write_all(json.as_bytes())).map_err(TokenFileError::Write)?;
    Ok(TrainedTokenizer {
        vocab_size: tokenizer.get_vocab_size(true),
        documents: told.documents,
        text_bytes: told.text_bytes,
    })
}

/// Reads all sources on a thread of their own while others count their words, then learns the merges.
fn feed(
    settings: &TrainTokenizer,
    tokenizer: &mut Inner,
    trainer: BpeTrainer,
    progress: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Progress, TokenizeError> {
    let mut told = Progress::default();
    for path in &settings.sources {
        told.bytes += source::bytes(path)?;
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(settings.threads.max(1))
        .build()
        .map_err(std::io::Error::other)?;
    let meter = &Meter::default();
    let (to, texts) = sync_channel::<(String, bool)>(64);
    let trained = thread::scope(|scope| {
        let read = move || -> Result<(), SourceError> {
            let give =
                |text: String, is_last| to.send((text, is_last)).map_err(|_| SourceError::Stopped);
            for path in &settings.sources {
                source::stream(path, &settings.fields, meter, |part| pieces(part, &give))?;
            }
            Ok(())
        };
        let reader = thread::Builder::new().spawn_scoped(scope, read)?;
        let texts = texts.into_iter().map(|(text, is_last)| {
            told.documents += u64::from(is_last);
            told.text_bytes += text.len() as u64;
            told.bytes_read = meter.bytes().min(told.bytes);
            progress(&told);
            text
        });
        let mut trainer = TrainerWrapper::BpeTrainer(trainer);
        let trained = pool.install(|| tokenizer.train(&mut trainer, texts).map(drop));
        match reader.join() {
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        trained.map_err(|problem| {
            TokenizeError::Tokenizer(TokenizerError::Failed {
                name: "the new tokenizer".into(),
                problem: problem.to_string(),
            })
        })
    });
    trained.map(|()| told)
}

/// Gives on a document in pieces that are cut between words, and whether each is the last.
fn pieces(
    part: Part,
    give: &impl Fn(String, bool) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let text = match part.document.content {
        Content::Text(text) => text,
        Content::Chat(conversation) => conversation.parts().join("\n"),
    };
    let mut rest = &*text;
    loop {
        let (piece, more) = rest.split_at(cut(rest, PIECE, MOST_TEXT));
        give(piece.into(), part.is_last && more.is_empty())?;
        if more.is_empty() {
            return Ok(());
        }
        rest = more;
    }
}
