//! Text to token ids and back, as the model's own tokenizer does it.
//!
//! Read from a Hugging Face folder (`tokenizer.json` and the configurations beside it) or from the
//! metadata of a GGUF file. Nothing is added to a text unless asked for: which rows begin with BOS
//! is the business of whoever makes rows.

mod folder;
mod gguf;
#[cfg(test)]
pub(super) mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use forgetlab_engine::pretrained::{GgufMetadata, Pretrained};
use forgetlab_plugin_host::SpecialTokens;
use tokenizers::PostProcessorWrapper;

/// A tokenizer that cannot be read, or that cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither a model folder, a GGUF file nor a `tokenizer.json`.
    #[error(
        "{} holds no tokenizer; name a model folder with tokenizer.json, that file, or a .gguf file",
        path.display()
    )]
    NotFound {
        /// What was named.
        path: PathBuf,
    },
    /// A file that cannot be understood.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing to begin a row with.
    #[error(
        "the tokenizer of {name} has no BOS token, with which every row of text begins; name one \
         of its tokens as `bos`"
    )]
    NoBos {
        /// Where the tokenizer came from.
        name: String,
    },
    /// No such special token.
    #[error("the tokenizer of {name} has no token `{token}`{}", hint(near))]
    NoToken {
        /// Where the tokenizer came from.
        name: String,
        /// What was asked for.
        token: String,
        /// Its special tokens.
        near: Vec<String>,
    },
    /// Text that has no tokens, or ids that are none.
    #[error("the tokenizer of {name} failed: {problem}")]
    Failed {
        /// Where the tokenizer came from.
        name: String,
        /// What the tokenizer said.
        problem: String,
    },
}

fn hint(tokens: &[String]) -> String {
    match tokens {
        [] => String::new(),
        some => format!("; its special tokens are {}", some.join(", ")),
    }
}

/// A model's tokenizer, its special tokens and its chat template.
pub struct Tokenizer {
    parts: Parts,
    hash: String,
    vocab_size: usize,
    /// Texts of the special tokens, longest first.
    special_texts: Vec<String>,
}

/// What a folder or a GGUF file says of its tokenizer.
struct Parts {
    inner: tokenizers::Tokenizer,
    /// The `tokenizer.json` it was read from or rebuilt as.
    json: Vec<u8>,
    name: String,
    special: SpecialTokens,
    stop: Vec<u32>,
    adds_bos: bool,
    template: Option<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder, a `.gguf` file or a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let parts = if path.extension() == Some(OsStr::new("gguf")) {
            gguf::open(path)?
        } else {
            folder::open(path)?
        };
        Self::new(parts)
    }

    /// The tokenizer of a pretrained model.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn of(model: &Pretrained) -> Result<Self, TokenizerError> {
        // A GGUF file is named by its path, and holds its tokenizer.
        let place = model.folder().unwrap_or_else(|| model.name.clone().into());
        Self::open(&place)
    }

    /// The tokenizer as the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizers library refuses.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        let json = self.parts.inner.to_string(true);
        json.map_err(|error| self.parts.failed(error))
    }

    /// The tokenizer that the metadata of a GGUF file describes; `path` is for messages.
    ///
    /// # Errors
    /// Where a key is missing or names a kind of tokenizer that is not byte-level BPE.
    pub fn from_gguf(path: &Path, metadata: &GgufMetadata) -> Result<Self, TokenizerError> {
        Self::new(gguf::parts(path, metadata)?)
    }

    fn new(mut parts: Parts) -> Result<Self, TokenizerError> {
        let truncation = parts.inner.with_truncation(None).map(drop);
        truncation.map_err(|problem| parts.failed(problem))?;
        parts.inner.with_padding(None);
        // A post-processor adds special tokens and trims spaces off offsets; neither is wanted.
        parts
            .inner
            .with_post_processor(None::<PostProcessorWrapper>);
        let added = parts.inner.get_added_tokens_decoder();
        let mut special_texts: Vec<String> = added
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        special_texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let last = parts.inner.get_vocab(true).into_values().max();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&std::mem::take(&mut parts.json));
        hasher.update(format!("{:?} {:?}", parts.special, parts.template).as_bytes());
        Ok(Self {
            parts,
            hash: hasher.finalize().to_hex().to_string(),
            vocab_size: last.map_or(0, |id| id as usize + 1),
            special_texts,
        })
    }

    /// Token ids of a text, nothing added. Special tokens written out in it become those tokens.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.parts.inner.encode_fast(text, false);
        Ok(encoding
            .map_err(|e| self.parts.failed(e))?
            .get_ids()
            .to_vec())
    }

    /// Token ids of a text, and the bytes of the text that each stands for. Tokens that share the
    /// bytes of one character all have the whole of it.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn encode_with_spans(
        &self,
        text: &str,
    ) -> Result<Vec<(u32, Range<usize>)>, TokenizerError> {
        let encoding = self
            .parts
            .inner
            .encode(text, false)
            .map_err(|e| self.parts.failed(e))?;
        let spans = encoding.get_offsets().iter().map(|&(from, to)| from..to);
        Ok(encoding.get_ids().iter().copied().zip(spans).collect())
    }

    /// Text of token ids, special tokens written out.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.parts
            .inner
            .decode(tokens, false)
            .map_err(|e| self.parts.failed(e))
    }

    /// BOS, EOS and padding, where the model has them.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.parts.special
    }

    /// The token that begins a text.
    ///
    /// # Errors
    /// [`TokenizerError::NoBos`] where there is none.
    pub fn bos(&self) -> Result<u32, TokenizerError> {
        self.parts.special.bos.ok_or_else(|| TokenizerError::NoBos {
            name: self.parts.name.clone(),
        })
    }

    /// Tokens at which generation ends: EOS and what the generation configuration adds.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.parts.stop
    }

    /// Whether the model expects plain text to begin with BOS.
    pub fn adds_bos(&self) -> bool {
        self.parts.adds_bos
    }

    /// Id of a token by its name, e.g. `<|endoftext|>`.
    ///
    /// # Errors
    /// [`TokenizerError::NoToken`] lists the special tokens there are.
    pub fn token_id(&self, token: &str) -> Result<u32, TokenizerError> {
        self.parts
            .inner
            .token_to_id(token)
            .ok_or_else(|| TokenizerError::NoToken {
                name: self.parts.name.clone(),
                token: token.into(),
                near: self.special_texts.iter().take(20).cloned().collect(),
            })
    }

    /// Name of a token.
    pub fn token_name(&self, id: u32) -> Option<String> {
        self.parts.inner.id_to_token(id)
    }

    /// Length in bytes of the special token that `text` begins with.
    pub(super) fn special_at(&self, text: &str) -> Option<usize> {
        let mut texts = self.special_texts.iter();
        texts
            .find(|t| text.starts_with(t.as_str()))
            .map(String::len)
    }

    /// One more than the largest id; a model may have more embeddings.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The chat template, in Jinja.
    pub fn template(&self) -> Option<&str> {
        self.parts.template.as_deref()
    }

    /// Path the tokenizer was read from.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Hash of all that decides what a text becomes.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl Parts {
    fn failed(&self, problem: tokenizers::Error) -> TokenizerError {
        TokenizerError::Failed {
            name: self.name.clone(),
            problem: problem.to_string(),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("name", &self.parts.name)
            .field("vocab_size", &self.vocab_size)
            .finish_non_exhaustive()
    }
}
