//! `forgetlab` without a command: the terminal lab.

use std::io::Write;
use std::process::ExitCode;

use forgetlab_engine::check_device;
use forgetlab_engine::ops::simd::InstructionSet;
use forgetlab_study::printed::one_line;
use forgetlab_study::run::{Results, shell_word};

use super::out;
use crate::local_lab::LocalLab;

/// Opens the lab on this terminal until it is left.
pub fn run() -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device = |spec: &str, summary: String| forgetlab_tui::lab::Device {
        spec: spec.into(),
        summary,
        error: check_device(spec).err().map(|error| error.to_string()),
    };
    let devices = vec![
        device(
            "cpu",
            format!("{threads} threads, {}", InstructionSet::detect().name()),
        ),
        device("cuda", "the first GPU".into()),
    ];
    let lab = LocalLab::new(Results::from_env(), Vec::new(), devices);
    let mut out = out::stdout();
    for run in forgetlab_tui::run(Box::new(lab), None)? {
        let (name, quoted) = (one_line(&run), shell_word(&run));
        // The terminal may be gone by now: that is no reason to fail.
        let _ = writeln!(
            out,
            "{name} goes on; `forgetlab attach {quoted}` follows it"
        );
    }
    Ok(ExitCode::SUCCESS)
}
