//! The work of one process.
//!
//! In reading order, each module over those before it:
//! - [`data`]: what is trained and evaluated on: digit tasks, texts, conversations, questions;
//! - [`eval`]: measures a model on them, and has it write;
//! - [`regression`]: the numbers of the study on a line, with a network and a training of its own;
//! - [`train`]: takes a run to its end;
//! - [`verify`]: holds this machine's numerics against independent ones;
//! - [`bench`](mod@bench): measures their speed.

#![forbid(unsafe_code)]

pub mod data;

pub mod eval;

pub mod regression;

pub mod train;

pub mod verify;

pub mod bench;
