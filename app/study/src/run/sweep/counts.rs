//! How a sweep stands as a whole.

use super::super::RunStatus;
use super::PointStatus;

/// How many points of a sweep stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCounts {
    /// Points in all.
    pub all: usize,
    /// Whole.
    pub finished: usize,
    /// Failed or refused.
    pub bad: usize,
    /// Being worked on.
    pub live: usize,
    /// A process works through them, also between one point and the next.
    pub worked_on: bool,
}

impl SweepCounts {
    /// Counts the points of a sweep.
    pub fn of<'a>(statuses: impl IntoIterator<Item = &'a PointStatus>) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            counts.all += 1;
            match status {
                PointStatus::Finished => counts.finished += 1,
                PointStatus::Failed | PointStatus::Refused(_) => counts.bad += 1,
                PointStatus::Live => counts.live += 1,
                PointStatus::Waiting | PointStatus::Unfinished => {}
            }
        }
        counts
    }

    /// Whether somebody works on it.
    pub fn is_live(self) -> bool {
        self.live > 0 || self.worked_on
    }

    /// How the sweep stands, as if it were one run.
    pub fn status(self) -> RunStatus {
        match self {
            _ if self.is_live() => RunStatus::Live,
            Self { all, finished, .. } if finished == all => RunStatus::Finished,
            Self {
                all, finished, bad, ..
            } if finished + bad == all => RunStatus::Failed,
            _ => RunStatus::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a sweep would be called over while its process takes the next point.
    #[test]
    fn a_sweep_is_live_while_anybody_works_on_it() {
        use PointStatus::*;
        let status = |points: &[PointStatus]| SweepCounts::of(points).status();
        assert_eq!(status(&[Finished, Live]), RunStatus::Live);
        assert_eq!(status(&[Finished, Waiting]), RunStatus::Interrupted);
        assert_eq!(status(&[Finished, Failed]), RunStatus::Failed);
        assert_eq!(status(&[Finished, Finished]), RunStatus::Finished);
        let between = SweepCounts {
            worked_on: true,
            ..SweepCounts::of(&[Finished, Waiting])
        };
        assert_eq!(between.status(), RunStatus::Live);
    }
}
