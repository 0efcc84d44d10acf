//! The hub: models and data sets are fetched from it once, and a run goes on without it.

use std::fs;
use std::path::Path;

use forgetlab_fake_hub::{COMMIT, Evil, FakeHub};
use forgetlab_tests::{Done, Figures, Lab, events, root, wait_for};
use rustix::process::Signal;

/// Nobody answers here.
const NOBODY: &str = "http://127.0.0.1:9";

/// A lab whose hub is at an address.
fn lab_with_hub(endpoint: &str) -> Lab {
    let mut lab = Lab::new();
    lab.set("HF_ENDPOINT", endpoint);
    lab
}

/// Files of a folder, as a repository has them.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("folder");
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("UTF-8");
        (name, fs::read(entry.path()).expect("file"))
    };
    entries.map(|entry| file(entry.expect("entry"))).collect()
}

/// What stands between most people and a real Llama.
#[test]
fn the_hub_is_asked_and_its_refusals_are_explained() {
    let config = root().join("tests/fixtures/llama-tiny-untied/config.json");
    let files = [
        ("config.json", fs::read(config).expect("config")),
        ("model.safetensors", vec![0; 4096]),
    ];
    let mut fake = FakeHub::default();
    for id in ["models/org/free", "models/org/gated"] {
        fake = fake.with(id, &files);
    }
    fake.gated.push("models/org/gated".into());
    let (endpoint, _fake) = fake.serve();
    let mut lab = lab_with_hub(&endpoint);
    let inspect = |lab: &Lab, model: &str| -> Done { lab.forgetlab(&["model", "inspect", model]) };
    let says = [
        "fetching config.json",
        "revision main",
        "4.00 KiB on disk, not fetched yet",
    ];
    inspect(&lab, "org/free").exits(0).says(&says);
    let says = ["`org/gated` is gated", "accept its licence at", "HF_TOKEN"];
    inspect(&lab, "org/gated").exits(1).says(&says);
    let says = ["no model `org/none`", "check the name"];
    inspect(&lab, "org/none").exits(1).says(&says);
    lab.set("HF_HUB_OFFLINE", "1");
    let says = ["`org/none`", "not in the cache", "HF_HUB_OFFLINE"];
    inspect(&lab, "org/none").exits(1).says(&says);
}

/// A night in which a run waits for a server that says nothing is a night lost.
#[test]
fn a_hub_that_says_nothing_or_next_to_nothing_is_given_up() {
    let folder = root().join("tests/fixtures/llama-tiny-untied");
    let read = |file: &str| fs::read(folder.join(file)).expect("fixture");
    let files = ["config.json", "model.safetensors"].map(|file| (file, read(file)));
    for (evil, says) in [
        (Evil::Silent, "said nothing for 1 s"),
        (Evil::Stall, "said nothing for 1 s"),
        (Evil::Drip, "bytes came in 1 s"),
    ] {
        let mut fake = FakeHub::default().with("models/org/tiny", &files);
        fake.evil = Some(evil);
        let (endpoint, _fake) = fake.serve();
        let mut lab = lab_with_hub(&endpoint);
        lab.set("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        lab.forgetlab(&["model", "export", "org/tiny", "--to", "out"])
            .exits(1)
            .says(&["cannot reach", says]);
        assert!(!lab.path("out").exists());
    }
}

/// Else one half of a data set would be trained on and taken for all of it.
#[test]
fn half_of_a_data_set_in_the_cache_is_no_data_set() {
    let rows = |text: &str| format!("{{\"text\":\"{text}\"}}\n").into_bytes();
    let files = [
        ("data/train-00000-of-00002.jsonl", rows("one")),
        ("data/train-00001-of-00002.jsonl", rows("two")),
    ];
    let (endpoint, _fake) = FakeHub::default().with("datasets/org/set", &files).serve();
    let mut lab = lab_with_hub(&endpoint);
    lab.set("HF_HUB_CACHE", "hub");
    let preview = |lab: &Lab, source: &str| {
        let tokenizer = "builtin:tiny-llama";
        lab.forgetlab(&["data", "preview", source, "--tokenizer", tokenizer])
    };
    preview(&lab, "hub:org/set").exits(0);
    let repo = lab.path("hub/datasets--org--set");
    let second = format!("snapshots/{COMMIT}/data/train-00001-of-00002.jsonl");
    let link = fs::read_link(repo.join(&second)).expect("link");
    fs::remove_file(repo.join(&second)).expect("remove");
    lab.set("HF_HUB_OFFLINE", "1");
    let says = ["`data/train-00001-of-00002.jsonl`", "is not in the cache"];
    preview(&lab, "hub:org/set").exits(1).says(&says);
    preview(&lab, "hub:org/set:data/train-00000").exits(0);

    // A cache of older tools, without the listing: the names of the parts tell.
    fs::remove_dir_all(repo.join("trees")).expect("remove");
    let says = ["1 of the 2 parts of data/train"];
    preview(&lab, "hub:org/set").exits(1).says(&says);
    preview(&lab, "hub:org/set:data/train-00000").exits(0);
    std::os::unix::fs::symlink(&link, repo.join(&second)).expect("link");
    preview(&lab, "hub:org/set").exits(0);
    fs::remove_file(repo.join("blobs").join(link.file_name().expect("blob"))).expect("remove");
    let says = [
        "train-00001-of-00002.jsonl`, whose link leads to",
        "not there",
    ];
    preview(&lab, "hub:org/set").exits(1).says(&says);
}

/// A hub with the model and the data that are built in.
fn hub_with_the_built_in() -> FakeHub {
    let lab = Lab::new();
    let export = ["model", "export", "builtin:tiny-llama", "--to", "tiny"];
    lab.forgetlab(&export).exits(0);
    let data = |name: &str| {
        let folder = root().join("app/engine/src/pretrained/builtin");
        fs::read(folder.join(name)).expect("built-in file")
    };
    let model = files(&lab.path("tiny"));
    let model: Vec<(&str, Vec<u8>)> = model.iter().map(|(n, b)| (&**n, b.clone())).collect();
    let readme = ("README.md", b"# no data".to_vec());
    let verilog = [
        ("train/all.jsonl", data("verilog.jsonl")),
        ("test/none.jsonl", b"no JSON".to_vec()),
        readme.clone(),
    ];
    FakeHub::default()
        .with("models/org/tiny", &model)
        .with("datasets/org/verilog", &verilog)
        .with(
            "datasets/org/quiz",
            &[("quiz.jsonl", data("questions.jsonl")), readme],
        )
}

/// Else a run on what the hub has would find something else than one on the same files, or could not go on
/// without it.
#[test]
fn a_run_on_model_and_data_of_the_hub_equals_one_on_files_and_goes_on_without_the_hub() {
    let (endpoint, fake) = hub_with_the_built_in().serve();
    let mut lab = lab_with_hub(&endpoint);
    let smoke = |more: &[&'static str]| -> Vec<&'static str> {
        let command = "run instruct --preset smoke --threads 1 --arms none,bos-prompted:kl --out";
        command.split(' ').chain(more.iter().copied()).collect()
    };
    let from_hub = |out: &'static str, more: &[&'static str]| {
        let sets = [
            out,
            "--set",
            "model.pretrained=org/tiny",
            "--set",
            "data.datasets.verilog.files=[\"hub:org/verilog:train\"]",
            "--set",
            "data.questions.plain.file=hub:org/quiz@main",
        ];
        smoke(&[&sets[..], more].concat())
    };
    let says = [
        "fetching model.safetensors",
        "fetching train/all.jsonl",
        "finished",
    ];
    lab.forgetlab(&from_hub("fetched", &[]))
        .exits(0)
        .says(&says);
    let fetched = fake.asked("/resolve/").len();
    lab.forgetlab(&smoke(&["built-in"])).exits(0);
    let (run, built_in) = (lab.path("fetched"), lab.path("built-in"));
    Figures::of(&run).must_equal(&Figures::of(&built_in), "from the hub");
    let config = fs::read_to_string(run.join("config.toml")).expect("config.toml");
    for pinned in [
        format!("pretrained = \"org/tiny@{COMMIT}\""),
        format!("hub:org/verilog@{COMMIT}:train"),
        format!("hub:org/quiz@{COMMIT}"),
    ] {
        assert!(config.contains(&pinned), "{pinned} in {config}");
    }

    let mut live = lab.start(&from_hub("cut", &["--set", "phases.verilog.steps=100000"]));
    let run = lab.path("cut");
    wait_for("a part of the run", || events(&run) > 60 || !live.runs());
    live.signal(Signal::TERM);
    live.end().exits(130);
    assert_eq!(
        fake.asked("/resolve/").len(),
        fetched,
        "nothing is fetched twice"
    );
    let before = events(&run);
    lab.set("HF_ENDPOINT", NOBODY);
    let mut live = lab.start(&["resume", "cut"]);
    wait_for("the run to go on", || {
        events(&run) > before + 20 || !live.runs()
    });
    live.signal(Signal::TERM);
    live.end().exits(130);

    let preview = "data preview hub:org/verilog:train --tokenizer org/tiny";
    let preview: Vec<&str> = preview.split(' ').collect();
    lab.forgetlab(&preview)
        .exits(1)
        .says(&["hub:org/verilog:train", "cannot reach"]);
    lab.set("HF_HUB_OFFLINE", "1");
    lab.forgetlab(&preview)
        .exits(0)
        .says(&["row 1 of", "documents"]);
}

/// Else one half of a run would be of one model, the other of another.
#[test]
fn a_model_that_changed_under_a_run_is_refused() {
    let lab = Lab::new();
    let export = ["model", "export", "builtin:tiny-llama", "--to", "tiny"];
    lab.forgetlab(&export).exits(0);
    let command = "run instruct --preset smoke --threads 1 --arms none --set model.pretrained=tiny \
                   --set phases.verilog.steps=100000 --out run";
    let command: Vec<&str> = command.split_whitespace().collect();
    let mut live = lab.start(&command);
    let run = lab.path("run");
    wait_for("a part of the run", || events(&run) > 30 || !live.runs());
    live.signal(Signal::TERM);
    live.end().exits(130);
    let weights = lab.path("tiny/model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    let mut other = whole.clone();
    *other.last_mut().expect("bytes") ^= 1;
    fs::write(&weights, other).expect("write");
    let before = events(&run);
    let says = ["tiny`", "changed since the run was made"];
    lab.forgetlab(&["resume", "run"]).exits(1).says(&says);
    assert_eq!(events(&run), before, "nothing was trained");
    fs::write(&weights, whole).expect("write");
    let mut live = lab.start(&["resume", "run"]);
    wait_for("the run to go on", || {
        events(&run) > before + 20 || !live.runs()
    });
    live.signal(Signal::TERM);
    live.end().exits(130);
}
