//! Evaluation: held-out losses and accuracy, and parity with independent implementations.

mod ask;
mod choices;
mod heldout;
mod parity;
#[cfg(test)]
mod real_model;
mod samples;
mod scores;

pub use ask::{Choices, QuestionsError, questions};
pub use choices::{ChoiceError, ChoiceTask, Request, Wanted};
pub use heldout::{Figures, evaluate};
pub use parity::{Check, ParityError, verify_llama, verify_mini};
pub use samples::{Sample, sample, summarise};
pub use scores::{Subject, scores};
