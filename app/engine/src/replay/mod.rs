//! The plugin host: finds strategy libraries, checks them, calls them, guards the lab against them.
//!
//! A `Registry` lists the libraries of a search path. A `Plugin` that passed the handshake makes
//! `StrategyInstance`s, one an arm, with settings valid by its schema. Whatever an instance returns
//! is checked before the training loop sees it; what it may ask for is the trait [`Services`].

mod batch;
mod error;
mod services;

pub use batch::*;
pub use error::*;
pub use services::*;
