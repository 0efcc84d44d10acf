//! The function-space picture of the penalty: a small Bayesian network on two intervals of a line, in f64.
//!
//! A network learns a function on the *old* interval ([`Pretraining`]): first its most probable weights (MAP), then,
//! by stochastic-gradient Hamiltonian Monte Carlo, functions that spread as their posterior does ([`Posterior`]).
//! [`Finetuning`] then trains these functions on points of the *new* interval alone, without or with a penalty: the KL
//! divergence, at the old inputs, between the predictive distribution now and the one before. An [`Evaluation`] tells
//! the error on both intervals and how far the functions have moved; a [`Picture`] has the curves.
//!
//! Source: arXiv 2605.26097, "1-D regression", and its code, `experiments/1d_regression/compute.py`. The settings say
//! where they differ from it.
//!
//! Nothing here reads or writes files, and all is a function of the configuration and the seed: neither the number of
//! threads nor an interruption changes a bit.

mod config;
mod data;
mod ensemble;
mod error;
mod finetuning;
mod measure;
mod mlp;
mod picture;
mod posterior;
mod pretraining;
mod product;
mod sghmc;
mod stage;
mod tanh;
#[cfg(test)]
mod tests;

pub use config::{Config, EvaluationConfig, FinetuningConfig};
pub use data::{Data, Points, new_target, old_target};
pub use ensemble::Band;
pub use error::{Error, Result};
pub use finetuning::{Finetuning, FinetuningState};
pub use measure::{Errors, Evaluation};
pub use picture::Picture;
pub use posterior::Posterior;
pub use pretraining::{Pretraining, PretrainingState};
pub use sghmc::Chain;
pub use stage::Stage;
