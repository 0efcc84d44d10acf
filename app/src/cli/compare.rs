//! `forgetlab compare`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forgetlab_study::experiment::ArmSpec;
use forgetlab_study::printed::path_in_line;
use forgetlab_study::report::{
    self, ArmSeeds, Comparison, Format, Gate, Margins, Sheet, SweepPoint, at_equal_compute,
    at_equal_loss, differences, differences_sheet,
};
use forgetlab_study::run::{ArmState, RunState, write_atomically};

use super::load::Loaded;
use super::{Usage, WhileRead, exit, out, unless_gone, warn};

/// Arguments of `compare`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs or sweeps: paths, names or unique beginnings of names; folders of their CSVs alone, too
    ///
    /// Of sweeps alone, what is told are the tables of their axes; of a single point, `SWEEP/POINT`, its arms.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Only these arms, by name
    #[arg(long, value_name = "ARM,...")]
    arms: Vec<String>,
    /// Arm to which the others' differences are told [default: the first]
    #[arg(long, value_name = "ARM")]
    baseline: Option<String>,
    /// Forgetting above which old data counts as lost: a share for accuracy, nats for losses [default: the run's]
    #[arg(long, value_name = "M", value_parser = margin)]
    margin: Option<f64>,
    /// Loss of the new data at which old losses are compared [default: the highest of the arms' best new losses
    /// among those that made at least half of the baseline's gain]
    #[arg(long, value_name = "NATS", value_parser = margin)]
    at_new_loss: Option<f64>,
    /// Tell at which of the learning rates tried each arm has the lowest loss of the new data, and the arms at these
    #[arg(long)]
    best_rates: bool,
    /// Single seeds as arms of their own
    #[arg(long)]
    seeds: bool,
    /// How tables are written
    #[arg(long, value_enum, default_value_t = Style::Text)]
    format: Style,
    /// Short for --format latex
    #[arg(long, conflicts_with_all = ["format", "json"])]
    latex: bool,
    /// One JSON object an arm instead of tables, over its seeds
    #[arg(long, conflicts_with_all = ["format", "best_rates"])]
    json: bool,
    /// Write the joined summaries here as CSV (`-`: to standard output, in place of the tables)
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write forgetting with intervals and verdicts here as CSV, one row an arm and old dataset
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Write the differences to the baseline here as CSV
    #[arg(long, value_name = "FILE")]
    differences: Option<PathBuf>,
    /// Fail (exit code 4) where an arm exceeds a limit, e.g. forgot>0.05; QUANTITY is forgot, worst or learned
    /// (learned<0.9); of forgot and learned the end of the 95 % interval that speaks against the arm counts. An arm
    /// with an unclear verdict fails, too
    #[arg(long, value_name = "QUANTITY>X")]
    fail_if: Vec<Gate>,
    /// Let --fail-if pass arms whose verdict is unclear
    #[arg(long, requires = "fail_if")]
    allow_unclear: bool,
}

/// How tables are written.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Style {
    /// For a terminal of 80 columns
    Text,
    /// Markdown tables
    Markdown,
    /// LaTeX tables, for the package booktabs
    Latex,
}

fn margin(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(margin) if margin >= 0.0 && margin.is_finite() => Ok(margin),
        _ => Err("write a number of 0 or more, e.g. 0.05".into()),
    }
}

/// Prints tables of all arms over their seeds, and writes the CSVs where asked.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (mut loaded, unreadable) = super::load::load(&args.runs)?;
    if args.seeds {
        loaded
            .iter_mut()
            .for_each(|run| run.state.tell_seeds_apart());
    }
    keep_wanted(&args, &mut loaded)?;
    let runs: Vec<(&str, &RunState)> = loaded.iter().map(|l| (l.name.as_str(), &l.state)).collect();
    let margins = args.margin.map(|margin| Margins {
        accuracy: margin,
        ntp: margin,
        error: margin,
    });
    let comparison = Comparison::new(&runs, margins, |_| true);
    let Some(first) = comparison.arms.first() else {
        bail!("these runs have no arms yet");
    };
    let baseline = match &args.baseline {
        None => first,
        Some(name) => {
            let mut arms = comparison.arms.iter();
            arms.find(|arm| {
                arm.name == *name || arm.seeds.iter().any(|(state, own)| bears(name, state, own))
            })
            .unwrap_or(first)
        }
    };
    let all = differences(&comparison.arms, baseline);
    let written = write_files(&args, &comparison, &runs, &all, &baseline.name)?;

    if args.json && !args.csv.as_deref().is_some_and(is_stdout) {
        let mut out = out::stdout();
        let objects = report::comparison_json(&comparison, &all, &baseline.name);
        let told = objects.iter().try_for_each(|object| out.json(object));
        unless_gone(told)?;
        return Ok(code(fails(&args, &comparison), unreadable));
    }
    let style = if args.latex {
        Style::Latex
    } else {
        args.format
    };
    let format = match style {
        Style::Text => Format::Text(super::glyphs()),
        Style::Markdown => Format::Markdown,
        Style::Latex => Format::Latex,
    };
    let points: Option<Vec<SweepPoint>> = loaded.iter().map(Loaded::sweep_point).collect();
    let sheets = match &points {
        _ if args.best_rates => match report::best_rates(&comparison.arms) {
            Some(sheet) => vec![sheet],
            None => bail!("no arm has several learning rates"),
        },
        // Arms by the dozen would hide what is told of them.
        Some(points) => report::sweep_sheets(points, args.at_new_loss),
        None => Vec::new(),
    };
    let sheets = match sheets.is_empty() {
        true => self::sheets(&args, &runs, &comparison, &all, baseline),
        false => sheets,
    };
    let mut out = WhileRead(out::stdout());
    if !args.csv.as_deref().is_some_and(is_stdout) {
        let sheets = sheets.iter().map(|sheet| sheet.write(format));
        write!(out, "{}", sheets.collect::<Vec<_>>().join("\n"))?;
    }
    for path in written
        .iter()
        .filter(|_| !args.csv.as_deref().is_some_and(is_stdout))
    {
        writeln!(out, "\nwrote {}", path_in_line(path))?;
    }
    drop(out);
    Ok(code(fails(&args, &comparison), unreadable))
}

fn code(failed: bool, unreadable: bool) -> ExitCode {
    match (failed, unreadable) {
        (true, _) => ExitCode::from(exit::GATE_FAILED),
        (false, true) => ExitCode::from(exit::FAILED),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// The tables of arms.
fn sheets(
    args: &Args,
    runs: &[(&str, &RunState)],
    comparison: &Comparison,
    differences: &[report::Difference],
    baseline: &ArmSeeds,
) -> Vec<Sheet> {
    let mut sheets: Vec<Sheet> = report::settings_sheet(runs).into_iter().collect();
    sheets.extend(comparison.sheets());
    sheets.extend(report::measures_sheet(&comparison.arms));
    sheets.extend(report::questions_sheet(&comparison.arms));
    if comparison.arms.len() > 1 {
        sheets.push(differences_sheet(differences, &baseline.name));
        sheets.extend(equal_terms(&comparison.arms, baseline, args.at_new_loss));
    }
    if let [(_, run)] = runs {
        sheets.extend(report::run_sheets(run));
    }
    sheets
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether a name, however spelt, is that of an arm.
fn bears(name: &str, state: &RunState, arm: &ArmState) -> bool {
    let coeff = state
        .config
        .as_ref()
        .and_then(|config| config.get("replay")?.get("coeff")?.as_f64());
    let spelt = ArmSpec::parse(name, coeff.unwrap_or(1.0)).map(|spec| spec.name());
    arm.info.name == name || spelt.is_ok_and(|spelt| arm.info.name == spelt)
}

/// Leaves the arms that are asked for, and the baseline.
fn keep_wanted(args: &Args, loaded: &mut [Loaded]) -> anyhow::Result<()> {
    let wanted: Vec<String> = args
        .arms
        .iter()
        .flat_map(|list| super::run::arms(list))
        .collect();
    let names: Vec<&String> = wanted.iter().chain(&args.baseline).collect();
    let is = |name: &str, run: &Loaded, arm: &ArmState| {
        bears(
            name.strip_prefix(&format!("{}: ", run.name))
                .unwrap_or(name),
            &run.state,
            arm,
        )
    };
    for name in &names {
        if !loaded
            .iter()
            .any(|run| run.state.arms.iter().any(|arm| is(name, run, arm)))
        {
            let mut known: Vec<&str> = Vec::new();
            for arm in loaded.iter().flat_map(|run| &run.state.arms) {
                if !known.contains(&arm.info.name.as_str()) {
                    known.push(&arm.info.name);
                }
            }
            return Err(Usage(format!(
                "no arm is called `{name}`; there are {}",
                known.join(", ")
            ))
            .into());
        }
    }
    if !wanted.is_empty() {
        for run in loaded {
            let mut arms = std::mem::take(&mut run.state.arms);
            arms.retain(|arm| names.iter().any(|name| is(name, run, arm)));
            run.state.arms = arms;
        }
    }
    Ok(())
}

/// Arms where they have learned the same, and where they have paid the same.
fn equal_terms(arms: &[ArmSeeds], baseline: &ArmSeeds, level: Option<f64>) -> Vec<Sheet> {
    let level = level.or_else(|| report::level(arms, baseline));
    let at_loss = level.map(|level| at_equal_loss(arms, level));
    let mut sheets: Vec<Sheet> = at_loss.into_iter().collect();
    let faster = level.and_then(|level| report::at_equal_forgetting(arms, level));
    // Without old losses there is nothing to compare.
    if let Some(sheet) = sheets.first_mut() {
        match at_equal_compute(arms) {
            Some(at_compute) => sheets.push(at_compute),
            None => sheet
                .notes
                .push("FLOPs were not counted in every run: no table at equal compute.".into()),
        }
    }
    sheets.extend(faster);
    sheets
}

fn write_files(
    args: &Args,
    comparison: &Comparison,
    runs: &[(&str, &RunState)],
    differences: &[report::Difference],
    baseline: &str,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let mut file = |path: &Option<PathBuf>, content: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        match path {
            Some(path) if is_stdout(path) => content(&mut WhileRead(out::stdout()))?,
            Some(path) => {
                write_file(path, content)?;
                written.push(path.clone());
            }
            None => {}
        }
        anyhow::Ok(())
    };
    file(&args.csv, &|w| report::compare_csv(runs.iter().copied(), w))?;
    file(&args.verdicts, &|w| {
        report::verdicts_csv(&comparison.arms, comparison.margins, w)
    })?;
    file(&args.differences, &|w| {
        report::differences_csv(differences, baseline, w)
    })?;
    Ok(written)
}

fn write_file(
    path: &Path,
    content: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    // A pipe or device (`/dev/stdout`, a process substitution) cannot be replaced, only written to.
    if path.metadata().is_ok_and(|data| !data.is_file()) {
        let mut file =
            File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
        let written = match file.is_terminal() {
            true => content(&mut out::Harmless::new(file)),
            false => content(&mut file),
        };
        return written.with_context(|| format!("cannot write {}", path.display()));
    }
    Ok(write_atomically(path, |w| content(w))?)
}

/// Whether an arm fails the limits; tells which.
fn fails(args: &Args, comparison: &Comparison) -> bool {
    let failures = report::failures(comparison, &args.fail_if, args.allow_unclear);
    for failure in &failures {
        warn(format_args!("fails: {failure}"));
    }
    !failures.is_empty()
}
