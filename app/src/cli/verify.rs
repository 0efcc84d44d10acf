//! `forgetlab verify`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forgetlab_engine::model::Params;
use forgetlab_engine::ops::Precision;
use forgetlab_engine::pretrained::{self, Hub};
use forgetlab_engine::{Engine, Hardware, check_device};
use forgetlab_study::printed::one_line;
use forgetlab_worker::verify::{Check, ParityError, verify_llama, verify_mini};

use super::{WhileRead, exit, out};

/// The fixture that comes with the program.
pub(super) const FIXTURE: &[u8] = include_bytes!("../../../tests/fixtures/mini-parity.safetensors");

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Compare the logits of this model (folder, .gguf file, hub id, builtin:tiny-llama) with those of candle-transformers, in f32
    #[arg(conflicts_with = "fixture")]
    pub model: Option<String>,
    /// Parity fixture, a folder of them, or a Hugging Face folder with parity.safetensors; without it the one built in
    #[arg(long, value_name = "FILE|DIR")]
    pub fixture: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// CPU threads of the engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
}

/// Compares this machine's numerics with a fixture, in every precision, or a model with another implementation of it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    check_device(&args.device)?;
    if let Some(model) = &args.model {
        let passed = second_opinion(model, &args)?;
        return Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::FAILED)
        });
    }
    let mut passed = true;
    for (name, fixture) in fixtures(args.fixture)? {
        for precision in [Precision::F32, Precision::Bf16] {
            let hardware = Hardware {
                device: args.device.clone(),
                threads: args.threads.into(),
                precision,
            };
            let checks = fixture
                .verify(&hardware)
                .with_context(|| format!("{name} cannot be checked"))?;
            let title = format!("{name}, {} on {}", precision.name(), args.device);
            passed &= show(&title, &checks)?;
        }
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}

#[cfg(not(feature = "second-opinion"))]
fn second_opinion(_: &str, _: &Args) -> anyhow::Result<bool> {
    bail!(
        "this forgetlab was built without candle-transformers, with which models are compared; build it with \
         `--features second-opinion`"
    )
}

/// Prints how far the logits of a model are from candle-transformers'.
#[cfg(feature = "second-opinion")]
fn second_opinion(name: &str, args: &Args) -> anyhow::Result<bool> {
    use super::model::Downloads;
    use super::trained_arm::Model;

    let progress = Downloads::default();
    let given = Model::open_whole(name, &progress)?;
    if given.arm.is_some() {
        bail!(
            "{name} is an arm of a run; `forgetlab model export` makes a checkpoint of it, which can be compared"
        );
    }
    let model = given.pretrained;
    let hardware = Hardware {
        device: args.device.clone(),
        threads: args.threads.into(),
        precision: Precision::F32,
    };
    let opinion = forgetlab_worker::verify::second_opinion(&model, &hardware, &progress)?;
    let check = &opinion.check;
    let [rows, length] = opinion.shape;
    let mut out = WhileRead(out::stdout());
    writeln!(
        out,
        "{}, f32 on {}, against candle-transformers' {}: {rows} rows of {length} tokens",
        one_line(name),
        args.device,
        opinion.family.model_type()
    )?;
    for note in &opinion.notes {
        writeln!(out, "  ({note})")?;
    }
    let verdict = if check.passed() { "ok" } else { "FAILED" };
    writeln!(
        out,
        "  logits  {verdict}  largest difference {:.1e} {} (tolerance {:.0e}), mean {:.1e}",
        check.error, check.unit, check.tolerance, opinion.mean
    )?;
    Ok(check.passed())
}

/// Numbers of an independent implementation.
enum Fixture {
    /// Of the paper's small model.
    Mini(Vec<u8>),
    /// Of a Llama, beside its checkpoint.
    Llama {
        bytes: Vec<u8>,
        settings: String,
        reference: Box<Params>,
    },
}

impl Fixture {
    fn verify(&self, hardware: &Hardware) -> Result<Vec<Check>, ParityError> {
        let engine = |config| Engine::new(config, hardware);
        match self {
            Self::Mini(bytes) => verify_mini(bytes, engine),
            Self::Llama {
                bytes,
                settings,
                reference,
            } => verify_llama(bytes, settings, Params::clone(reference), engine),
        }
    }
}

/// Names and contents of the fixtures asked for.
fn fixtures(path: Option<PathBuf>) -> anyhow::Result<Vec<(String, Fixture)>> {
    let Some(path) = path else {
        let built_in = Fixture::Mini(FIXTURE.to_vec());
        return Ok(vec![("the built-in fixture".into(), built_in)]);
    };
    if path.join("config.json").is_file() {
        let name = path.display().to_string();
        let model = pretrained::open(&name, &Hub::from_env(), &())?;
        let fixture = Fixture::Llama {
            bytes: read(&path.join("parity.safetensors"))?,
            settings: String::from_utf8(read(&path.join("parity.json"))?)
                .with_context(|| format!("{name}/parity.json is no text"))?,
            reference: Box::new(model.load(&())?),
        };
        return Ok(vec![(name, fixture)]);
    }
    let mut files = vec![path.clone()];
    if path.is_dir() {
        files = fs::read_dir(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        files.sort();
        if files.is_empty() {
            bail!("{} holds no .safetensors fixture", path.display());
        }
    }
    files
        .into_iter()
        .map(|file| Ok((file.display().to_string(), Fixture::Mini(read(&file)?))))
        .collect()
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Prints the largest error of every kind, and tensor by tensor what is past its tolerance.
fn show(name: &str, checks: &[Check]) -> anyhow::Result<bool> {
    let mut out = WhileRead(out::stdout());
    writeln!(out, "{name}")?;
    let kinds = [
        ("logits", "logits."),
        ("per-token losses", "ntp."),
        ("gradients", "grad."),
        ("updated weights", "after."),
        ("losses", ""),
    ];
    let kind_of = |check: &Check| {
        let of = |prefix: &str| check.name.starts_with(prefix);
        kinds
            .iter()
            .position(|(_, prefix)| of(prefix))
            .unwrap_or(kinds.len() - 1)
    };
    for (i, (kind, _)) in kinds.iter().enumerate() {
        let of_kind: Vec<&Check> = checks.iter().filter(|c| kind_of(c) == i).collect();
        let Some(worst) = of_kind
            .iter()
            .max_by(|a, b| (a.error / a.tolerance).total_cmp(&(b.error / b.tolerance)))
        else {
            continue;
        };
        let failed = of_kind.iter().filter(|c| !c.passed()).count();
        let excepted: usize = of_kind.iter().map(|c| c.excepted).sum();
        write!(
            out,
            "  {kind:17} {:7}  largest error {:.1e} {} (tolerance {:.0e}), in {}",
            if failed == 0 { "ok" } else { "FAILED" },
            worst.error,
            worst.unit,
            worst.tolerance,
            one_line(&worst.name),
        )?;
        match excepted {
            0 => writeln!(out)?,
            n => writeln!(out, "; {n} entries with gradients below 1e-6 left out")?,
        }
        for check in of_kind.iter().filter(|c| !c.passed()) {
            writeln!(
                out,
                "    {}: error {:.1e} {} at entry {}, tolerance {:.0e}",
                one_line(&check.name),
                check.error,
                check.unit,
                check.worst,
                check.tolerance
            )?;
        }
    }
    let failed: Vec<&str> = checks
        .iter()
        .filter(|c| !c.passed())
        .map(|c| c.name.as_str())
        .collect();
    match failed.len() {
        0 => writeln!(out, "all {} checks passed", checks.len())?,
        n => writeln!(
            out,
            "{n} of {} checks failed: {}",
            checks.len(),
            one_line(&failed.join(", "))
        )?,
    }
    Ok(failed.is_empty())
}
