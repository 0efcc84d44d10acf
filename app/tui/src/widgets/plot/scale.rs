//! From values to places on an axis and back, and how values are written there.

use crate::track::Axis;
use crate::widgets::text::{count, seconds};

/// Lowest and highest value of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
}

impl Range {
    /// The range of values; `None` where none is a number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let finite = values.into_iter().filter(|value| value.is_finite());
        finite.fold(None, |range: Option<Self>, value| {
            Some(range.map_or(Self::at(value), |range| range.with(value)))
        })
    }

    fn at(value: f64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    fn with(self, value: f64) -> Self {
        Self {
            low: self.low.min(value),
            high: self.high.max(value),
        }
    }

    /// The same, with some width where all values are one.
    pub fn opened(self) -> Self {
        if self.high > self.low {
            return self;
        }
        let by = match self.low {
            0.0 => 1.0,
            value => value.abs() * 0.1,
        };
        Self {
            low: self.low - by,
            high: self.high + by,
        }
    }
}

/// A value axis: its range, and whether it is logarithmic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    range: Range,
    log: bool,
    /// Both ends, or their logarithms.
    ends: Range,
}

impl Scale {
    /// An axis over a range; logarithmic only where all of it is above 0.
    pub fn new(range: Range, log: bool) -> Self {
        let range = range.opened();
        let log = log && range.low > 0.0;
        let ends = match log {
            true => Range {
                low: range.low.ln(),
                high: range.high.ln(),
            },
            false => range,
        };
        Self { range, log, ends }
    }

    /// Place of a value from 0 (lowest) to 1.
    pub fn place(self, value: f64) -> f64 {
        let value = match self.log {
            true => value.max(f64::MIN_POSITIVE).ln(),
            false => value,
        };
        let Range { low, high } = self.ends;
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Whether a value lies within.
    pub fn holds(self, value: f64) -> bool {
        value >= self.range.low && value <= self.range.high
    }

    /// The part of a straight line between two points that lies within, by their first numbers; `None` where none does.
    pub fn part(self, from: (f64, f64), to: (f64, f64)) -> Option<[(f64, f64); 2]> {
        let Range { low, high } = self.range;
        if to.0 < low || from.0 > high {
            return None;
        }
        let on_it = |at: f64| {
            let share = (at - from.0) / (to.0 - from.0);
            (at, from.1 + (to.1 - from.1) * share)
        };
        let start = if from.0 < low { on_it(low) } else { from };
        let end = if to.0 > high { on_it(high) } else { to };
        Some([start, end])
    }

    /// The value at a place.
    pub fn value(self, place: f64) -> f64 {
        let Range { low, high } = self.ends;
        let value = low + (high - low) * place;
        if self.log { value.exp() } else { value }
    }
}

/// A value in at most five columns.
pub fn short(value: f64, percent: bool) -> String {
    if percent {
        let shown = format!("{:.0}%", value * 100.0);
        return if shown == "-0%" { "0%".into() } else { shown };
    }
    let size = value.abs();
    match size {
        0.0 => "0".into(),
        _ if !(0.001..99_999.5).contains(&size) => format!("{value:.0e}"),
        _ if size < 0.0995 => format!("{value:.3}").replacen("0.", ".", 1),
        _ if size < 9.995 => format!("{value:.2}"),
        _ if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A place on an x axis as it is written.
pub fn written(axis: Axis, value: f64) -> String {
    match axis {
        Axis::Steps | Axis::Tokens => count(value.max(0.0).round() as u64),
        Axis::Seconds => seconds(value),
        Axis::Flops if value == 0.0 => "0".into(),
        Axis::Flops => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_values_belong_together_on_both_scales() {
        let range = Range {
            low: 0.01,
            high: 1.0,
        };
        for log in [false, true] {
            let scale = Scale::new(range, log);
            for place in [0.0, 0.25, 1.0] {
                assert!((scale.place(scale.value(place)) - place).abs() < 1e-12);
            }
        }
        assert!((Scale::new(range, true).place(0.1) - 0.5).abs() < 1e-12);
        let zero = Range {
            low: 0.0,
            high: 1.0,
        };
        assert_eq!(
            Scale::new(zero, true).place(0.5),
            0.5,
            "there is no logarithm of 0"
        );
        let one = Range::of([3.0, f64::NAN]).map(|range| Scale::new(range, false));
        assert_eq!(one.map(|scale| scale.place(3.0)), Some(0.5));
    }

    /// Else a curve would vanish between two of its points, or bend where it leaves the plot.
    #[test]
    fn the_part_of_a_line_that_lies_within_keeps_its_slope() {
        let range = Range {
            low: 4.0,
            high: 6.0,
        };
        let scale = Scale::new(range, false);
        let ends = |from, to| scale.part((from, from / 10.0), (to, to / 10.0));
        assert_eq!(ends(0.0, 10.0), Some([(4.0, 0.4), (6.0, 0.6)]));
        assert_eq!(ends(5.0, 10.0), Some([(5.0, 0.5), (6.0, 0.6)]));
        assert_eq!(ends(0.0, 5.0), Some([(4.0, 0.4), (5.0, 0.5)]));
        assert_eq!((ends(0.0, 3.0), ends(7.0, 9.0)), (None, None));
    }

    #[test]
    fn labels_fit_their_columns() {
        let values = [0.0, 0.00001, -0.034, 0.5, 12.34, 123.4, 99_999.0, 1e9, -1e9];
        for value in values {
            assert!(short(value, false).len() <= 6, "{}", short(value, false));
        }
        assert_eq!(short(0.034, false), ".034");
        assert_eq!(short(-0.001, true), "0%");
    }
}
