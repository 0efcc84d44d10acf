//! Folders written for transformers.

use std::sync::Arc;

use crate::random::Stream;

use super::super::{Dtype, Export, export};
use super::{CONFIG, Layout, ModelConfig, Params, copy, fixture, fs, open_path, refused};

/// Else a run's model would be lost to everybody else.
#[test]
fn an_exported_model_is_the_same_model() {
    let to = tempfile::tempdir().expect("folder");
    for kind in ["tied", "untied"] {
        let source = open_path(&fixture(kind)).expect("opens");
        let mut params = source.load(&()).expect("loads");
        // As training leaves them: not the numbers of the source.
        params.data.iter_mut().for_each(|x| *x *= 1.01);
        for (name, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::Bf16)] {
            let dir = to.path().join(kind).join(name);
            let options = Export {
                dtype,
                ..Export::of(Some(&source))
            };
            let exported = export(&params, &options, &dir).expect("exports");
            let files = [CONFIG, "generation_config.json", "model.safetensors"];
            assert_eq!(exported.files, files);
            let back = open_path(&dir).expect("opens");
            assert_eq!(back.config, source.config);
            assert_eq!(
                (&back.ids, back.max_positions),
                (&source.ids, source.max_positions)
            );
            let expected = params.data.iter().map(|&x| match dtype {
                Dtype::F32 => x,
                Dtype::Bf16 => half::bf16::from_f32(x).to_f32(),
            });
            let loaded = back.load(&()).expect("loads").data;
            assert_eq!(loaded, expected.collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_tokenizer_goes_with_the_model() {
    let folder = copy("tied");
    for file in ["tokenizer.json", "chat_template.jinja"] {
        fs::write(folder.path().join(file), file).expect("write");
    }
    let source = open_path(folder.path()).expect("opens");
    let params = source.load(&()).expect("loads");
    let dir = folder.path().join("out");
    let exported = export(&params, &Export::of(Some(&source)), &dir).expect("exports");
    for file in ["tokenizer.json", "chat_template.jinja"] {
        assert!(exported.files.iter().any(|f| f == file));
        assert_eq!(fs::read_to_string(dir.join(file)).expect("file"), file);
    }
    let again = export(&params, &Export::of(Some(&source)), &dir);
    refused(again, &["not empty", "new folder"]);
}

/// Shells complete names of folders with a slash; what is there and empty is as good as what is not there.
#[test]
fn a_folder_may_be_named_in_every_way_and_be_there_if_it_is_empty() {
    let to = tempfile::tempdir().expect("folder");
    let source = open_path(&fixture("tied")).expect("opens");
    let params = source.load(&()).expect("loads");
    let export = |name: &str| {
        let dir = std::path::PathBuf::from(format!("{}/{name}", to.path().display()));
        let exported = export(&params, &Export::of(Some(&source)), &dir)?;
        let mut found: Vec<String> = fs::read_dir(&dir)
            .expect("folder")
            .map(|f| f.expect("file").file_name().into_string().expect("UTF-8"))
            .collect();
        found.sort();
        assert_eq!(found, exported.files, "{name}");
        Ok(())
    };
    fs::create_dir(to.path().join("empty")).expect("folder");
    fs::create_dir(to.path().join("real")).expect("folder");
    std::os::unix::fs::symlink("real", to.path().join("link")).expect("link");
    for name in ["new/", "empty/", "a/b/c/", "./d//", "new/../e", "link/"] {
        export(name).expect(name);
    }
    refused(export("new/"), &["not empty", "new folder"]);
    fs::write(to.path().join("file"), "").expect("write");
    refused(export("file"), &["cannot write", "file"]);
    let left = fs::read_dir(to.path()).expect("folder").flatten();
    let left = left.filter(|f| f.file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0, "nothing half-made is left");
}

/// Else who goes on with the export elsewhere would miss what the model came with.
#[test]
fn what_came_with_the_tokenizer_is_given_on() {
    let folder = copy("tied");
    let templates = folder.path().join("additional_chat_templates");
    fs::create_dir(&templates).expect("folder");
    let files = [
        "vocab.json",
        "merges.txt",
        "additional_chat_templates/rag.jinja",
    ];
    for file in files {
        fs::write(folder.path().join(file), file).expect("write");
    }
    let source = open_path(folder.path()).expect("opens");
    let params = source.load(&()).expect("loads");
    let to = tempfile::tempdir().expect("folder");
    let dir = to.path().join("out");
    super::super::export(&params, &Export::of(Some(&source)), &dir).expect("exports");
    for file in files {
        assert_eq!(fs::read_to_string(dir.join(file)).expect("file"), file);
    }
}

/// Nobody else could compute it; better said at once than by a wrong figure elsewhere.
#[test]
fn the_small_model_is_not_exported() {
    let layout = Layout::new(ModelConfig::mini(32, 1, 16, 19));
    let params = Params::init(&Arc::clone(&layout), &Stream::new(0, "test"));
    let to = tempfile::tempdir().expect("folder");
    let exported = export(&params, &Export::of(None), &to.path().join("out"));
    refused(exported, &["QK-norm", "no Hugging Face architecture"]);
    let mut left = fs::read_dir(to.path()).expect("folder");
    assert!(left.next().is_none(), "nothing half-made is left");
}
