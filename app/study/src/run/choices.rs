//! Accuracy on multiple-choice questions.

use serde::{Deserialize, Serialize};

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean over the questions.
    pub mean: f64,
    /// Standard error of the mean: sample standard deviation over √n; `None` for one question.
    pub stderr: Option<f64>,
}

/// Accuracy of a model on a set of multiple-choice questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScores {
    /// Number of questions.
    pub questions: usize,
    /// Share of questions whose right choice has the largest log-probability.
    pub accuracy: Estimate,
    /// The same per character of the choice; plain questions only.
    pub accuracy_normalised: Option<Estimate>,
    /// Accuracy of guessing: the mean of one over the number of choices.
    pub chance: f64,
}

impl Estimate {
    /// The share of `true`, with the standard error of lm-evaluation-harness's `mean_stderr`.
    pub fn share(answers: &[bool]) -> Self {
        let n = answers.len() as f64;
        let mean = answers.iter().filter(|&&right| right).count() as f64 / n;
        // Σ(x − mean)² of zeros and ones is n·mean·(1 − mean).
        let variance = n * mean * (1.0 - mean) / (n - 1.0);
        Self {
            mean,
            stderr: (answers.len() > 1).then(|| (variance / n).sqrt()),
        }
    }
}
