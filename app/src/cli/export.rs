//! `forgetlab export`.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{Moments, tensorboard};
use forgetlab_study::run::{EventReader, RunDir, write_atomically};

use super::load::Loaded;
use super::{WhileRead, exit, out};

/// Arguments of `export`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs or sweeps: paths, names or unique beginnings of names; folders of their CSVs alone, too
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Write event files of TensorBoard below this folder, one for each run and arm: RUN/ARM
    #[arg(long, value_name = "DIR", required = true)]
    tensorboard: PathBuf,
}

/// Writes a file an arm and seed, in a folder of its own, and prints the paths. What was exported there before is
/// replaced.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (loaded, unreadable) = super::load::load(&args.runs)?;
    let mut out = WhileRead(out::stdout());
    let mut written = 0;
    for run in &loaded {
        for path in write(run, &args.tensorboard)? {
            writeln!(out, "{}", path_in_line(&path))?;
            written += 1;
        }
    }
    if written == 0 {
        bail!("nothing to export yet: no arm was evaluated");
    }
    Ok(match unreadable {
        true => ExitCode::from(exit::FAILED),
        false => ExitCode::SUCCESS,
    })
}

/// Writes the arms of a run; the paths of the files.
fn write(run: &Loaded, below: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut moments = Moments::default();
    let events = RunDir::open(&run.path).map(|dir| dir.events_path());
    if let Ok(events) = events.as_deref() {
        EventReader::new(events).read(|record| moments.take(&record))?;
    }
    let begun = run
        .state
        .times
        .map_or(0, |(start, _)| start.max(0.0) as u64);
    let mut paths = Vec::new();
    for (arm, state) in run.state.arms.iter().enumerate() {
        let mut file = Vec::new();
        if !tensorboard(&run.state, arm, &moments, &mut file)? {
            continue;
        }
        // One that was read from CSVs may have anything in it.
        let slug = state.info.slug.replace('/', "-");
        let folder = below.join(name(run)).join(slug);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // TensorBoard knows its files by the second part of the name.
        let path = folder.join(format!("events.out.tfevents.{begun:010}.forgetlab"));
        write_atomically(&path, |w| w.write_all(&file))?;
        paths.push(path);
    }
    Ok(paths)
}

/// The folder of a run below that of the export: its name, of a point that of its sweep before it.
fn name(run: &Loaded) -> PathBuf {
    let name = PathBuf::from(&run.name);
    let sweep = run.point.as_ref().and(run.path.ancestors().nth(2));
    let whole = sweep.map_or(name.clone(), |sweep| {
        Path::new(&RunDir::name_of(sweep)).join(RunDir::name_of(&run.path))
    });
    // A name that is a path, as of one of two folders of the same name, must not lead out of the folder.
    let parts = whole.components();
    let parts = parts.filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}
