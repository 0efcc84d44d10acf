//! Experiments and their settings, runs on disk, and reports of runs.
//!
//! In reading order: [`experiment`] describes what to run, [`run`] reads and writes a run's folder with its
//! events and checkpoints, [`report`] derives CSVs, tables and figures from the events alone. There are no
//! numerics here, tensors are names, shapes and bytes; and nothing touches the terminal.

#![forbid(unsafe_code)]

pub mod experiment;
pub mod report;
pub mod run;
