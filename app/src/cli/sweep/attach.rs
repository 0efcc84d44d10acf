//! A sweep watched from elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use forgetlab_study::printed::one_line;
use forgetlab_study::report::Format;
use forgetlab_study::run::{SweepDir, shell_path};

use super::super::{exit, glyphs, out, queue, unless_gone};
use super::{code_of, percent_done, table};

/// Time between two looks at the points, which reads their events.
const LOOK_AT_POINTS: Duration = Duration::from_secs(1);

/// Says what becomes of the points until nobody works on any; the exit code is the sweep's.
pub fn attach(sweep: &SweepDir, leave: &AtomicBool) -> anyhow::Result<u8> {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    let mut line = queue::Told::default();
    loop {
        line.look(sweep.path())?;
        let statuses = sweep.statuses()?;
        let counts = sweep.counts(&statuses)?;
        let mut told = String::new();
        for (point, status) in &statuses {
            let word = status.word();
            let before = known.insert(point.name.clone(), word).unwrap_or("waiting");
            if before != word {
                let done = percent_done(sweep, &statuses);
                told += &format!("{}: {word} ({done}% of the sweep)\n", one_line(&point.name));
            }
        }
        if !counts.is_live() {
            told += &format!(
                "\n{}",
                table(sweep, &statuses).write(Format::Text(glyphs()))
            );
            unless_gone(out::stdout().write_all(told.as_bytes()))?;
            return Ok(code_of(counts.status()));
        }
        if leave.load(Ordering::Relaxed) {
            let path = shell_path(sweep.path());
            told += &format!(
                "the sweep goes on; `forgetlab attach {path}` shows it again, `forgetlab stop {path}` stops it\n"
            );
            unless_gone(out::stdout().write_all(told.as_bytes()))?;
            return Ok(exit::DONE);
        }
        let mut out = out::stdout();
        unless_gone(out.write_all(told.as_bytes()).and_then(|()| out.flush()))?;
        drop(out);
        thread::sleep(LOOK_AT_POINTS);
    }
}
