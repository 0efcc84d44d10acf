//! Writing a token file: whole, or not at all.

use std::io::{self, Write};
use std::path::Path;

use forgetlab_study::run::{RunError, write_atomically};

use super::sidecar::FORMAT;
use super::{About, Sidecar, TokenFileError, TokenType, sidecar_path};
use crate::data::token_set::Source;

/// Takes the tokens of a file that is being written.
pub struct TokenWriter<'a> {
    path: &'a Path,
    out: &'a mut dyn Write,
    dtype: TokenType,
    vocab_size: usize,
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
    tokens: u64,
    documents: u64,
}

impl TokenWriter<'_> {
    /// Appends tokens, of which so many documents end.
    ///
    /// # Errors
    /// A token outside the vocabulary; a full disk.
    pub fn push(&mut self, tokens: &[u32], documents: u64) -> Result<(), TokenFileError> {
        let vocab_size = self.vocab_size;
        if let Some(at) = tokens.iter().position(|&id| id as usize >= vocab_size) {
            return Err(TokenFileError::Vocabulary {
                path: self.path.into(),
                index: self.tokens + at as u64,
                token: tokens[at],
                vocab_size,
            });
        }
        self.bytes.clear();
        match self.dtype {
            // The ids are below 65 536.
            TokenType::U16 => self
                .bytes
                .extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            TokenType::U32 => self
                .bytes
                .extend(tokens.iter().flat_map(|&id| id.to_le_bytes())),
        }
        self.hasher.update(&self.bytes);
        let written = self.out.write_all(&self.bytes);
        written.map_err(|error| TokenFileError::Write(RunError::io("write", self.path)(error)))?;
        self.tokens += tokens.len() as u64;
        self.documents += documents;
        Ok(())
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
}

/// Writes a token file and its sidecar: `fill` gives the tokens, and returns the sources they were made from.
///
/// The file has its name only once it is whole and on disk; where `fill` fails nothing is left of it, and an older
/// file of that name stays as it was.
///
/// # Errors
/// What `fill` returns; a vocabulary of no tokens, no tokens at all, a full disk.
pub fn write<E: From<TokenFileError>>(
    path: &Path,
    about: About,
    fill: impl FnOnce(&mut TokenWriter) -> Result<Vec<Source>, E>,
) -> Result<Sidecar, E> {
    let dtype = TokenType::of(about.vocab_size);
    let mut failed = None;
    let mut sidecar = None;
    let written = write_atomically(path, |out| {
        let mut writer = TokenWriter {
            path,
            out,
            dtype,
            vocab_size: about.vocab_size,
            hasher: blake3::Hasher::new(),
            bytes: Vec::new(),
            tokens: 0,
            documents: 0,
        };
        let nothing = || TokenFileError::Malformed {
            path: path.into(),
            problem: "there are no tokens to write: the sources say nothing".into(),
        };
        match fill(&mut writer) {
            Ok(_) if writer.tokens == 0 => failed = Some(nothing().into()),
            Ok(sources) => {
                sidecar = Some(Sidecar {
                    format: FORMAT,
                    dtype,
                    tokens: writer.tokens,
                    documents: writer.documents,
                    blake3: writer.hasher.finalize().to_hex().to_string(),
                    about,
                    sources,
                });
                return Ok(());
            }
            Err(error) => failed = Some(error),
        }
        Err(io::Error::other("no tokens"))
    });
    if let Some(error) = failed {
        return Err(error);
    }
    written.map_err(TokenFileError::Write)?;
    let malformed = |problem: String| TokenFileError::Malformed {
        path: path.into(),
        problem,
    };
    let sidecar = sidecar.ok_or_else(|| malformed("nothing was written".into()))?;
    // Killed here, an older sidecar does not fit the new file, and says so.
    let json = serde_json::to_vec_pretty(&sidecar).map_err(|error| malformed(error.to_string()))?;
    write_atomically(&sidecar_path(path), |out| {
        out.write_all(&json)?;
        out.write_all(b"\n")
    })
    .map_err(TokenFileError::Write)?;
    Ok(sidecar)
}
