//! What a process that this one starts prints, kept in a file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::worker::WorkerArgs;
use crate::last_words::heading;

/// Bytes of the end of a log that are read.
const LONGEST_SAID: u64 = 64 << 10;

/// The log of processes that were started one after the other, to which one more writes.
pub struct ProcessLog {
    pub path: PathBuf,
    file: File,
    /// Where that one's output begins.
    from: u64,
}

impl ProcessLog {
    pub fn begin(path: PathBuf) -> anyhow::Result<Self> {
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let begun = open.and_then(|mut file| {
            file.write_all(heading().as_bytes())?;
            let from = file.metadata()?.len();
            Ok((file, from))
        });
        let (file, from) = begun.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file, from })
    }

    /// Starts this program with a command line; what it prints goes here.
    pub fn start(&self, command: &mut Command) -> anyhow::Result<Child> {
        let share = || self.file.try_clone().context("cannot share a log");
        command
            .stdin(Stdio::null())
            .stdout(share()?)
            .stderr(share()?)
            .spawn()
            .context("cannot start a worker process")
    }

    /// What the process has printed, the end of it where that is long.
    pub fn said(&self) -> String {
        let mut said = Vec::new();
        let open = || -> std::io::Result<File> {
            let mut file = File::open(&self.path)?;
            let end = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(
                self.from.max(end.saturating_sub(LONGEST_SAID)),
            ))?;
            Ok(file)
        };
        if let Ok(file) = open() {
            // As much as can be had.
            let _ = file.take(LONGEST_SAID).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// This program with a command that works on a folder, as it is to be worked on: but for `--detach`.
pub fn command(words: &[&str], folder: &Path, args: &WorkerArgs) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(words).arg(absolute(folder)?);
    for plugin_dir in &args.plugin_dir {
        command.arg("--plugin-dir").arg(absolute(plugin_dir)?);
    }
    if args.queue {
        command.arg("--queue");
    }
    if args.no_cache {
        command.arg("--no-cache");
    }
    Ok(command)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
