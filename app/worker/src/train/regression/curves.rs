//! What an arm draws at its end: targets, points, and the functions before and after.

use forgetlab_study::experiment::SamplesSettings;
use forgetlab_study::run::Curve;

use crate::regression::{Band, Config, Finetuning, Picture, Points, Posterior};

/// The lines of an arm's picture, in the order in which they are drawn.
pub(super) fn curves(
    config: &Config,
    seed: u64,
    posterior: &Posterior,
    now: &Finetuning,
) -> Vec<Curve> {
    let picture = Picture::new(config, seed, posterior);
    let x = &picture.x;
    let curves = [
        target("old target", &config.old, x, &picture.old_target),
        target("new target", &config.new, x, &picture.new_target),
        points("old points", &picture.data.old),
        points("new points", &picture.data.new),
        band("before", x, &picture.before),
        band("after", x, &now.band(x)),
    ];
    curves.map(rounded).into()
}

/// A target on its interval.
fn target(name: &str, interval: &SamplesSettings, x: &[f64], y: &[f64]) -> Curve {
    let all = x.iter().copied().zip(y.iter().copied());
    let (x, y) = all
        .filter(|(x, _)| (interval.from..=interval.to).contains(x))
        .unzip();
    Curve {
        name: name.into(),
        x,
        y,
        ..Curve::default()
    }
}

fn points(name: &str, points: &Points) -> Curve {
    Curve {
        name: name.into(),
        x: points.x.clone(),
        y: points.y.clone(),
        ..Curve::default()
    }
}

/// Median and quartiles of functions.
fn band(name: &str, x: &[f64], band: &Band) -> Curve {
    Curve {
        name: name.into(),
        x: x.to_vec(),
        y: band.median.clone(),
        low: band.lower_quartile.clone(),
        high: band.upper_quartile.clone(),
    }
}

/// To six decimals: more cannot be seen.
fn rounded(mut curve: Curve) -> Curve {
    let Curve {
        x, y, low, high, ..
    } = &mut curve;
    for number in x.iter_mut().chain(y).chain(low).chain(high) {
        *number = (*number * 1e6).round() / 1e6 + 0.0;
    }
    curve
}
