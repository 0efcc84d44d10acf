//! The contract between forgetlab and its replay strategies.
//!
//! A strategy decides what is replayed while a language model is finetuned. It is a shared library;
//! in Rust it is a crate of type `cdylib` that implements [`Strategy`] and exports it:
//!
//! ```
//! use forgetlab_plugin_api::*;
//!
//! /// Replays true old sequences every other step.
//! struct EveryOther;
//!
//! impl Strategy for EveryOther {
//!     const NAME: &'static str = "every-other";
//!     const SUMMARY: &'static str = "true old data, every other step";
//!     const CAPABILITIES: Capabilities = Capabilities::NEEDS_OLD_DATA;
//!
//!     fn create(_: &Settings, _: &mut Host) -> Result<Self, Error> {
//!         Ok(EveryOther)
//!     }
//!     fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
//!         if step.phase.old_tasks.is_empty() || step.phase_step % 2 == 1 {
//!             return Ok(None);
//!         }
//!         Ok(Some(host.draw_old(step.rows)?.into()))
//!     }
//!     fn save(&self) -> Result<Vec<u8>, Error> {
//!         Ok(Vec::new())
//!     }
//!     fn load(&mut self, _: u32, _: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//!
//! export_strategy!(EveryOther);
//! ```
//!
//! `forgetlab plugins check FILE` tries a library out; `--plugin-dir DIR` makes the lab use it. The
//! lab goes by one rule above all: equal settings, state and random stream must give equal batches,
//! or a resumed run would not equal an uninterrupted one. So randomness comes from [`Host::random`],
//! and everything that later batches depend on is in [`Strategy::save`].
//!
//! Strategies in other languages build on `include/forgetlab_strategy.h`; [`abi`] explains the rules.
//!
//! # Four designs
//! **Maximally interfered retrieval**: replay the old rows that the coming step would hurt most.
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
//! **Dark experience**: keep what the model said of old rows when it still knew them, and hand it in
//! as the teacher ([`Capabilities::SUPPLIES_TEACHER`]).
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
//! **On-policy replay with a filter**: the student speaks, and only what the reference finds likely
//! is replayed.
//! ```
//! # use forgetlab_plugin_api::*;
//! fn next_batch(step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
//!     let prompts = step.phase.prompts_in_equal_shares(step.rows * 2);
//!     let request = Generate { model: Model::Student, ..Generate::new(prompts, step.phase.seq_len) };
//!     let said = host.generate(&request)?;
//!     let likely = host.score(Model::Reference, &said, 0)?.log_probs;
//!     let mean = |row: usize| {
//!         let cells = &likely[row * said.seq_len..][..said.lengths[row] as usize];
//!         cells.iter().sum::<f32>() / cells.len() as f32
//!     };
//!     let kept: Vec<usize> = (0..said.rows()).filter(|row| mean(*row) > -1.0).take(step.rows).collect();
//!     host.metric("kept", kept.len() as f64 / said.rows() as f64)?;
//!     Ok((!kept.is_empty()).then(|| said.select(kept).into()))
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
mod host;
mod phase;
mod raw;
#[doc(hidden)]
pub mod shim;
mod state;
mod strategy;

pub use batch::*;
pub use host::*;
pub use phase::*;
pub use state::*;
pub use strategy::*;
