//! The lab as its users meet it: the real binary, the real plugins, real signals and full disks.

mod bad_input;
mod broken_files;
mod data;
mod hub;
mod instruct;
mod kill_and_resume;
mod memory;
mod misbehaving_strategies;
mod model;
mod pages;
mod processes;
mod run_and_compare;
mod sample;
mod screen;
mod verify;
