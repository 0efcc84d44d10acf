//! Rows from documents.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use forgetlab_engine::pretrained::builtin;
use forgetlab_study::experiment::{Separator, TextRows, TokenSetSettings, TooLong};
use rayon::prelude::*;

use crate::data::source::files;
use crate::data::{Chat, Content, Document, Example, Fields, SourceError, Tokenizer, read};

use super::{Counts, Provenance, Rows, Source, TokenSet, TokenSetError};

impl TokenSet {
    /// Reads files or folders and makes rows of their documents.
    ///
    /// # Errors
    /// [`TokenSetError`] names the file and the line, or the setting.
    pub fn from_files(
        paths: &[PathBuf],
        fields: &Fields,
        tokenizer: &Tokenizer,
        settings: &TokenSetSettings,
    ) -> Result<Self, TokenSetError> {
        let mut documents = Vec::new();
        let mut sources = Vec::new();
        for path in paths {
            documents.extend(read(path, fields)?);
            sources.push(Source {
                path: path.clone(),
                blake3: hash(path)?,
            });
        }
        let mut set = Self::build(&documents, tokenizer, settings)?;
        set.provenance.sources = sources;
        Ok(set)
    }

    /// Makes rows of documents.
    ///
    /// # Errors
    /// Where a document cannot be encoded, or nothing is left to train or evaluate on.
    pub fn build(
        documents: &[Document],
        tokenizer: &Tokenizer,
        settings: &TokenSetSettings,
    ) -> Result<Self, TokenSetError> {
        check(settings)?;
        let any = |wanted: fn(&Content) -> bool| documents.iter().any(|d| wanted(&d.content));
        let marks = match any(|c| matches!(c, Content::Text(_))) {
            true => Some(Marks::new(tokenizer, settings)?),
            false => None,
        };
        let chat = match any(|c| matches!(c, Content::Chat(_))) {
            true => Some(Chat::new(tokenizer, &settings.chat).map_err(TokenSetError::Template)?),
            false => None,
        };
        let encoded: Vec<Result<Example, _>> = documents
            .par_iter()
            .map(|document| encode(document, tokenizer, chat.as_ref()))
            .collect();
        // The first error in the order of the documents, whichever thread was first.
        let encoded: Vec<Example> = encoded.into_iter().collect::<Result<_, _>>()?;

        let mut counts = Counts::default();
        let mut seen = HashSet::new();
        let mut sides = [Side::default(), Side::default()];
        for (document, example) in documents.iter().zip(encoded) {
            let hash = hash_of(&document.content);
            let held_out = is_held_out(&hash, settings.held_out);
            counts.documents += 1;
            counts.held_out += u64::from(held_out);
            counts.duplicates += u64::from(!seen.insert(hash));
            let side = &mut sides[usize::from(held_out)];
            match (&document.content, marks) {
                (Content::Text(_), Some(marks)) => side.text(&example.tokens, marks, settings),
                _ => side.chat(example, settings, &mut counts),
            }
        }
        let [train, held_out] = sides.map(|side| side.finish(marks));
        let nothing = |what, advice| TokenSetError::Nothing {
            what,
            counts,
            seq_len: settings.seq_len,
            advice,
        };
        if train.is_empty() {
            return Err(nothing(
                "train on",
                "choose a longer seq_len or a smaller held_out",
            ));
        }
        if held_out.is_empty() && settings.held_out > 0.0 {
            let advice = "choose a larger held_out, or 0 where another file is evaluated on";
            return Err(nothing("evaluate on", advice));
        }
        Ok(Self {
            train,
            held_out,
            settings: settings.clone(),
            counts,
            provenance: Provenance {
                tokenizer: tokenizer.name().into(),
                tokenizer_hash: tokenizer.hash().into(),
                vocab_size: tokenizer.vocab_size(),
                sources: Vec::new(),
            },
        })
    }
}

fn check(settings: &TokenSetSettings) -> Result<(), TokenSetError> {
    let bad = |name, value: String, what| Err(TokenSetError::Setting { name, value, what });
    if settings.seq_len < 2 {
        let what = "a row needs a token and another to predict from it";
        return bad("seq_len", settings.seq_len.to_string(), what);
    }
    if !(0.0..1.0).contains(&settings.held_out) {
        return bad(
            "held_out",
            settings.held_out.to_string(),
            "it is a share from 0 to below 1",
        );
    }
    Ok(())
}

/// Tokens that rows of text begin with and documents are separated by.
#[derive(Clone, Copy)]
struct Marks {
    bos: u32,
    separator: Option<u32>,
    seq_len: usize,
}

impl Marks {
    fn new(tokenizer: &Tokenizer, settings: &TokenSetSettings) -> Result<Self, TokenSetError> {
        let bos = match &settings.bos {
            Some(name) => tokenizer.token_id(name)?,
            None => tokenizer.bos()?,
        };
        let eos = tokenizer.special_tokens().eos;
        let separator = match settings.separator {
            Separator::Eos => Some(eos.ok_or_else(|| TokenSetError::NoEos {
                name: tokenizer.name().into(),
            })?),
            Separator::Bos => Some(bos),
            Separator::None => None,
        };
        Ok(Self {
            bos,
            separator,
            seq_len: settings.seq_len,
        })
    }
}

/// Rows of one side of the split, and the packed text that is not yet a row.
#[derive(Default)]
struct Side {
    rows: Rows,
    pending: Vec<u32>,
}

impl Side {
    fn text(&mut self, tokens: &[u32], marks: Marks, settings: &TokenSetSettings) {
        match settings.text {
            TextRows::Packed => {
                if settings.separator == Separator::Bos && !self.pending.is_empty() {
                    self.pending.push(marks.bos);
                }
                self.pending.extend_from_slice(tokens);
                if settings.separator == Separator::Eos {
                    self.pending.extend(marks.separator);
                }
                let whole = self.pending.len() / (marks.seq_len - 1) * (marks.seq_len - 1);
                let rest = self.pending.split_off(whole);
                let full = std::mem::replace(&mut self.pending, rest);
                self.cut(&full, marks);
            }
            TextRows::Windows => {
                let mut tokens = tokens.to_vec();
                if settings.separator == Separator::Eos {
                    tokens.extend(marks.separator);
                }
                self.cut(&tokens, marks);
            }
        }
    }

    /// Rows of BOS and the next `seq_len - 1` tokens.
    fn cut(&mut self, tokens: &[u32], marks: Marks) {
        for part in tokens.chunks(marks.seq_len - 1) {
            let row: Vec<u32> = std::iter::once(marks.bos)
                .chain(part.iter().copied())
                .collect();
            self.rows.push(&row, &vec![true; row.len()]);
        }
    }

    fn chat(&mut self, mut example: Example, settings: &TokenSetSettings, counts: &mut Counts) {
        if example.tokens.len() > settings.seq_len {
            example.tokens.truncate(settings.seq_len);
            example.mask.truncate(settings.seq_len);
            if settings.too_long == TooLong::Drop || !example.mask.contains(&true) {
                counts.dropped += 1;
                return;
            }
            counts.truncated += 1;
        }
        self.rows.push(&example.tokens, &example.mask);
    }

    fn finish(mut self, marks: Option<Marks>) -> Rows {
        let rest = std::mem::take(&mut self.pending);
        if let Some(marks) = marks {
            self.cut(&rest, marks);
        }
        self.rows
    }
}

fn encode(
    document: &Document,
    tokenizer: &Tokenizer,
    chat: Option<&Chat>,
) -> Result<Example, TokenSetError> {
    match (&document.content, chat) {
        (Content::Chat(messages), Some(chat)) => {
            chat.encode(messages).map_err(|source| TokenSetError::Chat {
                place: document.place.clone(),
                source,
            })
        }
        (Content::Text(text), _) => Ok(Example {
            tokens: tokenizer.encode(text)?,
            mask: Vec::new(),
        }),
        // The chat template is compiled where any document is a conversation.
        (Content::Chat(_), None) => Ok(Example::default()),
    }
}

/// Hash of what a document says, wherever it stands.
fn hash_of(content: &Content) -> blake3::Hash {
    match content {
        Content::Text(text) => blake3::hash(text.trim().as_bytes()),
        Content::Chat(messages) => {
            let mut hasher = blake3::Hasher::new();
            for message in messages {
                for part in [&message.role, &message.content] {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part.as_bytes());
                }
            }
            hasher.finalize()
        }
    }
}

/// Whether a hash falls into the held-out share.
fn is_held_out(hash: &blake3::Hash, share: f64) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    // 53 bits are exact in f64.
    ((u64::from_le_bytes(first) >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// Hash of files and folders together.
pub(crate) fn hash_files(paths: &[PathBuf]) -> Result<String, SourceError> {
    let hashes = paths.iter().map(|path| hash(path));
    let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
    Ok(match &hashes[..] {
        [one] => one.clone(),
        several => blake3::hash(several.concat().as_bytes())
            .to_hex()
            .to_string(),
    })
}

/// Hash of a file, or of the files of a folder.
fn hash(path: &Path) -> Result<String, SourceError> {
    let mut hasher = blake3::Hasher::new();
    for file in files(path)? {
        let bytes =
            builtin::read(&file).map_err(|source| SourceError::Io { path: file, source })?;
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}
