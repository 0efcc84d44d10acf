//! Plots of dots: curves over an axis, and trajectories of one quantity against another.

mod canvas;
mod curves;
mod scale;
mod trajectories;

pub use curves::{Curve, Curves};
pub use scale::{Range, short, written};
pub use trajectories::{Trajectories, Trajectory};
