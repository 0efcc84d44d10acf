//! What can be wrong with what somebody typed or wrote: one clear message, exit code 2, no run.

use std::fs;

use forgetlab_tests::{Lab, SMOKE, compile_c, library, root};

#[track_caller]
fn refused(lab: &Lab, args: &[&str], texts: &[&str]) {
    let done = lab.forgetlab(args).exits(2).says(texts);
    assert_eq!(done.out, "", "errors go to standard error");
    assert_eq!(done.err.matches("error:").count(), 1, "one message: {done}");
    assert!(lab.runs().is_empty(), "a run was begun: {done}");
}

/// Else a slip of the finger would cost a search through the documentation.
#[test]
fn unknown_names_are_answered_with_the_near_miss() {
    let lab = Lab::new();
    let smoke = |more: &[&'static str], texts: &[&str]| {
        refused(&lab, &[SMOKE, more].concat(), texts);
    };
    refused(
        &lab,
        &["run", "toy-continuous"],
        &["unknown experiment `toy-continuous`", "`toy-continual`"],
    );
    refused(
        &lab,
        &["run", "toy-continual", "--preset", "smok"],
        &["unknown preset `smok`", "did you mean `smoke`"],
    );
    smoke(
        &["--arms", "none,self-genrated:kl"],
        &["`self-genrated`", "did you mean `self-generated`"],
    );
    smoke(
        &["--arms", "true-data:kll"],
        &[
            "true-data:kll",
            "unknown objective `kll`",
            "did you mean `kl`",
        ],
    );
    smoke(
        &["--set", "optimiser.lr=1"],
        &["optimiser.lr", "did you mean `optimizer.lr`"],
    );
    smoke(
        &["--set", "optimizer.lrr=1"],
        &["optimizer.lrr", "did you mean `optimizer.lr`"],
    );
    smoke(
        &["--set", "phases.revesal.steps=3"],
        &["did you mean `phases.reversal.steps`"],
    );
    smoke(
        &["--set", "bos-prompted.promt=x"],
        &[
            "no setting `promt`",
            "bos-prompted",
            "did you mean `prompt`",
        ],
    );
    smoke(
        &["--set", "arms.nine.lr=1"],
        &["`nine`", "did you mean `none`"],
    );
    refused(&lab, &["rsume"], &["'rsume'", "'resume'"]);
    refused(&lab, &["run", "toy-continual", "--sed", "1"], &["--seed"]);
}

/// Else nonsense would be trained on for hours, or end in a panic.
#[test]
fn senseless_values_are_refused_by_name() {
    let lab = Lab::new();
    for (set, texts) in [
        ("optimizer.lr=-1", &["optimizer.lr", "above 0"][..]),
        ("optimizer.lr=nan", &["optimizer.lr"]),
        ("optimizer.lr=fast", &["optimizer.lr=fast"]),
        (
            "training.batch_size=0",
            &["training.batch_size", "at least 1"],
        ),
        ("training.batch_size=-3", &["training.batch_size=-3"]),
        ("training.batch_size=1.5", &["training.batch_size=1.5"]),
        ("model.d_model=17", &["model.d_model", "multiple"]),
        ("model.head_dim=3", &["model.head_dim", "even"]),
        ("data.n_digits=0", &["data.n_digits", "1 to 6"]),
        ("data.held_out=1", &["data.held_out", "between 0 and 1"]),
        ("phases.sort.steps=0", &["steps", "at least 1"]),
        ("phases.0.dataset=sor", &["unknown dataset `sor`", "`sort`"]),
        ("seeds=[1,1]", &["seeds", "given twice"]),
        ("seeds=[]", &["seeds", "at least 1"]),
        ("threads=0", &["threads", "at least 1"]),
        (
            "data.held_out=1e-9",
            &["`reversal` has 1000 inputs", "none to evaluate on"],
        ),
        (
            "data.held_out=0.999999",
            &["data.held_out", "none to train on"],
        ),
        ("threads=100000000", &["threads", "at most"]),
        ("model.d_model=1000000000000", &["model.d_model", "at most"]),
        ("model.d_model=65536", &["model.d_model", "at most"]),
        (
            "model.n_layers=100000000000",
            &["model.n_layers", "at most"],
        ),
        (
            "training.batch_size=100000000000",
            &["training.batch_size", "at most"],
        ),
        (
            "replay.batch_size=100000000000",
            &["replay.batch_size", "at most"],
        ),
        ("optimizer=3", &["optimizer"]),
        ("device=tpu", &["`tpu` must be cpu, cuda or cuda:N"]),
        (
            "training.eval_every=99999999999999999999",
            &["training.eval_every"],
        ),
        ("optimizer.lr=[1", &["not TOML"]),
        (
            "bos-prompted.prompt=[-7]",
            &["bos-prompted", "`prompt`", "[-7]"],
        ),
        ("=3", &["KEY=VALUE"]),
        ("optimizer.lr", &["KEY=VALUE"]),
    ] {
        refused(&lab, &[SMOKE, &["--set", set]].concat(), texts);
    }
    for (arms, texts) in [
        ("none,none", &["given twice"][..]),
        ("true-data:kl,true-data:kl:10", &["given twice"]),
        ("none:kl", &["`none` replays nothing"]),
        ("true-data:replace", &["needs the share"]),
        ("true-data:replace:0.001", &["is less than one", "0.062"]),
        ("true-data:kl:nan", &["finite"]),
        ("", &["STRATEGY[:OBJECTIVE[:COEFF]]"]),
        ("a b:kl", &["STRATEGY[:OBJECTIVE[:COEFF]]"]),
        ("зеркало:kl", &["`зеркало`"]),
        ("../../etc:kl", &["`../../etc`"]),
    ] {
        refused(&lab, &[SMOKE, &["--arms", arms]].concat(), texts);
    }
}

/// Else a typing error in a long file would have to be found by eye.
#[test]
fn a_malformed_configuration_is_told_by_line_and_column() {
    let lab = Lab::new();
    lab.smoke(&["--out", "run"]).exits(0);
    let good = fs::read_to_string(lab.path("run/config.toml")).expect("config.toml");
    let bad = lab.path("bad.toml");
    let lab = Lab::new();
    fs::create_dir_all(bad.parent().expect("folder")).expect("folder");
    let write = |text: &str| {
        fs::write(lab.path("bad.toml"), text).expect("write");
    };
    write(&good.replace("lr = 0.003", "lr = = 0.003"));
    let line = good.lines().position(|l| l == "lr = 0.003").expect("lr") + 1;
    let place = format!("bad.toml, line {line}, column 6");
    refused(&lab, &["run", "bad.toml"], &[&place]);
    write(&good.replace("lr = 0.003", "lr = \"fast\""));
    refused(
        &lab,
        &["run", "./bad.toml"],
        &[&format!("line {line}, column 6"), "fast"],
    );
    write(&good.replace("lr = 0.003", "lr = 0.003\nlearning = 1"));
    refused(
        &lab,
        &["run", "bad.toml"],
        &[&format!("line {}", line + 1), "learning"],
    );
    write("");
    refused(
        &lab,
        &["run", "bad.toml"],
        &["bad.toml", "line 1", "missing field"],
    );
    fs::write(lab.path("bad.toml"), [0xff, 0xfe]).expect("write");
    refused(&lab, &["run", "bad.toml"], &["bad.toml", "UTF-8"]);
    refused(
        &lab,
        &["run", "missing.toml"],
        &["missing.toml", "No such file"],
    );
    refused(&lab, &["run", "./"], &["config.toml", "No such file"]);
}

/// Else a long job would start on the CPU, or die in the middle.
#[test]
fn a_device_that_is_not_there_is_refused_at_once() {
    let lab = Lab::new();
    for args in [
        &[SMOKE, &["--device", "cuda"]].concat()[..],
        &["verify", "--device", "cuda"],
    ] {
        let done = lab.forgetlab(args);
        assert!(matches!(done.code, Some(1 | 2)), "{done}");
        done.says(&["cuda", "cpu"]);
        assert!(lab.runs().is_empty());
    }
}

/// Else a broken plugin would vanish without a word, or take the good ones with it.
#[test]
fn libraries_that_are_no_usable_plugin_are_listed_with_the_reason() {
    let lab = Lab::new();
    let dir = lab.path("plugins");
    fs::create_dir(&dir).expect("folder");
    let handshake = root().join("tests/hostile/handshake.c");
    compile_c(&handshake, &dir.join(library("other_major")), Some(1));
    let whole = fs::read(dir.join(library("other_major"))).expect("library");
    fs::write(dir.join(library("cut")), &whole[..whole.len() / 2]).expect("write");
    fs::write(dir.join("none.c"), "int answer(void) { return 42; }\n").expect("write");
    compile_c(&dir.join("none.c"), &dir.join(library("foreign")), None);
    fs::write(dir.join(library("text")), "I am a text").expect("write");
    let list = ["plugins", "list", "--plugin-dir", "plugins"];
    lab.forgetlab(&list).exits(0).says(&[
        "true-data 0.1.0",
        "self-generated 0.1.0",
        "was built for plugin ABI 7.3, this lab speaks 1.0",
        "is truncated",
        "no strategy plugin",
        "is not a shared library",
    ]);
    let text = format!("plugins/{}", library("text"));
    lab.forgetlab(&["plugins", "check", &text])
        .exits(1)
        .says(&["is not a shared library"]);
    // They are in nobody's way, and what they might have been is said where one is asked for.
    lab.smoke(&["--plugin-dir", "plugins", "--out", "run"])
        .exits(0);
    refused(
        &lab,
        &[SMOKE, &["--plugin-dir", "plugins", "--arms", "cut:kl"]].concat(),
        &["`cut`", "truncated"],
    );
}
