//! `forgetlab watch --once`: one frame of the watch screen, as text.

use std::io::{self, Write};
use std::process::ExitCode;

use crossterm::style::StyledContent;
use crossterm::terminal;
use forgetlab_study::run::RunDir;
use forgetlab_tui::{Lines, Pane, Seen, Shot, frame};

use super::super::{Usage, exit, out, top, unless_gone};
use super::{Followed, worst};
use crate::local_lab::look;

/// How a frame is drawn.
#[derive(clap::Args)]
pub struct FrameArgs {
    /// Size of the frame [default: the terminal's, else 120x36]
    #[arg(long, value_name = "COLUMNSxROWS", value_parser = size, requires = "once", conflicts_with = "json")]
    size: Option<(u16, u16)>,
    /// What comes first: kept, curves, losses, replay, matrix, log, panels or arm
    #[arg(long, value_parser = pane, requires = "once", conflicts_with = "json")]
    pane: Option<Pane>,
    /// Arm under the cursor, which replay, arm and the line below the table are about [default: the first]
    #[arg(long, requires = "once", conflicts_with = "json")]
    arm: Option<String>,
    /// ASCII alone
    #[arg(long, requires = "once", conflicts_with = "json")]
    ascii: bool,
}

/// Smallest frame, and largest.
const SIZES: [(u16, u16); 2] = [(80, 24), (1000, 400)];
/// Size of a frame that no terminal shows.
const SIZE: (u16, u16) = (120, 36);

fn size(text: &str) -> Result<(u16, u16), String> {
    let [least, most] = SIZES;
    let wrong = || {
        format!(
            "write columns and rows, from {}x{} to {}x{}",
            least.0, least.1, most.0, most.1
        )
    };
    let (columns, rows) = text.split_once(['x', '×']).ok_or_else(wrong)?;
    let (columns, rows) = columns
        .parse()
        .ok()
        .zip(rows.parse().ok())
        .ok_or_else(wrong)?;
    let fits = |size: u16, least: u16, most: u16| (least..=most).contains(&size);
    match fits(columns, least.0, most.0) && fits(rows, least.1, most.1) {
        true => Ok((columns, rows)),
        false => Err(wrong()),
    }
}

fn pane(text: &str) -> Result<Pane, String> {
    let found = Pane::ALL.into_iter().find(|pane| pane.name() == text);
    found.ok_or_else(|| {
        let names = Pane::ALL.map(Pane::name);
        format!("write one of {}", names.join(", "))
    })
}

/// Prints a frame of the runs as they stand, or an object for each.
pub fn run(mut all: Vec<Followed>, args: &super::Args) -> anyhow::Result<ExitCode> {
    for run in &mut all {
        run.look()?;
        if args.json {
            run.tell(true)?;
        }
    }
    let code = match all.iter().all(Followed::is_over) {
        true => worst(&all),
        false => exit::DONE,
    };
    if !args.json {
        let (dirs, seen): (Vec<RunDir>, Vec<Seen>) =
            all.into_iter().map(|run| (run.dir, run.seen)).unzip();
        let mut find = |name: &str, arm: usize, step: u64| {
            let dir = dirs.iter().find(|dir| dir.name() == name);
            let dir = dir.ok_or_else(|| format!("there is no run {name}"))?;
            look(dir, arm, step).map_err(|error| format!("{error:#}"))
        };
        let lines = frame(seen, &mut find, &shot(&args.frame));
        let lines = lines.map_err(|error| Usage(error.to_string()))?;
        unless_gone(print(&lines))?;
    }
    Ok(ExitCode::from(code))
}

fn shot(args: &FrameArgs) -> Shot {
    let on_terminal = out::is_terminal();
    let [least, most] = SIZES;
    let (width, height) = args.size.unwrap_or_else(|| {
        let told = terminal::size().ok().filter(|_| on_terminal);
        // The shell's prompt stands below it.
        let told = told.map(|(columns, rows)| (columns, rows.saturating_sub(1)));
        let (width, height) = told.unwrap_or(SIZE);
        (width.clamp(least.0, most.0), height.clamp(least.1, most.1))
    });
    Shot {
        width,
        height,
        pane: args.pane.unwrap_or_default(),
        colours: on_terminal,
        arm: args.arm.clone(),
        ascii: args.ascii,
        now: top::now(),
    }
}

fn print(lines: &Lines) -> io::Result<()> {
    let mut out = out::stdout();
    let styled = out::is_terminal();
    for line in lines {
        for piece in line {
            let text = piece.content().as_str();
            match styled {
                true => out.styled(StyledContent::new(*piece.style(), text))?,
                false => write!(out, "{text}")?,
            }
        }
        writeln!(out)?;
    }
    out.flush()
}
