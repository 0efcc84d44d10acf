//! `forgetlab doctor`.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use forgetlab_engine::ops::simd::InstructionSet;
use forgetlab_engine::{Engine, Hardware, probe_cuda};
use forgetlab_study::printed::one_line;
use forgetlab_study::report::Glyphs;
use forgetlab_study::run::Results;
use forgetlab_worker::verify::verify_mini;
use serde_json::json;

use super::worker::{WorkerArgs, registry};
use super::{exit, out, unless_gone};
use crate::machine::nearest_folder;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// Also look for strategies in this folder (may be given again)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<std::path::PathBuf>,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// How one thing stands.
enum Standing {
    /// Works.
    Good,
    /// Works with limits, or is not there and not needed.
    Note,
    /// A run would fail.
    Bad,
}

/// Says what works here and what does not; exit 1 where a run would fail.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut lines = vec![cpu(), memory(), cuda(), numerics()];
    lines.extend(plugins(&args));
    lines.push(results());
    lines.extend(terminal());
    let mut out = out::stdout();
    if !args.json {
        unless_gone(writeln!(out, "forgetlab {}", env!("CARGO_PKG_VERSION")))?;
    }
    for (what, standing, text) in &lines {
        if args.json {
            let standing = match standing {
                Standing::Good => "ok",
                Standing::Note => "note",
                Standing::Bad => "bad",
            };
            let line = json!({ "check": what, "standing": standing, "text": text });
            unless_gone(out.json(&line))?;
            continue;
        }
        let mark = match standing {
            Standing::Good => "ok",
            Standing::Note => "--",
            Standing::Bad => "NO",
        };
        unless_gone(writeln!(out, "  {mark}  {what:9} {}", one_line(text)))?;
    }
    let bad = lines
        .iter()
        .any(|(_, standing, _)| matches!(standing, Standing::Bad));
    Ok(if bad {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

type Line = (&'static str, Standing, String);

fn cpu() -> Line {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let level = InstructionSet::detect();
    let text = format!("{threads} threads, kernels for {}", level.name());
    match level {
        InstructionSet::Baseline => (
            "CPU",
            Standing::Note,
            format!("{text}: no AVX2, training will be slow"),
        ),
        _ => ("CPU", Standing::Good, text),
    }
}

fn memory() -> Line {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / (1 << 20) as f64)
    };
    match (gib("MemTotal:"), gib("MemAvailable:")) {
        (Some(total), Some(free)) => (
            "memory",
            Standing::Good,
            format!("{free:.1} GiB free of {total:.1} GiB"),
        ),
        _ => ("memory", Standing::Note, "unknown on this system".into()),
    }
}

fn cuda() -> Line {
    let gpu = match probe_cuda(0) {
        Ok(gpu) => gpu,
        Err(None) => {
            let text = "not in this build; `cargo build --release --features cuda` has it";
            return ("CUDA", Standing::Note, text.into());
        }
        Err(Some(reason)) => {
            let text = format!("built in, but no GPU can be used: {reason}");
            return ("CUDA", Standing::Note, text);
        }
    };
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let driver = gpu.driver.map_or("of unknown version".into(), |v| v);
    let text = format!(
        "{}, {:.1} GiB free of {:.1} GiB, driver {driver} for CUDA {}, cuBLAS {}; `forgetlab verify --device cuda` \
         checks its numerics",
        gpu.name,
        gib(gpu.free),
        gib(gpu.memory),
        gpu.cuda,
        gpu.cublas,
    );
    match std::env::var_os("FORGETLAB_CUDA_SYNC").is_some_and(|value| value == "1") {
        true => {
            let text = format!("{text}; slow: FORGETLAB_CUDA_SYNC=1 waits for every kernel");
            ("CUDA", Standing::Note, text)
        }
        false => ("CUDA", Standing::Good, text),
    }
}

fn numerics() -> Line {
    let engine = |config| Engine::new(config, &Hardware::cpu(2));
    match verify_mini(super::verify::FIXTURE, engine) {
        Ok(checks) if checks.iter().all(|check| check.passed()) => {
            let text = format!(
                "{} checks against the built-in fixture passed",
                checks.len()
            );
            ("numerics", Standing::Good, text)
        }
        Ok(_) => (
            "numerics",
            Standing::Bad,
            "wrong on this machine; `forgetlab verify` tells where".into(),
        ),
        Err(error) => ("numerics", Standing::Bad, error.to_string()),
    }
}

fn plugins(args: &Args) -> Vec<Line> {
    let worker = WorkerArgs {
        plugin_dir: args.plugin_dir.clone(),
        ..WorkerArgs::default()
    };
    let registry = registry(&worker);
    let names: Vec<&str> = registry.plugins().iter().map(|p| p.name.as_str()).collect();
    let mut lines = vec![if names.is_empty() {
        let searched: Vec<String> = registry
            .searched()
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let text = format!(
            "no strategy found in {}; `cargo build --release` makes the four built-in ones",
            searched.join(", ")
        );
        ("plugins", Standing::Bad, text)
    } else {
        ("plugins", Standing::Good, names.join(", "))
    }];
    lines.extend(registry.plugins().iter().filter_map(|plugin| {
        let (path, printed) = (plugin.path.display(), &plugin.printed);
        let text = format!("{path} prints when it is loaded: {printed}");
        (!printed.is_empty()).then_some(("plugins", Standing::Note, text))
    }));
    lines.extend(registry.rejected().iter().map(|rejected| {
        let text = format!("{} {}", rejected.path.display(), rejected.reason);
        ("plugins", Standing::Note, text)
    }));
    lines
}

fn results() -> Line {
    let runs = Results::from_env().runs();
    // Nothing is made here: the nearest folder there is tells.
    let folder = nearest_folder(&runs);
    let shown = std::path::absolute(&runs).unwrap_or(runs.clone());
    let writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    if !writable {
        let text = format!(
            "{} cannot be written; set FORGETLAB_RESULTS or give --out",
            shown.display()
        );
        return ("results", Standing::Bad, text);
    }
    let free = rustix::fs::statvfs(folder).map(|s| (s.f_bavail * s.f_frsize) as f64);
    let free = free.map_or(String::new(), |free| {
        format!(", {:.1} GiB free", free / (1u64 << 30) as f64)
    });
    (
        "results",
        Standing::Good,
        format!("{}{free}", shown.display()),
    )
}

fn terminal() -> Vec<Line> {
    if !out::is_terminal() {
        return vec![("terminal", Standing::Note, "standard output is none".into())];
    }
    let glyphs = match super::glyphs() {
        Glyphs::Unicode => "UTF-8",
        Glyphs::Ascii => "ASCII (the locale is not UTF-8)",
    };
    let colour = if std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        "no colour (NO_COLOR)"
    } else {
        "colour"
    };
    vec![match crossterm::terminal::size() {
        Ok((columns, rows)) if columns < 80 || rows < 24 => (
            "terminal",
            Standing::Note,
            format!("{columns}x{rows} is small, the lab wants 80x24; {glyphs}, {colour}"),
        ),
        Ok((columns, rows)) => (
            "terminal",
            Standing::Good,
            format!("{columns}x{rows}, {glyphs}, {colour}"),
        ),
        Err(_) => (
            "terminal",
            Standing::Note,
            format!("size unknown; {glyphs}, {colour}"),
        ),
    }]
}
