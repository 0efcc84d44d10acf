//! What somebody changes about runs: labels, deletion; and what the lab keeps for the user.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use forgetlab_study::run::{Labels, write_atomically};
use forgetlab_tui::lab::{Kept, LabelChange};

use super::LocalLab;
use super::sweeps::Place;

impl LocalLab {
    /// Changes the labels of a run or a sweep.
    pub(super) fn change_labels(&self, run: &str, change: &LabelChange) -> anyhow::Result<()> {
        match Place::find(&self.results, run)? {
            Place::Run(dir) => dir.set_labels(&changed(dir.labels()?, change))?,
            Place::Sweep(dir) => dir.set_labels(&changed(dir.labels()?, change))?,
            Place::Point(sweep, point) => {
                let dir = sweep.run(&point);
                let dir = dir.with_context(|| format!("nobody has begun with {point} yet"))?;
                dir.set_labels(&changed(dir.labels()?, change))?;
            }
        }
        Ok(())
    }
}

fn changed(mut labels: Labels, change: &LabelChange) -> Labels {
    match change {
        LabelChange::Name(name) => {
            labels.name = Some(name.clone()).filter(|name| !name.trim().is_empty())
        }
        LabelChange::Note(note) => labels.note.clone_from(note),
        LabelChange::Tags(tags) => {
            for tag in tags {
                match tag.strip_prefix('-') {
                    Some(tag) => drop(labels.tags.remove(tag)),
                    None => drop(labels.tags.insert(tag.trim_start_matches('#').to_owned())),
                }
            }
        }
    }
    labels
}

/// A folder of the user by its variable, or below the home.
fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| {
        let folder = env::var_os(name).map(PathBuf::from);
        folder.filter(|folder| folder.is_absolute())
    };
    let folder = set(variable).or_else(|| Some(set("HOME")?.join(below_home)))?;
    Some(folder.join("forgetlab"))
}

/// The file of how experiments are looked at.
fn views_path() -> Option<PathBuf> {
    Some(folder("XDG_STATE_HOME", ".local/state")?.join("views.toml"))
}

/// The file of keys.
pub fn keys_path() -> Option<PathBuf> {
    Some(folder("XDG_CONFIG_HOME", ".config")?.join("keys.toml"))
}

/// What is kept for the user.
pub(super) fn kept() -> anyhow::Result<Kept> {
    let read = |path: Option<PathBuf>| match path {
        None => Ok(String::new()),
        Some(path) => match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        },
    };
    Ok(Kept {
        views: read(views_path())?,
        keys: read(keys_path())?,
        keys_path: keys_path().map_or(String::new(), |path| path.display().to_string()),
    })
}

/// Keeps how experiments are looked at.
pub(super) fn keep_views(views: &str) -> anyhow::Result<()> {
    let Some(path) = views_path() else {
        return Ok(());
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    write_atomically(&path, |out| out.write_all(views.as_bytes()))?;
    Ok(())
}
