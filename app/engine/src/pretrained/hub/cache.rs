//! The cache of Hugging Face's own tools: `refs`, `snapshots` of links to `blobs`, and `trees`, the listings of
//! commits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RemoteFile;

/// The folder of a repository in the cache.
#[derive(Clone, Debug)]
pub(super) struct RepoCache {
    folder: PathBuf,
}

impl RepoCache {
    /// The folder of a repository of a kind (`models`, `datasets`).
    pub fn new(cache: &Path, kind: &str, id: &str) -> Self {
        let name = format!("{kind}--{}", id.replace('/', "--"));
        Self {
            folder: cache.join(name),
        }
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file that holds the content of a tag.
    pub fn blob(&self, tag: &str) -> PathBuf {
        self.folder.join("blobs").join(tag)
    }

    /// The commit that a revision stood for when the hub was last asked.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let named = fs::read_to_string(self.folder.join("refs").join(revision));
        let commit = named.map_or(revision.to_owned(), |commit| commit.trim().to_owned());
        is_commit(&commit).then_some(commit)
    }

    /// Notes which commit a revision stands for.
    pub fn remember(&self, revision: &str, commit: &str) -> io::Result<()> {
        write_whole(&self.folder.join("refs").join(revision), commit.as_bytes())
    }

    /// The files of a commit that are there, links to missing blobs included.
    pub fn files(&self, commit: &str) -> io::Result<Vec<RemoteFile>> {
        let mut files = Vec::new();
        list(&self.snapshot(commit), &mut PathBuf::new(), &mut files)?;
        Ok(files)
    }

    /// The listing of a commit, where one is there that can be understood.
    pub fn tree(&self, commit: &str) -> Option<Vec<RemoteFile>> {
        let bytes = fs::read(self.tree_path(commit)).ok()?;
        let tree: Tree = serde_json::from_slice(&bytes).ok()?;
        if tree.format_version != TREE_VERSION {
            return None;
        }
        let files = tree.files.into_iter().map(|(name, entry)| RemoteFile {
            name,
            size: Some(entry.lfs_size.unwrap_or(entry.size)),
            git: Some(entry.blob_id).filter(|_| entry.lfs_sha256.is_none()),
            sha256: entry.lfs_sha256,
        });
        Some(files.collect())
    }

    /// Keeps the listing of a commit, where the hub told all that belongs to one.
    pub fn remember_tree(&self, commit: &str, files: &[super::Sibling]) -> io::Result<()> {
        let path = self.tree_path(commit);
        let entry = |file: &super::Sibling| {
            let entry = Entry {
                size: file.size?,
                blob_id: file.blob_id.clone()?,
                lfs_sha256: file.lfs.as_ref().map(|lfs| lfs.sha256.clone()),
                lfs_size: file.lfs.as_ref().map(|lfs| lfs.size),
            };
            Some((file.rfilename.clone(), entry))
        };
        let entries: Option<BTreeMap<_, _>> = files.iter().map(entry).collect();
        let Some(files) = entries.filter(|_| !path.exists()) else {
            return Ok(());
        };
        let tree = Tree {
            format_version: TREE_VERSION,
            files,
        };
        write_whole(&path, &serde_json::to_vec_pretty(&tree)?)
    }

    fn tree_path(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// Puts a blob where a file of a commit belongs: by a link, or a copy where there are no links.
    pub fn link(&self, tag: &str, commit: &str, name: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let up = "../".repeat(Path::new(name).components().count() + 1);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        match std::os::unix::fs::symlink(format!("{up}blobs/{tag}"), &path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => drop(fs::copy(self.blob(tag), &path)?),
            Ok(()) => {}
        }
        Ok(path)
    }
}

/// Version of the listings that are read and written.
const TREE_VERSION: u64 = 1;

/// The listing of a commit, as huggingface_hub keeps it.
#[derive(Deserialize, Serialize)]
struct Tree {
    format_version: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    size: u64,
    blob_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
}

/// What the content of a file must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    /// SHA-256 of the content: files in large file storage.
    Sha256(String),
    /// SHA-1 of git's blob with the content.
    Git(String),
}

impl Digest {
    /// What is known of a file's content, from the listing and the name of its blob.
    pub fn of(file: Option<&RemoteFile>, tag: Option<&str>) -> Option<Self> {
        let listed = file.and_then(|file| file.sha256.as_deref());
        let sha256 = listed.or(tag).filter(|text| is_hex(text, 64));
        let git = || file.and_then(|file| file.git.as_deref());
        match sha256 {
            Some(sha256) => Some(Self::Sha256(sha256.to_owned())),
            None => git()
                .filter(|text| is_hex(text, 40))
                .map(|git| Self::Git(git.to_owned())),
        }
    }

    /// The hash that a file has instead; `None` if it is the right one.
    pub fn differs(&self, path: &Path) -> io::Result<Option<String>> {
        let mut file = File::open(path)?;
        let (mut context, expected) = match self {
            Self::Sha256(expected) => (ring::digest::Context::new(&ring::digest::SHA256), expected),
            Self::Git(expected) => {
                let algorithm = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
                let mut context = ring::digest::Context::new(algorithm);
                context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
                (context, expected)
            }
        };
        let mut piece = vec![0; 1 << 16];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                n => context.update(&piece[..n]),
            }
        }
        let digest = context.finish();
        let found: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Ok((found != *expected).then_some(found))
    }

    /// What kind of hash it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git hash",
        }
    }

    /// The hash in hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

/// Whether a text is a hash of so many digits, as the hub writes it.
fn is_hex(text: &str, digits: usize) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == digits && text.bytes().all(is_digit)
}

/// Whether a text is the name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether a text may name a blob.
pub(super) fn is_tag(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=128).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether a path stays below the folder that it is taken from.
pub(super) fn stays_inside(path: &str) -> bool {
    let plain = |part: Component| matches!(part, Component::Normal(_));
    !path.is_empty() && !path.contains(['\0', '\\']) && Path::new(path).components().all(plain)
}

/// Writes a file under another name, then renames it.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.tmp", std::process::id()));
    fs::write(&partial, bytes)?;
    fs::rename(&partial, path)
}

/// Adds the files below `root/inside` to `files`, with paths relative to `root`.
fn list(root: &Path, inside: &mut PathBuf, files: &mut Vec<RemoteFile>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(&inside))? {
        let entry = entry?;
        inside.push(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, inside, files)?;
        } else {
            files.push(RemoteFile {
                name: inside.to_string_lossy().into_owned(),
                // Follows the cache's links.
                size: fs::metadata(entry.path()).ok().map(|data| data.len()),
                sha256: None,
                git: None,
            });
        }
        inside.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a hub could have files written outside its cache.
    #[test]
    fn names_that_lead_elsewhere_are_told() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(is_commit(commit));
        for bad in [
            "../../../x",
            "/etc/passwd",
            "",
            "0123",
            &commit.to_uppercase(),
        ] {
            assert!(!is_commit(bad), "{bad}");
        }
        for good in [commit, "9f86d081-2", "4096-config-json"] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "/x", "a/b", "a.so", "a\0", "ä"] {
            assert!(!is_tag(bad), "{bad}");
        }
        for good in ["a", "data/train-0.parquet", "refs/pr/1", "a..b/c"] {
            assert!(stays_inside(good), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../../b", "a\\..\\b", "a\0b"] {
            assert!(!stays_inside(bad), "{bad}");
        }
    }

    /// By `git hash-object` and `sha256sum`.
    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        fs::write(&path, "hello\n").expect("write");
        let git = Digest::Git("ce013625030ba8dba906f756967f9e9ca394464a".into());
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(git.differs(&path).expect("read"), None);
        let sha256 = Digest::Sha256(sha256.into());
        assert_eq!(sha256.differs(&path).expect("read"), None);
        fs::write(&path, "hello!").expect("write");
        for digest in [git, sha256] {
            assert!(digest.differs(&path).expect("read").is_some());
        }
    }
}
