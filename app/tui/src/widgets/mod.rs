//! Parts that several screens draw with.

pub mod arm_table;
pub mod chart;
pub mod form;
pub mod text;
