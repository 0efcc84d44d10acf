//! Models and data sets on the Hugging Face hub, through the cache of Hugging Face's own tools.
//!
//! What is in the cache is used without the network. For everything else the hub is asked once by name;
//! files are then fetched by the commit that the name stood for.
//!
//! The hub is not trusted: the token goes to its own host alone, what it names becomes a path only where it has
//! the form of a hash, what it sends is hashed, and its silence is not waited for without end.

mod cache;
mod client;
mod snapshot;

use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use ureq::http::Uri;

use cache::{RepoCache, is_commit, stays_inside};
use client::{Client, Escaped, RequestError, header, read_all};

pub use snapshot::Snapshot;

/// The most bytes of a repository's description: millions of files.
const MOST_DESCRIPTION: usize = 512 << 20;

/// A Hugging Face hub: its address, the local cache, and the access token.
#[derive(Clone, Debug)]
pub struct Hub {
    /// URL of the hub (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Folder of the cache (`HF_HUB_CACHE`, `HF_HOME/hub`).
    pub cache: PathBuf,
    /// Access token (`HF_TOKEN`, or the file that `hf auth login` writes).
    pub token: Option<String>,
    /// Whether the network must not be used (`HF_HUB_OFFLINE`).
    pub offline: bool,
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// Its name in the cache and in the hub's descriptions.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// The path of a repository's page, below the endpoint.
    fn page(self, id: &str) -> String {
        match self {
            Self::Model => id.to_owned(),
            Self::Dataset => format!("datasets/{id}"),
        }
    }
}

/// Receives the progress of downloads.
pub trait DownloadProgress {
    /// The download of a file of `bytes` starts; a second call for the same file starts again from zero.
    fn started(&self, file: &str, bytes: u64);
    /// That many more bytes have arrived.
    fn advanced(&self, bytes: u64);
    /// The file is complete.
    fn finished(&self);
}

/// Ignores all progress.
impl DownloadProgress for () {
    fn started(&self, _: &str, _: u64) {}
    fn advanced(&self, _: u64) {}
    fn finished(&self) {}
}

/// Why a repository or a file could not be fetched from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no such repository, or the token does not give access to it.
    #[error(
        "the hub has no {kind} `{id}` ({endpoint}/{id}): check the name; a private one needs HF_TOKEN"
    )]
    Missing {
        /// Model or data set.
        kind: &'static str,
        /// Name.
        id: String,
        /// Hub.
        endpoint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("the hub's `{id}` has no revision `{revision}`")]
    Revision {
        /// Name.
        id: String,
        /// Revision.
        revision: String,
    },
    /// The repository's licence must be accepted first.
    #[error("`{id}` is gated: accept its licence at {url}, {then}")]
    Gated {
        /// Name.
        id: String,
        /// Page with the licence.
        url: String,
        /// What to do about the token.
        then: &'static str,
    },
    /// The network or the hub does not answer.
    #[error(
        "cannot reach {endpoint}: {why}; name a folder or a .gguf file instead, or set HF_HUB_OFFLINE=1 to use what is cached in {cache}"
    )]
    Network {
        /// Hub.
        endpoint: String,
        /// Why.
        why: String,
        /// Cache.
        cache: PathBuf,
    },
    /// Something is not in the cache, and the network must not be used.
    #[error("{what} of `{id}` is not in the cache {cache}, and HF_HUB_OFFLINE forbids to fetch it")]
    Offline {
        /// Name.
        id: String,
        /// What is missing.
        what: String,
        /// Cache.
        cache: PathBuf,
    },
    /// The hub's answer was not expected.
    #[error("the hub answered {answer} for {what} of `{id}`")]
    Answer {
        /// Name.
        id: String,
        /// What was asked for.
        what: String,
        /// Status or problem.
        answer: String,
    },
    /// A file in the cache is not what it was when it was fetched.
    #[error("{path} is damaged: {why}; remove {remove}, and it is fetched again")]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to remove: the content that its link leads to.
        remove: PathBuf,
    },
    /// The cache cannot be written.
    #[error("cannot write to the cache {cache}: {source}; HF_HOME names another place")]
    Disk {
        /// Cache.
        cache: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Hub {
    /// The hub that the environment variables name, by the rules of Hugging Face's own tools.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = var("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
            let user = || std::env::home_dir().unwrap_or_default().join(".cache");
            cache.unwrap_or_else(user).join("huggingface")
        });
        let file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = var("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let offline = var("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        let endpoint = var("HF_ENDPOINT").unwrap_or("https://huggingface.co".into());
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache: var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token,
            offline: ["1", "ON", "YES", "TRUE"].contains(&&*offline),
        }
    }

    /// A model at a revision, by default `main`.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn model(&self, id: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        self.snapshot(Kind::Model, id, revision)
    }

    /// A data set at a revision, by default `main`.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn dataset(&self, id: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        self.snapshot(Kind::Dataset, id, revision)
    }

    /// What the cache holds of a data set, without the network.
    pub fn cached_dataset(&self, id: &str, revision: &str) -> Option<Snapshot> {
        self.cached(Kind::Dataset, id, revision)
    }

    /// What the cache holds of a model, without the network.
    pub fn cached_model(&self, id: &str, revision: Option<&str>) -> Option<Snapshot> {
        self.cached(Kind::Model, id, revision.unwrap_or("main"))
    }

    /// A repository at a revision: from the hub, or offline from the cache.
    fn snapshot(&self, kind: Kind, id: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        let revision = revision.unwrap_or("main");
        if self.offline {
            let offline = || HubError::Offline {
                id: id.into(),
                what: format!("revision `{revision}`"),
                cache: self.cache.clone(),
            };
            return self.cached(kind, id, revision).ok_or_else(offline);
        }
        if !stays_inside(revision) {
            return Err(self.no_revision(id, revision));
        }
        let info = self.ask(kind, id, revision)?;
        if !is_commit(&info.sha) {
            let answer = "with a commit that is no hash".into();
            return Err(self.answer(id, "the description", answer));
        }
        let repo = self.repo(kind, id);
        repo.remember(revision, &info.sha)
            .and_then(|()| repo.remember_tree(&info.sha, &info.siblings))
            .map_err(|error| self.disk(error))?;
        Ok(Snapshot {
            hub: self.clone(),
            kind,
            id: id.into(),
            revision: revision.into(),
            commit: info.sha,
            files: info.siblings.into_iter().map(RemoteFile::from).collect(),
            is_listed: true,
        })
    }

    /// What the cache holds of a repository at a revision.
    fn cached(&self, kind: Kind, id: &str, revision: &str) -> Option<Snapshot> {
        let repo = self.repo(kind, id);
        let commit = stays_inside(revision).then(|| repo.commit(revision))??;
        let there = repo.files(&commit).ok()?;
        let tree = repo.tree(&commit);
        Some(Snapshot {
            hub: self.clone(),
            kind,
            id: id.into(),
            revision: revision.into(),
            commit,
            is_listed: tree.is_some(),
            files: tree.unwrap_or(there),
        })
    }

    /// The cache of a repository.
    fn repo(&self, kind: Kind, id: &str) -> RepoCache {
        RepoCache::new(&self.cache, kind.plural(), id)
    }

    /// Asks the hub for the commit and the files of a revision.
    fn ask(&self, kind: Kind, id: &str, revision: &str) -> Result<Info, HubError> {
        let what = "the description";
        let failed = |error| self.failed(id, what, error);
        let client = self.client().map_err(failed)?;
        // A slash in a revision's name is a part of it.
        let revision_in_url = Escaped(revision).to_string().replace('/', "%2F");
        let path = format!("{}/{id}/revision/{revision_in_url}", kind.plural());
        let url = format!("{}/api/{path}?blobs=true", self.endpoint);
        let response = client.get(&url, None).map_err(failed)?;
        let status = response.status();
        let code = header(&response, "x-error-code").unwrap_or_default();
        match (status.as_u16(), code) {
            (200, _) => {
                let url: Uri = url.parse().unwrap_or_default();
                let body = read_all(&client, &url, response.into_body(), MOST_DESCRIPTION);
                let info = serde_json::from_slice(&body.map_err(failed)?);
                info.map_err(|error| self.answer(id, what, format!("what is none ({error})")))
            }
            (_, "RevisionNotFound") => Err(self.no_revision(id, revision)),
            (_, "GatedRepo") | (403, _) => Err(self.gated(kind, id)),
            // Without access, the hub does not tell whether a private repository exists.
            (401 | 404, _) => Err(HubError::Missing {
                kind: match kind {
                    Kind::Dataset => "data set",
                    Kind::Model => "model",
                },
                id: id.into(),
                endpoint: self.endpoint.clone(),
            }),
            _ => Err(self.answer(id, what, format!("with status {status}"))),
        }
    }

    fn client(&self) -> Result<Client, RequestError> {
        Client::new(&self.endpoint, self.token.as_deref())
    }

    fn no_revision(&self, id: &str, revision: &str) -> HubError {
        HubError::Revision {
            id: id.into(),
            revision: revision.into(),
        }
    }

    fn gated(&self, kind: Kind, id: &str) -> HubError {
        HubError::Gated {
            id: id.into(),
            url: format!("{}/{}", self.endpoint, kind.page(id)),
            then: match self.token {
                None => "then set HF_TOKEN to a token of that account",
                Some(_) => "with the account that the token is of",
            },
        }
    }

    /// The error of a request for a part of a repository.
    fn failed(&self, id: &str, what: &str, error: RequestError) -> HubError {
        match error {
            RequestError::Answer(answer) => self.answer(id, what, answer),
            RequestError::Network(why) | RequestError::Slow(why) => HubError::Network {
                endpoint: self.endpoint.clone(),
                why,
                cache: self.cache.clone(),
            },
        }
    }

    fn answer(&self, id: &str, what: &str, answer: String) -> HubError {
        HubError::Answer {
            id: id.into(),
            what: what.into(),
            answer,
        }
    }

    fn disk(&self, source: io::Error) -> HubError {
        HubError::Disk {
            cache: self.cache.clone(),
            source,
        }
    }
}

/// Whether a name has the form of a repository's on the hub, `OWNER/NAME`.
pub fn is_hub_id(id: &str) -> bool {
    let is_word = |word: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !word.is_empty() && !word.starts_with('.') && word.chars().all(is_plain)
    };
    id.split_once('/')
        .is_some_and(|(owner, name)| is_word(owner) && is_word(name))
}

/// The hub's description of a repository.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

/// A file in the hub's description.
#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// What the hub tells of a file in large file storage.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository.
    pub name: String,
    /// Bytes, where the hub tells.
    pub size: Option<u64>,
    /// SHA-256 of a file in large file storage, where the hub tells.
    pub sha256: Option<String>,
    /// Git's hash of another file, where the hub tells.
    pub git: Option<String>,
}

impl From<Sibling> for RemoteFile {
    fn from(file: Sibling) -> Self {
        let git = file.blob_id.filter(|_| file.lfs.is_none());
        let (sha256, size) = match file.lfs {
            Some(lfs) => (Some(lfs.sha256), Some(lfs.size)),
            None => (None, file.size),
        };
        Self {
            name: file.rfilename,
            size,
            sha256,
            git,
        }
    }
}
