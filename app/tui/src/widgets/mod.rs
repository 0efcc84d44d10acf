//! Widgets that several screens use.

pub mod arm_table;
pub mod chart;
pub mod form;
pub mod grid;
pub mod names;
pub mod status;
pub mod text;
pub mod verdict;
