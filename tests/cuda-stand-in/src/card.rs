//! The card: what CUDA would keep of a process.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::Memory;
use crate::report::Report;

/// Errors of the driver, by their numbers in `cuda.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// `CUDA_SUCCESS`
    Success = 0,
    /// `CUDA_ERROR_INVALID_VALUE`
    InvalidValue = 1,
    /// `CUDA_ERROR_OUT_OF_MEMORY`
    OutOfMemory = 2,
    /// `CUDA_ERROR_INVALID_DEVICE`
    InvalidDevice = 101,
    /// `CUDA_ERROR_INVALID_CONTEXT`
    InvalidContext = 201,
    /// `CUDA_ERROR_NO_BINARY_FOR_GPU`
    NoBinaryForGpu = 209,
    /// `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`
    UnsupportedPtxVersion = 222,
    /// `CUDA_ERROR_INVALID_HANDLE`
    InvalidHandle = 400,
    /// `CUDA_ERROR_NOT_FOUND`
    NotFound = 500,
    /// `CUDA_ERROR_ILLEGAL_ADDRESS`
    IllegalAddress = 700,
}

/// A call that fails: its code, and what was wrong.
pub struct Failure(pub Code, pub String);

/// What a call comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The card of this process.
pub struct Card {
    /// Its memory.
    pub memory: Memory,
    /// What was asked of it.
    pub report: Report,
    /// Handles given out for streams, events, modules and the like.
    pub handles: BTreeSet<usize>,
    /// Its compute capability, e.g. 90 for 9.0.
    pub capability: i32,
    /// The error with which it refuses modules, if it does.
    pub refuses: Option<Code>,
    /// A kernel that touches what is not its own, and of which the next call is told.
    pub faulty: Option<String>,
    /// Once an address was wrong, every call fails.
    pub broken: bool,
    next_handle: usize,
    report_to: Option<File>,
}

static CARD: Mutex<Option<Card>> = Mutex::new(None);

impl Card {
    /// The card that the environment asks for.
    fn of_environment() -> Self {
        let bytes = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
        let total = bytes("STAND_IN_MEMORY").unwrap_or(8 << 30);
        let gives = bytes("STAND_IN_GIVES").unwrap_or(total);
        let only_count = std::env::var_os("STAND_IN_COUNT_ONLY").is_some_and(|value| value == "1");
        let mut card = Self::new(Memory::new(total, gives, !only_count));
        card.capability = bytes("STAND_IN_CAPABILITY").map_or(90, |n| n as i32);
        card.refuses = match std::env::var("STAND_IN_REFUSES").as_deref() {
            Ok("new-ptx") => Some(Code::UnsupportedPtxVersion),
            Ok("other-gpus") => Some(Code::NoBinaryForGpu),
            _ => None,
        };
        card.faulty = std::env::var("STAND_IN_FAULTY").ok();
        card.memory.whole_for = bytes("STAND_IN_WHOLE_FOR").map(|n| n as u64);
        card.report_to = std::env::var_os("STAND_IN_REPORT").and_then(|folder| {
            let name = format!("{}.json", std::process::id());
            File::create(std::path::Path::new(&folder).join(name)).ok()
        });
        card
    }

    /// A card with that memory.
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            report: Report::default(),
            handles: BTreeSet::new(),
            capability: 90,
            refuses: None,
            faulty: None,
            broken: false,
            next_handle: 0x1000,
            report_to: None,
        }
    }

    /// Writes the report, where one is wanted: whenever the program waits for the card, since it may end at any time.
    pub fn waited(&mut self) {
        self.report.waits += 1;
        if let Some(file) = &self.report_to {
            self.report.write(file);
        }
    }

    /// A new handle.
    pub fn handle(&mut self) -> usize {
        self.next_handle += 0x10;
        self.handles.insert(self.next_handle);
        self.next_handle
    }

    /// Demands that a handle was given out.
    pub fn must_know(&self, what: &str, handle: usize) -> Outcome {
        // 0, 1 and 2 are the streams that every context has.
        if handle <= 2 || self.handles.contains(&handle) {
            return Ok(());
        }
        let words = format!("{handle:#x} is no {what}, or is destroyed");
        Err(Failure(Code::InvalidHandle, words))
    }

    /// Demands that bytes are allocated.
    pub fn must_have(&self, what: &str, address: usize, bytes: usize) -> Outcome {
        self.memory.check(address, bytes).map_err(|bad| {
            let words = format!("{what} is {address:#x}: {bad}");
            Failure(Code::IllegalAddress, words)
        })
    }
}

/// The card, made at the first call.
fn card() -> MutexGuard<'static, Option<Card>> {
    CARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts another card in place.
#[cfg(test)]
pub fn insert(new: Card) {
    *card() = Some(new);
}

/// Runs a call on the card; its code. What is wrong is said on standard error.
pub fn call(name: &str, run: impl FnOnce(&mut Card) -> Outcome) -> Code {
    let mut card = card();
    let card = card.get_or_insert_with(Card::of_environment);
    if card.broken {
        return Code::IllegalAddress;
    }
    match run(card) {
        Ok(()) => Code::Success,
        Err(Failure(code, words)) => {
            card.report.failures += 1;
            card.broken = code == Code::IllegalAddress;
            say(&format!("{name}: {words}"));
            code
        }
    }
}

/// Tells whoever tests.
fn say(line: &str) {
    let line = format!("cuda stand-in: {line}\n");
    #[cfg(test)]
    crate::tests::heard(&line);
    #[cfg(not(test))]
    #[expect(clippy::disallowed_methods, reason = "it is no part of the program")]
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
