//! What was asked of a run, what happened in it, and what is told of it.
//!
//! In reading order: [`experiment`] is what is to be done, [`run`] is a run's folder with its events and
//! checkpoints, [`report`] derives CSVs, tables and figures from the events alone. Nothing here computes:
//! tensors are names, shapes and bytes, and no terminal is touched.

#![forbid(unsafe_code)]

pub mod experiment;
pub mod run;

pub mod report;
