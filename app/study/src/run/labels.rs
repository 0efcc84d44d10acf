//! What somebody wrote to a run or a sweep: a display name, a note, tags. They decide nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::read_toml;
use super::file::{open_regular, remove_if_there};
use super::{RunDir, RunError, SweepDir, write_atomically};

const FILE: &str = "labels.toml";
/// Characters of a name or a tag.
const LONGEST_NAME: usize = 100;
/// Bytes of a note.
const LONGEST_NOTE: usize = 64 << 10;

/// Labels of a run or a sweep, kept in a file of its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// A name to show beside that of the folder, which never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A note of any number of lines; empty where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl Labels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Name and tags in a few words, for a line of a list: `"name"`, `#tag`.
    pub fn in_words(&self) -> Vec<String> {
        let name = self.name.iter().map(|name| format!("\"{name}\""));
        let tags = self.tags.iter().map(|tag| format!("#{tag}"));
        name.chain(tags).collect()
    }

    /// Without spaces at the ends, and what is empty.
    fn trimmed(&self) -> Self {
        let trimmed = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Self {
            name: self.name.as_ref().and_then(trimmed),
            note: trimmed(&self.note).unwrap_or_default(),
            tags: self.tags.iter().filter_map(trimmed).collect(),
        }
    }

    /// What is wrong with them, in words.
    fn fault(&self) -> Option<String> {
        let names = self.name.iter().map(|name| ("a display name", name));
        let mut all = names.chain(self.tags.iter().map(|tag| ("a tag", tag)));
        let bad = all.find_map(|(what, text)| {
            if text.chars().count() > LONGEST_NAME {
                Some(format!("{what} has {LONGEST_NAME} characters at most"))
            } else if text.chars().any(char::is_control) {
                Some(format!("{what} is one line, without control characters"))
            } else {
                None
            }
        });
        let long = self.note.len() > LONGEST_NOTE;
        bad.or_else(|| long.then(|| format!("a note has {LONGEST_NOTE} bytes at most")))
    }

    pub(super) fn read(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(FILE);
        match open_regular(&path)? {
            Some(_) => read_toml(&path),
            None => Ok(Self::default()),
        }
    }

    fn write(&self, path: PathBuf) -> Result<(), RunError> {
        let labels = self.trimmed();
        if let Some(problem) = labels.fault() {
            return Err(RunError::Malformed { path, problem });
        }
        if labels.is_empty() {
            return remove_if_there(&path);
        }
        let text = toml::to_string(&labels).map_err(|error| RunError::Malformed {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        write_atomically(&path, |w| w.write_all(text.as_bytes()))
    }
}

impl RunDir {
    /// What somebody wrote to the run; nothing where there is no such file.
    ///
    /// # Errors
    /// Where the file cannot be read; that is no reason to do without the run.
    pub fn labels(&self) -> Result<Labels, RunError> {
        Labels::read(self.path())
    }

    /// Writes to the run, live or not, in place of what was there.
    ///
    /// # Errors
    /// Where the disk fails, or a text is too long or has control characters.
    pub fn set_labels(&self, labels: &Labels) -> Result<(), RunError> {
        labels.write(self.join(FILE))
    }
}

impl SweepDir {
    /// As [`RunDir::labels`].
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn labels(&self) -> Result<Labels, RunError> {
        Labels::read(self.path())
    }

    /// As [`RunDir::set_labels`].
    ///
    /// # Errors
    /// Where the disk fails, or a text is too long or has control characters.
    pub fn set_labels(&self, labels: &Labels) -> Result<(), RunError> {
        labels.write(self.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Else a note of months would be lost to a second one, a spoilt file, or a name that no terminal bears.
    #[test]
    fn labels_come_back_and_a_spoilt_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "").unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        assert_eq!(run.labels().unwrap(), Labels::default());
        let mut labels = Labels {
            name: Some("  the one in figure 3 ".into()),
            note: "line \"one\"\nline two".into(),
            tags: ["paper".into(), " ".into(), "a, b".into()].into(),
        };
        run.set_labels(&labels).unwrap();
        let kept = run.labels().unwrap();
        assert_eq!(kept.name.as_deref(), Some("the one in figure 3"));
        assert_eq!(kept.note, labels.note);
        assert_eq!(
            kept.in_words(),
            ["\"the one in figure 3\"", "#a, b", "#paper"]
        );
        assert!(run.foreign().is_empty());

        for bad in ["a\nb", "\u{1b}[2J", &"x".repeat(101)] {
            labels.name = Some(bad.into());
            assert!(run.set_labels(&labels).is_err(), "{bad:?}");
        }
        assert_eq!(run.labels().unwrap(), kept, "what was there stays");
        run.set_labels(&Labels::default()).unwrap();
        assert!(!run.join(FILE).exists());

        fs::write(run.join(FILE), "name = ").unwrap();
        let error = run.labels().unwrap_err().to_string();
        assert!(
            error.contains("labels.toml") && error.contains("line 1"),
            "{error}"
        );
        fs::write(run.join(FILE), "colour = 'red'\nname = 'x'\n").unwrap();
        assert_eq!(
            run.labels().unwrap().name.as_deref(),
            Some("x"),
            "of a later version"
        );
    }
}
