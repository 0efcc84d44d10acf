//! What was asked of a run, what happened in it, and what is told of it.
//!
//! In reading order, each module over those before it:
//! - [`experiment`]: what is to be done: experiments, presets, settings, arms;
//! - [`run`]: a run's folder: its events and the state they tell, lock, checkpoints, cache;
//! - [`report`]: CSVs, tables, figures and verdicts, from the events alone.
//!
//! Nothing here computes: tensors are names, shapes and bytes, and no terminal is touched.

#![forbid(unsafe_code)]

pub mod experiment;
pub mod run;

pub mod report;
