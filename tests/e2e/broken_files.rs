//! Disks that are full or refuse, files that are torn: told clearly, survived where possible.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forgetlab_tests::{Done, Figures, Lab, SMOKE, binary, events, events_say, wait_for};
use rustix::process::Signal;

const RUN: &[&str] = &["--out", "disk/run", "--no-cache"];

fn whole() -> Figures {
    let lab = Lab::new();
    lab.smoke(&["--out", "whole"]).exits(0);
    Figures::of(&lab.path("whole"))
}

/// A small file system of its own, unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this user may not mount.
    fn mount(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).expect("folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "forgetlab-test"]);
        let done = mount.arg(&at).output();
        done.is_ok_and(|done| done.status.success())
            .then_some(Self(at))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        forgetlab_tests::run(mount.args(["-o", &options]).arg(&self.0));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The lab's binary where no file may grow beyond `kib`: what a full disk looks like without one.
pub fn limited(lab: &Lab, kib: u64, args: &[&str]) -> Done {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    let model = lab.command(args);
    let set = model.get_envs().filter_map(|(k, v)| Some((k, v?)));
    command.envs(set).current_dir(lab.path(""));
    command.args(["-c", &script]).arg(binary()).args(args);
    command.stdin(std::process::Stdio::null());
    command.output().expect("bash").into()
}

/// Demands a clear failure; then, with room made, the run as if nothing had happened.
fn fails_and_goes_on(lab: &Lab, full: Done, room: impl FnOnce(), whole: &Figures, why: &str) {
    assert_eq!(full.code, Some(1), "{why}: {full}");
    assert_eq!(full.err.matches("error:").count(), 1, "{why}: {full}");
    let full = full.says(&["error: "]);
    let run = lab.path("disk/run");
    let begun = run.join("config.toml").exists();
    if begun {
        assert!(full.err.contains("resume"), "{why}: {full}");
    } else {
        assert!(!run.exists(), "{why}: a folder without a run: {full}");
    }
    room();
    let done = if begun {
        lab.forgetlab(&["resume", "disk/run"])
    } else {
        lab.smoke(RUN)
    };
    assert_eq!(done.code, Some(0), "{why}: {done}");
    Figures::of(&run).must_equal(whole, why);
}

/// Else a full disk would cost the run, or be told as something else.
#[test]
fn a_full_disk_is_told_and_the_run_goes_on_when_there_is_room() {
    let whole = whole();
    let mut met = 0;
    for kib in [16, 100, 200, 300, 400, 600, 800] {
        let lab = Lab::new();
        let Some(disk) = Tmpfs::mount(lab.path("disk"), &format!("size={kib}k")) else {
            // Files of limited size, below, fail in the same places.
            return;
        };
        let full = lab.smoke(RUN);
        if full.code == Some(0) {
            continue;
        }
        met += 1;
        let full = full.says(&["No space left on device", "free some space"]);
        let why = format!("{kib} KiB");
        fails_and_goes_on(&lab, full, || disk.remount("size=64m"), &whole, &why);
    }
    assert!(met >= 4, "only {met} disks were too small");
}

/// Else it would take a full disk to find out, and a run would end without a word.
#[test]
fn a_file_that_cannot_grow_is_told_and_the_run_goes_on_when_it_can() {
    let whole = whole();
    for kib in [1, 8, 20, 30] {
        let lab = Lab::new();
        let full = limited(&lab, kib, &[SMOKE, RUN].concat());
        fails_and_goes_on(&lab, full, || {}, &whole, &format!("{kib} KiB a file"));
    }
}

/// Else a run would begin that can leave nothing behind.
#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_is_trained() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "in the way").expect("file");
    for out in ["/proc/forgetlab/run", "file", "file/run"] {
        let done = lab.smoke(&["--out", out]).exits(1).says(&["cannot", out]);
        assert!(!done.out.contains("step"), "{done}");
    }
    let mut no_results = lab.command(SMOKE);
    no_results.env("FORGETLAB_RESULTS", lab.path("file"));
    let done = Done::from(no_results.output().expect("start"));
    done.exits(1).says(&["cannot", "file"]);
    if let Some(_disk) = Tmpfs::mount(lab.path("read-only"), "ro") {
        lab.smoke(&["--out", "read-only/run"]).exits(1).says(&[
            "read-only/run",
            "Read-only file system",
            "choose a writable folder",
        ]);
    }
    assert_eq!(fs::read(lab.path("file")).expect("file"), b"in the way");
}

/// Interrupts a run in its last phases.
fn interrupted(lab: &Lab) -> PathBuf {
    let run = lab.path("run");
    let endless = ["--set", "phases.steps=400", "--out", "run"];
    let mut live = lab.start(&[SMOKE, &endless].concat());
    wait_for("the second phase", || {
        events_say(&run, r#""phase":1,"step":430"#) || events(&run) > 900 || !live.runs()
    });
    live.signal(Signal::INT);
    live.end().exits(130);
    run
}

fn newest(arm: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(arm.join("checkpoints")).expect("checkpoints");
    let mut files: Vec<PathBuf> = files.map(|f| f.expect("entry").path()).collect();
    files.retain(|f| {
        let name = f.file_name().and_then(|n| n.to_str()).expect("name");
        name.starts_with("step-") && name.ends_with(extension)
    });
    files.sort();
    files.pop().expect("a checkpoint")
}

fn cut_in_half(file: &Path) {
    let bytes = fs::read(file).expect("read");
    fs::write(file, &bytes[..bytes.len() / 2]).expect("write");
}

/// Else one bad sector would cost everything trained so far.
#[test]
fn torn_and_corrupt_files_are_named_and_survived() {
    let lab = Lab::new();
    lab.smoke(&["--set", "phases.steps=400", "--out", "whole"])
        .exits(0);
    let whole = Figures::of(&lab.path("whole"));
    let run = interrupted(&lab);
    let mut arms: Vec<PathBuf> = fs::read_dir(run.join("arms"))
        .expect("arms")
        .map(|arm| arm.expect("entry").path())
        .collect();
    arms.sort();
    for (i, arm) in arms.iter().enumerate() {
        match i {
            // A flipped bit, half a file, half a description, none at all, none of either.
            0 => {
                let file = newest(arm, ".safetensors");
                let mut bytes = fs::read(&file).expect("read");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&file, bytes).expect("write");
            }
            1 => cut_in_half(&newest(arm, ".safetensors")),
            2 => cut_in_half(&newest(arm, ".json")),
            3 => fs::remove_file(newest(arm, ".safetensors")).expect("remove"),
            _ => fs::remove_dir_all(arm).expect("remove"),
        }
    }
    let mut torn = fs::read(run.join("events.jsonl")).expect("events");
    torn.extend(br#"{"v":1,"seq":99999,"time":1.0,"event":"evalua"#);
    fs::write(run.join("events.jsonl"), torn).expect("write");
    let done = lab.forgetlab(&["resume", "run"]).exits(0).says(&[
        "torn or corrupt",
        "using the one before it",
        "is gone",
    ]);
    for arm in &arms[..4] {
        let name = arm.file_name().and_then(|n| n.to_str()).expect("name");
        assert!(done.out.contains(name), "{name} is not named: {done}");
    }
    Figures::of(&run).must_equal(&whole, "after torn files");
}

/// Else whatever a cleaning script took, or an editor changed, would end in a panic or a wrong figure.
#[test]
fn files_that_were_removed_or_edited_are_told() {
    let lab = Lab::new();
    lab.smoke(&["--set", "phases.steps=400", "--out", "whole"])
        .exits(0);
    let whole = Figures::of(&lab.path("whole"));
    let run = interrupted(&lab);
    let config = fs::read_to_string(run.join("config.toml")).expect("config.toml");
    fs::write(
        run.join("config.toml"),
        config.replace("lr = 0.003", "lr = "),
    )
    .expect("write");
    lab.forgetlab(&["resume", "run"])
        .exits(1)
        .says(&["config.toml", "line", "column"]);
    fs::write(run.join("config.toml"), config).expect("write");
    fs::write(run.join("environment.json"), "{").expect("write");
    lab.forgetlab(&["resume", "run"])
        .exits(1)
        .says(&["environment.json"]);
    fs::remove_file(run.join("environment.json")).expect("remove");
    fs::remove_dir_all(run.join("arms")).expect("remove");
    lab.forgetlab(&["resume", "run"]).exits(0);
    Figures::of(&run).must_equal(&whole, "without its checkpoints");
}

/// Else a wrong digit, a lost line or half a file would become a wrong figure in a paper, without a word.
#[test]
fn damaged_events_are_named_and_the_run_goes_back_to_what_is_whole() {
    let lab = Lab::new();
    lab.smoke(&["--set", "phases.steps=400", "--out", "whole"])
        .exits(0);
    let whole = Figures::of(&lab.path("whole"));
    let run = interrupted(&lab);
    let file = run.join("events.jsonl");
    let text = fs::read_to_string(&file).expect("events");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let evaluated = |line: &&str| line.contains(r#""evaluated","arm":1"#);
    let at = lines.iter().position(evaluated).expect("one");
    let (_, scores) = lines[at].split_once(r#""ntp":"#).expect("a score");
    let digit = scores.chars().next().expect("a digit");
    let other = if digit == '1' { '2' } else { '1' };
    let wrong = lines[at].replacen(
        &format!(r#""ntp":{digit}"#),
        &format!(r#""ntp":{other}"#),
        1,
    );
    let changed = [&lines[..at], &[wrong.as_str()], &lines[at + 1..]];
    let lost = [&lines[..at], &lines[at + 1..]];
    let cut = &lines[..at];
    let line = format!("events.jsonl, line {}", at + 1);
    for (bytes, named) in [
        (changed.concat().concat(), line.as_str()),
        (lost.concat().concat(), line.as_str()),
        (cut.concat(), "events.jsonl, line 0"),
        (String::new(), "events.jsonl, line 0"),
    ] {
        fs::write(&file, bytes).expect("write");
        for command in ["resume", "compare"] {
            let done = lab.forgetlab(&[command, "run"]).exits(1);
            done.says(&[named, "--go-back"]);
        }
    }
    fs::write(&file, changed.concat().concat()).expect("write");
    lab.forgetlab(&["resume", "run", "--go-back"])
        .exits(0)
        .says(&["events.jsonl.damaged-1", "is set aside"]);
    Figures::of(&run).must_equal(&whole, "after damaged events");
    let kept = fs::read_to_string(run.join("events.jsonl.damaged-1")).expect("kept");
    assert_eq!(kept, changed.concat().concat());
}

/// Else intervals would be taken over other rows than were measured.
#[test]
fn lost_rows_are_named_and_measured_again() {
    let lab = Lab::new();
    lab.smoke(&["--out", "run"]).exits(0);
    let run = lab.path("run");
    let whole = Figures::of(&run);
    let file = run.join("outcomes.jsonl");
    let text = fs::read(&file).expect("outcomes");
    fs::write(&file, &text[..text.len() / 2]).expect("write");
    for command in ["resume", "compare"] {
        let done = lab.forgetlab(&[command, "run"]).exits(1);
        done.says(&["outcomes.jsonl", "are lost"]);
    }
    lab.forgetlab(&["resume", "run", "--go-back"]).exits(0);
    Figures::of(&run).must_equal(&whole, "after lost rows");
}

/// Else two hours of training would be gone with a folder that was moved away while they went on, and be told as done.
#[test]
fn a_run_whose_folder_is_moved_ends_with_words_and_goes_on_where_it_is() {
    let lab = Lab::new();
    let set = [
        "--set",
        "phases.steps=400",
        "--set",
        "training.checkpoint_seconds=0",
    ];
    lab.smoke(&[&set[..], &["--out", "whole"]].concat())
        .exits(0);
    let whole = Figures::of(&lab.path("whole"));
    let run = lab.path("run");
    let mut live = lab.start(&[SMOKE, &set, &["--out", "run"]].concat());
    wait_for("the second phase", || {
        events_say(&run, r#""phase":1,"step":4"#) || !live.runs()
    });
    fs::rename(&run, lab.path("moved")).expect("rename");
    let done = live.end().exits(1);
    done.says(&["events.jsonl", "moved"]);
    assert!(!run.exists(), "nothing is made in its place");
    lab.forgetlab(&["resume", "moved"]).exits(0);
    Figures::of(&lab.path("moved")).must_equal(&whole, "after it was moved");
}
