//! Output that nobody reads, as of `forgetlab … | head`.

use std::collections::BTreeSet;
use std::io::{self, PipeWriter};

use forgetlab_tests::{Done, Lab, SMOKE, built, library, root};

use crate::pages::commands;

/// A pipe whose reader is gone.
fn closed() -> PipeWriter {
    let (reader, writer) = io::pipe().expect("pipe");
    drop(reader);
    writer
}

/// Each command with arguments that let it say something; `N` stands for a number that is new each time.
fn calls() -> Vec<Vec<String>> {
    let strategy = built().join(library("forgetlab_strategy_none"));
    let strategy = strategy.display().to_string();
    let tokenizer = root().join("tests/fixtures/chat").display().to_string();
    let smoke = [SMOKE, &["--arms", "none", "--out", "outN"]]
        .concat()
        .join(" ");
    let data = format!("text.txt --held-out 0.5 --tokenizer {tokenizer}");
    let lines = [
        smoke.clone(),
        // Exit codes 3 and 4.
        format!("{smoke} --set optimizer.lr=1e30"),
        "compare run --fail-if forgot>0.01".into(),
        "compare run --csv - --fail-if forgot>0.01".into(),
        "resume run".into(),
        "attach run".into(),
        "watch run".into(),
        "watch run --json".into(),
        "watch run --once".into(),
        "stop run".into(),
        "stop run --arm none".into(),
        "queue".into(),
        "top --once".into(),
        "list".into(),
        "list --json".into(),
        "top --once".into(),
        "top --once --json".into(),
        "queue".into(),
        "queue --json".into(),
        "list --filter forgot>0.01".into(),
        "label run --tag paper".into(),
        "run toy-continual --preset smoke --dry-run".into(),
        "run toy-continual --preset smoke --dry-run --json".into(),
        "runs delete run".into(),
        "runs prune --failed --yes".into(),
        "cache list".into(),
        "cache prune --older-than 1 --yes".into(),
        "list sweep".into(),
        "attach sweep".into(),
        "resume sweep".into(),
        "compare sweep".into(),
        "compare run".into(),
        "compare run --json --fail-if forgot>0.01".into(),
        "export run --tensorboard boardN".into(),
        "figure run --out figN".into(),
        "export run --tensorboard boardN".into(),
        "experiments".into(),
        "experiments --json".into(),
        "experiments toy-continual".into(),
        "plugins list".into(),
        "plugins list --json".into(),
        format!("plugins check {strategy}"),
        "plugins new mine-N --c".into(),
        format!("data preview {data}"),
        format!("data prepare {data} --out setN.safetensors"),
        "data train-tokenizer text.txt --vocab 270 --out tN.json".into(),
        format!("data tokenize text.txt --tokenizer {tokenizer} --out tN.tokens"),
        "data inspect flat.tokens --vocab 30000".into(),
        "model inspect builtin:tiny-llama".into(),
        "model export builtin:tiny-llama --to modelN".into(),
        "sample builtin:tiny-llama --length 8".into(),
        "doctor".into(),
        "doctor --json".into(),
        "verify".into(),
        "completions zsh".into(),
        "man".into(),
        "bench --seconds 0.01".into(),
        // Errors, too.
        "run nothing".into(),
        "resume nothing".into(),
        "--version".into(),
        "nothing".into(),
        // Last, since a run with a request goes on.
        "add run none+lr=0.00N".into(),
    ];
    let words = |line: &String| line.split(' ').map(str::to_owned).collect();
    lines.iter().map(words).collect()
}

/// Else a glance at the first lines of a table would end in a panic, or be taken for a failure.
#[test]
fn no_command_minds_that_nobody_reads() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none", "--out", "run"]).exits(0);
    let axis = ["--axis", "optimizer.lr=1e-3,1e-2"];
    lab.smoke(&[&["--arms", "none", "--out", "sweep"], &axis[..]].concat())
        .exits(0);
    let text: Vec<String> = (0..40)
        .map(|i| format!("a document, number {i}\n"))
        .collect();
    std::fs::write(lab.path("text.txt"), text.join("\n")).expect("write");
    std::fs::write(lab.path("flat.tokens"), text.join("").repeat(2)).expect("write");
    let mut calls = calls();
    let told: BTreeSet<String> = commands(&lab, &[]);
    for command in &told {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let called = calls.iter().any(|call| call.starts_with(&words));
        assert!(called, "nothing tries `{command}`");
    }
    calls.extend(told.iter().map(|command| {
        let words = command.split(' ').chain(["--help"]);
        words.map(str::to_owned).collect()
    }));
    let (mut n, mut codes) = (0, BTreeSet::new());
    for call in calls {
        let mut fresh = || {
            n += 1;
            let n = n.to_string();
            let args: Vec<String> = call.iter().map(|word| word.replace('N', &n)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            lab.command(&args)
        };
        let heard = Done::from(fresh().output().expect("start"));
        codes.extend(heard.code);
        let deaf = Done::from(fresh().stdout(closed()).output().expect("start"));
        let mute = Done::from(fresh().stderr(closed()).output().expect("start"));
        let both = fresh().stdout(closed()).stderr(closed()).output();
        let both = Done::from(both.expect("start"));
        for done in [deaf, mute, both] {
            assert_eq!(
                done.code, heard.code,
                "{call:?}: {done}\nwith a reader: {heard}"
            );
            done.says(&[]);
        }
    }
    assert!(codes.is_superset(&[0, 2, 3, 4].into()), "{codes:?}");
}
