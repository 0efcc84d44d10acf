//! A hub that does what none should.

use std::path::Path;

use forgetlab_fake_hub::{COMMIT, Evil, FakeHub, sha256};

use super::hub::{ID, served};
use super::{Hub, fs, open, refused};

fn with(evil: Evil) -> impl FnOnce(FakeHub) -> FakeHub {
    |mut fake| {
        fake.evil = Some(evil);
        fake
    }
}

fn load(hub: &Hub) -> Result<crate::model::Params, super::PretrainedError> {
    open(ID, hub, &())?.load(&())
}

/// Files below a folder, however deep.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all = Vec::new();
    for entry in entries {
        match entry.path().is_dir() {
            true => all.extend(files(&entry.path())),
            false => all.push(entry.path().display().to_string()),
        }
    }
    all
}

/// A token opens the private models of a whole company.
#[test]
fn the_token_stays_with_the_hub() {
    let (_, other, _other_cache) = served(|fake| fake);
    let (elsewhere, target) = FakeHub {
        repos: other.repos.clone(),
        ..FakeHub::default()
    }
    .serve();
    let (hub, fake, _cache) = served(with(Evil::Elsewhere(elsewhere)));
    let hub = Hub {
        token: Some("good".into()),
        ..hub
    };
    load(&hub).expect("loads");
    assert!(!fake.with_token.lock().expect("lock").is_empty());
    assert!(!target.asked("safetensors").is_empty());
    let leaked = target.with_token.lock().expect("lock").clone();
    assert_eq!(leaked, Vec::<String>::new());
    let same_host = fake.with_token.lock().expect("lock").clone();
    assert!(same_host.iter().any(|path| path.contains("/resolve/")));
}

/// Else a hub, or whoever speaks in its place, could write where it likes: strategies, say, that run next time.
#[test]
fn hashes_that_are_paths_write_nothing() {
    for bad in ["../../../escaped", "/tmp/forgetlab-escaped", "..", "a/b"] {
        let (hub, _fake, cache) = served(with(Evil::Commit(bad.into())));
        refused(load(&hub), &["answered with a commit that is no hash"]);
        assert_eq!(files(cache.path()), Vec::<String>::new());

        let (hub, _fake, cache) = served(with(Evil::Tag(bad.into())));
        refused(
            load(&hub),
            &["answered with an ETag that is none", "config.json"],
        );
        let written = files(cache.path());
        assert!(
            written
                .iter()
                .all(|file| file.contains("/refs/") || file.contains("/trees/"))
        );
        assert!(!Path::new("/tmp/forgetlab-escaped").exists());
    }
    let (hub, ..) = served(|fake| fake);
    for revision in ["../x", "a/../../x", "/x"] {
        let name = format!("{ID}@{revision}");
        refused(open(&name, &hub, &()), &["has no revision"]);
    }
}

/// Better an error than a panic, or none for ever.
#[test]
fn redirects_that_lead_nowhere_are_errors_in_words() {
    let (hub, ..) = served(with(Evil::NoPlace));
    refused(
        load(&hub),
        &["redirect that names no place", "model.safetensors"],
    );
    let (hub, ..) = served(with(Evil::Circle));
    refused(load(&hub), &["redirects in a circle", "model.safetensors"]);
}

/// Else a flipped bit, or another's weights, would be trained.
#[test]
fn content_is_held_against_the_hash_that_was_promised() {
    let (hub, _fake, cache) = served(with(Evil::OtherBit));
    let says = ["other content than it promised", "SHA-256", "try again"];
    refused(load(&hub), &says);
    let blobs: Vec<String> = files(cache.path())
        .into_iter()
        .filter(|file| file.contains("/blobs/"))
        .collect();
    let weights = fs::read(super::fixture("untied").join("model.safetensors")).expect("file");
    assert!(
        !blobs.iter().any(|blob| blob.contains(&sha256(&weights))),
        "{blobs:?}"
    );

    // What lies in the cache is held against its name, too.
    let (hub, _fake, cache) = served(|fake| fake);
    load(&hub).expect("loads");
    let folder = cache.path().join("hub/models--org--tiny");
    let snapshot = folder.join("snapshots").join(COMMIT);
    for (file, kind) in [
        ("model.safetensors", "SHA-256"),
        ("tokenizer.json", "git hash"),
    ] {
        let blob = snapshot.join(file).canonicalize().expect("blob");
        let whole = fs::read(&blob).expect("blob");
        let mut other = whole.clone();
        *other.last_mut().expect("bytes") ^= 1;
        fs::write(&blob, &other).expect("write");
        let says = [file, "is damaged", kind, "remove", "fetched again"];
        refused(load(&hub), &says);
        fs::write(&blob, &whole[1..]).expect("write");
        refused(load(&hub), &["is damaged", "bytes in place of"]);
        fs::remove_file(&blob).expect("remove");
        load(&hub).expect("fetched again");
    }
}

/// Hugging Face's own tools must find what is fetched here, and the other way round.
#[test]
fn the_cache_is_laid_out_as_huggingface_hub_does() {
    let (hub, _fake, cache) = served(|fake| fake);
    load(&hub).expect("loads");
    let folder = cache.path().join("hub/models--org--tiny");
    let read = |path: &str| fs::read_to_string(folder.join(path)).expect(path);
    assert_eq!(read("refs/main"), COMMIT);
    let weights = fs::read(super::fixture("untied").join("model.safetensors")).expect("file");
    let link = folder.join(format!("snapshots/{COMMIT}/model.safetensors"));
    let to = fs::read_link(&link).expect("link");
    let blob = format!("../../blobs/{}", sha256(&weights));
    assert_eq!(to, Path::new(&blob));
    let tree: serde_json::Value =
        serde_json::from_str(&read(&format!("trees/{COMMIT}.json"))).expect("JSON");
    assert_eq!(tree["format_version"], 1);
    let file = &tree["files"]["model.safetensors"];
    assert_eq!(file["lfs_sha256"], sha256(&weights));
    assert_eq!(file["size"], weights.len());
    assert_eq!(
        tree["files"]["config.json"]["blob_id"]
            .as_str()
            .map(str::len),
        Some(40)
    );

    // Half of it, offline: what is missing is named.
    let offline = Hub {
        offline: true,
        ..hub
    };
    load(&offline).expect("all is there");
    fs::remove_file(folder.join(format!("snapshots/{COMMIT}/tokenizer.json"))).expect("remove");
    refused(
        load(&offline),
        &["`tokenizer.json` of `org/tiny` is not in the cache"],
    );
    let (hub, _fake, cache) = served(|fake| fake);
    load(&hub).expect("loads");
    let folder = cache.path().join("hub/models--org--tiny");
    fs::remove_file(folder.join("blobs").join(sha256(&weights))).expect("remove");
    let offline = Hub {
        offline: true,
        ..hub
    };
    let says = [
        "`model.safetensors`, whose link leads to",
        "blobs/",
        "not there",
    ];
    refused(load(&offline), &says);
}
