//! Ways for a file to be spoilt: by a disk, by a hand, by another program.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use forgetlab_tests::Dice;

/// A way to spoil a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Bit,
    Digit,
    Cut,
    Zeros,
    LineTwice,
    LineGone,
    LinesSwapped,
    Empty,
    Gone,
    Folder,
    Loop,
    Dangling,
    Pipe,
    Sparse,
    Endless,
}

use Damage::*;

impl Damage {
    /// Those that differ from trial to trial.
    pub const DRAWN: [Damage; 7] = [Bit, Digit, Cut, Zeros, LineTwice, LineGone, LinesSwapped];
    /// Those that are the same each time.
    pub const FIXED: [Damage; 8] = [Empty, Gone, Folder, Loop, Dangling, Pipe, Sparse, Endless];

    /// Spoils a file; `None` where there is nothing to spoil in this way. The last `spared` lines stay as they are.
    pub fn spoil(self, path: &Path, spared: usize, dice: &mut Dice) -> Option<()> {
        if Self::DRAWN.contains(&self) {
            let content = fs::read(path).ok()?;
            let kept = tail(&content, spared);
            let (head, tail) = content.split_at(content.len() - kept);
            let mut spoilt = self.drawn(head.to_vec(), dice)?;
            if self != Cut {
                spoilt.extend_from_slice(tail);
            }
            fs::write(path, spoilt).ok()?;
            return Some(());
        }
        let there = fs::symlink_metadata(path).ok()?;
        match there.is_dir() {
            true => fs::remove_dir_all(path).ok()?,
            false => fs::remove_file(path).ok()?,
        }
        match self {
            Empty => drop(File::create(path).ok()?),
            Folder => fs::create_dir(path).ok()?,
            Loop => symlink(path.file_name()?, path).ok()?,
            Dangling => symlink("/nowhere/at/all", path).ok()?,
            Pipe => forgetlab_tests::run(std::process::Command::new("mkfifo").arg(path)),
            Sparse => File::create(path).ok()?.set_len(10 << 30).ok()?,
            Endless => symlink("/dev/zero", path).ok()?,
            _ => {}
        }
        Some(())
    }

    fn drawn(self, mut bytes: Vec<u8>, dice: &mut Dice) -> Option<Vec<u8>> {
        let mut below = |n: usize| dice.below(n as u64) as usize;
        if bytes.is_empty() {
            return None;
        }
        match self {
            Bit => {
                let at = below(bytes.len());
                bytes[at] ^= 1 << below(8);
            }
            Digit => {
                let digits: Vec<usize> = (0..bytes.len())
                    .filter(|&i| bytes[i].is_ascii_digit())
                    .collect();
                let at = *digits.get(below(digits.len()))?;
                bytes[at] = b'0' + (bytes[at] - b'0' + 1 + below(9) as u8) % 10;
            }
            Cut => bytes.truncate(below(bytes.len())),
            Zeros => {
                let from = below(bytes.len());
                let len = [1, 16, 512, 4096][below(4)].min(bytes.len() - from);
                bytes[from..from + len].fill(0);
            }
            _ => {
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
                let (a, b) = (below(lines.len()), below(lines.len()));
                let next = (a + 1) % lines.len();
                match self {
                    LineTwice => lines.insert(a, lines[a]),
                    LineGone => drop(lines.remove(a)),
                    // Neighbours are the hardest to notice.
                    _ if a == b => lines.swap(a, next),
                    _ => lines.swap(a, b),
                }
                let spoilt = lines.concat();
                return (spoilt != bytes).then_some(spoilt);
            }
        }
        Some(bytes)
    }
}

/// Bytes of the last lines, with an unfinished one after them.
fn tail(content: &[u8], lines: usize) -> usize {
    let ends = content
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, b)| **b == b'\n')
        .map(|(i, _)| i);
    match (lines, ends.take(lines + 1).last()) {
        (0, _) | (_, None) => 0,
        (_, Some(end)) => content.len() - end - 1,
    }
}
