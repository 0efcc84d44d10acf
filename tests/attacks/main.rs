//! Campaigns that try to lose a run, to get wrong numbers out of it in silence, or to bring the program down.
//!
//! `cargo test` runs a small part of each; `FORGETLAB_ATTACKS=full` runs them whole, for hours, and
//! `FORGETLAB_ATTACKS=N` with N trials a kind. Each prints a line a kind with its counts, and fails where one is bad.

// A campaign's counts are its result.
#![allow(clippy::print_stdout)]

mod cache;
mod campaign;
mod damage;
mod hostile;
mod kills;
mod races;
mod scale;
mod signals;
mod torn;
