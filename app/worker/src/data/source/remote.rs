//! Data sets on the hub as sources: `hub:OWNER/NAME[@REVISION][:PATH]`.
//!
//! `PATH` is what the paths of the wanted files begin with, e.g. `hub:allenai/ai2_arc:ARC-Easy/test`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use forgetlab_engine::pretrained::{DownloadProgress, Hub, HubError, Snapshot, is_hub_id};

use super::SourceError;
use super::kinds::{KINDS, is_data};

const PREFIX: &str = "hub:";

/// What a source names.
struct Name<'a> {
    id: &'a str,
    revision: Option<&'a str>,
    path: &'a str,
}

/// Whether a path is the name of a data set on the hub.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Fetches a data set; its name with the commit that its revision stands for.
///
/// # Errors
/// [`SourceError`]; a data set without such files is one.
pub(super) fn fetch(
    source: &Path,
    hub: &Hub,
    progress: &dyn DownloadProgress,
) -> Result<PathBuf, SourceError> {
    let name = parse(source)?;
    let snapshot = hub.dataset(name.id, name.revision);
    let snapshot = snapshot.map_err(|error| refused(source, error))?;
    download(source, &snapshot, &name, progress)?;
    let path = match name.path {
        "" => String::new(),
        path => format!(":{path}"),
    };
    Ok(format!("{PREFIX}{}@{}{path}", name.id, snapshot.commit).into())
}

/// The files of a data set, fetched if they are not there.
///
/// A commit in the cache is not asked for again: its listing tells what belongs to it. Where the listing is missing,
/// what is there is taken for all of it, unless the names of its parts say that others are missing.
///
/// # Errors
/// As [`fetch`].
pub(super) fn files(source: &Path, hub: &Hub) -> Result<Vec<PathBuf>, SourceError> {
    let name = parse(source)?;
    let cached = name
        .revision
        .and_then(|revision| hub.cached_dataset(name.id, revision));
    let is_enough = |snapshot: &Snapshot| {
        let files: Vec<&str> = wanted(snapshot, &name).collect();
        !files.is_empty()
            && (hub.offline || snapshot.is_listed || part(&files, name.path).is_none())
    };
    match cached.filter(is_enough) {
        Some(snapshot) => download(source, &snapshot, &name, &()),
        None => {
            let snapshot = hub.dataset(name.id, name.revision);
            let snapshot = snapshot.map_err(|error| refused(source, error))?;
            download(source, &snapshot, &name, &())
        }
    }
}

fn download(
    source: &Path,
    snapshot: &Snapshot,
    name: &Name,
    progress: &dyn DownloadProgress,
) -> Result<Vec<PathBuf>, SourceError> {
    let mut files: Vec<&str> = wanted(snapshot, name).collect();
    files.sort_unstable();
    if files.is_empty() {
        let below = match name.path {
            "" => String::new(),
            path => format!(" whose path begins with `{path}`"),
        };
        let kinds = KINDS.join(", ");
        return Err(SourceError::Malformed {
            path: source.into(),
            problem: format!("has no file{below} of a kind that is read here ({kinds})"),
        });
    }
    if let Some(problem) = part(&files, name.path).filter(|_| !snapshot.is_listed) {
        let path = source.into();
        return Err(SourceError::Malformed { path, problem });
    }
    let fetch = |file| snapshot.fetch(file, progress);
    let fetched: Result<Vec<PathBuf>, _> = files.into_iter().map(fetch).collect();
    fetched.map_err(|error| refused(source, error))
}

/// What is wrong with files that are some parts of several, `STEM-00000-of-00002.EXT`; parts that `path` asks for by
/// their numbers are enough.
fn part(files: &[&str], path: &str) -> Option<String> {
    let mut sets = BTreeMap::<_, BTreeSet<usize>>::new();
    for file in files {
        let Some((before, after)) = file.rsplit_once("-of-") else {
            continue;
        };
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let parsed = before.rsplit_once('-').and_then(|(stem, number)| {
            Some((
                stem,
                number.parse().ok()?,
                after[..digits].parse::<usize>().ok()?,
            ))
        });
        if let Some((stem, number, parts)) = parsed
            && format!("{stem}-").starts_with(path)
        {
            let end = Path::new(after).extension();
            sets.entry((stem, parts, end)).or_default().insert(number);
        }
    }
    let ((stem, parts, _), found) = sets
        .into_iter()
        .find(|((_, n, _), found)| found.len() < *n)?;
    Some(format!(
        "the cache holds {} of the {parts} parts of {stem}; fetch the others (without HF_HUB_OFFLINE), or name \
         the parts that are wanted",
        found.len()
    ))
}

/// Paths of the files that a name names.
fn wanted<'a>(snapshot: &'a Snapshot, name: &Name<'a>) -> impl Iterator<Item = &'a str> {
    let path = name.path;
    let files = snapshot.files.iter().map(|file| &*file.name);
    files.filter(move |file| file.starts_with(path) && is_data(Path::new(file)))
}

fn parse(source: &Path) -> Result<Name<'_>, SourceError> {
    let wrong = || SourceError::Malformed {
        path: source.into(),
        problem:
            "no name of a data set on the hub; write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or \
                  hub:OWNER/NAME:PATH, where PATH is what the paths of the wanted files begin with"
                .into(),
    };
    let name = source.to_str().and_then(|name| name.strip_prefix(PREFIX));
    let name = name.ok_or_else(wrong)?;
    let (name, path) = name.split_once(':').unwrap_or((name, ""));
    let (id, revision) = match name.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (name, None),
    };
    match is_hub_id(id) && revision != Some("") {
        true => Ok(Name { id, revision, path }),
        false => Err(wrong()),
    }
}

fn refused(source: &Path, error: HubError) -> SourceError {
    SourceError::Hub {
        path: source.into(),
        source: Box::new(error),
    }
}
