//! Datasets: what is trained on, drawn for replay and held out.

mod digits;
mod suite;

pub use digits::{Digits, TASKS, token};
pub use suite::{DataError, Suite};
