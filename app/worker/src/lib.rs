//! The work of one process, in reading order: [`data`] are what is trained and evaluated on, [`eval`] measures
//! a model on them, [`train`] takes a run to its end, [`verify`] holds this machine's numerics against
//! independent ones; [`mod@bench`] measures their speed.

#![forbid(unsafe_code)]

pub mod data;

pub mod eval;

pub mod train;

pub mod verify;

pub mod bench;
