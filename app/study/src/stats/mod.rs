//! Statistics of small samples: intervals and tests for seeds, rows and questions.
//!
//! Pure functions of numbers, checked against scipy, statsmodels and numpy (`tests/fixtures/statistics/`); formulas
//! and sources stand in `results/README.md`, too. A value that is no number, too few values or a level outside 0 to
//! 1 give `None`; nothing returns NaN.

mod bootstrap;
mod correlation;
mod guessing;
mod significance;
mod t;
#[cfg(test)]
mod tests;

pub use bootstrap::Bootstrap;
pub use correlation::{pearson, spearman};
pub use guessing::{Flips, Transitions, corrected_for_guessing};
pub use significance::{holm, mcnemar_exact, smallest_rank_test_p, smallest_sign_test_p};
pub use t::{Interval, LEVEL, PairedT, mean, paired_t, t_interval};
