//! Built-in files: a tiny random Llama, its tokenizer and its data, and text for small models, for runs without
//! downloads.
//!
//! Built-in files have names like paths, such as `builtin:english.txt` or `builtin:tiny-llama/config.json`.
//! The functions of this module read built-in files and files on disk alike. The Llama's data were written for this
//! program; `app/scripts/builtin_tokenizer.py` trained its tokenizer on them. Where the text for small models comes
//! from stands in `text/README.md` beside this file; `app/scripts/builtin_text.py` made it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// Prefix of the names of built-in files.
const PREFIX: &str = "builtin:";

/// The built-in model: a folder of files, without weights.
pub(super) const MODEL: &str = "builtin:tiny-llama";

/// The built-in data: English prose, conversations about Verilog, multiple-choice questions on everyday things.
pub const DATA: [&str; 3] = [
    "builtin:english.txt",
    "builtin:verilog.jsonl",
    "builtin:questions.jsonl",
];

/// Text for small models: English, Spanish, and word problems with their solutions, some 200 kB each.
pub const TEXTS: [&str; 3] = [
    "builtin:text/english.txt",
    "builtin:text/spanish.txt",
    "builtin:text/problems.txt",
];

/// The tokenizer of the texts: 1024 tokens, the first `<|data0|>` to `<|data3|>` and `<|endoftext|>`.
pub const TEXT_TOKENIZER: &str = "builtin:text/tokenizer.json";

/// Tokenizer of the English and Spanish manuals that `app/scripts/fetch-text-data.sh` fetches: 1024 tokens, the first
/// as in [`TEXT_TOKENIZER`].
const MANUALS_TOKENIZER: &str = "builtin:text/manuals-tokenizer.json";

/// Names and contents of the built-in files.
const FILES: [(&str, &[u8]); 11] = [
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
    (TEXTS[0], include_bytes!("text/english.txt")),
    (TEXTS[1], include_bytes!("text/spanish.txt")),
    (TEXTS[2], include_bytes!("text/problems.txt")),
    (TEXT_TOKENIZER, include_bytes!("text/tokenizer.json")),
    (
        MANUALS_TOKENIZER,
        include_bytes!("text/manuals-tokenizer.json"),
    ),
];

/// Whether a path has the form of a built-in file's name, whether there is such a file or not.
pub fn is_builtin(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether a file exists, built in or on disk.
pub(super) fn exists(path: &Path) -> bool {
    find(path).map_or_else(|| path.exists(), |bytes| bytes.is_ok())
}

/// Whether a folder exists, built in or on disk.
pub fn is_dir(path: &Path) -> bool {
    path == Path::new(MODEL) || path.is_dir()
}

/// Reads a file, built in or on disk.
///
/// # Errors
/// Those of the system; for the name of no built-in file, an error that lists the built-in data.
pub fn read(path: &Path) -> io::Result<Cow<'static, [u8]>> {
    match find(path) {
        Some(bytes) => bytes.map(Cow::Borrowed),
        None => fs::read(path).map(Cow::Owned),
    }
}

/// Opens a file, built in or on disk, for reading by lines.
///
/// # Errors
/// As for [`read`].
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    match find(path) {
        Some(bytes) => Ok(Box::new(bytes?)),
        None => Ok(Box::new(BufReader::new(File::open(path)?))),
    }
}

/// The bytes of a built-in file; `None` for a path on disk.
fn find(path: &Path) -> Option<io::Result<&'static [u8]>> {
    let name = path.to_str().filter(|name| name.starts_with(PREFIX))?;
    let missing = || {
        let data = [DATA, TEXTS].concat().join(", ");
        let message = format!("no such built-in file; there are {data}");
        io::Error::new(io::ErrorKind::NotFound, message)
    };
    let file = FILES.iter().find(|(file, _)| *file == name);
    Some(file.map(|(_, bytes)| *bytes).ok_or_else(missing))
}
