//! Reading, encoding and writing side by side, in the order of the documents.
//!
//! ```text
//! reader ──work──▶ encoder 0 ──tokens──▶ writer
//!        ──work──▶ encoder 1 ──tokens──▶
//! ```
//!
//! The reader deals pieces of work out in turn, and the writer takes results in the same turn: their order is that of
//! the documents without any sorting. Every arrow holds [`WAITING`] pieces at most, so memory is bounded, and whoever
//! is fast waits for whoever is slow. A piece can be the error at which reading ended: it is met in its turn, after
//! what was read before it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::encode::{Encoded, Encoder};
use super::{Reserved, TokenizeError, TokenizeSettings, Tokenized};
use crate::data::source::{self, Meter, Part};
use crate::data::token_file::TokenWriter;
use crate::data::token_set::{Source, hash_of, hash_while, is_empty};
use crate::data::{Content, SourceError, Tokenizer};

/// Bytes of text in a piece of work, about.
const PIECE: usize = 1 << 17;
/// The most documents of a piece of work, which may say little.
const MOST_DOCUMENTS: usize = 1 << 10;
/// The most pieces that wait for an encoder, and for the writer.
const WAITING: usize = 2;
/// How long the writer waits before it tells again how far it is.
const PATIENCE: Duration = Duration::from_millis(100);

/// How far tokenizing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read of the sources, packed as they are.
    pub bytes_read: u64,
    /// Bytes of the sources.
    pub bytes: u64,
    /// Bytes of text that were encoded.
    pub text_bytes: u64,
    /// Documents that were written.
    pub documents: u64,
    /// Tokens that were written.
    pub tokens: u64,
}

/// What goes from the reader to an encoder, and on to the writer.
enum Piece<T> {
    Documents(T),
    /// A source that was read to its end.
    Source(Source),
    /// What was left out of all sources.
    End(Tokenized),
}

type Work = Result<Piece<Vec<Part>>, TokenizeError>;
type Done = Result<Piece<Encoded>, TokenizeError>;

/// Reads and encodes all sources and gives their tokens to `file`, with the documents that end in them. Returns the
/// sources with their hashes, and what became of the documents.
pub(super) fn run(
    settings: &TokenizeSettings,
    tokenizer: &Tokenizer,
    reserved: &Reserved,
    file: &mut TokenWriter,
    progress: &mut dyn FnMut(&Progress) -> bool,
) -> Result<(Vec<Source>, Tokenized), TokenizeError> {
    let mut told = Progress::default();
    for path in &settings.sources {
        told.bytes += source::bytes(path)?;
    }
    let encoder = &Encoder::new(tokenizer, reserved);
    let (meter, stop) = (&Meter::default(), &AtomicBool::new(false));
    thread::scope(|scope| {
        let (mut to_encoders, mut from_encoders) = (Vec::new(), Vec::new());
        for _ in 0..settings.threads.max(1) {
            let (to, work) = sync_channel::<Work>(WAITING);
            let (done, from) = sync_channel::<Done>(WAITING);
            let encode = move || encode_all(encoder, &work, &done);
            thread::Builder::new().spawn_scoped(scope, encode)?;
            to_encoders.push(to);
            from_encoders.push(from);
        }
        let mut reader = Reader::new(settings, meter, stop, to_encoders);
        thread::Builder::new().spawn_scoped(scope, move || reader.read_all())?;
        let mut writer = Writer {
            from: from_encoders,
            told,
            meter,
            file,
            progress,
        };
        let written = writer.write_all();
        // The reader may be in the middle of a long file; encoders end where nobody takes their results.
        stop.store(true, Ordering::Relaxed);
        drop(writer);
        written
    })
}

/// Encodes what comes until nothing comes, or nobody takes it.
fn encode_all(encoder: &Encoder, work: &Receiver<Work>, done: &SyncSender<Done>) {
    for piece in work {
        let encoded = piece.and_then(|piece| {
            Ok(match piece {
                Piece::Documents(parts) => Piece::Documents(encoder.encode(&parts)?),
                Piece::Source(source) => Piece::Source(source),
                Piece::End(counts) => Piece::End(counts),
            })
        });
        if done.send(encoded).is_err() {
            return;
        }
    }
}

/// Reads documents and deals them out.
struct Reader<'a> {
    settings: &'a TokenizeSettings,
    meter: &'a Meter,
    stop: &'a AtomicBool,
    to: Vec<SyncSender<Work>>,
    /// The encoder whose turn it is.
    turn: usize,
    parts: Vec<Part>,
    bytes: usize,
    /// Whether the last part was the end of its document.
    is_whole: bool,
    seen: HashSet<blake3::Hash>,
    counts: Tokenized,
}

impl<'a> Reader<'a> {
    fn new(
        settings: &'a TokenizeSettings,
        meter: &'a Meter,
        stop: &'a AtomicBool,
        to: Vec<SyncSender<Work>>,
    ) -> Self {
        Self {
            settings,
            meter,
            stop,
            to,
            turn: 0,
            parts: Vec::new(),
            bytes: 0,
            is_whole: true,
            seen: HashSet::new(),
            counts: Tokenized::default(),
        }
    }

    /// Reads all sources, or until there is an error or nobody takes what is read.
    fn read_all(&mut self) {
        let end = match self.read_sources() {
            Ok(()) => Ok(Piece::End(self.counts)),
            Err(error) => Err(error.into()),
        };
        // What was read before an error is dealt out first. Where nobody takes it, nobody wants to know.
        let _ = self.deal_out().and_then(|()| self.deal(end));
    }

    fn read_sources(&mut self) -> Result<(), SourceError> {
        let settings = self.settings;
        for path in &settings.sources {
            let meter = self.meter;
            source::stream(path, &settings.fields, meter, |part| self.take(part))?;
            self.deal_out()?;
            let stop = self.stop;
            let blake3 = hash_while(path, || !stop.load(Ordering::Relaxed))?;
            let source = Source {
                path: path.clone(),
                blake3,
            };
            self.deal(Ok(Piece::Source(source)))?;
        }
        Ok(())
    }

    /// Takes a document, or a part of one.
    fn take(&mut self, part: Part) -> Result<(), SourceError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(SourceError::Stopped);
        }
        let content = &part.document.content;
        // Of a long block no two parts are in memory; it says something, and it is kept.
        if self.is_whole && part.is_last {
            if is_empty(content) {
                self.counts.empty += 1;
                return Ok(());
            }
            if self.settings.drop_duplicates && !self.seen.insert(hash_of(content)) {
                self.counts.duplicates += 1;
                return Ok(());
            }
        }
        self.is_whole = part.is_last;
        // Of conversations the number is limited alone.
        if let Content::Text(text) = content {
            self.bytes += text.len();
        }
        self.parts.push(part);
        match self.bytes >= PIECE || self.parts.len() >= MOST_DOCUMENTS {
            true => self.deal_out(),
            false => Ok(()),
        }
    }

    /// Deals out what was read.
    fn deal_out(&mut self) -> Result<(), SourceError> {
        self.bytes = 0;
        let parts = std::mem::take(&mut self.parts);
        match parts.is_empty() {
            true => Ok(()),
            false => self.deal(Ok(Piece::Documents(parts))),
        }
    }

    fn deal(&mut self, work: Work) -> Result<(), SourceError> {
        let turn = self.turn % self.to.len();
        self.turn += 1;
        let sent = self.to[turn].send(work);
        sent.map_err(|_| SourceError::Stopped)
    }
}

/// Takes tokens in the order of the documents.
struct Writer<'a, 'w> {
    from: Vec<Receiver<Done>>,
    told: Progress,
    meter: &'a Meter,
    file: &'a mut TokenWriter<'w>,
    progress: &'a mut dyn FnMut(&Progress) -> bool,
}

impl Writer<'_, '_> {
    fn write_all(&mut self) -> Result<(Vec<Source>, Tokenized), TokenizeError> {
        let mut sources = Vec::new();
        let mut reserved = 0;
        for turn in 0.. {
            match self.next(turn % self.from.len())? {
                Piece::Documents(encoded) => {
                    self.file.push(&encoded.tokens, encoded.documents)?;
                    self.told.text_bytes += encoded.bytes;
                    self.told.documents += encoded.documents;
                    self.told.tokens += encoded.tokens.len() as u64;
                    reserved += encoded.reserved;
                }
                Piece::Source(source) => sources.push(source),
                Piece::End(counts) => {
                    let bytes = self.told.text_bytes;
                    let counts = Tokenized {
                        reserved,
                        bytes,
                        ..counts
                    };
                    return Ok((sources, counts));
                }
            }
            self.tell()?;
        }
        Err(TokenizeError::Stopped)
    }

    /// The next result of an encoder.
    fn next(&mut self, encoder: usize) -> Result<Piece<Encoded>, TokenizeError> {
        loop {
            match self.from[encoder].recv_timeout(PATIENCE) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) => self.tell()?,
                // A thread that did not start, or panicked: the scope tells.
                Err(RecvTimeoutError::Disconnected) => return Err(TokenizeError::Stopped),
            }
        }
    }

    fn tell(&mut self) -> Result<(), TokenizeError> {
        self.told.bytes_read = self.meter.bytes().min(self.told.bytes);
        match (self.progress)(&self.told) {
            true => Ok(()),
            false => Err(TokenizeError::Stopped),
        }
    }
}
