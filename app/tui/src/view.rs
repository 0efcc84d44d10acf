//! How an experiment is looked at: what is shown, how, and of which arms. Kept from one visit to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::track::Axis;

/// The views of the experiments, by their names.
pub type Views = BTreeMap<String, View>;

/// A part of the watch screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pane {
    /// What was kept against what was learned.
    #[default]
    Retention,
    /// Curves of one metric, all arms overlaid.
    Curves,
    /// Training loss, gradient norm and learning rate.
    Losses,
    /// What is replayed.
    Replay,
    /// What the student writes.
    Samples,
    /// Task against task, after each phase.
    Matrix,
    /// The log.
    Log,
    /// A small panel for each arm.
    Panels,
    /// Everything about one arm.
    Arm,
}

impl Pane {
    /// Every pane, in the order in which they are put first.
    pub const ALL: [Self; 9] = [
        Self::Retention,
        Self::Curves,
        Self::Losses,
        Self::Replay,
        Self::Samples,
        Self::Matrix,
        Self::Log,
        Self::Panels,
        Self::Arm,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retention => "kept",
            Self::Curves => "curves",
            Self::Losses => "losses",
            Self::Replay => "replay",
            Self::Samples => "samples",
            Self::Matrix => "matrix",
            Self::Log => "log",
            Self::Panels => "panels",
            Self::Arm => "arm",
        }
    }

    /// The panes from this one on, in a circle.
    pub fn from(self) -> impl Iterator<Item = Self> {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0);
        Self::ALL.into_iter().cycle().skip(at).take(Self::ALL.len())
    }

    /// The next one.
    pub fn next(self) -> Self {
        self.from().nth(1).unwrap_or_default()
    }
}

/// How an experiment is looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// The pane that comes first.
    pub first: Pane,
    /// Whether one pane is shown alone.
    pub zoomed: bool,
    /// Name of what the curves show; empty for what a run is shown in first.
    pub shown: String,
    /// What the x axis counts.
    pub axis: Axis,
    /// Whether values are on a logarithmic scale.
    pub log: bool,
    /// Whether the x axis is logarithmic.
    pub log_axis: bool,
    /// Weight of what came before in smoothed curves, in tenths.
    pub smoothing: u8,
    /// Name of the column by which the table is sorted; empty for the order of what was kept.
    pub sort: String,
    /// Whether that order is turned.
    pub reversed: bool,
    /// Names of the arms that stay on top.
    pub pinned: BTreeSet<String>,
    /// Names of the arms that are hidden.
    pub hidden: BTreeSet<String>,
    /// The filter of arms.
    pub filter: String,
    /// Whether single seeds are shown apart.
    pub apart: bool,
    /// Whether tasks still to come have curves.
    pub future: bool,
}

impl View {
    /// Weight of what came before in smoothed curves.
    pub fn weight(&self) -> f64 {
        f64::from(self.smoothing.min(9)) / 10.0
    }
}

/// The views in a file; those that cannot be read are as new.
pub fn read(text: &str) -> Views {
    toml::from_str(text).unwrap_or_default()
}

/// The views as a file has them.
pub fn write(views: &Views) -> String {
    toml::to_string(views).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a researcher sets up the same screen every morning; a file of another version must not lose the rest.
    #[test]
    fn views_come_back_as_they_were_kept() {
        let mut view = View {
            first: Pane::Matrix,
            axis: Axis::Flops,
            smoothing: 6,
            ..View::default()
        };
        view.pinned.insert("none".into());
        let views = Views::from([("toy-continual".to_owned(), view)]);
        assert_eq!(read(&write(&views)), views);
        let newer = "[toy-continual]\nlog = true\nnew_thing = 3\n";
        assert!(read(newer)["toy-continual"].log);
        assert_eq!(read("what?"), Views::new());
    }
}
