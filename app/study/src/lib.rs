//! Experiments and their settings, runs on disk, and reports of runs.
//!
//! In reading order, each module over those before it:
//! - [`stats`]: means, intervals and tests of small samples, from numbers alone;
//! - [`printed`]: text that does nothing to a terminal;
//! - [`filter`]: the language by which runs and arms are filtered;
//! - [`experiment`]: what is to be done: experiments, presets, settings, arms;
//! - [`run`]: a run's folder: its events and the state they tell, lock, checkpoints, cache;
//! - [`report`]: CSVs, tables, figures and verdicts, from the events alone.
//!
//! Nothing computes on tensors here, they are names, shapes and bytes; and nothing touches the terminal.

#![forbid(unsafe_code)]

pub mod experiment;
pub mod filter;
pub mod printed;
pub mod report;
pub mod run;
pub mod stats;
