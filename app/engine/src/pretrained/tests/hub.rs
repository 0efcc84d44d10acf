//! The hub: what is fetched, what is kept, and what is said when something is not to be had.

use std::sync::{Arc, Mutex};

use forgetlab_fake_hub::{COMMIT, FakeHub};

use super::{
    CONFIG, DownloadProgress, Hub, Source, TempDir, fixture, fs, open, open_path, refused,
};

pub(super) const ID: &str = "org/tiny";

/// A hub for clients, served by a fake hub with one model and one data set, which `change` may change.
pub(super) fn served(change: impl FnOnce(FakeHub) -> FakeHub) -> (Hub, Arc<FakeHub>, TempDir) {
    let read = |file: &str| fs::read(fixture("untied").join(file)).expect("fixture");
    let files = [
        (CONFIG, read(CONFIG)),
        ("model.safetensors", read("model.safetensors")),
        ("tokenizer.json", b"{}".to_vec()),
        ("tokenizer_config.json", b"{}".to_vec()),
        ("README.md", b"# tiny".to_vec()),
    ];
    let data = [
        ("data/train-0.parquet", b"PAR1 train".to_vec()),
        ("data/test-0.parquet", b"PAR1 test".to_vec()),
        ("README.md", b"# data".to_vec()),
    ];
    let fake = FakeHub::default().with("models/org/tiny", &files);
    let (endpoint, fake) = change(fake.with("datasets/org/data", &data)).serve();
    let cache = tempfile::tempdir().expect("folder");
    let hub = Hub {
        endpoint,
        cache: cache.path().join("hub"),
        token: None,
        offline: false,
    };
    (hub, fake, cache)
}

/// Progress of the last file, and the number of finished ones.
#[derive(Default)]
struct Counter(Mutex<Counts>);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    bytes: u64,
    arrived: u64,
    finished: u64,
}

impl DownloadProgress for Counter {
    fn started(&self, _: &str, bytes: u64) {
        let mut counts = self.0.lock().expect("lock");
        (counts.bytes, counts.arrived) = (bytes, 0);
    }
    fn advanced(&self, bytes: u64) {
        self.0.lock().expect("lock").arrived += bytes;
    }
    fn finished(&self) {
        self.0.lock().expect("lock").finished += 1;
    }
}

/// Else looking at a model would cost gigabytes, and using it again would cost them again.
#[test]
fn a_model_is_fetched_once_and_its_weights_when_they_are_needed() {
    let (hub, fake, _cache) = served(|fake| fake);
    let model = open(ID, &hub, &()).expect("opens");
    let local = open_path(&fixture("untied")).expect("opens");
    assert_eq!(model.config, local.config);
    assert_eq!(fake.asked("safetensors"), Vec::<String>::new());
    assert_eq!(fake.asked("README"), Vec::<String>::new());
    let bytes = fs::metadata(fixture("untied").join("model.safetensors"))
        .expect("fixture")
        .len();
    let storage = model.storage().expect("storage");
    assert_eq!((storage.bytes, storage.dtypes.len()), (bytes, 0));
    assert_eq!(model.tokenizer_files().len(), 2);
    let Source::Hub(snapshot) = &model.source else {
        panic!("not of the hub")
    };
    assert_eq!((&*snapshot.revision, &*snapshot.commit), ("main", COMMIT));

    let counter = Counter::default();
    let params = model.load(&counter).expect("loads");
    assert_eq!(params, local.load(&()).expect("loads"));
    let expected = Counts {
        bytes,
        arrived: bytes,
        finished: 1,
    };
    assert_eq!(*counter.0.lock().expect("lock"), expected);
    assert_eq!(model.storage().expect("storage").dtypes["F32"], 30);

    let before = fake.asked("").len();
    for offline in [false, true] {
        let hub = Hub {
            offline,
            ..hub.clone()
        };
        for name in ["org/tiny", "org/tiny@main", &format!("org/tiny@{COMMIT}")] {
            let again = open(name, &hub, &()).expect("opens");
            assert_eq!(again.load(&()).expect("loads"), params);
        }
    }
    assert_eq!(fake.asked("").len(), before, "the cache holds all of it");
}

/// Downloads of gigabytes break; to begin anew each time would never end.
#[test]
fn a_download_that_breaks_is_gone_on_with() {
    let (hub, fake, _cache) = served(|fake| {
        let breaks = [("model.safetensors".into(), 300_000)];
        *fake.breaks.lock().expect("lock") = breaks.into();
        fake
    });
    let params = open(ID, &hub, &()).and_then(|model| model.load(&()));
    let local = open_path(&fixture("untied")).and_then(|model| model.load(&()));
    assert_eq!(params.expect("loads"), local.expect("loads"));
    let resumed = fake.asked("bytes=300000-");
    assert!(!resumed.is_empty(), "{:?}", fake.asked("safetensors"));
}

/// The commonest obstacle on the way to a real Llama.
#[test]
fn a_gated_model_says_what_to_do_and_opens_with_the_right_token() {
    let (hub, _fake, _cache) = served(|mut fake| {
        fake.gated.push("models/org/tiny".into());
        fake
    });
    let page = format!("{}/org/tiny", hub.endpoint);
    let licence = format!("accept its licence at {page}");
    let with = |token: Option<&str>| Hub {
        token: token.map(str::to_owned),
        ..hub.clone()
    };
    refused(
        open(ID, &with(None), &()),
        &["gated", &licence, "set HF_TOKEN"],
    );
    let other_account = &["gated", &licence, "account that the token is of"];
    refused(open(ID, &with(Some("other")), &()), other_account);
    open(ID, &with(Some("good")), &()).expect("opens");
}

#[test]
fn names_that_the_hub_does_not_have_are_told_apart() {
    let (hub, _fake, _cache) = served(|fake| fake.with("models/org/empty", &[]));
    let missing = ["no model `org/tyni`", "check the name", "HF_TOKEN"];
    refused(open("org/tyni", &hub, &()), &missing);
    let revision = ["`org/tiny` has no revision `v2`"];
    refused(open("org/tiny@v2", &hub, &()), &revision);
    refused(open("org/empty", &hub, &()), &["without config.json"]);
    for name in [
        "tiny",
        "org/",
        "org/tiny@",
        "../org",
        "a/b/c",
        "/nowhere/at/all",
    ] {
        refused(open(name, &hub, &()), &["no hub id", "ORG/NAME"]);
    }
}

/// On a cluster without network it should be plain what to do.
#[test]
fn without_network_it_says_what_to_do() {
    let (hub, ..) = served(|fake| fake);
    let closed = Hub {
        endpoint: "http://127.0.0.1:9".into(),
        ..hub.clone()
    };
    let reach = [
        "cannot reach http://127.0.0.1:9",
        "folder",
        "HF_HUB_OFFLINE=1",
    ];
    refused(open(ID, &closed, &()), &reach);
    let offline = Hub {
        offline: true,
        ..hub
    };
    refused(
        open(ID, &offline, &()),
        &["not in the cache", "HF_HUB_OFFLINE"],
    );
}

/// A cache on a full or foreign disk is not the network's fault.
#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (hub, _fake, cache) = served(|fake| fake);
    let file = cache.path().join("file");
    fs::write(&file, "").expect("write");
    let hub = Hub {
        cache: file.join("hub"),
        ..hub
    };
    refused(
        open(ID, &hub, &()),
        &["cannot write to the cache", "HF_HOME"],
    );
}
