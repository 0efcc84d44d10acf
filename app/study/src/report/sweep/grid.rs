//! The axes of a grid, and the arms at each of its places.

use crate::experiment::{ArmInfo, shortest};
use crate::run::RunState;

use super::super::arms::{ArmSeeds, arms};
use super::super::series::without_rate;
use super::SweepPoint;
use crate::experiment::AxisValue;

/// The points of a sweep that form one grid.
pub(in crate::report) struct Grid<'a> {
    /// Name; empty where the sweep has one grid alone.
    pub(in crate::report) name: &'a str,
    /// Axes along which its points differ. One that changes with another before it is left out.
    pub(in crate::report) axes: Vec<Axis>,
    /// Places in the order of their axes.
    pub(in crate::report) places: Vec<Place<'a>>,
}

/// An axis of a grid.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Axis {
    /// Key of the setting.
    pub(in crate::report) key: String,
    /// Short name of the setting.
    pub(in crate::report) name: String,
    /// Its values as texts, where they are not all numbers; a place is an index into them then.
    words: Option<Vec<String>>,
}

/// A place of a grid.
pub(in crate::report) struct Place<'a> {
    /// Where it lies on each axis.
    pub(in crate::report) at: Vec<f64>,
    /// Its runs; one, unless several points lie there.
    pub(in crate::report) runs: Vec<(&'a str, &'a RunState)>,
}

impl Axis {
    /// Whether its values are numbers.
    pub(in crate::report) fn is_numeric(&self) -> bool {
        self.words.is_none()
    }

    /// Whether it is a learning rate.
    pub(in crate::report) fn is_rate(&self) -> bool {
        self.key == "lr" || self.key.ends_with(".lr")
    }

    /// A place on it, as it is said.
    pub(in crate::report) fn label(&self, at: f64) -> String {
        match &self.words {
            Some(words) => words.get(at as usize).cloned().unwrap_or_default(),
            None if self.is_rate() => rate(at),
            None if at.fract() == 0.0 && at.abs() < 1e6 => at.to_string(),
            None => shortest(at),
        }
    }
}

impl<'a> Place<'a> {
    /// The arms of its runs.
    pub(in crate::report) fn arms(&self) -> Vec<ArmSeeds<'a>> {
        arms(&self.runs)
    }
}

impl Grid<'_> {
    /// Its axes where all of them have numbers, if there are as many as given.
    pub(in crate::report) fn numeric<const N: usize>(&self) -> Option<&[Axis; N]> {
        let axes: &[Axis; N] = self.axes.as_slice().try_into().ok()?;
        axes.iter().all(Axis::is_numeric).then_some(axes)
    }

    /// Whether its one axis is the pretraining rate of arms that differ in their finetuning rate.
    pub(in crate::report) fn is_of_rates(&self) -> bool {
        let infos = || {
            let states = self.places.iter().flat_map(|place| &place.runs);
            states.flat_map(|(_, state)| state.arms.iter().map(|arm| &arm.info))
        };
        let differ = |a: &ArmInfo, b: &ArmInfo| a.lr != b.lr && without_rate(a) == without_rate(b);
        self.numeric::<1>().is_some_and(|[axis]| axis.is_rate())
            && infos().any(|a| infos().any(|b| differ(a, b)))
    }

    /// Whether its points are mixtures, with which the others are compared.
    pub(in crate::report) fn is_frontier(&self) -> bool {
        self.name == "frontier"
    }

    /// Names of the arms at all places, in the order in which they first appear.
    pub(in crate::report) fn arm_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for arm in self.places.iter().flat_map(Place::arms) {
            if !names.contains(&arm.name) {
                names.push(arm.name);
            }
        }
        names
    }
}

/// A learning rate as it is said: all of them with an exponent.
pub(in crate::report) fn rate(rate: f64) -> String {
    format!("{rate:e}")
}

/// The number that a value is.
fn number(value: &toml::Value) -> Option<f64> {
    let number = match value {
        toml::Value::Integer(integer) => *integer as f64,
        toml::Value::Float(float) => *float,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The grids of a sweep, in the order in which their points first appear.
pub(in crate::report) fn grids(points: &[SweepPoint]) -> Vec<Grid<'_>> {
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.grid.as_str()) {
            names.push(&point.grid);
        }
    }
    let of = |name| points.iter().filter(move |point| point.grid == name);
    let grid = |name| Grid::of(name, &of(name).collect::<Vec<_>>());
    names.into_iter().map(grid).collect()
}

impl<'a> Grid<'a> {
    fn of(name: &'a str, points: &[&'a SweepPoint]) -> Self {
        let mut keys: Vec<&AxisValue> = Vec::new();
        for value in points.iter().flat_map(|point| &point.place) {
            if !keys.iter().any(|known| known.key == value.key) {
                keys.push(value);
            }
        }
        let all: Vec<(Axis, Vec<f64>)> = keys
            .into_iter()
            .filter_map(|value| column(points, value))
            .collect();
        let mut kept: Vec<(Axis, Vec<f64>)> = Vec::new();
        for (axis, values) in all {
            let varies = distinct(values.iter().map(|v| [v.to_bits(), 0])) > 1;
            let follows = |(_, before): &(Axis, Vec<f64>)| {
                let pairs = before.iter().zip(&values);
                let pairs = distinct(pairs.map(|(a, b)| [a.to_bits(), b.to_bits()]));
                let alone = |values: &[f64]| distinct(values.iter().map(|v| [v.to_bits(), 0]));
                pairs == alone(before) && pairs == alone(&values)
            };
            if varies && !kept.iter().any(follows) {
                kept.push((axis, values));
            }
        }
        let mut places: Vec<Place> = Vec::new();
        for (i, point) in points.iter().enumerate() {
            let at: Vec<f64> = kept.iter().map(|(_, values)| values[i]).collect();
            let run = (point.name.as_str(), &point.state);
            match places.iter_mut().find(|place| place.at == at) {
                Some(place) => place.runs.push(run),
                None => places.push(Place {
                    at,
                    runs: vec![run],
                }),
            }
        }
        places.sort_by(|a, b| a.at.partial_cmp(&b.at).unwrap_or(std::cmp::Ordering::Equal));
        Self {
            name,
            axes: kept.into_iter().map(|(axis, _)| axis).collect(),
            places,
        }
    }
}

/// An axis with the place of every point on it; `None` where a point has none.
fn column(points: &[&SweepPoint], of: &AxisValue) -> Option<(Axis, Vec<f64>)> {
    let own = points.iter().map(|point| value_of(point, &of.key));
    let values: Vec<&toml::Value> = own.collect::<Option<_>>()?;
    let numbers: Option<Vec<f64>> = values.iter().copied().map(number).collect();
    let axis = |words| Axis {
        key: of.key.clone(),
        name: of.name.clone(),
        words,
    };
    if let Some(numbers) = numbers {
        return Some((axis(None), numbers));
    }
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut words: Vec<String> = Vec::new();
    let mut places = Vec::new();
    for word in values.into_iter().map(text) {
        let at = words.iter().position(|known| *known == word);
        places.push(at.unwrap_or(words.len()) as f64);
        if at.is_none() {
            words.push(word);
        }
    }
    Some((axis(Some(words)), places))
}

fn value_of<'a>(point: &'a SweepPoint, key: &str) -> Option<&'a toml::Value> {
    let own = point.place.iter().find(|value| value.key == key);
    own.map(|own| &own.value)
}

/// How many different ones there are.
fn distinct(values: impl Iterator<Item = [u64; 2]>) -> usize {
    values.collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::super::made_up::place;
    use super::*;

    fn point(place: Vec<AxisValue>) -> SweepPoint {
        SweepPoint {
            name: "p".into(),
            grid: String::new(),
            place,
            state: RunState::default(),
        }
    }

    /// Else a rate that goes with the size of a model would make a line of sizes a map with empty fields.
    #[test]
    fn an_axis_that_goes_with_another_is_none() {
        let sizes = [(64.0, 6e-3), (32.0, 1e-2), (128.0, 6e-3)];
        let of = |sizes: &[(f64, f64)]| -> Vec<SweepPoint> {
            let at = |&(d, lr): &(f64, f64)| {
                let constant = place("model.n_layers", "layers", 2.0);
                vec![
                    constant,
                    place("model.d_model", "D", d),
                    place("optimizer.lr", "lr", lr),
                ]
            };
            sizes.iter().map(|size| point(at(size))).collect()
        };
        let points = of(&sizes[..2]);
        let grid = &grids(&points)[0];
        let axes = grid.numeric::<1>().expect("one axis");
        assert_eq!((axes[0].name.as_str(), axes[0].is_rate()), ("D", false));
        let at: Vec<&[f64]> = grid.places.iter().map(|place| &place.at[..]).collect();
        assert_eq!(at, [[32.0], [64.0]]);
        // A rate that two sizes share does not follow them one to one.
        let points = of(&sizes);
        assert!(grids(&points)[0].numeric::<2>().is_some());
    }

    /// Else names would be drawn at numbers.
    #[test]
    fn words_are_no_numbers() {
        let word = |word: &str| AxisValue {
            value: toml::Value::String(word.into()),
            ..place("optimizer.schedule", "schedule", 0.0)
        };
        let points = ["cosine", "constant", "cosine"].map(|w| point(vec![word(w)]));
        let grid = &grids(&points)[0];
        assert!(grid.numeric::<1>().is_none());
        let axis = &grid.axes[0];
        let told: Vec<(String, usize)> = grid
            .places
            .iter()
            .map(|place| (axis.label(place.at[0]), place.runs.len()))
            .collect();
        assert_eq!(told, [("cosine".to_owned(), 2), ("constant".to_owned(), 1)]);
    }
}
