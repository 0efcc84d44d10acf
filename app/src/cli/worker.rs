//! How a worker goes about its run, as it is told on the command line.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use forgetlab_plugin_host::{Helper, Registry, search_path};
use forgetlab_study::printed::path_in_line;

use super::warn;

/// How a worker goes about its run.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WorkerArgs {
    /// Also look for strategies in this folder (may be given again)
    #[arg(long, value_name = "DIR", value_parser = folder())]
    pub plugin_dir: Vec<PathBuf>,
    /// Train the shared first phase even if it was trained before
    #[arg(long)]
    pub no_cache: bool,
    /// Run in the background, surviving this terminal
    #[arg(long)]
    pub detach: bool,
    /// Run in the background once no other run of the results folder works on the device, after those that wait already
    #[arg(long)]
    pub queue: bool,
}

impl WorkerArgs {
    /// Whether another process is to do the work.
    pub fn in_background(&self) -> bool {
        self.detach || self.queue
    }
}

/// Takes the path of a folder that is there.
pub fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.metadata() {
        Ok(data) if data.is_dir() => Ok(path),
        Ok(_) => Err("is no folder".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    })
}

/// Strategies that can be loaded here.
pub fn registry(worker: &WorkerArgs) -> Registry {
    // The run notes where they were found, and may be resumed from another folder.
    let whole = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let dirs: Vec<PathBuf> = worker.plugin_dir.iter().map(whole).collect();
    Registry::discover(&search_path(&dirs), &helper())
}

/// The processes that look at libraries; one that keeps everybody waiting is told of.
pub fn helper() -> Helper {
    Helper::this_program().on_slow(|library, most| {
        warn(format_args!(
            "{} is slow to load; waiting for it, {} s at most",
            path_in_line(library),
            most.as_secs()
        ));
    })
}

/// Takes a number of workers.
pub fn workers() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u16).range(1..=1024).map(usize::from)
}
