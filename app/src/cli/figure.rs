//! `forgetlab figure`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{FigureKind, SweepPoint, join, write_figures, write_sweep_figures};
use forgetlab_study::run::RunState;

use super::load::Loaded;
use super::{WhileRead, exit, out};

/// Arguments of `figure`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs or sweeps: paths, names or unique beginnings of names; folders of their CSVs alone, too
    ///
    /// Arms of several runs stand in one figure; their seeds are drawn as one arm where name and settings agree.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Folder for the figures [default: `figures` in the run's folder, of several runs in the current one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Draw single seeds beside their mean
    #[arg(long)]
    seeds: bool,
    /// Figures to draw [default: all that the runs have the data for]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<Kind>,
}

/// A kind of figure on the command line.
#[derive(Clone, Copy)]
struct Kind(FigureKind);

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        const KINDS: [Kind; FigureKind::ALL.len()] = {
            let mut kinds = [Kind(FigureKind::ALL[0]); FigureKind::ALL.len()];
            let mut i = 0;
            while i < kinds.len() {
                kinds[i] = Kind(FigureKind::ALL[i]);
                i += 1;
            }
            kinds
        };
        &KINDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(self.0.shows()))
    }
}

/// Draws figures, and prints their paths.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (loaded, unreadable) = super::load::load(&args.runs)?;
    let points: Option<Vec<SweepPoint>> = loaded.iter().map(Loaded::sweep_point).collect();
    let runs: Vec<(&str, &RunState)> = loaded.iter().map(|l| (l.name.as_str(), &l.state)).collect();
    let state = match &points {
        Some(_) => RunState::default(),
        None => join(&runs)?,
    };
    let folder = match (args.out, &loaded[..], &args.runs[..]) {
        (Some(out), ..) => {
            let parent = out.parent().filter(|parent| *parent != Path::new(""));
            parent.map(fs::create_dir_all).transpose()?;
            out
        }
        (None, [run], _) if points.is_none() => run.path.join("figures"),
        // The folder of the sweep, two above that of a point.
        (None, [run, ..], [_]) if points.is_some() => {
            let sweep = run.path.parent().and_then(Path::parent);
            sweep.unwrap_or(&run.path).join("figures")
        }
        (None, ..) => PathBuf::from("figures"),
    };
    let asked: Vec<FigureKind> = args.kind.iter().map(|kind| kind.0).collect();
    let kinds = match &asked[..] {
        [] => &FigureKind::ALL[..],
        asked => asked,
    };
    let mut out = WhileRead(out::stdout());
    let mut drawn = 0;
    for &kind in kinds {
        let paths = match &points {
            Some(points) => write_sweep_figures(&folder, points, &[kind])?,
            None => write_figures(&folder, &state, &[kind], args.seeds)?,
        };
        if paths.is_empty() && !asked.is_empty() {
            bail!(
                "nothing to draw for `{}`: it needs {}",
                kind.name(),
                kind.needs()
            );
        }
        drawn += paths.len();
        for path in paths {
            writeln!(out, "{}", path_in_line(&path))?;
        }
    }
    if drawn == 0 {
        bail!("nothing to draw yet: no dataset has a score");
    }
    Ok(match unreadable {
        true => ExitCode::from(exit::FAILED),
        false => ExitCode::SUCCESS,
    })
}
