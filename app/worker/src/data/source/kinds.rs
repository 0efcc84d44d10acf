//! Which files are data, by their names.

use std::path::Path;

/// Endings of the files that are read.
pub(super) const KINDS: [&str; 6] = ["txt", "jsonl", "ndjson", "json", "csv", "parquet"];

/// Endings behind these of files that are unpacked as they are read.
pub(super) const PACKED: [&str; 2] = ["gz", "zst"];

/// Such endings of files that are not unpacked here.
const NOT_UNPACKED: [&str; 4] = ["xz", "bz2", "lz4", "zip"];

/// JSON that describes a data set or a model and lies beside the data.
const NO_DATA: [&str; 5] = [
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
];

/// The known ending of a file's name, without that of its packing.
pub(super) fn kind(path: &Path) -> Option<&'static str> {
    match packing(path) {
        None => ending(path, &KINDS),
        Some(_) => ending(Path::new(path.file_stem()?), &KINDS),
    }
}

/// How a file is packed, by its name: one of [`PACKED`], or a way that is not unpacked here.
pub(super) fn packing(path: &Path) -> Option<&'static str> {
    ending(path, &PACKED).or_else(|| ending(path, &NOT_UNPACKED))
}

/// The ending of a file's name, where it is one of these.
fn ending(path: &Path, known: &[&'static str]) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    known.iter().copied().find(|known| *known == ending)
}

/// Whether a file below a folder or in a data set is one of its data, by the names on the way to it.
pub(super) fn is_data(path: &Path) -> bool {
    let mut names = path.iter().map(|name| name.to_string_lossy());
    let name = names.next_back().unwrap_or_default();
    names.all(|folder| !is_hidden(&folder) && !folder.starts_with("__"))
        && !is_hidden(&name)
        && !NO_DATA.contains(&&*name)
        && kind(path).is_some()
}

/// What begins with a dot, and the mark that an office program leaves beside a table it has open.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name.starts_with("~$")
}
