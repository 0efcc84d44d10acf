//! Rows from documents.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use forgetlab_study::experiment::{Separator, TextRows, TokenSetSettings, TooLong};
use rayon::prelude::*;

use crate::data::chat::on_deep_stack;
use crate::data::source::{files, open};
use crate::data::{
    Chat, ChatError, Content, Document, Example, Fields, Message, SourceError, Tokenizer, read,
};

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
        let fields = &Fields {
            ignore: settings.ignore.clone(),
            ..fields.clone()
        };
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
        let mut counts = Counts {
            documents: documents.len() as u64,
            ..Counts::default()
        };
        let documents = documents.iter().filter(|d| !is_empty(&d.content));
        let documents: Vec<&Document> = documents.collect();
        counts.empty = counts.documents - documents.len() as u64;
        let any = |wanted: fn(&Content) -> bool| documents.iter().any(|d| wanted(&d.content));
        let marks = match any(|c| matches!(c, Content::Text(_))) {
            true => Some(Marks::new(tokenizer, settings)?),
            false => None,
        };
        let chat = match any(|c| matches!(c, Content::Chat(_))) {
            true => Some(Chat::new(tokenizer, &settings.chat).map_err(TokenSetError::Template)?),
            false => None,
        };
        let encode_all = |part: &[&Document]| {
            let encoded = part
                .iter()
                .map(|document| encode(document, tokenizer, chat.as_ref()));
            on_deep_stack(|| encoded.collect::<Result<Vec<Example>, _>>())
                .unwrap_or_else(|error| Err(TokenSetError::Template(ChatError::Stack(error))))
        };
        let encoded: Vec<Result<Vec<Example>, _>> =
            documents.par_chunks(32).map(encode_all).collect();
        // The first error in the order of the documents, whichever thread was first.
        let encoded: Vec<Vec<Example>> = encoded.into_iter().collect::<Result<_, _>>()?;
        let encoded = encoded.into_iter().flatten();

        let mut seen = HashSet::new();
        let mut sides = [Side::default(), Side::default()];
        for (document, example) in documents.iter().zip(encoded) {
            let hash = hash_of(&document.content);
            let held_out = is_held_out(&hash, settings.held_out);
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
        let separator = match settings.separator {
            Separator::Eos => {
                let eos = tokenizer.special_tokens().eos;
                let eos = eos.ok_or_else(|| TokenSetError::NoEos {
                    name: tokenizer.name().into(),
                })?;
                Some(tokenizer.known(eos)?)
            }
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
        (Content::Chat(conversation), Some(chat)) => {
            chat.encode(conversation)
                .map_err(|source| TokenSetError::Chat {
                    place: document.place.clone(),
                    source,
                })
        }
        (Content::Text(text), _) => match tokenizer.encode(text) {
            Ok(tokens) => Ok(Example {
                tokens,
                mask: Vec::new(),
            }),
            Err(source) => Err(TokenSetError::Text {
                place: document.place.clone(),
                source,
            }),
        },
        // The chat template is compiled where any document is a conversation.
        (Content::Chat(_), None) => Ok(Example::default()),
    }
}

/// Whether there is nothing to learn of a document: it would be its end alone.
pub(in crate::data) fn is_empty(content: &Content) -> bool {
    match content {
        Content::Text(text) => text.trim().is_empty(),
        Content::Chat(conversation) => {
            let messages = conversation.messages.iter();
            let mut learned = messages
                .filter(|m| m.role == "assistant" && m.learned())
                .peekable();
            learned.peek().is_some() && learned.all(Message::is_empty)
        }
    }
}

/// Hash of what a document says, wherever it stands.
pub(in crate::data) fn hash_of(content: &Content) -> blake3::Hash {
    match content {
        Content::Text(text) => blake3::hash(text.trim().as_bytes()),
        Content::Chat(conversation) => {
            let mut hasher = blake3::Hasher::new();
            for part in conversation.parts() {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
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

/// Hash of a source: a file, or the files of a folder or data set.
pub(crate) fn hash(path: &Path) -> Result<String, SourceError> {
    hash_while(path, || true)
}

/// The same for as long as it is wanted, else [`SourceError::Stopped`].
pub(in crate::data) fn hash_while(
    path: &Path,
    is_wanted: impl Fn() -> bool,
) -> Result<String, SourceError> {
    let mut hasher = blake3::Hasher::new();
    for file in files(path)? {
        let (mut reader, bytes) = open(&file)?;
        hasher.update(&bytes.to_le_bytes());
        loop {
            let part = reader.by_ref().take(1 << 24);
            let before = hasher.count();
            let read = hasher.update_reader(part);
            let all = read.map_err(|source| SourceError::Io {
                path: file.clone(),
                source,
            })?;
            match (all.count() > before, is_wanted()) {
                (true, true) => {}
                (true, false) => return Err(SourceError::Stopped),
                (false, _) => break,
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
