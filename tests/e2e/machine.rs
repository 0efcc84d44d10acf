//! What the machine is used for, on a machine without a GPU.

use forgetlab_tests::{Lab, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::processes::Background;

/// Else a researcher on a shared machine could not tell what a run costs others, nor whose it is.
#[test]
fn a_live_run_is_shown_with_its_arm_and_what_it_uses() {
    let lab = Lab::new();
    let frame = |args: &[&str]| lab.forgetlab(&[&["top"], args].concat()).exits(0).out;
    let idle = frame(&[]);
    assert!(idle.contains("no run is live"), "{idle}");
    let endless = [
        "--arms",
        "none",
        "--set",
        "phases.steps=1000000",
        "--detach",
    ];
    lab.smoke(&endless).exits(0);
    let _worker = Background::of(lab.runs()[0].clone());
    let mut machine = Value::Null;
    wait_for("an arm", || {
        machine = serde_json::from_str(&frame(&["--once", "--json"])).expect("an object");
        machine["workers"][0]["arm"] == "none"
    });
    let worker = &machine["workers"][0];
    let run = lab.runs()[0].file_name().expect("name").to_owned();
    assert_eq!(worker["run"].as_str(), run.to_str());
    assert_eq!(worker["device"], "cpu");
    assert!(worker["cores"].as_f64() > Some(0.01), "{worker}");
    assert!(worker["memory"].as_u64() > Some(1 << 20), "{worker}");
    for what in ["memory", "disk"] {
        let room = &machine[what];
        assert!(room["used"].as_u64() > Some(0), "{machine}");
        assert!(room["used"].as_u64() <= room["total"].as_u64(), "{machine}");
    }
    // Where there is a GPU, others test what is told of it.
    assert!(machine["gpus"].is_array() && machine["time"].as_f64() > Some(1.7e9));
    let text = frame(&["--once"]);
    for word in [
        "cpu ",
        "memory ",
        "disk ",
        "none",
        run.to_str().expect("UTF-8"),
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// A script reads as many frames as it wants; Ctrl-C is how it is left, not a failure.
#[test]
fn frames_follow_each_other_until_it_is_left() {
    let lab = Lab::new();
    let mut top = lab.start(&["top", "--json", "--every", "0.2"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    top.signal(Signal::INT);
    let told = top.end().exits(0).out;
    let frames: Result<Vec<Value>, _> = told.lines().map(serde_json::from_str).collect();
    assert!(frames.expect("objects").len() >= 2, "{told}");
    lab.forgetlab(&["top", "--every", "0"]).exits(2);
    lab.forgetlab(&["top", "--every", "1", "--once"]).exits(2);
}
