//! What a step asks of a dataset.

/// Which training rows are wanted for a step.
#[derive(Clone, Copy, Debug)]
pub struct NewRows {
    /// Seed of the arm.
    pub seed: u64,
    /// Step, counted from the start of the phase.
    pub step: u64,
    /// How many rows.
    pub rows: usize,
    /// How many of them are of the dataset that is mixed in.
    pub mixed: usize,
    /// Whether that is the first phase's, in place of the phase's own mixture.
    pub joint: bool,
}
