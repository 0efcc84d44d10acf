//! Datasets: what is trained on, drawn for replay and held out.

mod digits;

pub use digits::{Digits, TASKS, token};
