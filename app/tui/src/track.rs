//! What an arm scored, kept so that it can be drawn at once however long the run is: evaluations in at most so many
//! buckets, each with the least, the greatest and the mean of its values.

/// Most buckets of a track; when they are full, two neighbours become one.
pub const BUCKETS: usize = 2048;

/// What the x axis counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Optimizer steps of the arm.
    #[default]
    Steps,
    /// Tokens trained on.
    Tokens,
    /// Seconds of the arm, all it does included.
    Seconds,
    /// FLOPs of the arm, evaluation apart.
    Flops,
}

impl Axis {
    /// Every axis, in the order of their key.
    pub const ALL: [Self; 4] = [Self::Steps, Self::Tokens, Self::Seconds, Self::Flops];

    /// Name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
            Self::Flops => "FLOPs",
        }
    }

    /// The next one in turn.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|axis| *axis == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// A place on every x axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct At {
    /// Steps.
    pub steps: f64,
    /// Tokens trained on.
    pub tokens: f64,
    /// Seconds.
    pub seconds: f64,
    /// FLOPs; NaN where they were not counted.
    pub flops: f64,
}

impl At {
    /// The place on one axis.
    pub fn on(self, axis: Axis) -> f64 {
        match axis {
            Axis::Steps => self.steps,
            Axis::Tokens => self.tokens,
            Axis::Seconds => self.seconds,
            Axis::Flops => self.flops,
        }
    }
}

/// A value with half the width of its interval over seeds; NaN where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The value.
    pub mean: f64,
    /// Half the width of its 95 % interval.
    pub half: f64,
}

/// Values of some evaluations.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    low: f32,
    high: f32,
    count: u32,
    sum: f64,
    half: f32,
}

const EMPTY: Bucket = Bucket {
    low: f32::INFINITY,
    high: f32::NEG_INFINITY,
    count: 0,
    sum: 0.0,
    half: f32::NAN,
};

impl Bucket {
    fn add(&mut self, value: Value) {
        let shown = value.mean as f32;
        self.low = self.low.min(shown);
        self.high = self.high.max(shown);
        self.count += 1;
        self.sum += value.mean;
        self.half = value.half as f32;
    }

    fn join(self, later: Self) -> Self {
        Self {
            low: self.low.min(later.low),
            high: self.high.max(later.high),
            count: self.count + later.count,
            sum: self.sum + later.sum,
            half: match later.count {
                0 => self.half,
                _ => later.half,
            },
        }
    }

    /// The values at a place; there must be one.
    fn point(self, x: f64) -> Point {
        Point {
            x,
            low: f64::from(self.low),
            high: f64::from(self.high),
            mean: self.sum / f64::from(self.count),
            half: f64::from(self.half),
            count: self.count,
        }
    }
}

/// A point of a drawn curve: values of one evaluation, or of several that lie together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Place on the x axis.
    pub x: f64,
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
    /// Mean value.
    pub mean: f64,
    /// Half the width of the interval over seeds; NaN where there is none.
    pub half: f64,
    /// Evaluations that it stands for.
    pub count: u32,
}

impl Point {
    /// A point of one value.
    pub fn single(x: f64, value: f64) -> Self {
        Self {
            x,
            low: value,
            high: value,
            mean: value,
            half: f64::NAN,
            count: 1,
        }
    }

    /// This point and a later one as one, at the later place.
    fn join(self, later: Self) -> Self {
        let count = self.count + later.count;
        let share = f64::from(later.count) / f64::from(count);
        Self {
            low: self.low.min(later.low),
            high: self.high.max(later.high),
            mean: self.mean + (later.mean - self.mean) * share,
            count,
            ..later
        }
    }
}

/// The columns of a drawing along an axis.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The place of the first one.
    pub low: f64,
    /// The end of the last one.
    pub high: f64,
    /// How many there are.
    pub count: usize,
    /// Whether they are as wide in logarithms; places are then above 0.
    pub log: bool,
}

impl Columns {
    /// All places as one.
    pub const ONE: Self = Self {
        low: 0.0,
        high: 1.0,
        count: 0,
        log: false,
    };

    /// The column of a place; those out of sight have some, too.
    fn of(self, x: f64) -> f64 {
        let share = match self.log {
            true => (x / self.low).ln() / (self.high / self.low).ln(),
            false => (x - self.low) / (self.high - self.low),
        };
        // Of places that have no logarithm, all one.
        (share * self.count as f64).floor().max(-1e9)
    }
}

/// The evaluations of an arm: a line of values for each series, over the same places.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// Evaluations in a full bucket.
    stride: usize,
    /// Evaluations in the last one.
    filled: usize,
    /// Place of the last evaluation of every bucket.
    at: Vec<At>,
    lines: Vec<Vec<Bucket>>,
    /// Least and greatest value of each series.
    ends: Vec<Option<(f64, f64)>>,
}

impl Track {
    /// Adds an evaluation: the values of each series by its index; one that is no number is left out.
    pub fn push(&mut self, at: At, values: impl Iterator<Item = (usize, Value)>) {
        if self.at.is_empty() || self.filled == self.stride.max(1) {
            if self.at.len() == BUCKETS {
                self.halve();
            }
            if self.at.is_empty() || self.filled == self.stride {
                self.stride = self.stride.max(1);
                self.at.push(at);
                self.filled = 0;
            }
        }
        self.filled += 1;
        let last = self.at.len() - 1;
        self.at[last] = at;
        for (series, value) in values.filter(|(_, value)| value.mean.is_finite()) {
            if self.lines.len() <= series {
                self.lines.resize_with(series + 1, Vec::new);
                self.ends.resize(series + 1, None);
            }
            let (low, high) = self.ends[series].unwrap_or((value.mean, value.mean));
            self.ends[series] = Some((low.min(value.mean), high.max(value.mean)));
            let line = &mut self.lines[series];
            line.resize(last + 1, EMPTY);
            line[last].add(value);
        }
    }

    /// Makes one bucket of every two.
    fn halve(&mut self) {
        self.at = self.at.chunks(2).map(|pair| pair[pair.len() - 1]).collect();
        for line in &mut self.lines {
            let joined = line.chunks(2).map(|pair| match *pair {
                [first, later] => first.join(later),
                _ => pair[0],
            });
            *line = joined.collect();
        }
        self.stride *= 2;
        // BUCKETS is even: the last bucket is a full one.
        self.filled = self.stride;
    }

    /// The points of a series on an axis, in order; those without a place on it are left out.
    pub fn points(&self, series: usize, axis: Axis) -> impl Iterator<Item = Point> {
        let line = self.lines.get(series).map_or(&[][..], Vec::as_slice);
        let points = self.at.iter().zip(line).filter(|(_, b)| b.count > 0);
        let points = points.map(move |(at, bucket)| bucket.point(at.on(axis)));
        points.filter(|point| point.x.is_finite())
    }

    /// The points of a series for a drawing: of many that fall into one column, one.
    pub fn drawn(&self, series: usize, axis: Axis, columns: Columns) -> Vec<Point> {
        let points = self.points(series, axis);
        if self.at.len() <= 4 * columns.count {
            return points.collect();
        }
        let mut drawn: Vec<Point> = Vec::with_capacity(2 * columns.count);
        let mut last = f64::NAN;
        for point in points {
            let at = columns.of(point.x);
            match drawn.last_mut().filter(|_| at == last) {
                Some(before) => *before = before.join(point),
                None => drawn.push(point),
            }
            last = at;
        }
        drawn
    }

    /// The last value of a series up to a place on an axis.
    pub fn value_at(&self, series: usize, axis: Axis, place: f64) -> Option<f64> {
        let line = self.lines.get(series)?;
        let end = self.at.partition_point(|at| at.on(axis) <= place);
        let mut before = line[..end.min(line.len())].iter().rev();
        let bucket = before.find(|bucket| bucket.count > 0)?;
        Some(bucket.sum / f64::from(bucket.count))
    }

    /// Least and greatest value of a series.
    pub fn ends(&self, series: usize) -> Option<(f64, f64)> {
        *self.ends.get(series)?
    }

    /// The last point of a series.
    pub fn last(&self, series: usize) -> Option<Point> {
        let line = self.lines.get(series)?;
        let at = line.iter().rposition(|bucket| bucket.count > 0)?;
        Some(line[at].point(self.at[at].steps))
    }

    /// The last place.
    pub fn end(&self) -> Option<At> {
        self.at.last().copied()
    }

    /// The places kept, in order.
    pub fn places(&self) -> &[At] {
        &self.at
    }
}

/// Exponential moving average of the points, corrected for its start (as TensorBoard's), `weight` from 0 to 1.
pub fn smoothed(points: &[Point], weight: f64) -> Vec<f64> {
    let (mut sum, mut share) = (0.0, 1.0);
    let one = |point: &Point| {
        let keep = weight.powi(i32::try_from(point.count).unwrap_or(i32::MAX));
        sum = sum * keep + (1.0 - keep) * point.mean;
        share *= keep;
        sum / (1.0 - share)
    };
    points.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = f64>) -> Track {
        let mut track = Track::default();
        for (step, mean) in values.enumerate() {
            let at = At {
                steps: step as f64,
                ..At::default()
            };
            let value = Value {
                mean,
                half: f64::NAN,
            };
            track.push(at, std::iter::once((0, value)));
        }
        track
    }

    /// A short spike in a long run would vanish, or the lab would grow with the run.
    #[test]
    fn however_long_a_run_is_its_spikes_stay_and_its_memory_does_not_grow() {
        for length in [1, 2, 2047, 2048, 2049, 4097, 200_000] {
            let spike = length / 3;
            let track = of((0..length).map(|i| {
                if i == spike {
                    9.0
                } else {
                    (i % 7) as f64 / 7.0
                }
            }));
            assert!(track.at.len() <= BUCKETS);
            let points: Vec<Point> = track.points(0, Axis::Steps).collect();
            let counted: u32 = points.iter().map(|point| point.count).sum();
            assert_eq!(counted as usize, length);
            assert_eq!(points.last().map(|p| p.x), Some((length - 1) as f64));
            let highest = points.iter().map(|point| point.high).fold(0.0, f64::max);
            assert_eq!(highest, 9.0, "of {length}");
            assert!(points.windows(2).all(|pair| pair[0].x < pair[1].x));
        }
    }

    /// A spike would be lost between two columns, a key be answered late, or a curve end before its last value.
    #[test]
    fn a_drawing_has_a_point_a_column_and_every_spike() {
        let track = of((0..20_000).map(|i| if i == 7 { -3.0 } else { f64::from(i % 5) }));
        let all: Vec<Point> = track.points(0, Axis::Steps).collect();
        let columns = |count, log| Columns {
            low: if log { 1.0 } else { 0.0 },
            high: 20_000.0,
            count,
            log,
        };
        let drawn = track.drawn(0, Axis::Steps, columns(100, false));
        assert!(all.len() > 1000 && drawn.len() <= 101, "{}", drawn.len());
        let counted: u32 = drawn.iter().map(|point| point.count).sum();
        assert_eq!(counted, 20_000);
        assert_eq!((drawn[0].low, drawn[0].high), (-3.0, 4.0));
        assert_eq!(track.ends(0), Some((-3.0, 4.0)));
        assert_eq!(drawn.last().map(|p| p.x), all.last().map(|p| p.x));
        let places = |points: &[Point]| -> Vec<(f64, f64)> {
            points.iter().map(|point| (point.x, point.mean)).collect()
        };
        let mean = |points: &[Point]| {
            points
                .iter()
                .map(|p| p.mean * f64::from(p.count))
                .sum::<f64>()
        };
        assert!((mean(&drawn) - mean(&all)).abs() < 1e-6);
        let few = track.drawn(0, Axis::Steps, columns(1000, false));
        assert!(
            places(&few) == places(&all),
            "what is little is drawn as it is"
        );
        assert_eq!(
            track.value_at(0, Axis::Steps, 1e9),
            all.last().map(|p| p.mean)
        );
        assert_eq!(track.value_at(0, Axis::Steps, -1.0), None);
        // On a logarithmic axis the first ones are told apart, the last ones share columns.
        let log = track.drawn(0, Axis::Steps, columns(100, true));
        assert!(log.len() <= 102, "{}", log.len());
        assert_eq!(places(&log)[..3], places(&all)[..3]);
        assert_eq!(log.iter().map(|point| point.count).sum::<u32>(), 20_000);
        assert_eq!(log.last().map(|p| p.x), all.last().map(|p| p.x));
        let last = track.last(0).map(|point| (point.x, point.mean));
        assert_eq!(last, places(&all).last().copied());
    }

    #[test]
    fn a_short_run_is_drawn_as_it_is() {
        let track = of([1.0, f64::NAN, 3.0].into_iter());
        let means: Vec<(f64, f64)> = track
            .points(0, Axis::Steps)
            .map(|p| (p.x, p.mean))
            .collect();
        assert_eq!(means, [(0.0, 1.0), (2.0, 3.0)]);
    }

    /// The first smoothed value would hang towards zero.
    #[test]
    fn smoothing_starts_at_the_first_value_and_follows_a_step() {
        let points: Vec<Point> = (0..50)
            .map(|i| Point::single(f64::from(i), if i < 25 { 4.0 } else { 2.0 }))
            .collect();
        let smooth = smoothed(&points, 0.6);
        assert!((smooth[0] - 4.0).abs() < 1e-12 && (smooth[24] - 4.0).abs() < 1e-12);
        assert!(smooth[25] > 3.0 && (smooth[49] - 2.0).abs() < 1e-3);
        assert_eq!(
            smoothed(&points, 0.0),
            points.iter().map(|p| p.mean).collect::<Vec<_>>()
        );
    }
}
