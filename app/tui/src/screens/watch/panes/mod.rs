//! The panes of the watch screen, one file each.

mod arm;
mod curves;
mod log;
mod matrix;
mod panels;
mod replay;
mod retention;
mod samples;
