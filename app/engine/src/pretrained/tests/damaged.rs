//! Files that were damaged, byte by byte: every one is read or refused in words.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::gguf::Parts;
use super::{CONFIG, Path, copy, fs, open_path};

/// Opens a model, and says what it is; its weights are read as well where `whole`.
fn look(path: &Path, whole: bool) {
    let Ok(model) = open_path(path) else { return };
    if model.storage().is_ok() && whole {
        drop(model.load(&()));
    }
}

/// Damages a file at each of its first bytes in several ways, then cuts it short, and looks at `model` each time.
fn damage(file: &Path, model: &Path, first: usize) {
    let whole = fs::read(file).expect("file");
    let handle: File = OpenOptions::new().write(true).open(file).expect("file");
    let first = first.min(whole.len());
    for at in 0..first {
        let byte = whole[at];
        for (i, other) in [0, 0xff, byte ^ 0x80, byte.wrapping_add(1)]
            .into_iter()
            .enumerate()
        {
            handle.write_all_at(&[other], at as u64).expect("write");
            look(model, (4 * at + i) % 397 == 0);
        }
        handle.write_all_at(&[byte], at as u64).expect("write");
    }
    for len in (0..first).rev().step_by(3) {
        handle.set_len(len as u64).expect("cut");
        look(model, false);
    }
}

/// Else a bad download would end the program, or take all memory, without a word.
#[test]
fn a_damaged_gguf_never_ends_the_program() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.gguf");
    let bytes = Parts::of("tied").bytes();
    fs::write(&path, &bytes).expect("write");
    let last = b"rope_freqs.weight";
    let header = bytes.windows(last.len()).position(|part| part == last);
    damage(&path, &path, header.expect("last tensor") + last.len() + 40);
}

/// As above.
#[test]
fn a_damaged_safetensors_file_never_ends_the_program() {
    let folder = copy("tied");
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).expect("file");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("bytes")) as usize;
    damage(&file, folder.path(), 8 + header.min(1000));
}

/// As above.
#[test]
fn a_damaged_config_never_ends_the_program() {
    let folder = copy("tied");
    damage(&folder.path().join(CONFIG), folder.path(), 4096);
}
