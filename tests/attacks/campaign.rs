//! What the campaigns share: runs worth disturbing, their numbers, commands within bounds, and counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use forgetlab_tests::{Dice, Lab};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};

/// How many trials a kind gets: a few, or as many as `FORGETLAB_ATTACKS` says.
pub fn trials(few: u64, full: u64) -> u64 {
    match std::env::var("FORGETLAB_ATTACKS").as_deref() {
        Ok("full") => full,
        Ok(number) => number
            .parse()
            .expect("FORGETLAB_ATTACKS is `full` or a number"),
        Err(_) => few,
    }
}

/// Whether the whole campaign is asked for.
pub fn whole() -> bool {
    std::env::var_os("FORGETLAB_ATTACKS").is_some()
}

/// Arguments of `run` that cover something each; all in one thread, with a checkpoint at every evaluation.
pub const KINDS: [(&str, &[&str]); 4] = [
    // Every built-in strategy and objective.
    (
        "toy",
        &[
            "toy-continual",
            "--set",
            "phases.steps=12",
            "--arms",
            "none,true-data:kl:10,self-generated:ntp:1,bos-prompted:kl:10,true-data:replace:0.3,none:kl-new:1",
        ],
    ),
    // Arms that wait for their turn on disk.
    (
        "waiting",
        &[
            "toy-continual",
            "--set",
            "training.concurrent_arms=1",
            "--set",
            "phases.steps=12",
        ],
    ),
    ("instruct", &["instruct"]),
    ("lora", &["instruct", "--set", "model.lora_rank=4"]),
];

/// `run` of a kind into a folder.
pub fn run_of(kind: &str, seed: u64, out: &str, more: &[&str]) -> Vec<String> {
    let (_, settings) = KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .expect("a kind");
    let seed = seed.to_string();
    let common = [
        "--preset",
        "smoke",
        "--threads",
        "1",
        "--set",
        "training.checkpoint_seconds=0",
    ];
    let rest = ["--seed", &seed, "--out", out];
    [&["run"], *settings, &common, &rest, more]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// The numbers of a run: its CSVs without wall-clock time. Files that are not there have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Numbers(BTreeMap<&'static str, Vec<Vec<String>>>);

impl Numbers {
    /// Reads those of a run's folder.
    pub fn of(run: &Path) -> Self {
        let files = [
            "metrics.csv",
            "summary.csv",
            "plugin_metrics.csv",
            "replay.csv",
            "choices.csv",
        ];
        let rows = |file| Some((file, rows(&fs::read(run.join(file)).ok()?)));
        Self(files.into_iter().filter_map(rows).collect())
    }

    /// Those of one file.
    pub fn of_file(file: &Path) -> Self {
        let content = fs::read(file).unwrap_or_default();
        Self(BTreeMap::from([("", rows(&content))]))
    }

    /// Leaves out rows of an arm whose name holds a text.
    pub fn without(mut self, arm: &str) -> Self {
        for rows in self.0.values_mut() {
            rows.retain(|row| !row.iter().any(|field| field.contains(arm)));
        }
        self.0
            .retain(|file, _| *file == "metrics.csv" || *file == "summary.csv");
        self
    }

    /// The first difference to others, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let files = self.0.keys().chain(other.0.keys());
        files.into_iter().find_map(|file| {
            let none = Vec::new();
            let [a, b] = [self, other].map(|n| n.0.get(file).unwrap_or(&none));
            let at = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
            Some(format!(
                "{file} row {at}: {:?} against {:?}",
                a.get(at),
                b.get(at)
            ))
        })
    }
}

/// Rows of a CSV but for the columns of seconds.
fn rows(content: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader
        .has_headers(false)
        .flexible(true)
        .from_reader(content);
    let text = |record: csv::ByteRecord| -> Vec<String> {
        record
            .iter()
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect()
    };
    let mut rows: Vec<Vec<String>> = reader.byte_records().flatten().map(text).collect();
    let seconds = |name: &String| name.starts_with("seconds");
    let skipped: Vec<usize> = match rows.first() {
        Some(head) => head
            .iter()
            .enumerate()
            .filter(|(_, name)| seconds(name))
            .map(|(i, _)| i)
            .collect(),
        None => Vec::new(),
    };
    for row in &mut rows {
        let mut column = 0;
        row.retain(|_| {
            column += 1;
            !skipped.contains(&(column - 1))
        });
    }
    rows
}

/// How a command ended.
pub struct Ended {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It went on past its time, and was killed.
    pub hung: bool,
    /// What it printed.
    pub said: String,
}

impl Ended {
    /// The end of what it printed, on one line.
    pub fn last_words(&self) -> String {
        let words: Vec<char> = self.said.trim().chars().collect();
        let last: String = words[words.len().saturating_sub(300)..].iter().collect();
        last.replace('\n', " | ")
    }

    /// What must never be, whatever was asked for.
    pub fn misdeed(&self) -> Option<String> {
        let last = self.last_words();
        if self.hung {
            return Some(format!("HANG: {last}"));
        }
        if self.said.contains("bug in forgetlab") {
            return Some(format!("PANIC: {last}"));
        }
        if let Some(signal) = self.signal {
            return Some(format!("SIGNAL {signal}: {last}"));
        }
        let silent = self.code != Some(0) && last.is_empty();
        silent.then(|| format!("code {:?} without a word", self.code))
    }

    /// What is wrong where it had to end well.
    pub fn failure(&self) -> Option<String> {
        let failed = || format!("ends with {:?}: {}", self.code, self.last_words());
        self.misdeed()
            .or_else(|| (self.code != Some(0)).then(failed))
    }
}

/// Address space of a command in KiB: what is damaged or hostile must not fill the machine.
const MOST_KIB: u64 = 4 << 20;

/// A command that goes on, in a process group of its own and within [`MOST_KIB`]; its output is in a file.
pub struct Going {
    child: Child,
    output: File,
}

impl Going {
    /// Starts the binary.
    pub fn start(lab: &Lab, args: &[String]) -> Self {
        Self::start_with(lab, args, &[])
    }

    /// Starts the binary as `nohup` does.
    pub fn start_ignoring_hangup(lab: &Lab, args: &[String]) -> Self {
        Self::start_after(lab, args, &[], "trap '' HUP")
    }

    /// Starts the binary with more variables.
    pub fn start_with(lab: &Lab, args: &[String], set: &[(&str, &str)]) -> Self {
        Self::start_after(lab, args, set, ":")
    }

    fn start_after(lab: &Lab, args: &[String], set: &[(&str, &str)], shell: &str) -> Self {
        let given: Vec<&str> = args.iter().map(String::as_str).collect();
        let model = lab.command(&given);
        let mut command = Command::new("sh");
        let script = format!("ulimit -v {}; {shell}; exec \"$@\"", MOST_KIB);
        command
            .args(["-c", &script, "sh"])
            .arg(model.get_program())
            .args(&given);
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = tempfile::tempfile_in(lab.path("")).expect("a file");
        let child = command
            .envs(set.iter().copied())
            .current_dir(lab.path(""))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output.try_clone().expect("a file"))
            .process_group(0)
            .spawn()
            .expect("start forgetlab");
        Self { child, output }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The process that has the lock of its run, where it is one of this command's.
    pub fn worker(&self, run: &Path) -> Option<Pid> {
        let told = fs::read_to_string(run.join("worker.lock")).ok()?;
        let pid = Pid::from_raw(told.trim().parse().ok()?)?;
        // Not that of a worker before it, whose number another program may have by now.
        (getpgid(Some(pid)).ok()? == self.pid()).then_some(pid)
    }

    /// Sends a signal to the process that was started.
    pub fn signal(&self, signal: Signal) {
        // It may have come to its end meanwhile.
        let _ = kill_process(self.pid(), signal);
    }

    /// Sends a signal to it and whatever it started, as a terminal does.
    pub fn signal_all(&self, signal: Signal) {
        let _ = kill_process_group(self.pid(), signal);
    }

    /// Waits for its end, so long at most; `None` where it goes on.
    pub fn wait(&mut self, most: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return Some(status);
            }
            if start.elapsed() >= most {
                return None;
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, so long at most, then kills it.
    pub fn end(mut self, most: Duration) -> Ended {
        let status = self.wait(most);
        self.signal_all(Signal::KILL);
        let ended = status.unwrap_or_else(|| self.child.wait().expect("wait"));
        Ended {
            code: ended.code(),
            signal: ended.signal(),
            hung: status.is_none(),
            said: self.said(),
        }
    }

    fn said(&mut self) -> String {
        use std::io::{Read, Seek};
        let mut said = Vec::new();
        self.output
            .rewind()
            .and_then(|()| self.output.read_to_end(&mut said))
            .expect("read");
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.signal_all(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Longer than any command of a campaign takes that does not hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the binary to its end, within bounds.
pub fn bounded(lab: &Lab, args: &[&str]) -> Ended {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    Going::start(lab, &args).end(PATIENCE)
}

/// Runs a kind undisturbed; its numbers, and how long it takes.
pub fn undisturbed(lab: &Lab, args: &[String], run: &Path) -> (Numbers, Duration) {
    let start = Instant::now();
    let ended = Going::start(lab, args).end(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    (Numbers::of(run), start.elapsed())
}

/// Whether a run's events say that it is over.
pub fn finished(run: &Path) -> bool {
    forgetlab_tests::events_say(run, r#""event":"run_finished""#)
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("a kind of file").is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).expect("copy")),
        }
    }
}

/// A share of a time, drawn.
pub fn share(dice: &mut Dice, of: Duration, least: f64, most: f64) -> Duration {
    let part = dice.below(1 << 20) as f64 / f64::from(1 << 20);
    of.mul_f64(least + (most - least) * part)
}

/// Counts of a campaign, by kind and verdict.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<String, BTreeMap<String, u64>>,
    bad: Vec<String>,
}

impl Tally {
    /// Counts a verdict.
    pub fn count(&mut self, kind: &str, verdict: &str) {
        let verdicts = self.counts.entry(kind.to_owned()).or_default();
        *verdicts.entry(verdict.to_owned()).or_default() += 1;
    }

    /// Counts a verdict that must not be, and tells of it at once.
    pub fn bad(&mut self, kind: &str, verdict: &str, why: &str) {
        self.count(kind, verdict);
        let line = format!("BAD {kind}: {verdict}: {why}");
        println!("{line}");
        self.bad.push(line);
    }

    /// Counts a verdict where nothing is wrong, else the misdeed.
    pub fn note(&mut self, kind: &str, verdict: &str, wrong: Option<String>) {
        match wrong {
            None => self.count(kind, verdict),
            Some(why) => self.bad(kind, "BAD", &why),
        }
    }

    /// Prints a line a kind; fails where one was bad.
    #[track_caller]
    pub fn finish(self, campaign: &str) {
        for (kind, verdicts) in &self.counts {
            let words: Vec<String> = verdicts.iter().map(|(v, n)| format!("{v} {n}")).collect();
            println!("{campaign}: {kind}: {}", words.join(", "));
        }
        assert!(self.bad.is_empty(), "{campaign}:\n{}", self.bad.join("\n"));
    }
}
