//! Reading a token file: at once to open, and checked with every read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use forgetlab_study::run::user_cache;

use super::verified::{Identity, Verified};
use super::{Reserved, Sidecar, TokenFileError, TokenType, sidecar_path};
use crate::data::source::regular;

/// Tokens that are read at a time where all of a file is.
const PIECE: u64 = 1 << 19;

/// A token file, opened to read.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    file: File,
    dtype: TokenType,
    tokens: u64,
    vocab_size: usize,
    sidecar: Option<Sidecar>,
}

/// What all of a file's tokens look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// How often each token of the vocabulary occurs, `[V]`.
    pub counts: Vec<u64>,
    /// BLAKE3 of the file.
    pub blake3: String,
}

impl TokenFile {
    /// Opens a token file with its sidecar. Only sizes are compared; [`TokenFile::verify`] looks at the content.
    ///
    /// # Errors
    /// [`TokenFileError`] where there is no sidecar, it does not fit, or the file is no file of tokens.
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        let (file, bytes) = open_file(path)?;
        let sidecar = Sidecar::read(path, bytes).map_err(|error| match whole(path, bytes, 2) {
            // Of a file of half a token that is told, whatever its sidecar says.
            Err(uneven) => uneven,
            Ok(_) => error,
        })?;
        let tokens = whole(path, bytes, sidecar.dtype.width())?;
        Ok(Self {
            path: path.into(),
            file,
            dtype: sidecar.dtype,
            tokens,
            vocab_size: sidecar.about.vocab_size,
            sidecar: Some(sidecar),
        })
    }

    /// Opens a flat file of 16-bit tokens that has no sidecar, as the paper's reference implementation writes them.
    ///
    /// # Errors
    /// [`TokenFileError`] where there is a sidecar of another vocabulary, or the file is no file of tokens.
    pub fn open_bare(path: &Path, vocab_size: usize) -> Result<Self, TokenFileError> {
        if vocab_size == 0 || vocab_size > 1 << 16 {
            return Err(TokenFileError::Setting {
                name: "vocab_size",
                value: vocab_size.to_string(),
                what: "a flat file of 16-bit tokens has a vocabulary of 1 to 65536",
            });
        }
        let sidecar = sidecar_path(path);
        if sidecar.exists() {
            let opened = Self::open(path)?;
            return match opened.vocab_size == vocab_size {
                true => Ok(opened),
                false => Err(TokenFileError::Sidecar {
                    path: sidecar,
                    problem: format!(
                        "it says a vocabulary of {}, and {vocab_size} was asked for",
                        opened.vocab_size
                    ),
                }),
            };
        }
        let (file, bytes) = open_file(path)?;
        Ok(Self {
            path: path.into(),
            file,
            dtype: TokenType::U16,
            tokens: whole(path, bytes, 2)?,
            vocab_size,
            sidecar: None,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of its tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How a token is stored.
    pub fn dtype(&self) -> TokenType {
        self.dtype
    }

    /// What its sidecar says, where it has one.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// Its tokens that stand for no text, as far as they are known.
    pub fn reserved(&self) -> Reserved {
        let sidecar = self.sidecar.as_ref();
        sidecar.map_or_else(Reserved::default, |s| s.about.reserved.clone())
    }

    /// Appends `count` tokens from number `start` on to `tokens`; `bytes` is room for them as they are stored.
    ///
    /// # Errors
    /// Where they are not, or no longer, in the file; a token outside the vocabulary.
    pub(super) fn read_into(
        &self,
        start: u64,
        count: usize,
        bytes: &mut Vec<u8>,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenFileError> {
        let width = self.dtype.width();
        bytes.resize(count * width, 0);
        match self.file.read_exact_at(bytes, start * width as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(TokenFileError::CutOff {
                    path: self.path.clone(),
                    index: start,
                    tokens: self.tokens,
                });
            }
            Err(error) => return Err(TokenFileError::io(&self.path)(error)),
        }
        let before = tokens.len();
        match self.dtype {
            TokenType::U16 => {
                let words = bytes.as_chunks().0.iter();
                tokens.extend(words.map(|word| u32::from(u16::from_le_bytes(*word))));
            }
            TokenType::U32 => {
                let words = bytes.as_chunks().0.iter();
                tokens.extend(words.map(|word| u32::from_le_bytes(*word)));
            }
        }
        let read = &tokens[before..];
        let most = read.iter().max().copied().unwrap_or(0);
        match (most as usize) < self.vocab_size {
            true => Ok(()),
            false => {
                let mut read = read.iter();
                let at = read.position(|&id| id as usize >= self.vocab_size);
                let at = at.unwrap_or_default();
                Err(TokenFileError::Vocabulary {
                    path: self.path.clone(),
                    index: start + at as u64,
                    token: tokens[before + at],
                    vocab_size: self.vocab_size,
                })
            }
        }
    }

    /// `count` tokens from number `start` on.
    ///
    /// # Errors
    /// As reading a row does: a file that was cut off, a token outside the vocabulary.
    pub fn read(&self, start: u64, count: usize) -> Result<Vec<u32>, TokenFileError> {
        let mut tokens = Vec::with_capacity(count);
        self.read_into(start, count, &mut Vec::new(), &mut tokens)?;
        Ok(tokens)
    }

    /// Reads the whole file: counts every token, checks that the vocabulary has it, and hashes the bytes. `progress`
    /// is told the bytes read so far.
    ///
    /// # Errors
    /// A token outside the vocabulary; a file that cannot be read or was cut off.
    pub fn scan(&self, progress: &mut dyn FnMut(u64)) -> Result<Scan, TokenFileError> {
        let mut counts = vec![0; self.vocab_size];
        let mut hasher = blake3::Hasher::new();
        let (mut bytes, mut tokens) = (Vec::new(), Vec::new());
        let mut start = 0;
        while start < self.tokens {
            let count = PIECE.min(self.tokens - start);
            tokens.clear();
            self.read_into(start, count as usize, &mut bytes, &mut tokens)?;
            hasher.update(&bytes);
            for &id in &tokens {
                counts[id as usize] += 1;
            }
            start += count;
            progress(start * self.dtype.width() as u64);
        }
        Ok(Scan {
            counts,
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }

    /// Checks the content once: that every token is in the vocabulary, and that the bytes are those the sidecar was
    /// written for. Remembered in the user's cache for as long as the file is the same by device, inode, size and
    /// times, so that only the first call reads the file. Returns BLAKE3 of the content.
    ///
    /// # Errors
    /// [`TokenFileError::Hash`] and [`TokenFileError::Vocabulary`] for content that is not what it should be.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<String, TokenFileError> {
        self.verify_with(user_cache().as_deref(), progress)
    }

    /// The same with another folder to remember in.
    pub(super) fn verify_with(
        &self,
        cache: Option<&Path>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<String, TokenFileError> {
        let remembered = self.identity()?;
        let known = cache.and_then(|cache| Verified::read(cache, &self.path));
        let known = known.filter(|known| {
            known.identity == remembered && known.vocab_size == self.vocab_size as u64
        });
        let blake3 = match known {
            Some(known) => known.blake3,
            None => {
                let blake3 = self.scan(progress)?.blake3;
                // What changed meanwhile is not known.
                if let (Some(cache), true) = (cache, self.identity()? == remembered) {
                    let verified = Verified {
                        identity: remembered,
                        vocab_size: self.vocab_size as u64,
                        blake3: blake3.clone(),
                    };
                    verified.write(cache, &self.path);
                }
                blake3
            }
        };
        self.expect(&blake3)?;
        Ok(blake3)
    }

    /// Refuses a hash that is not the sidecar's.
    ///
    /// # Errors
    /// [`TokenFileError::Hash`]
    pub fn expect(&self, blake3: &str) -> Result<(), TokenFileError> {
        match &self.sidecar {
            Some(sidecar) if sidecar.blake3 != blake3 => Err(TokenFileError::Hash {
                path: self.path.clone(),
                expected: sidecar.blake3.clone(),
                found: blake3.into(),
            }),
            _ => Ok(()),
        }
    }

    fn identity(&self) -> Result<Identity, TokenFileError> {
        let found = self.file.metadata();
        Ok(Identity::of(
            &found.map_err(TokenFileError::io(&self.path))?,
        ))
    }
}

/// Opens a regular file; how many bytes it has.
fn open_file(path: &Path) -> Result<(File, u64), TokenFileError> {
    regular(path).map_err(TokenFileError::io(path))?;
    let file = File::open(path).map_err(TokenFileError::io(path))?;
    let bytes = file.metadata().map_err(TokenFileError::io(path))?.len();
    Ok((file, bytes))
}

/// Tokens of so many bytes, which must be a whole number of them.
fn whole(path: &Path, bytes: u64, width: usize) -> Result<u64, TokenFileError> {
    let problem = match (bytes, bytes % width as u64) {
        (0, _) => "it is empty: it holds no tokens".into(),
        (_, 0) => return Ok(bytes / width as u64),
        (_, over) => format!(
            "{bytes} bytes are no whole number of tokens of {width} bytes, {over} are left over: it was not written \
             to its end, or is no file of tokens"
        ),
    };
    Err(TokenFileError::Malformed {
        path: path.into(),
        problem,
    })
}
