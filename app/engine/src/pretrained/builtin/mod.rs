//! A tiny random Llama, its tokenizer and its data, inside the program: for runs that fetch nothing.
//!
//! Built-in files are named like paths, `builtin:english.txt` or `builtin:tiny-llama/config.json`. Whoever
//! reads data, tokenizers or descriptions of models reads through this module, and so takes both.
//! The texts are written for this program. `app/scripts/builtin_tokenizer.py` trains the tokenizer on them.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// What the name of a built-in file begins with.
const PREFIX: &str = "builtin:";

/// The model: a folder of built-in files, without weights.
pub(super) const MODEL: &str = "builtin:tiny-llama";

/// Data: English prose, conversations about Verilog, multiple-choice questions about everyday things.
pub const DATA: [&str; 3] = [
    "builtin:english.txt",
    "builtin:verilog.jsonl",
    "builtin:questions.jsonl",
];

const FILES: [(&str, &[u8]); 6] = [
    (DATA[0], include_bytes!("english.txt")),
    (DATA[1], include_bytes!("verilog.jsonl")),
    (DATA[2], include_bytes!("questions.jsonl")),
    (
        "builtin:tiny-llama/config.json",
        include_bytes!("tiny-llama/config.json"),
    ),
    (
        "builtin:tiny-llama/tokenizer.json",
        include_bytes!("tiny-llama/tokenizer.json"),
    ),
    (
        "builtin:tiny-llama/tokenizer_config.json",
        include_bytes!("tiny-llama/tokenizer_config.json"),
    ),
];

/// Whether a path is the name of something built in, there or not.
pub fn is_builtin(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether a file is there, built in or on disk.
pub(super) fn exists(path: &Path) -> bool {
    find(path).map_or_else(|| path.exists(), |found| found.is_ok())
}

/// Whether a folder is there, built in or on disk.
pub fn is_dir(path: &Path) -> bool {
    path == Path::new(MODEL) || path.is_dir()
}

/// The bytes of a file, built in or on disk.
///
/// # Errors
/// Those of the system; for a built-in file that is not there, one that names those that are.
pub fn read(path: &Path) -> io::Result<Cow<'static, [u8]>> {
    match find(path) {
        Some(found) => found.map(Cow::Borrowed),
        None => fs::read(path).map(Cow::Owned),
    }
}

/// A file, built in or on disk, to be read by lines.
///
/// # Errors
/// As of [`read`].
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    match find(path) {
        Some(found) => Ok(Box::new(found?)),
        None => Ok(Box::new(BufReader::new(File::open(path)?))),
    }
}

/// A built-in file; none for a path on disk.
fn find(path: &Path) -> Option<io::Result<&'static [u8]>> {
    let name = path.to_str().filter(|name| name.starts_with(PREFIX))?;
    let found = FILES.iter().find(|(file, _)| *file == name);
    let missing = || {
        let all = format!("no such built-in file; there are {}", DATA.join(", "));
        io::Error::new(io::ErrorKind::NotFound, all)
    };
    Some(found.map(|(_, bytes)| *bytes).ok_or_else(missing))
}
