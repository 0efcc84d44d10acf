//! Learning rate over the steps of a phase.

use crate::experiment::Schedule;

/// Learning rate of `step` (from 0) of a phase of `steps`: linear from 0 over `warmup` steps, then
/// constant or half a cosine down to 0. The first step of a warm-up has learning rate 0.
pub fn learning_rate(peak: f64, step: u64, warmup: u64, steps: u64, schedule: Schedule) -> f64 {
    if step < warmup {
        return peak * step as f64 / warmup as f64;
    }
    match schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => {
            let progress = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
            peak * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_from_zero_then_stays_or_falls_to_zero() {
        let at = |step, schedule| learning_rate(2.0, step, 4, 12, schedule);
        assert_eq!(at(0, Schedule::Constant), 0.0);
        assert_eq!(at(2, Schedule::Constant), 1.0);
        assert_eq!(at(11, Schedule::Constant), 2.0);
        assert_eq!(at(4, Schedule::Cosine), 2.0);
        assert!((at(8, Schedule::Cosine) - 1.0).abs() < 1e-12);
        assert!(at(12, Schedule::Cosine).abs() < 1e-12);
        assert_eq!(learning_rate(1.0, 0, 0, 5, Schedule::Constant), 1.0);
    }
}
