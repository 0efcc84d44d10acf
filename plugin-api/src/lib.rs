#![doc = include_str!("../README.md")]
//!
//! ## What a strategy decides
//! A strategy decides which tokens are replayed, nothing else. How they are used is decided by the
//! objective of the arm: `every-other:kl:10` adds 10 · KL(reference || student) on each [`Batch`],
//! `every-other:ntp:10` adds 10 · NTP (the next-token loss), `every-other:replace:0.1` replaces a tenth
//! of the new rows by the batch's. A strategy can read the arm's [`Phase::objective`] and
//! [`Phase::coeff`]; a batch may override the coefficient, and the objective row by row.
//!
//! The *student* is being trained on the new task; the *reference* is its frozen copy at the start
//! of the phase; old tasks are those it was trained on before.
//!
//! ## Life
//! 1. [`Strategy::create`], once an arm. Nothing can be drawn, generated or scored yet.
//! 2. [`Strategy::phase_started`], at the start of each phase. The reference is a new one, so samples
//!    of the last one are to be dropped.
//! 3. [`Strategy::next_batch`] before and [`Strategy::observe`] after each step of the phase.
//!
//! The lab trains the first phase, which has no old tasks, once for all arms, so that an instance
//! usually begins its life with the second. Do not count on seeing the first, nor on never seeing it.
//!
//! Between two calls the lab may [`Strategy::save`] at any time. To resume, it makes a fresh instance
//! with `create`, hands the state to [`Strategy::load`] and goes on with `next_batch`.
//!
//! ## Reproducibility
//! Equal settings, state and random stream must give equal batches, or a resumed run would not
//! equal an uninterrupted one. So take randomness from [`Host::random`], save everything else that later
//! batches depend on in [`Strategy::save`], and depend neither on time nor on the order of a hash map.
//! What was learnt from [`Strategy::observe`] is part of the state. `forgetlab plugins check` saves an instance,
//! loads a second one and compares their batches.
//!
//! ## A batch
//! [`Host::draw_old`] and [`Host::generate`] give [`Sequences`], which turn into a [`Batch`] with
//! `.into()`; [`Sequences::from_rows`] makes them from token ids. [`Step::rows`] rows are wanted, up
//! to [`Phase::max_rows`] accepted. Rows may differ in length; weights say which tokens are scored (by
//! default all but the first). The lab checks ids, lengths and weights before it uses a batch, and an
//! invalid one ends the arm with a message that names the row and token.
//!
//! ## Services
//! | service | capability to declare |
//! |---|---|
//! | [`Host::draw_old`], [`Host::draw_old_task`] | [`Capabilities::NEEDS_OLD_DATA`] |
//! | [`Host::generate`] | [`Capabilities::NEEDS_GENERATION`] |
//! | [`Host::encode`], [`Host::decode`], [`Host::special_tokens`] | [`Capabilities::NEEDS_TOKENIZER`] |
//! | [`Host::score`] | [`Capabilities::NEEDS_SCORES`] |
//! | [`Host::keep_snapshot`], [`Model::Snapshot`] | [`Capabilities::NEEDS_SNAPSHOTS`] |
//! | [`Model::VirtualStep`] | [`Capabilities::NEEDS_VIRTUAL_STEP`] |
//! | [`Teacher::Supplied`] | [`Capabilities::SUPPLIES_TEACHER`] |
//! | [`Host::new_batch`], [`Host::random`], [`Host::log`], [`Host::metric`], [`Host::cancelled`] | none |
//!
//! One request is for at most [`abi::MAX_BATCHES`] × [`Phase::max_rows`] rows and [`abi::MAX_ELEMENTS`] values, a
//! state has at most [`abi::MAX_STATE`] bytes. Rows drawn in a phase may be kept for the next; samples of the
//! reference may not, nor may a strategy use what it does not declare.
//!
//! A run whose lab does not offer what a strategy declares is refused before it starts. This
//! version of the lab offers all but the last three; the contract has them already, so that a
//! strategy written today will work when they come.
//!
//! ## When something goes wrong
//! An [`Error`] ends the arm with its text, so say what was wrong and what to do; the other arms go
//! on. [`Error::Retry`] asks to be called again; after [`Error::Unsupported`] from a service a strategy
//! may go on without it; return [`Error::Cancelled`] from long work when [`Host::cancelled`] is true. A
//! panic is caught and ends the arm (build with `panic = "unwind"`, the default).
//!
//! ## Four designs
//! **Maximally interfered retrieval**: replay the old rows that the coming step would hurt most
//! ([`Capabilities::NEEDS_VIRTUAL_STEP`]).
//! ```
//! # use forgetlab_plugin_api::*;
//! fn next_batch(step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
//!     let pool = host.draw_old(step.rows * 4)?;
//!     let before = host.score(Model::Student, &pool, 0)?.log_probs;
//!     let after = host.score(Model::VirtualStep, &pool, 0)?.log_probs;
//!     let harm = |row: usize| -> f32 {
//!         let cells = row * pool.seq_len..(row + 1) * pool.seq_len;
//!         cells.map(|cell| before[cell] - after[cell]).sum()
//!     };
//!     let mut rows: Vec<usize> = (0..pool.rows()).collect();
//!     rows.sort_by(|a, b| harm(*b).total_cmp(&harm(*a)).then(a.cmp(b)));
//!     Ok(Some(pool.select(rows.into_iter().take(step.rows)).into()))
//! }
//! ```
//!
//! **Dark experience replay**: keep the reference's log-probabilities of old rows, and supply them as the
//! teacher ([`Capabilities::SUPPLIES_TEACHER`]).
//! ```
//! # use forgetlab_plugin_api::*;
//! struct Memory { rows: Sequences, top: Scores }
//!
//! fn remember(phase: &Phase, host: &mut Host) -> Result<Memory, Error> {
//!     let rows = host.draw_old(phase.replay_rows)?;
//!     let top = host.score(Model::Reference, &rows, 8)?;
//!     Ok(Memory { rows, top })
//! }
//! fn batch(memory: &Memory) -> Batch {
//!     let Scores { k, top_ids, top_log_probs, .. } = memory.top.clone();
//!     let teacher = Teacher::Supplied { k, ids: top_ids, log_probs: top_log_probs };
//!     Batch { teacher, ..memory.rows.clone().into() }
//! }
//! ```
//!
//! **On-policy replay with a filter**: sample from the student, and replay only what is likely under the
//! reference.
//! ```
//! # use forgetlab_plugin_api::*;
//! fn next_batch(step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
//!     let prompts = step.phase.prompts_in_equal_shares(step.rows * 2);
//!     let request = Generate { model: Model::Student, ..Generate::new(prompts, step.phase.seq_len) };
//!     let samples = host.generate(&request)?;
//!     let log_probs = host.score(Model::Reference, &samples, 0)?.log_probs;
//!     let mean = |row: usize| {
//!         let cells = &log_probs[row * samples.seq_len..][..samples.lengths[row] as usize];
//!         cells.iter().sum::<f32>() / cells.len() as f32
//!     };
//!     let likely = (0..samples.rows()).filter(|row| mean(*row) > -1.0);
//!     let kept: Vec<usize> = likely.take(step.rows).collect();
//!     host.metric("kept", kept.len() as f64 / samples.rows() as f64)?;
//!     Ok((!kept.is_empty()).then(|| samples.select(kept).into()))
//! }
//! ```
//!
//! **A mixture of two strategies**: a strategy is a plain type, so one can own others, take rows of
//! both and give each row its own objective.
//! ```
//! # use forgetlab_plugin_api::*;
//! fn mix(
//!     a: &mut impl Strategy, b: &mut impl Strategy, step: &Step, host: &mut Host,
//! ) -> Result<Option<Batch>, Error> {
//!     let half = Step { rows: step.rows / 2, ..step.clone() };
//!     let (Some(a), Some(b)) = (a.next_batch(&half, host)?, b.next_batch(&half, host)?) else {
//!         return Ok(None);
//!     };
//!     let (a, b) = (a.sequences, b.sequences);
//!     let rows = (0..a.rows()).map(|r| a.row(r)).chain((0..b.rows()).map(|r| b.row(r)));
//!     let sequences = Sequences::from_rows(&rows.collect::<Vec<_>>(), 0);
//!     let mut objectives = vec![RowObjective::Kl; a.rows()];
//!     objectives.resize(sequences.rows(), RowObjective::Ntp);
//!     Ok(Some(Batch { row_objectives: Some(objectives), ..sequences.into() }))
//! }
//! ```

pub mod abi;
mod batch;
mod error;
mod host;
mod phase;
mod raw;
#[doc(hidden)]
pub mod shim;
mod state;
mod strategy;

pub use batch::{Batch, RowObjective, Sequences, Teacher};
pub use error::Error;
pub use host::{Generate, Host, Level, Model, Scores, SpecialTokens};
pub use phase::{ArmObjective, Observation, Phase, Step, Task};
pub use state::{ReplayBuffer, StateReader, StateWriter};
pub use strategy::{Capabilities, Settings, Strategy};
