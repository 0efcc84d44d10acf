//! What is to be done: experiments, presets, arms.
//!
//! [`resolve`] turns an experiment's name and the command line into a [`RunConfig`] that decides
//! every number, [`expand`] turns that into arms.

mod arm;
mod catalog;
mod error;
mod hash;
mod resolve;
mod spec;
mod text;
mod validate;

pub use arm::*;
pub use catalog::*;
pub use error::*;
pub use hash::*;
pub use resolve::*;
pub use spec::*;
pub use text::*;
pub use validate::*;
