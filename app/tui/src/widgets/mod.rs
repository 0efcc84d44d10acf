//! Parts that several screens draw with.

pub mod form;
pub mod grid;
pub mod line_edit;
pub mod names;
pub mod plot;
pub mod status;
pub mod text;
pub mod verdict;
