//! Experiments and their settings, runs on disk, and reports of runs.
//!
//! In reading order, each module over those before it:
//! - [`experiment`]: what is to be done: experiments, presets, settings, arms;
//! - [`run`]: a run's folder: its events and the state they tell, lock, checkpoints, cache;
//! - [`report`]: CSVs, tables, figures and verdicts, from the events alone.
//!
//! There are no numerics here: tensors are names, shapes and bytes; and nothing touches the terminal.

#![forbid(unsafe_code)]

pub mod experiment;
pub mod report;
pub mod run;
