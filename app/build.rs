//! Tells the binary which commit it was built from: `FORGETLAB_COMMIT` is the commit's hash, with `-dirty` behind
//! it where what the binary is made of differs from the commit; or it says that there was no git to ask.
//!
//! Runs again after a commit or a change of a source, when the binary is linked anew anyway.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the binary is made of, in the root of the workspace.
const SOURCES: [&str; 4] = ["app", "plugin-api", "Cargo.toml", "Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&folder).join("..");
    let commit = commit(&root).unwrap_or_else(|| "unknown (built without git)".into());
    println!("cargo::rustc-env=FORGETLAB_COMMIT={commit}");
}

fn commit(root: &Path) -> Option<String> {
    // A source archive may lie inside another repository.
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let hash = git(root, &["rev-parse", "HEAD"])?;
    // Every commit, checkout or reset adds a line to the first; the second is there where the first is not kept.
    let moved = ["logs/HEAD", "HEAD"].into_iter().find_map(|name| {
        let path = root.join(git(root, &["rev-parse", "--git-path", name])?);
        path.exists().then_some(path)
    })?;
    let sources = SOURCES.map(|source| root.join(source));
    // A path that is not there would have this run every time.
    for path in sources.iter().filter(|path| path.exists()).chain([&moved]) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let status = ["--no-optional-locks", "status", "--porcelain", "--"];
    let changed = git(root, &[&status[..], &SOURCES].concat())?;
    Some(match changed.is_empty() {
        true => hash,
        false => format!("{hash}-dirty"),
    })
}

/// What git answers, without the end of the line; `None` where it fails or is not there.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim_end().to_owned())
}
