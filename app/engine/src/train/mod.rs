//! Training: streams of random numbers, threads, objectives, optimizer, schedule, the loop.

mod adamw;
mod engine;
mod random;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use engine::{Engine, LossBatch, LossReport, RowLoss};
pub use random::{Random, Stream};
pub use schedule::learning_rate;
