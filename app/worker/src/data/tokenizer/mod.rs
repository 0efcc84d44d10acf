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
use tokenizers::{PostProcessorWrapper, PreTokenizerWrapper};

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
        "the tokenizer of {name} has no BOS token, with which every row of text begins, nor {}, which \
         separate documents; name one of its tokens as `bos`",
        SEPARATORS.join(" or ")
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
    /// A token that the model has no embedding of.
    #[error(
        "token {id}{} is beyond the model's vocabulary of {limit} tokens; the tokenizer of {name} has \
         {size}: tokens were added to it and the model was not resized. Resize the model \
         (resize_token_embeddings in transformers), or take its own tokenizer",
        text.as_ref().map_or(String::new(), |text| format!(" (`{text}`)"))
    )]
    Beyond {
        /// Where the tokenizer came from.
        name: String,
        /// The token.
        id: u32,
        /// What it stands for.
        text: Option<String>,
        /// Tokens of the tokenizer.
        size: usize,
        /// Tokens of the model.
        limit: usize,
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

/// Special tokens that separate documents in pretraining, of families without BOS: Qwen's, then SmolLM3's.
pub const SEPARATORS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];

/// A model's tokenizer, its special tokens and its chat template.
pub struct Tokenizer {
    parts: Parts,
    hash: String,
    vocab_size: usize,
    /// Tokens that the model has embeddings of, where the model is known.
    limit: Option<usize>,
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
    /// Tokens of the model that the configuration beside it describes.
    model_vocab_size: Option<usize>,
    /// The chat template for conversations with tools, where there are two.
    tool_template: Option<String>,
    /// Texts of special tokens beside BOS, EOS and padding, by the names that templates use.
    named: Vec<(String, String)>,
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

    /// The tokenizer of a pretrained model; texts end at what the model's own description lists, too.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn of(model: &Pretrained) -> Result<Self, TokenizerError> {
        // A GGUF file is named by its path, and holds its tokenizer.
        let place = model.folder().unwrap_or_else(|| model.name.clone().into());
        let mut tokenizer = Self::open(&place)?;
        let stop = &mut tokenizer.parts.stop;
        for &id in &model.ids.eos {
            if !stop.contains(&id) {
                stop.push(id);
            }
        }
        tokenizer.limit = Some(model.config.vocab_size);
        Ok(tokenizer)
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
        if let Some(template) = &parts.tool_template {
            hasher.update(template.as_bytes());
        }
        Ok(Self {
            limit: parts.model_vocab_size,
            parts,
            hash: hasher.finalize().to_hex().to_string(),
            vocab_size: last.map_or(0, |id| id as usize + 1),
            special_texts,
        })
    }

    /// Token ids of a text, nothing added. Special tokens written out in it become those tokens.
    ///
    /// # Errors
    /// Where the tokenizer fails, or has tokens that its model has not.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.parts.inner.encode_fast(text, false);
        let ids = encoding
            .map_err(|e| self.parts.failed(e))?
            .get_ids()
            .to_vec();
        ids.iter().try_for_each(|&id| self.known(id).map(drop))?;
        Ok(ids)
    }

    /// Token ids of a text, and the bytes of the text that each stands for. Tokens that share the
    /// bytes of one character all have the whole of it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_spans(
        &self,
        text: &str,
    ) -> Result<Vec<(u32, Range<usize>)>, TokenizerError> {
        let encoding = self
            .parts
            .inner
            .encode(text, false)
            .map_err(|e| self.parts.failed(e))?;
        let mut ids = encoding.get_ids().iter();
        ids.try_for_each(|&id| self.known(id).map(drop))?;
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

    /// Token ids in parts with the text of each, which together are the text of all: as [`Tokenizer::decode`] writes
    /// it, spaces between words included. Tokens that share the bytes of one character are one part.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn decode_parts(
        &self,
        tokens: &[u32],
    ) -> Result<Vec<(Range<usize>, String)>, TokenizerError> {
        let mut parts: Vec<(Range<usize>, String)> = Vec::new();
        // A token's text depends on what stands before it, if it is only whether something does.
        let mut before = 0..0;
        for end in 1..=tokens.len() {
            let with = self.decode(&tokens[before.start..end])?;
            if with.ends_with(char::REPLACEMENT_CHARACTER) && end < tokens.len() {
                // Perhaps a part of a character; the next token has the rest.
                continue;
            }
            let without = self.decode(&tokens[before.clone()])?;
            let own = before.end..end;
            let text = match with.strip_prefix(&without) {
                Some(text) => text.to_owned(),
                None => self.decode(&tokens[own.clone()])?,
            };
            before = own.clone();
            parts.push((own, text));
        }
        Ok(parts)
    }

    /// The id itself, if the model has it; where no model is known, every one.
    ///
    /// # Errors
    /// [`TokenizerError::Beyond`] tells the sizes.
    pub fn known(&self, id: u32) -> Result<u32, TokenizerError> {
        match self.limit {
            Some(limit) if id as usize >= limit => Err(TokenizerError::Beyond {
                name: self.parts.name.clone(),
                id,
                text: self.token_name(id),
                size: self.vocab_size,
                limit,
            }),
            _ => Ok(id),
        }
    }

    /// The first of its tokens that the model has no embedding of.
    ///
    /// # Errors
    /// [`TokenizerError::Beyond`], where there is one.
    pub fn fits(&self) -> Result<(), TokenizerError> {
        let ids = self.parts.inner.get_vocab(true).into_values();
        let beyond = ids.filter(|&id| self.known(id).is_err()).min();
        beyond.map_or(Ok(()), |id| self.known(id).map(drop))
    }

    /// BOS, EOS and padding, where the model has them.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.parts.special
    }

    /// The token that begins a text: BOS, or where there is none, what separates documents (`SEPARATORS`).
    ///
    /// # Errors
    /// [`TokenizerError::NoBos`] where there is neither.
    pub fn bos(&self) -> Result<u32, TokenizerError> {
        let bos = self.parts.special.bos.or_else(|| self.separator());
        let bos = bos.ok_or_else(|| TokenizerError::NoBos {
            name: self.parts.name.clone(),
        })?;
        self.known(bos)
    }

    /// The token between two documents, by its name.
    fn separator(&self) -> Option<u32> {
        let is_special = |name: &&&str| self.special_texts.iter().any(|text| text == **name);
        let name = SEPARATORS.iter().find(is_special)?;
        self.parts.inner.token_to_id(name)
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
        let id = self.parts.inner.token_to_id(token);
        let id = id.ok_or_else(|| TokenizerError::NoToken {
            name: self.parts.name.clone(),
            token: token.into(),
            near: self.special_texts.iter().take(20).cloned().collect(),
        })?;
        self.known(id)
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

    /// Whether every single space between two words begins a word of its own, as in byte-level tokenizers since GPT-2:
    /// then texts that are cut before such a space have the tokens of the whole.
    pub(super) fn splits_before_spaces(&self) -> bool {
        let is_plain = self.parts.inner.get_normalizer().is_none();
        let steps = match self.parts.inner.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::Sequence(steps)) => steps.as_ref(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let splits = |step: &PreTokenizerWrapper| match step {
            PreTokenizerWrapper::ByteLevel(bytes) => bytes.use_regex,
            PreTokenizerWrapper::Split(_) => true,
            _ => false,
        };
        let is_bytes = |step: &PreTokenizerWrapper| match step {
            PreTokenizerWrapper::ByteLevel(bytes) => !bytes.add_prefix_space,
            _ => false,
        };
        is_plain && steps.iter().any(splits) && steps.iter().any(is_bytes)
    }

    /// The chat template, in Jinja.
    pub fn template(&self) -> Option<&str> {
        self.parts.template.as_deref()
    }

    /// The chat template for conversations with tools, where there is another.
    pub fn tool_template(&self) -> Option<&str> {
        self.parts.tool_template.as_deref()
    }

    /// Texts of the special tokens by the names that templates use: `bos_token`, `eos_token`, ….
    pub fn named_tokens(&self) -> Vec<(String, String)> {
        let SpecialTokens { bos, eos, pad, .. } = self.parts.special;
        let known = [("bos_token", bos), ("eos_token", eos), ("pad_token", pad)];
        let known = known
            .into_iter()
            .filter_map(|(name, id)| Some((name, self.token_name(id?)?)));
        let known = known.map(|(name, text)| (name.to_owned(), text));
        known.chain(self.parts.named.iter().cloned()).collect()
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
