//! Evaluation: held-out losses and accuracy, and parity with independent implementations.

mod choices;
mod heldout;
mod parity;
#[cfg(test)]
mod real_model;
mod samples;

pub use choices::{ChoiceError, ChoiceTask, Request, Wanted};
pub use heldout::{Accuracy, HeldOut, evaluate};
pub use parity::{Check, ParityError, verify_llama, verify_mini};
pub use samples::{Sample, sample, summarise};
