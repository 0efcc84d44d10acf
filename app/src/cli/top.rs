//! `forgetlab top`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forgetlab_engine::human_bytes;
use forgetlab_study::printed::one_line;
use forgetlab_study::report::{Format, Sheet};
use forgetlab_study::run::{Results, readable_utc};
use forgetlab_tui::lab::{Gpu, Machine, Room};
use serde_json::json;

use super::out::{self, Out};
use super::{signals, unless_gone};
use crate::machine::Reader;

/// Arguments of `top`.
#[derive(clap::Args)]
pub struct Args {
    /// Time between two frames, which then follow each other also where there is no terminal [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    every: Option<f64>,
    /// One frame alone, as plain text
    #[arg(long, conflicts_with = "every")]
    once: bool,
    /// One JSON object a frame instead of text
    #[arg(long)]
    json: bool,
}

/// Seconds between two frames.
const EVERY: f64 = 2.0;
/// Time over which the first frame counts.
const FIRST: Duration = Duration::from_millis(400);
/// Time between two looks at whether somebody wants to leave.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Seconds between two frames, as they are typed.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, at least 0.2".into()),
    }
}

/// Shows the machine again and again until Ctrl-C; once where nobody sees it change.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let leave = signals::leaving()?;
    let on_terminal = out::is_terminal() && !args.json && !args.once;
    let again = !args.once && (out::is_terminal() || args.every.is_some());
    let every = Duration::from_secs_f64(args.every.unwrap_or(EVERY));
    let mut reader = Reader::new(Results::from_env())?;
    reader.read();
    wait(FIRST.min(every), &leave);
    while !leave.load(Ordering::Relaxed) {
        let machine = reader.read();
        let mut out = out::stdout();
        let shown = match (args.json, on_terminal) {
            (true, _) => json_frame(&machine, &mut out),
            (false, true) => out.redraw(&text(&machine)),
            (false, false) => writeln!(out, "{}", text(&machine).trim_end()),
        };
        match shown.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            shown => shown?,
        }
        drop(out);
        if !again {
            break;
        }
        wait(every, &leave);
    }
    if on_terminal {
        // The shell's prompt stands below the last frame.
        unless_gone(writeln!(out::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(time: Duration, leave: &AtomicBool) {
    let begun = Instant::now();
    while begun.elapsed() < time && !leave.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY.min(time.saturating_sub(begun.elapsed())));
    }
}

/// Seconds since the Unix epoch.
pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

fn json_frame(machine: &Machine, out: &mut Out) -> io::Result<()> {
    let mut frame = json!(machine);
    frame["time"] = json!(now());
    out.json(&frame)
}

/// A frame as text.
fn text(machine: &Machine) -> String {
    let cpu = &machine.cpu;
    let [one, five, fifteen] = cpu.load;
    let mut lines = vec![
        format!("forgetlab top  {} UTC", readable_utc(now() as u64)),
        format!(
            "cpu     {} of {} cores, load {one:.1} {five:.1} {fifteen:.1}",
            cpu.used.map_or("?".into(), percent),
            cpu.count
        ),
        format!("memory  {}", room(machine.memory)),
    ];
    if let Some(disk) = machine.disk {
        let (free, total) = (disk.free() as f64, disk.total as f64);
        lines.push(format!(
            "disk    {} free of {}",
            human_bytes(free),
            human_bytes(total)
        ));
    }
    lines.extend(machine.gpus.iter().map(gpu));
    if let Some(problem) = &machine.gpu_problem {
        lines.push(format!("gpu     none: {problem}"));
    }
    let mut text = lines.join("\n") + "\n";
    for sheet in [workers(machine), others(machine)] {
        if !sheet.rows.is_empty() {
            text += "\n";
            text += &sheet.write(Format::Text(super::glyphs()));
        }
    }
    if machine.workers.is_empty() {
        text += "\nno run is live\n";
    }
    text
}

fn gpu(gpu: &Gpu) -> String {
    let watts = |watts: f64| format!("{watts:.0}");
    let power = gpu.power.map(|power| match gpu.power_limit {
        Some(limit) => format!("{} of {} W", watts(power), watts(limit)),
        None => format!("{} W", watts(power)),
    });
    let figures = [
        gpu.used.map(percent),
        gpu.memory.map(room),
        power,
        gpu.temperature.map(|celsius| format!("{celsius} C")),
        gpu.clock.map(|clock| format!("{clock} MHz")),
        gpu.memory_clock.map(|clock| format!("memory {clock} MHz")),
    ];
    let figures: Vec<String> = figures.into_iter().flatten().collect();
    let name = one_line(&gpu.name);
    let line = format!("gpu {:<3} {name}  {}", gpu.index, figures.join(", "));
    line.trim_end().to_owned()
}

/// The workers of live runs, and what each uses.
fn workers(machine: &Machine) -> Sheet {
    let head = [
        "run",
        "arm",
        "device",
        "cores",
        "memory",
        "GPU memory",
        "process",
    ];
    let mut sheet = Sheet::new(String::new(), &head);
    sheet.rows = machine
        .workers
        .iter()
        .map(|worker| {
            vec![
                worker.run.clone(),
                match worker.queued {
                    true => "(in the queue)".into(),
                    false => worker.arm.clone().unwrap_or_default(),
                },
                worker.device.clone(),
                worker
                    .cores
                    .map_or("-".into(), |cores| format!("{cores:.1}")),
                bytes(worker.memory),
                bytes(worker.gpu_memory),
                worker.pid.map_or("-".into(), |pid| pid.to_string()),
            ]
        })
        .collect();
    sheet
}

/// What else has memory of the GPUs.
fn others(machine: &Machine) -> Sheet {
    let mut sheet = Sheet::new(
        String::new(),
        &["other process", "gpu", "memory", "process"],
    );
    for gpu in &machine.gpus {
        let others = gpu.processes.iter().filter(|other| other.run.is_none());
        sheet.rows.extend(others.map(|other| {
            vec![
                other.name.clone().unwrap_or("not seen from here".into()),
                gpu.index.to_string(),
                bytes(other.memory),
                other.pid.to_string(),
            ]
        }));
    }
    sheet
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".into(), |bytes| human_bytes(bytes as f64))
}

fn room(room: Room) -> String {
    let (used, total) = (room.used as f64, room.total as f64);
    format!("{} of {}", human_bytes(used), human_bytes(total))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use forgetlab_tui::lab::{GpuProcess, WorkerUse};

    use super::*;

    /// A researcher reads off whether a GPU is busy, full or hot, and whose its memory is.
    #[test]
    fn a_gpu_is_one_line_and_its_processes_are_told_apart() {
        let process = |run: Option<&str>, pid| GpuProcess {
            pid,
            name: Some("python3".into()),
            run: run.map(str::to_owned),
            memory: Some(3 << 30),
        };
        let gpu = Gpu {
            index: 1,
            name: "NVIDIA H200".into(),
            used: Some(0.914),
            memory: Some(Room {
                used: 61 << 30,
                total: 141 << 30,
            }),
            power: Some(402.3),
            power_limit: Some(700.0),
            temperature: Some(64),
            clock: Some(1980),
            memory_clock: Some(3201),
            processes: vec![process(None, 7), process(Some("a run"), 8)],
        };
        let worker = WorkerUse {
            run: "a run".into(),
            arm: Some("true-data:kl:1".into()),
            queued: false,
            device: "cuda:1".into(),
            pid: Some(8),
            cores: Some(1.04),
            memory: Some(5 << 30),
            gpu_memory: Some(3 << 30),
        };
        let machine = Machine {
            gpus: vec![gpu],
            workers: vec![worker],
            ..Machine::default()
        };
        let text = text(&machine);
        let line = "gpu 1   NVIDIA H200  91 %, 61.0 GiB of 141 GiB, 402 of 700 W, 64 C, 1980 MHz, memory 3201 MHz";
        assert!(text.lines().any(|found| found == line), "{text}");
        let words = |start: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(start));
            let words = line.expect(start).split_whitespace();
            words.map(str::to_owned).collect()
        };
        assert_eq!(words("a run")[2..5], ["true-data:kl:1", "cuda:1", "1.0"]);
        assert_eq!(words("python3"), ["python3", "1", "3.00", "GiB", "7"]);
        assert_eq!(text.matches("python3").count(), 1, "{text}");
    }

    /// Another driver tells less; what it does not tell is left out, not made up.
    #[test]
    fn what_a_gpu_does_not_tell_is_left_out() {
        let silent = Gpu {
            name: "it fell off the bus".into(),
            ..Gpu::default()
        };
        assert_eq!(super::gpu(&silent), "gpu 0   it fell off the bus");
    }
}
