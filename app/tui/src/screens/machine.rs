//! The machine: GPUs, cores, memory, disk, and what each live run uses of them.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use crate::keymap::Action;
use crate::lab::{Gpu, Machine, Room, WorkerUse};
use crate::theme::Theme;
use crate::widgets::text::{StyledLines, clip};

/// Share of the disk that is left below which it is said to be nearly full, and bytes.
const NEARLY_FULL: (f64, u64) = (0.02, 2 << 30);

/// State of the screen.
#[derive(Debug, Default)]
pub struct MachineScreen {
    /// What was read last; `None` until then.
    machine: Option<Result<Machine, String>>,
    scroll: usize,
}

impl MachineScreen {
    /// Takes what was read.
    pub fn set(&mut self, machine: Result<Box<Machine>, String>) {
        self.machine = Some(machine.map(|machine| *machine));
    }

    fn read(&self) -> Option<&Machine> {
        self.machine.as_ref()?.as_ref().ok()
    }

    /// The machine in one line: GPU, cores, memory, disk.
    pub fn line(&self) -> String {
        let Some(machine) = self.read() else {
            return String::new();
        };
        let gpus = machine.gpus.iter().map(|gpu| {
            let used = gpu
                .used
                .map_or("?".into(), |used| format!("{:.0}%", used * 100.0));
            let memory = gpu
                .memory
                .map_or(String::new(), |memory| format!(" {}", room(memory)));
            let power = gpu
                .power
                .map_or(String::new(), |power| format!(" {power:.0}W"));
            format!("gpu{} {used}{memory}{power}", gpu.index)
        });
        let mut parts: Vec<String> = gpus.collect();
        parts.extend(
            machine
                .cpu
                .used
                .map(|used| format!("cpu {:.0}%", used * 100.0)),
        );
        parts.push(format!("mem {}", room(machine.memory)));
        parts.extend(
            machine
                .disk
                .map(|disk| format!("disk {} free", bytes(disk.free()))),
        );
        parts.join("  ")
    }

    /// What is in danger: a disk that is nearly full, memory that is.
    pub fn alert(&self) -> Option<String> {
        let machine = self.read()?;
        let (share, least) = NEARLY_FULL;
        if let Some(disk) = machine.disk
            && (disk.free() < least || 1.0 - disk.share() < share)
        {
            return Some(format!(
                "the disk of the results has {} left",
                bytes(disk.free())
            ));
        }
        (1.0 - machine.memory.share() < share)
            .then(|| format!("{} of memory are left", bytes(machine.memory.free())))
    }

    /// Applies a key's action.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::PageUp => self.scroll = self.scroll.saturating_sub(5),
            Action::PageDown => self.scroll += 5,
            _ => {}
        }
    }

    /// Draws the machine.
    pub fn draw(&self, frame: &mut Frame, area: Rect, theme: Theme) {
        let mut lines = StyledLines::new(usize::from(area.width));
        match &self.machine {
            None => lines.add("reading the machine…", theme.dim()),
            Some(Err(problem)) => lines.add(problem, theme.bad()),
            Some(Ok(machine)) => self.tell(machine, &mut lines, theme, area.width),
        }
        let lines = lines.finish();
        let most = lines.len().saturating_sub(usize::from(area.height));
        let shown = lines.into_iter().skip(self.scroll.min(most));
        for (row, (text, style)) in area.rows().zip(shown) {
            frame.render_widget(Line::styled(text, style), row);
        }
    }

    fn tell(&self, machine: &Machine, lines: &mut StyledLines, theme: Theme, width: u16) {
        let wide = usize::from(width.saturating_sub(46)).clamp(10, 60);
        let plain = Style::new();
        if let Some(alert) = self.alert() {
            lines.add(&format!("! {alert}"), theme.bad());
        }
        lines.add("Cores", theme.heading());
        let used = machine.cpu.used.unwrap_or(0.0);
        let load = machine.cpu.load.map(|load| format!("{load:.2}")).join(" ");
        lines.add_line(
            &gauge(
                "all",
                used,
                wide,
                &format!("{} cores, load {load}", machine.cpu.count),
            ),
            plain,
        );
        // A machine of many cores has as many lines as fit anyway.
        for (index, used) in machine.cpu.cores.iter().enumerate().take(16) {
            lines.add_line(&gauge(&format!("{index}"), *used, wide, ""), theme.dim());
        }
        lines.add("\n", plain);
        lines.add("Memory and disk", theme.heading());
        let of = |name: &str, room: Room| gauge(name, room.share(), wide, &in_words(room));
        lines.add_line(&of("memory", machine.memory), plain);
        if let Some(disk) = machine.disk {
            lines.add_line(&of("disk", disk), plain);
        }
        lines.add("\n", plain);
        lines.add("GPUs", theme.heading());
        if let Some(problem) = &machine.gpu_problem {
            lines.add(problem, theme.dim());
        }
        machine
            .gpus
            .iter()
            .for_each(|gpu| tell_gpu(gpu, lines, wide, theme));
        lines.add("\n", plain);
        lines.add("Live runs", theme.heading());
        if machine.workers.is_empty() {
            lines.add("none", theme.dim());
        }
        machine
            .workers
            .iter()
            .for_each(|worker| tell_worker(worker, lines));
    }
}

fn tell_gpu(gpu: &Gpu, lines: &mut StyledLines, wide: usize, theme: Theme) {
    lines.add(&format!("cuda:{} {}", gpu.index, gpu.name), Style::new());
    if let Some(used) = gpu.used {
        let mut facts = Vec::new();
        match (gpu.power, gpu.power_limit) {
            (Some(power), Some(limit)) => facts.push(format!("{power:.0} of {limit:.0} W")),
            (Some(power), None) => facts.push(format!("{power:.0} W")),
            _ => {}
        }
        facts.extend(gpu.temperature.map(|degrees| format!("{degrees} °C")));
        facts.extend(gpu.clock.map(|clock| format!("{clock} MHz")));
        lines.add_line(&gauge("  use", used, wide, &facts.join(", ")), Style::new());
    }
    if let Some(memory) = gpu.memory {
        lines.add_line(
            &gauge("  memory", memory.share(), wide, &in_words(memory)),
            Style::new(),
        );
    }
    for process in &gpu.processes {
        let what = process.run.as_ref().or(process.name.as_ref());
        let memory = process
            .memory
            .map_or(String::new(), |memory| format!(", {}", bytes(memory)));
        let what = what.map_or(String::new(), |what| format!(" {what}"));
        lines.add(
            &format!("  process {}{what}{memory}", process.pid),
            theme.dim(),
        );
    }
}

fn tell_worker(worker: &WorkerUse, lines: &mut StyledLines) {
    let mut facts = vec![worker.device.clone()];
    facts.extend(worker.cores.map(|cores| format!("{cores:.1} cores")));
    facts.extend(
        worker
            .memory
            .map(|memory| format!("{} of memory", bytes(memory))),
    );
    facts.extend(
        worker
            .gpu_memory
            .map(|memory| format!("{} of the GPU's", bytes(memory))),
    );
    facts.extend(worker.pid.map(|pid| format!("process {pid}")));
    let arm = worker
        .arm
        .as_ref()
        .map_or(String::new(), |arm| format!(", now {arm}"));
    lines.add(
        &format!("{}{arm}: {}", worker.run, facts.join(", ")),
        Style::new(),
    );
}

/// A bar of a share, with words behind it.
fn gauge(name: &str, share: f64, width: usize, words: &str) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(full), "·".repeat(width - full));
    format!(
        "{:<9} {bar} {:>3.0}%  {words}",
        clip(name, 9),
        share * 100.0
    )
}

fn in_words(room: Room) -> String {
    format!(
        "{} of {}, {} free",
        bytes(room.used),
        bytes(room.total),
        bytes(room.free())
    )
}

fn room(room: Room) -> String {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    format!("{:.0}/{:.0}G", gib(room.used), gib(room.total))
}

/// Bytes in a few characters: `812 GiB`, `3.4 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (power, unit) in UNITS {
        let size = (1u64 << power) as f64;
        if bytes as f64 >= size {
            let shown = bytes as f64 / size;
            let decimals = usize::from(shown < 9.95);
            return format!("{shown:.decimals$} {unit}");
        }
    }
    format!("{bytes} B")
}
