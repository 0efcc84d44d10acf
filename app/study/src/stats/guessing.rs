//! What answers to multiple-choice questions tell once guesses are taken out.
//!
//! The model behind it: a question is either known, and answered rightly, or guessed, and answered rightly with
//! the chance of guessing, whatever was guessed at another time. Nothing is cut off at 0: an estimate may fall
//! below, and cutting it off would push means over seeds up.

/// The share of questions that is known, from the share answered rightly: `(accuracy − chance) / (1 − chance)`.
///
/// Negative below chance. `None` unless `chance` is at least 0 and below 1 and `accuracy` is finite.
pub fn corrected_for_guessing(accuracy: f64, chance: f64) -> Option<f64> {
    (is_chance(chance) && accuracy.is_finite()).then(|| (accuracy - chance) / (1.0 - chance))
}

fn is_chance(chance: f64) -> bool {
    (0.0..1.0).contains(&chance)
}

/// How many questions were answered how at two times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// Right both times.
    pub right_to_right: u64,
    /// Right before, wrong after.
    pub right_to_wrong: u64,
    /// Wrong before, right after.
    pub wrong_to_right: u64,
    /// Wrong both times.
    pub wrong_to_wrong: u64,
}

/// What changed between two times, as shares of all questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flips {
    /// Right before, wrong after: forgotten.
    pub right_to_wrong: f64,
    /// Wrong before, right after: learned.
    pub wrong_to_right: f64,
}

impl Transitions {
    /// Counts the same questions' answers (whether each is right) at two times. `None` if their numbers differ.
    pub fn of(before: &[bool], after: &[bool]) -> Option<Self> {
        let mut counts = Self::default();
        for pair in before.iter().zip(after) {
            *match pair {
                (true, true) => &mut counts.right_to_right,
                (true, false) => &mut counts.right_to_wrong,
                (false, true) => &mut counts.wrong_to_right,
                (false, false) => &mut counts.wrong_to_wrong,
            } += 1;
        }
        (before.len() == after.len()).then_some(counts)
    }

    /// Shares that went from right to wrong and from wrong to right, as counted (arXiv 2510.17776). `None` without
    /// questions.
    pub fn flips(&self) -> Option<Flips> {
        let [right_to_wrong, wrong_to_right, _] = self.shares()?;
        Some(Flips {
            right_to_wrong,
            wrong_to_right,
        })
    }

    /// Shares of questions known before and not after, and the other way round: flips without those of guesses.
    ///
    /// With the shares n₁₀ (right, then wrong), n₀₁ and n₀₀ and the chance c, a question guessed both times is
    /// wrong both times with (1 − c)², and flips each way with c(1 − c); one known at one of the times flips with
    /// 1 − c. So forgotten is `n₁₀/(1 − c) − c·n₀₀/(1 − c)²`, learned `n₀₁/(1 − c) − c·n₀₀/(1 − c)²`, and learned
    /// − forgotten is the change of [`corrected_for_guessing`] accuracy.
    ///
    /// Derived here. arXiv 2510.17776 subtracts guesses, too, but takes n₀₀ for the product of both times' shares
    /// of wrong answers, divides by nothing and cuts off at 0. `None` without questions, or unless `chance` is at
    /// least 0 and below 1.
    pub fn flips_corrected_for_guessing(&self, chance: f64) -> Option<Flips> {
        let [right_to_wrong, wrong_to_right, wrong_to_wrong] = self.shares()?;
        if !is_chance(chance) {
            return None;
        }
        let wrong = 1.0 - chance;
        let guessed = chance * wrong_to_wrong / (wrong * wrong);
        Some(Flips {
            right_to_wrong: right_to_wrong / wrong - guessed,
            wrong_to_right: wrong_to_right / wrong - guessed,
        })
    }

    /// Shares of right to wrong, wrong to right and wrong to wrong.
    fn shares(&self) -> Option<[f64; 3]> {
        let counts = [
            self.right_to_wrong,
            self.wrong_to_right,
            self.wrong_to_wrong,
        ];
        let counts = counts.map(|count| count as f64);
        let all = counts.iter().sum::<f64>() + self.right_to_right as f64;
        (all > 0.0).then(|| counts.map(|count| count / all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    /// Else answers of two different sets of questions would be compared, or a share be NaN.
    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert_eq!(Transitions::of(&[true], &[]), None);
        let none = Transitions::of(&[], &[]).unwrap();
        assert_eq!(none.flips(), None);
        assert_eq!(none.flips_corrected_for_guessing(0.25), None);
        let one = Transitions::of(&[true], &[false]).unwrap();
        for chance in [-0.1, 1.0, f64::NAN] {
            assert_eq!(one.flips_corrected_for_guessing(chance), None);
            assert_eq!(corrected_for_guessing(0.5, chance), None);
        }
        assert_eq!(corrected_for_guessing(f64::NAN, 0.25), None);
    }

    /// Else forgetting and learning would be swapped or miscounted.
    #[test]
    fn answers_are_counted() {
        let (before, after) = (
            [true, true, true, false, false],
            [true, false, false, true, false],
        );
        let counts = Transitions::of(&before, &after).unwrap();
        let flips = counts.flips().unwrap();
        assert_eq!((counts.right_to_right, counts.wrong_to_wrong), (1, 1));
        assert_eq!((flips.right_to_wrong, flips.wrong_to_right), (0.4, 0.2));
        // Where nothing can be guessed, nothing is taken out.
        assert_eq!(counts.flips_corrected_for_guessing(0.0), Some(flips));
    }

    /// Else a model that guesses all answers would be said to forget and to learn.
    #[test]
    fn guesses_are_taken_out() {
        // 6400 questions with four choices: 1600 known both times, 800 only before, 400 only after, 3600 never.
        let (both, before, after, never) = (1600, 800, 400, 3600);
        let counts = Transitions {
            right_to_right: both + before / 4 + after / 4 + never / 16,
            right_to_wrong: before * 3 / 4 + never * 3 / 16,
            wrong_to_right: after * 3 / 4 + never * 3 / 16,
            wrong_to_wrong: never * 9 / 16,
        };
        let flips = counts.flips_corrected_for_guessing(0.25).unwrap();
        close(flips.right_to_wrong, 800.0 / 6400.0);
        close(flips.wrong_to_right, 400.0 / 6400.0);
        let known = |right: u64| corrected_for_guessing(right as f64 / 6400.0, 0.25).unwrap();
        let then = known(counts.right_to_right + counts.right_to_wrong);
        let now = known(counts.right_to_right + counts.wrong_to_right);
        close(then, 2400.0 / 6400.0);
        close(now - then, flips.wrong_to_right - flips.right_to_wrong);
    }
}
