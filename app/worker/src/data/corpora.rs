//! Corpora of an experiment on tokens, for models that learn language from nothing.
//!
//! A corpus is a file of tokens, or text that is tokenized once into the cache of the results folder, by the hash of
//! the tokenizer and of the text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forgetlab_engine::pretrained::builtin;
use forgetlab_plugin_host::SpecialTokens;
use forgetlab_study::experiment::{CorpusSpec, TokensSpec};
use forgetlab_study::run::{Results, mark_used};

use super::new_rows::NewRows;
use super::token_file::{RowSettings, TokenFile, TokenFileError, TokenRows, sidecar_path};
use super::tokenize::{TokenizeSettings, reserved, tokenize};
use super::{Accuracy, Batch, DataError, HeldOut, Tokenizer, hash, is_remote};

/// The corpora of an experiment.
#[derive(Debug)]
pub(super) struct Corpora {
    pub sets: Vec<Corpus>,
    /// What made their tokens, where that is known.
    pub tokenizer: Option<Tokenizer>,
    pub vocab_size: usize,
    pub seq_len: usize,
    pub special: SpecialTokens,
    held_out_rows: u64,
    split_seed: u64,
}

/// A corpus.
#[derive(Debug)]
pub(super) struct Corpus {
    pub name: String,
    /// Hash of its tokens.
    pub hash: String,
    /// Token that begins its rows.
    pub marker: u32,
    file: Arc<TokenFile>,
}

impl Corpora {
    /// Opens the files of tokens; texts are tokenized, where they were not before.
    pub fn open(spec: &TokensSpec) -> Result<Self, DataError> {
        let tokenizer = spec
            .tokenizer
            .as_deref()
            .map(|path| Tokenizer::open(Path::new(path)));
        let tokenizer = tokenizer.transpose().map_err(Box::new)?;
        if let (Some(tokenizer), Some(before)) = (&tokenizer, &spec.tokenizer_hash)
            && tokenizer.hash() != before
        {
            return Err(DataError::Changed {
                name: spec.tokenizer.clone().unwrap_or_default(),
            });
        }
        let vocab_size = match (&tokenizer, spec.vocab_size) {
            (Some(tokenizer), _) => tokenizer.vocab_size(),
            (None, size) => size.unwrap_or(0),
        };
        let sets = spec.datasets.iter().map(|corpus| {
            let there =
                |file: &PathBuf| builtin::is_builtin(file) || is_remote(file) || file.exists();
            if let Some(path) = corpus.files.iter().find(|file| !there(file)) {
                let (name, path) = (corpus.name.clone(), path.clone());
                return Err(match is_fetched(&path) {
                    true => DataError::NotFetched { path },
                    false => DataError::NotHere { name, path },
                });
            }
            let opened = Corpus::open(corpus, tokenizer.as_ref(), vocab_size);
            opened.map_err(|source| DataError::Corpus {
                name: corpus.name.clone(),
                source: Box::new(source),
            })
        });
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        for (set, corpus) in sets.iter().zip(&spec.datasets) {
            if corpus
                .hash
                .as_ref()
                .is_some_and(|before| *before != set.hash)
            {
                let name = corpus.name.clone();
                return Err(DataError::Changed { name });
            }
        }
        let special = SpecialTokens {
            bos: None,
            eos: sets.iter().find_map(|set| set.file.reserved().eos),
            pad: None,
        };
        Ok(Self {
            sets,
            tokenizer,
            vocab_size,
            seq_len: spec.seq_len,
            special,
            held_out_rows: spec.held_out_rows,
            split_seed: spec.split_seed,
        })
    }

    /// Rows of a corpus, those held out included.
    pub fn rows(&self, index: usize) -> u64 {
        self.sets[index].file.tokens() / self.seq_len as u64
    }

    /// Its training rows in batches of so many.
    fn batches(&self, index: usize, rows: usize, seed: u64) -> Result<TokenRows, DataError> {
        let set = &self.sets[index];
        let settings = RowSettings {
            seq_len: self.seq_len,
            batch_size: rows,
            held_out: self.held_out_rows,
            marker: Some(set.marker),
            split_seed: self.split_seed,
            seed,
        };
        TokenRows::new(set.file.clone(), &settings).map_err(|error| set.unread(error))
    }

    /// Checks that a corpus has a batch of so many rows to train on.
    pub fn check(&self, index: usize, rows: usize) -> Result<(), DataError> {
        self.batches(index, rows, 0).map(drop)
    }

    /// The first `begin` rows of a corpus' batch of a step.
    pub fn begin_of(
        &self,
        index: usize,
        NewRows {
            seed, step, rows, ..
        }: NewRows,
        begin: usize,
    ) -> Result<Batch, DataError> {
        let batches = self.batches(index, rows, seed)?;
        let batch = batches.begin_of(step, begin);
        batch.map_err(|error| self.sets[index].unread(error))
    }

    /// The first held-out rows of a corpus, `most` of them.
    pub fn held_out(&self, index: usize, most: usize) -> Result<HeldOut, DataError> {
        let set = &self.sets[index];
        let batch = self.batches(index, 1, 0)?.held_out(most);
        Ok(HeldOut {
            dataset: set.name.clone(),
            batch: batch.map_err(|error| set.unread(error))?,
            accuracy: Accuracy::Tokens,
        })
    }

    /// Training rows of a corpus by their numbers.
    pub fn training_rows(&self, index: usize, numbers: &[u64]) -> Result<Batch, DataError> {
        let rows = self.batches(index, 1, 0)?;
        rows.training_rows(numbers)
            .map_err(|error| self.sets[index].unread(error))
    }

    /// Number of the rows of a corpus that are trained on.
    pub fn training_len(&self, index: usize) -> u64 {
        self.rows(index).saturating_sub(self.held_out_rows)
    }
}

impl Corpus {
    fn open(
        spec: &CorpusSpec,
        tokenizer: Option<&Tokenizer>,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let is_tokens = |path: &Path| tokenizer.is_none() || sidecar_path(path).exists();
        let unread = |source| DataError::TokenFile(Box::new(source));
        let file = match (&spec.files[..], tokenizer) {
            ([file], None) => TokenFile::open_bare(file, vocab_size).map_err(unread)?,
            ([file], Some(_)) if is_tokens(file) => TokenFile::open(file).map_err(unread)?,
            (files, Some(tokenizer)) => tokenized(files, tokenizer)?,
            (_, None) => {
                return Err(DataError::TokenFile(Box::new(TokenFileError::Setting {
                    name: "files",
                    value: format!("{} of them", spec.files.len()),
                    what: "without data.tokenizer a corpus is one file of tokens",
                })));
            }
        };
        if let (Some(tokenizer), Some(sidecar)) = (tokenizer, file.sidecar())
            && sidecar.about.tokenizer_hash != tokenizer.hash()
        {
            return Err(DataError::OtherTokenizer {
                path: file.path().into(),
                tokenizer: tokenizer.name().into(),
            });
        }
        let marker = match &file.reserved().markers[..] {
            [] => spec.marker as u32,
            markers => *markers.get(spec.marker).ok_or(DataError::NoMarker {
                marker: spec.marker,
                markers: markers.len(),
            })?,
        };
        Ok(Self {
            name: spec.name.clone(),
            hash: file.verify(&mut |_| {}).map_err(unread)?,
            marker,
            file: Arc::new(file),
        })
    }

    fn unread(&self, error: TokenFileError) -> DataError {
        DataError::Corpus {
            name: self.name.clone(),
            source: Box::new(DataError::TokenFile(Box::new(error))),
        }
    }
}

/// Where the script puts its texts that the presets name.
const FETCHED: &str = "text-data";

/// Whether a file is one that the script fetches.
fn is_fetched(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder.ends_with(FETCHED))
}

/// Version of how texts are tokenized; others are tokenized again.
const VERSION: &str = "1";

/// The tokens of texts, from the cache or tokenized now. Copies of a document are left out.
fn tokenized(files: &[PathBuf], tokenizer: &Tokenizer) -> Result<TokenFile, DataError> {
    let unread = |source| DataError::TokenFile(Box::new(source));
    let mut key = blake3::Hasher::new();
    key.update(VERSION.as_bytes());
    key.update(tokenizer.hash().as_bytes());
    for file in files {
        let content = hash(file).map_err(|error| DataError::Tokenize(Box::new(error.into())))?;
        key.update(content.as_bytes());
    }
    let folder = Results::from_env().tokens();
    let path = folder.join(format!("{}.bin", &key.finalize().to_hex()[..32]));
    if sidecar_path(&path).exists()
        && let Ok(file) = TokenFile::open(&path)
    {
        // Not the tokens: whether they were verified before is told by their time.
        mark_used(&sidecar_path(&path));
        return Ok(file);
    }
    reserved(tokenizer, None).map_err(|error| DataError::Tokenize(Box::new(error)))?;
    std::fs::create_dir_all(&folder).map_err(|source| {
        unread(TokenFileError::Io {
            path: folder.clone(),
            source,
        })
    })?;
    let settings = TokenizeSettings {
        sources: files.to_vec(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        drop_duplicates: true,
        ..TokenizeSettings::default()
    };
    let written = tokenize(&settings, tokenizer, &path, &mut |_| true);
    written.map_err(|error| DataError::Tokenize(Box::new(error)))?;
    TokenFile::open(&path).map_err(unread)
}
