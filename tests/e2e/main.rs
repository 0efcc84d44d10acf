//! The lab as its users meet it: the real binary, the real plugins, real signals and full disks.

// What a test measured or left out, to be read by whoever runs it.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod arms;
mod bad_input;
mod bad_libraries;
mod bare_terminal;
mod beginnings;
mod broken_files;
mod cache;
mod closed_pipes;
mod csv_folders;
mod data;
mod for_scripts;
mod hub;
mod instruct;
mod kill_and_resume;
mod labels_and_filters;
mod live_changes;
mod machine;
mod memory;
mod misbehaving_strategies;
mod model;
mod pages;
mod passing_errors;
mod pasted_commands;
mod phase_ends;
mod predictions;
mod printed;
mod processes;
mod pruning;
mod queue;
mod regression;
mod run_and_compare;
mod runs_on_disk;
mod sample;
mod samples;
mod screen;

mod screen_surviving;
mod statistics;
mod sweeps;
mod tensorboard;
mod terminal;
mod text;
mod token_files;
mod verify;
mod watch;
