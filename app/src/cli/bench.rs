//! `forgetlab bench`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use forgetlab_engine::memory::{peak_memory, reset_peak_memory};
use forgetlab_engine::ops::Precision;
use forgetlab_engine::{Batching, Hardware, check_device, human_bytes};
use forgetlab_worker::bench::{Bench, Measured, SHAPES, Shape, Work, gemm_peak};

use super::out;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Shape of the model and its batches
    #[arg(long, default_value = "toy", value_parser = shapes())]
    config: Shape,
    /// What to measure; without it, all three
    #[arg(long)]
    work: Option<WorkName>,
    /// Objective of self-generated replay beside the new data, its generation included
    #[arg(long, default_value = "none")]
    replay: Replay,
    /// Rows of new data a step, instead of the shape's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Option<u32>,
    /// Replayed rows a step, instead of the shape's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    replay_rows: Option<u32>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Rows of a micro-batch; 0 lets the engine choose
    #[arg(long, value_name = "N", default_value_t = 0)]
    micro_batch: u32,
    /// Keep only the blocks' inputs for the backward, and compute the blocks again
    #[arg(long)]
    recompute: bool,
    /// CPU threads of the engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Format of the linear layers' inputs
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    dtype: Dtype,
    /// Seconds of work to measure
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum WorkName {
    Train,
    Generate,
    Eval,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Dtype {
    F32,
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Replay {
    None,
    Ntp,
    Kl,
}

impl Args {
    fn batching(&self) -> Batching {
        Batching {
            micro_batch: self.micro_batch as usize,
            recompute: self.recompute,
            ..Batching::default()
        }
    }
}

/// Finds a shape by its name.
fn shapes() -> impl TypedValueParser<Value = Shape> {
    PossibleValuesParser::new(SHAPES.map(|shape| shape.name)).try_map(|name| {
        let shape = SHAPES.into_iter().find(|shape| shape.name == name);
        shape.ok_or("no such shape")
    })
}

/// Seconds that a measurement may take.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds between 0.01 and 3600".into()),
    }
}

/// Measures and prints.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut shape = args.config;
    // Replay keeps its share of the batch unless it is given.
    let share = shape.replay_rows as f64 / shape.batch_size as f64;
    if let Some(batch) = args.batch {
        shape.batch_size = batch as usize;
        shape.replay_rows = ((share * f64::from(batch)) as usize).max(1);
    }
    if let Some(rows) = args.replay_rows {
        shape.replay_rows = rows as usize;
    }
    let train = match args.replay {
        Replay::None => Work::Train,
        Replay::Ntp => Work::TrainNtp,
        Replay::Kl => Work::TrainKl,
    };
    let works = match args.work {
        Some(WorkName::Train) => vec![train],
        Some(WorkName::Generate) => vec![Work::Generate],
        Some(WorkName::Eval) => vec![Work::Evaluate],
        None => vec![train, Work::Generate, Work::Evaluate],
    };
    for work in works {
        measure(shape, work, &args)?;
    }
    if !args.json {
        writeln!(
            out::stdout(),
            "FLOPs of a token's forward: 2 a weight of a linear layer, 2 L N H (T + 1) for attention; \
             training: 3 forwards, KL: 1 more for the reference"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(shape: Shape, work: Work, args: &Args) -> anyhow::Result<()> {
    let hardware = Hardware {
        device: args.device.clone(),
        threads: args.threads.into(),
        precision: args.dtype.into(),
    };
    let gpu = check_device(&args.device)?;
    let batching = args.batching();
    let predicted = Bench::demand(shape, work, &hardware, batching);
    let predicted = predicted.memory().total();
    reset_peak_memory();
    let mut bench = Bench::new(shape, work, &hardware, batching)?;
    let time = Duration::from_secs_f64(args.seconds);
    // The first steps grow the buffers.
    bench.run(time.mul_f64(0.1))?;
    // Before the matrices of the peak are made.
    let resident = peak_memory();
    // The peak is the CPU's: on a GPU there is nothing to compare with.
    let peak = || match gpu {
        None => gemm_peak(args.threads.into(), Duration::from_millis(100)),
        Some(_) => f64::NAN,
    };
    let before = peak();
    let measured = bench.run(time)?;
    let peak = before.max(peak());
    // What it took at most, its pool still has.
    let of_gpu = match gpu {
        None => None,
        Some(gpu) => {
            check_device(&args.device)?.map(|now| gpu.free.saturating_sub(now.free) as f64)
        }
    };
    bench.end();
    let report = Report {
        shape,
        work,
        args,
        measured,
        peak,
        predicted,
        resident,
        of_gpu,
    };
    let mut out = out::stdout();
    if args.json {
        out.json(&report.json())?;
    } else {
        report.show(&mut out)?;
    }
    Ok(())
}

/// A measurement, to be printed.
struct Report<'a> {
    shape: Shape,
    work: Work,
    args: &'a Args,
    measured: Measured,
    /// FLOP/s of the largest matrix products; NaN on a GPU.
    peak: f64,
    /// Bytes of the device's memory, as predicted.
    predicted: f64,
    /// Bytes of the machine's memory that were taken at most.
    resident: Option<f64>,
    /// Bytes of a GPU's memory that were taken at most.
    of_gpu: Option<f64>,
}

impl Report<'_> {
    fn json(&self) -> serde_json::Value {
        let (shape, m) = (self.shape, self.measured);
        serde_json::json!({
            "config": shape.name,
            "work": name(self.work),
            "batch_size": shape.batch_size,
            "replay_rows": shape.replay_rows,
            "threads": self.args.threads,
            "dtype": Precision::from(self.args.dtype).name(),
            "tokens_per_second": m.tokens as f64 / m.seconds,
            "steps": m.steps,
            "seconds": m.seconds,
            "peak_rss_bytes": self.resident,
            "gpu_bytes": self.of_gpu,
            "predicted_bytes": self.predicted,
            "gemm_peak_flops": self.peak,
            "gemm_share": m.flops / m.seconds / self.peak,
        })
    }

    fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let (shape, m, c) = (self.shape, self.measured, self.shape.model);
        writeln!(
            out,
            "{}, {}: D {}, L {}, H {}, T {}, V {}; {} new rows, {} replayed ones; {} threads",
            shape.name,
            name(self.work),
            c.d_model,
            c.n_layers,
            c.head_dim,
            shape.seq_len,
            c.vocab_size,
            shape.batch_size,
            if matches!(self.work, Work::TrainNtp | Work::TrainKl) {
                shape.replay_rows
            } else {
                0
            },
            self.args.threads
        )?;
        let (rate, flops) = (m.tokens as f64 / m.seconds, m.flops / m.seconds);
        writeln!(
            out,
            "  {rate:.0} tokens/s ({} steps in {:.1} s)",
            m.steps, m.seconds
        )?;
        if self.peak.is_finite() {
            writeln!(
                out,
                "  {:.2} of the matrix-product peak: {:.0} of {:.0} GFLOP/s",
                flops / self.peak,
                flops / 1e9,
                self.peak / 1e9
            )?;
        } else {
            writeln!(out, "  {:.0} GFLOP/s", flops / 1e9)?;
        }
        let (taken, whose) = match self.of_gpu {
            Some(bytes) => (Some(bytes), "the GPU's memory"),
            None => (self.resident, "memory"),
        };
        if let Some(taken) = taken.map(human_bytes) {
            let predicted = human_bytes(self.predicted);
            writeln!(out, "  {taken} of {whose} at most, {predicted} predicted")?;
        }
        Ok(())
    }
}

fn name(work: Work) -> &'static str {
    match work {
        Work::Train => "train",
        Work::TrainNtp => "train, ntp replay",
        Work::TrainKl => "train, kl replay",
        Work::Generate => "generate",
        Work::Evaluate => "evaluate",
    }
}
