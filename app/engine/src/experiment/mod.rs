//! What is to be done: experiments, presets, arms.

mod spec;

pub use spec::*;
