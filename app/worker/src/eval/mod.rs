//! Evaluation: held-out losses and accuracy, questions, texts a model writes, prompts that a student continues.

mod ask;
mod choices;
mod heldout;
mod prompts;
#[cfg(test)]
mod real_model;
mod samples;
mod scores;

pub use ask::{Choices, QuestionsError, largest_pass, questions};
pub use choices::{Answered, ChoiceError, ChoiceRequest, ChoiceTask, Wanted};
pub use heldout::{Figures, evaluate};
pub use prompts::Prompts;
pub use samples::{Sample, sample, summarise};
pub use scores::{Subject, flops, scores};
