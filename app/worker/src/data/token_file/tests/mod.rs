//! Token files as they should be, and as they should not.

mod rows;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::token_set::Source;

fn about(vocab_size: usize) -> About {
    About {
        vocab_size,
        tokenizer: "tokenizer.json".into(),
        tokenizer_hash: "ab".repeat(32),
        reserved: Reserved {
            markers: vec![0, 1],
            eos: Some(2),
        },
        licence: "public domain".into(),
    }
}

/// A file of these tokens, two documents.
fn file(dir: &TempDir, vocab_size: usize, tokens: &[u32]) -> PathBuf {
    let path = dir.path().join("en.tokens");
    let (one, two) = tokens.split_at(tokens.len() / 2);
    write::<TokenFileError>(&path, about(vocab_size), |writer| {
        writer.push(one, 1)?;
        writer.push(two, 1)?;
        let source = Source {
            path: "en.txt".into(),
            blake3: "cd".repeat(32),
        };
        Ok(vec![source])
    })
    .unwrap();
    path
}

fn counted(count: u32) -> Vec<u32> {
    (0..count).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let sidecar = sidecar_path(path);
    let mut json: Value = serde_json::from_slice(&fs::read(&sidecar).unwrap()).unwrap();
    change(&mut json);
    fs::write(&sidecar, json.to_string()).unwrap();
}

fn refused(path: &Path) -> String {
    TokenFile::open(path).unwrap_err().to_string()
}

/// What is trained on must be what was written, in both sizes of token.
#[test]
fn what_is_written_is_read() {
    for (vocab_size, dtype) in [(65_536, TokenType::U16), (65_537, TokenType::U32)] {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = counted(1000);
        tokens.push(vocab_size as u32 - 1);
        let path = file(&dir, vocab_size, &tokens);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), tokens.len() * dtype.width());
        assert_eq!(bytes[2 * dtype.width()..][..2], [2, 0], "little-endian");
        let opened = TokenFile::open(&path).unwrap();
        assert_eq!(opened.read(0, 1001).unwrap(), tokens);
        assert_eq!(opened.read(998, 3).unwrap(), tokens[998..]);
        let sidecar = opened.sidecar().unwrap();
        assert_eq!((sidecar.tokens, sidecar.documents), (1001, 2));
        assert_eq!((sidecar.dtype, &sidecar.about), (dtype, &about(vocab_size)));
        let hash = blake3::hash(&bytes).to_hex().to_string();
        assert_eq!(sidecar.blake3, hash);
        let cache = dir.path().join("cache");
        assert_eq!(opened.verify_with(Some(&cache), &mut |_| {}).unwrap(), hash);
    }
}

/// Tokens of another tokenizer would index beyond the embeddings, or train on nonsense.
#[test]
fn a_token_outside_the_vocabulary_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let error = write::<TokenFileError>(&path, about(300), |writer| {
        writer.push(&[1, 2, 3], 1)?;
        writer.push(&[4, 300], 1)?;
        Ok(Vec::new())
    })
    .unwrap_err();
    let said = "token number 4 is 300, and its vocabulary has 300";
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );

    let path = file(&dir, 300, &counted(300));
    change(&path, |json| json["vocab_size"] = json!(250));
    let opened = TokenFile::open(&path).unwrap();
    assert!(opened.read(0, 250).is_ok());
    for error in [
        opened.read(200, 100).unwrap_err(),
        opened.verify_with(None, &mut |_| {}).unwrap_err(),
    ] {
        let error = error.to_string();
        let said = "en.tokens: token number 250 is 250, and its vocabulary has 250";
        assert!(error.contains(said), "{error}");
    }
}

/// A download that was cut off, or some other file, would be trained on as far as it goes.
#[test]
fn a_file_of_half_a_token_or_of_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(100));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..199]).unwrap();
    let error = refused(&path);
    assert!(
        error.contains("199 bytes are no whole number of tokens of 2 bytes"),
        "{error}"
    );
    fs::write(&path, b"").unwrap();
    assert!(refused(&path).contains("it is empty"));
    fs::remove_file(sidecar_path(&path)).unwrap();
    for (bytes, said) in [(&b"abc"[..], "3 bytes are no whole"), (b"", "it is empty")] {
        fs::write(&path, bytes).unwrap();
        let error = TokenFile::open_bare(&path, 300).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(refused(dir.path()).contains("it is a folder"));
    assert!(refused(&dir.path().join("none")).contains("No such file"));
}

/// A sidecar of another file would name another vocabulary, or hide that half of the file is missing.
#[test]
fn a_sidecar_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(100));
    let whole = fs::read(sidecar_path(&path)).unwrap();
    let check = |of: &str, to: Value, said: &str| {
        change(&path, |json| json[of] = to);
        let error = refused(&path);
        assert!(
            error.contains(said) && error.contains("en.tokens.json"),
            "{error}"
        );
        fs::write(sidecar_path(&path), &whole).unwrap();
    };
    check("tokens", json!(101), "it says 101 tokens of 2 bytes, but");
    check("tokens", json!(u64::MAX), "but");
    check(
        "tokens",
        json!(-1),
        "not what `forgetlab data tokenize` writes",
    );
    check("dtype", json!("u32"), "it says 100 tokens of 4 bytes, but");
    check(
        "dtype",
        json!("f16"),
        "not what `forgetlab data tokenize` writes",
    );
    check(
        "vocab_size",
        json!(70_000),
        "70000 does not go into tokens of u16",
    );
    check("vocab_size", json!(0), "a vocabulary of 0");
    check("format", json!(2), "layout 2, this program reads 1");
    check("format", json!(null), "not what");
    check(
        "reserved",
        json!({"markers": [0, 300], "eos": 2}),
        "the reserved token 300",
    );
    fs::write(sidecar_path(&path), "{\"format\": 1").unwrap();
    assert!(refused(&path).contains("not what"));
    fs::write(sidecar_path(&path), &whole).unwrap();
    // The same size, other content.
    let opened = TokenFile::open(&path).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[7, 0], 20)
        .unwrap();
    let error = opened.verify_with(None, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TokenFileError::Hash { .. }), "{error}");
    fs::remove_file(sidecar_path(&path)).unwrap();
    let error = refused(&path);
    assert!(
        error.contains("has no ") && error.contains("en.tokens.json beside it"),
        "{error}"
    );
}

/// The paper's own token files would otherwise have to be made again.
#[test]
fn a_flat_file_without_a_sidecar_opens_with_its_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c4_en.bin");
    let bytes: Vec<u8> = (0..500_u16).flat_map(u16::to_le_bytes).collect();
    fs::write(&path, &bytes).unwrap();
    let opened = TokenFile::open_bare(&path, 4096).unwrap();
    assert_eq!((opened.tokens(), opened.vocab_size()), (500, 4096));
    assert_eq!(opened.read(0, 500).unwrap(), counted(500));
    let hash = opened.verify_with(None, &mut |_| {}).unwrap();
    assert_eq!(hash, blake3::hash(&bytes).to_hex().to_string());
    let small = TokenFile::open_bare(&path, 400).unwrap();
    assert!(
        small
            .read(350, 100)
            .unwrap_err()
            .to_string()
            .contains("token number 400 is 400")
    );
    for vocab_size in [0, 65_537] {
        assert!(TokenFile::open_bare(&path, vocab_size).is_err());
    }
    let path = file(&dir, 300, &counted(100));
    assert!(
        TokenFile::open_bare(&path, 300)
            .unwrap()
            .sidecar()
            .is_some()
    );
    let error = TokenFile::open_bare(&path, 4096).unwrap_err().to_string();
    assert!(
        error.contains("a vocabulary of 300, and 4096 was asked for"),
        "{error}"
    );
}

/// A memory map would end the process here, and everything that it holds.
#[test]
fn a_file_that_is_cut_off_while_open_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(300));
    let opened = Arc::new(TokenFile::open(&path).unwrap());
    let rows = TokenRows::new(opened.clone(), &settings(10, 2, 2)).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    let mut errors = (0..14).filter_map(|k| rows.batch(k).err());
    let error = errors.next_back().unwrap().to_string();
    for said in ["cut off while it was in use", "of the 300 it had"] {
        assert!(error.contains(said), "{error}");
    }
    assert!(opened.verify_with(None, &mut |_| {}).is_err());
}

/// A failure, or Ctrl-C, in the middle of writing must not cost the file there was, nor leave half of another.
#[test]
fn a_write_that_fails_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(100));
    let before = (
        fs::read(&path).unwrap(),
        fs::read(sidecar_path(&path)).unwrap(),
    );
    let failed = write::<TokenFileError>(&path, about(300), |writer| {
        writer.push(&counted(200), 1)?;
        Err(TokenFileError::NoSidecar { path: "x".into() })
    });
    assert!(matches!(failed, Err(TokenFileError::NoSidecar { .. })));
    let nothing = write::<TokenFileError>(&path, about(300), |_| Ok(Vec::new()));
    assert!(
        nothing
            .unwrap_err()
            .to_string()
            .contains("no tokens to write")
    );
    let after = (
        fs::read(&path).unwrap(),
        fs::read(sidecar_path(&path)).unwrap(),
    );
    assert!(before == after);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    // Killed between the two renames: the older sidecar is not taken for the new file's.
    fs::write(
        &path,
        counted(50)
            .iter()
            .flat_map(|&id| (id as u16).to_le_bytes())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(refused(&path).contains("not written to its end"));
}

/// Else every start of a run would read gigabytes again, or trust content that nobody looked at.
#[test]
fn content_is_looked_at_once_and_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(100));
    let cache = dir.path().join("cache");
    let read = |path: &Path| {
        let mut read = 0;
        let opened = TokenFile::open(path).unwrap();
        let verified = opened.verify_with(Some(&cache), &mut |bytes| read = bytes);
        (verified.is_ok(), read)
    };
    assert_eq!(read(&path), (true, 200));
    assert_eq!(read(&path), (true, 0), "remembered");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    other.write_all_at(&[9], 50).unwrap();
    other.set_modified(modified).unwrap();
    assert_eq!(read(&path), (false, 200), "whatever its time says");
    assert_eq!(read(&path), (false, 0), "remembered as well");
    fs::write(cache.join("tokens").join("x"), "").unwrap();
    for entry in fs::read_dir(cache.join("tokens")).unwrap() {
        fs::write(entry.unwrap().path(), "no JSON").unwrap();
    }
    assert_eq!(read(&path), (false, 200));
}

/// Two gigabytes, though they are a hole: opening must not read them.
#[test]
fn a_large_file_opens_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, 300, &counted(100));
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(2 << 30)
        .unwrap();
    change(&path, |json| json["tokens"] = json!(1_u64 << 30));
    let start = Instant::now();
    let opened = Arc::new(TokenFile::open(&path).unwrap());
    let rows = TokenRows::new(opened, &settings(64, 256, 512)).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < 0.05, "{seconds} s");
    assert_eq!(rows.batch(70_000).unwrap().rows(), 256);
}

fn settings(seq_len: usize, batch_size: usize, held_out: u64) -> RowSettings {
    RowSettings {
        seq_len,
        batch_size,
        held_out,
        marker: Some(1),
        split_seed: 0,
        seed: 0,
    }
}
