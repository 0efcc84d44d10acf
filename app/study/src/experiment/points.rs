//! The points that the grids of a sweep come to: each an ordinary run.

use super::grid::{AxisSpec, AxisValue, GridSpec, said};
use super::resolve::{from_anywhere, resolve_from};
use super::{Overrides, RunConfig, SpecError, differences};

/// A point of a sweep: an ordinary run.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name, for files and folders: what sets it apart, and a hash of what it is.
    pub name: String,
    /// Its grid; empty where the sweep has one alone.
    pub grid: String,
    /// Its place on each axis of the grid.
    pub place: Vec<AxisValue>,
    /// Its run.
    pub config: RunConfig,
}

/// The points of a sweep: of an experiment whose preset has grids, or that is given axes. `None` where it is one run.
///
/// # Errors
/// Where a setting or an axis is wrong, or an axis changes nothing.
pub fn points(experiment: &str, overrides: &Overrides) -> Result<Option<Vec<Point>>, SpecError> {
    let (base, arms, mut grids) = from_anywhere(experiment, overrides)?;
    if grids.is_empty() && overrides.axes.is_empty() {
        return Ok(None);
    }
    if grids.is_empty() {
        grids.push(GridSpec::default());
    }
    for (i, axis) in overrides.axes.iter().enumerate() {
        let given = overrides.axes[..i]
            .iter()
            .any(|other| other.key == axis.key);
        if given || axis.key == "seeds" && !overrides.seeds.is_empty() {
            return Err(SpecError::axis(&axis.key, "is given twice"));
        }
    }
    let mut all: Vec<Point> = Vec::new();
    for grid in grids {
        let grid = grid.with_axes(&overrides.axes);
        let mut of_grid: Vec<Point> = Vec::new();
        grid.axes.iter().try_for_each(AxisSpec::check)?;
        for at in grid.combinations() {
            let point = point(&base, &arms, &grid, &at, overrides)?;
            let is_twin = |other: &&Point| identity(&other.config) == identity(&point.config);
            let twin = of_grid.iter().find(is_twin);
            if let Some(twin) = twin {
                return Err(changes_nothing(&grid, twin, &point));
            }
            of_grid.push(point);
        }
        all.extend(of_grid);
    }
    Ok(Some(all))
}

/// Names the axis on which two points of one configuration differ.
fn changes_nothing(grid: &GridSpec, a: &Point, b: &Point) -> SpecError {
    let mut axes = grid.axes.iter().zip(a.place.iter().zip(&b.place));
    let (key, problem) = match axes.find(|(_, (a, b))| a != b) {
        Some((axis, (a, b))) => (
            axis.key.as_str(),
            format!(
                "changes nothing that decides numbers between {} and {}",
                a.value, b.value
            ),
        ),
        None => ("", "changes nothing".to_owned()),
    };
    SpecError::axis(key, problem)
}

fn point(
    base: &RunConfig,
    arms: &[String],
    grid: &GridSpec,
    at: &[usize],
    overrides: &Overrides,
) -> Result<Point, SpecError> {
    let mut config = base.clone();
    if !grid.phases.is_empty() {
        config
            .phases
            .retain(|phase| grid.phases.contains(&phase.dataset));
    }
    // Of what is set for a phase that this grid leaves out, nothing remains to be set.
    let left_out = |key: &str| {
        let mut phases = base.phases.iter();
        phases.any(|phase| {
            key.starts_with(&format!("phases.{}.", phase.dataset))
                && !config.phases.iter().any(|p| p.dataset == phase.dataset)
        })
    };
    let of_grid = grid.set.iter().map(|(k, v)| (k.clone(), v.to_string()));
    let given = overrides.set.iter().filter(|(key, _)| !left_out(key));
    let mut set: Vec<(String, String)> = of_grid.chain(given.cloned()).collect();
    let mut place = Vec::new();
    for (axis, &i) in grid.axes.iter().zip(at) {
        if overrides.set.iter().any(|(key, _)| *key == axis.key) {
            return Err(SpecError::axis(
                &axis.key,
                format!(
                    "--set gives it one value; choose among the axis's with --axis {}=...",
                    axis.key
                ),
            ));
        }
        let value = axis.values[i].clone();
        set.push((axis.key.clone(), value.to_string()));
        let along = axis.with.iter();
        set.extend(along.map(|(key, values)| (key.clone(), values[i].to_string())));
        place.push(AxisValue {
            key: axis.key.clone(),
            name: axis.name().to_owned(),
            value,
        });
    }
    let own = Overrides {
        arms: match overrides.arms.is_empty() {
            true => grid.arms.clone(),
            false => overrides.arms.clone(),
        },
        set,
        axes: Vec::new(),
        ..overrides.clone()
    };
    let config = resolve_from(config, arms.to_vec(), &own)?;
    Ok(Point {
        name: name(&grid.name, &place, &config),
        grid: grid.name.clone(),
        place,
        config,
    })
}

/// What sets a point apart, as far as a file can bear it, and a hash of what decides its numbers.
fn name(grid: &str, place: &[AxisValue], config: &RunConfig) -> String {
    const LONGEST: usize = 60;
    let values = place.iter();
    let values = values.map(|axis| format!("{}={}", axis.name, said(&axis.value)));
    let parts: Vec<String> = Some(grid.to_owned())
        .filter(|name| !name.is_empty())
        .into_iter()
        .chain(values)
        .collect();
    let safe = |c: char| match c.is_ascii_alphanumeric() || "-_.=".contains(c) {
        true => c,
        false => '_',
    };
    let label: String = parts.join("-").chars().map(safe).take(LONGEST).collect();
    let hash = &identity(config)[..8];
    match label.is_empty() {
        true => hash.to_owned(),
        false => format!("{label}-{hash}"),
    }
}

/// Hash of what decides a run's numbers.
fn identity(config: &RunConfig) -> String {
    let nothing = serde_json::Value::Null;
    let whole = serde_json::to_value(config).unwrap_or_default();
    let settings = differences(&nothing, &whole);
    let deciding = settings.iter().filter(|setting| setting.decides_numbers);
    let mut hasher = blake3::Hasher::new();
    for setting in deciding {
        hasher.update(format!("{}={}\n", setting.key, setting.second).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::experiments;
    use super::*;

    fn with(axes: &[&str], set: &[(&str, &str)]) -> Result<Vec<Point>, String> {
        let axes = axes.iter().map(|axis| AxisSpec::parse(axis).unwrap());
        let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let overrides = Overrides {
            axes: axes.collect(),
            set: set.collect(),
            ..Overrides::default()
        };
        let points = points("toy-continual", &overrides).map_err(|error| error.to_string())?;
        Ok(points.unwrap_or_default())
    }

    /// A preset of which a point does not resolve is a study that nobody can run.
    #[test]
    fn every_preset_with_grids_comes_to_points() {
        let mut sweeps = 0;
        for experiment in experiments() {
            for preset in experiment.presets() {
                let overrides = Overrides {
                    preset: Some(preset.to_owned()),
                    ..Overrides::default()
                };
                let points = points(experiment.name, &overrides).unwrap();
                assert!(points.as_ref().is_none_or(|points| points.len() >= 2));
                sweeps += usize::from(points.is_some());
            }
        }
        assert_eq!(sweeps, 15, "five studies, each with three presets");
    }

    /// A point that is another than its name says would be a wrong figure.
    #[test]
    fn axes_come_to_all_their_combinations() {
        let all = with(
            &["model.d_model=32,64", "phases.reversal.steps=5,10,20"],
            &[("optimizer.lr", "0.5")],
        )
        .unwrap();
        let of = |point: &Point| {
            let super::super::ModelSpec::Mini(model) = &point.config.model else {
                panic!()
            };
            (model.d_model, point.config.phases[0].steps)
        };
        let places: Vec<_> = all.iter().map(of).collect();
        assert_eq!(
            places,
            [(32, 5), (32, 10), (32, 20), (64, 5), (64, 10), (64, 20)]
        );
        assert!(all.iter().all(|point| point.config.optimizer.lr == 0.5));
        assert!(
            all[0].name.starts_with("d_model=32-steps=5-"),
            "{}",
            all[0].name
        );
        let mut names: Vec<&str> = all.iter().map(|point| point.name.as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), 6);
        assert_eq!(with(&[], &[]).unwrap(), []);
    }

    /// What is only where a run is computed must not make another point of it.
    #[test]
    fn a_name_follows_what_decides_the_numbers() {
        let name = |set: &[(&str, &str)]| with(&["model.d_model=32"], set).unwrap()[0].name.clone();
        assert_eq!(name(&[]), name(&[("threads", "7")]));
        assert_ne!(name(&[]), name(&[("optimizer.lr", "0.1")]));
    }

    /// Else a sweep would run for hours and have one point twice, or a typing error in every one.
    #[test]
    fn a_wrong_axis_is_named() {
        for (axes, set, expected) in [
            (
                vec!["model.d_modl=1,2"],
                vec![],
                "did you mean `model.d_model`",
            ),
            (vec!["model.d_model=32,33"], vec![], "must be a multiple"),
            (
                vec!["model.d_model=32,32"],
                vec![],
                "axis model.d_model: has 32 twice",
            ),
            (
                vec!["optimizer.lr=1,1.0"],
                vec![],
                "axis optimizer.lr: changes nothing that decides numbers between 1 and 1.0",
            ),
            (
                vec!["threads=1,2"],
                vec![],
                "axis threads: changes nothing that decides numbers",
            ),
            (
                vec!["optimizer.lr=1,2", "optimizer.lr=3,4"],
                vec![],
                "axis optimizer.lr: is given twice",
            ),
            (
                vec!["optimizer.lr=1,2"],
                vec![("optimizer.lr", "3")],
                "axis optimizer.lr: --set gives it one value",
            ),
        ] {
            let error = with(&axes, &set).unwrap_err();
            assert!(error.contains(expected), "{axes:?}: {error}");
        }
        assert!(AxisSpec::parse("model.d_model").is_err());
        let axis: Result<AxisSpec, _> = toml::from_str(
            "key = 'optimizer.lr'\nvalues = [1, 2]\nwith = { 'model.d_model' = [3] }",
        );
        let error = axis.unwrap().check().unwrap_err().to_string();
        assert!(error.contains("has 2 values, and model.d_model"), "{error}");
    }
}
