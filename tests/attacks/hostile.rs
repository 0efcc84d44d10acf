//! Every misbehaviour of `tests/hostile/attack.c`, in `plugins check` and in a run beside two good arms.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use forgetlab_study::printed::is_harmless;
use forgetlab_tests::{Lab, library, root, run};
use rustix::process::Signal;

use crate::campaign::{Ended, Going, Numbers, Tally, finished, undisturbed, whole};

/// What the small part tries: some of each kind.
const FEW: [&str; 13] = [
    "hand-name-escape",
    "load-library-crash",
    "load-library-exit",
    "load-library-round",
    "create-message-moved",
    "batch-rows-huge",
    "phase-_exit",
    "end-exit",
    "end-crash",
    "process-replace-files",
    "process-round",
    "tell-escapes",
    "thread-calls",
];

/// What needs no answer within this time is taken to hang.
const DEADLINE: Duration = Duration::from_secs(12);

/// Somebody's strategy may cost its own arm, and at worst the worker, but no number of another arm and no true word
/// of the exit code.
#[test]
fn a_hostile_strategy_costs_its_own_arm_alone() {
    let campaign = Campaign::new();
    let mut tally = Tally::default();
    let modes = modes();
    for mode in &modes {
        if whole() || FEW.contains(&mode.as_str()) {
            let (verdict, wrong) = campaign.attack(mode);
            let wrong = wrong.or_else(|| campaign.beside(mode));
            tally.note(verdict, mode, wrong.map(|why| format!("{mode}: {why}")));
        }
    }
    let asked = std::env::var_os("FORGETLAB_ATTACK").is_some();
    let unknown = FEW.iter().filter(|mode| !asked && !modes.contains(**mode));
    let unknown: Vec<_> = unknown.collect();
    assert!(unknown.is_empty(), "{unknown:?} are no modes of attack.c");
    tally.finish("hostile strategies");
}

/// The modes of the library, as its source names them; or those that `FORGETLAB_ATTACK` asks for.
fn modes() -> BTreeSet<String> {
    if let Ok(asked) = std::env::var("FORGETLAB_ATTACK") {
        return asked.split(',').map(str::to_owned).collect();
    }
    let source = fs::read_to_string(root().join("tests/hostile/attack.c")).expect("read");
    let named = source
        .split("is(\"")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    named.collect()
}

struct Campaign {
    lab: Lab,
    library: PathBuf,
    /// Of the good arms, alone.
    want: Numbers,
}

impl Campaign {
    fn new() -> Self {
        let lab = Lab::new();
        fs::create_dir(lab.path("plug")).expect("folder");
        let library = lab.path("plug").join(library("attack"));
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-I"])
            .arg(root().join("plugin-api/include"));
        run(cc
            .arg("-o")
            .args([library.as_path(), &root().join("tests/hostile/attack.c")])
            .args(["-lpthread", "-lm"]));
        let (all, _) = undisturbed(&lab, &arms("base", "none,true-data:kl"), &lab.path("base"));
        Self {
            lab,
            library,
            want: all.without("attack"),
        }
    }

    /// Attacks; the verdict, and what is wrong.
    fn attack(&self, mode: &str) -> (&'static str, Option<String>) {
        let library = self.library.display().to_string();
        let check = ["plugins", "check", &library].map(str::to_owned);
        let checked = self.end(self.start(&check, mode, "0"));
        let run = self.lab.path("run");
        let _ = fs::remove_dir_all(&run);
        let args = arms("run", "none,attack:kl,true-data:kl");
        let plug = ["--plugin-dir".to_owned(), "plug".to_owned()];
        let ended = self.end(self.start(&[&args[..], &plug].concat(), mode, "10"));
        let printed = [&checked, &ended]
            .into_iter()
            .find(|ended| !is_harmless(&ended.said));
        // What a library prints of its own is out of the lab's hands.
        let escapes = printed
            .filter(|_| !mode.ends_with("-print"))
            .map(|e| format!("escapes: {:?}", e.last_words()));
        let same = |_: ()| self.want.difference(&Numbers::of(&run).without("attack"));
        let begun = run.join("events.jsonl").exists();
        let panicked = ended
            .said
            .contains("bug in forgetlab")
            .then(|| ended.last_words());
        let wrong = escapes.or(panicked);
        match ended.code {
            Some(0) if finished(&run) => ("harmless", wrong.or_else(|| same(()))),
            Some(3) if finished(&run) => ("its arm alone", wrong.or_else(|| same(()))),
            Some(code @ (0 | 3)) => {
                let lie = format!(
                    "exit code {code} of a run that is not finished: {}",
                    ended.last_words()
                );
                ("BAD", Some(lie))
            }
            Some(1 | 2) if !begun => ("refused", wrong),
            _ => ("the worker", wrong.or_else(|| self.goes_on_without(mode))),
        }
    }

    fn start(&self, args: &[String], mode: &str, from: &str) -> Going {
        let set = [("FORGETLAB_ATTACK", mode), ("FORGETLAB_ATTACK_FROM", from)];
        Going::start_with(&self.lab, args, &set)
    }

    /// The end of a command; one that hangs is interrupted as somebody would who waits, then killed.
    fn end(&self, mut going: Going) -> Ended {
        for signal in [Signal::INT, Signal::INT] {
            if going.wait(DEADLINE).is_some() {
                break;
            }
            going.signal_all(Signal::CONT);
            going.signal_all(signal);
        }
        going.end(DEADLINE)
    }

    /// What is wrong with the run once it has been resumed without the arm, the library as hostile as before.
    fn goes_on_without(&self, mode: &str) -> Option<String> {
        let args = [
            "resume",
            "run",
            "--no-cache",
            "--plugin-dir",
            "plug",
            "--skip-arm",
            "attack:kl:10",
        ];
        let args = args.map(str::to_owned);
        let resumed = self.end(self.start(&args, mode, "10"));
        match resumed.code {
            Some(0 | 3) => self
                .want
                .difference(&Numbers::of(&self.lab.path("run")).without("attack")),
            code => Some(format!(
                "resume --skip-arm ends with {code:?}: {}",
                resumed.last_words()
            )),
        }
    }

    /// What is wrong where no arm uses the library, and it only lies where strategies are looked for.
    fn beside(&self, mode: &str) -> Option<String> {
        if !mode.starts_with("load-library-") && !mode.starts_with("hand-") {
            return None;
        }
        let _ = fs::remove_dir_all(self.lab.path("run"));
        let set = [("FORGETLAB_ATTACK", mode), ("FORGETLAB_PLUGINS", "plug")];
        let args = arms("run", "none,true-data:kl");
        let ended = self.end(Going::start_with(&self.lab, &args, &set));
        let numbers = || Numbers::of(&self.lab.path("run")).without("attack");
        match ended.code {
            Some(0) => self
                .want
                .difference(&numbers())
                .map(|why| format!("unused: {why}")),
            code => Some(format!(
                "a run without it ends with {code:?}: {}",
                ended.last_words()
            )),
        }
    }
}

fn arms(out: &str, arms: &str) -> Vec<String> {
    let args = [
        "run",
        "toy-continual",
        "--preset",
        "smoke",
        "--threads",
        "1",
        "--no-cache",
        "--seed",
        "3",
    ];
    let more = [
        "--set",
        "training.checkpoint_seconds=0",
        "--set",
        "replay.call_deadline_seconds=1",
    ];
    let names = ["--arms", arms, "--out", out];
    [&args[..], &more, &names]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}
