//! Models and data sets on the Hugging Face hub, through the cache of Hugging Face's own tools.
//!
//! What is in the cache is used without the network. For everything else the hub is asked once by name;
//! files are then fetched by the commit that the name stood for.

use std::cell::Cell;
use std::io;
use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

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
        self.snapshot(RepoType::Model, id, revision)
    }

    /// A data set at a revision, by default `main`.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn dataset(&self, id: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        self.snapshot(RepoType::Dataset, id, revision)
    }

    /// What the cache holds of a data set, without the network.
    pub fn cached_dataset(&self, id: &str, revision: &str) -> Option<Snapshot> {
        self.cached(RepoType::Dataset, id, revision)
    }

    /// What the cache holds of a model, without the network.
    pub fn cached_model(&self, id: &str, revision: Option<&str>) -> Option<Snapshot> {
        self.cached(RepoType::Model, id, revision.unwrap_or("main"))
    }

    /// A repository at a revision: from the hub, or offline from the cache.
    fn snapshot(
        &self,
        kind: RepoType,
        id: &str,
        revision: Option<&str>,
    ) -> Result<Snapshot, HubError> {
        let revision = revision.unwrap_or("main");
        if self.offline {
            let offline = || HubError::Offline {
                id: id.into(),
                what: format!("revision `{revision}`"),
                cache: self.cache.clone(),
            };
            return self.cached(kind, id, revision).ok_or_else(offline);
        }
        let info = self.ask(kind, id, revision)?;
        let snapshot = Snapshot {
            hub: self.clone(),
            kind,
            id: id.into(),
            revision: revision.into(),
            commit: info.sha,
            files: info.siblings,
        };
        snapshot.remember()?;
        Ok(snapshot)
    }

    /// What the cache holds of a repository at a revision.
    fn cached(&self, kind: RepoType, id: &str, revision: &str) -> Option<Snapshot> {
        let repo = Repo::with_revision(id.into(), kind, revision.into());
        let folder = self.cache.join(repo.folder_name());
        let named = std::fs::read_to_string(folder.join("refs").join(revision));
        let commit = named.map_or(revision.to_owned(), |commit| commit.trim().to_owned());
        let snapshot = folder.join("snapshots").join(&commit);
        let mut files = Vec::new();
        list(&snapshot, &mut PathBuf::new(), &mut files).ok()?;
        Some(Snapshot {
            hub: self.clone(),
            kind,
            id: id.into(),
            revision: revision.into(),
            commit,
            files,
        })
    }

    /// Asks the hub for the commit and the files of a revision.
    fn ask(&self, kind: RepoType, id: &str, revision: &str) -> Result<Info, HubError> {
        let mut response = self
            .api(kind, id, revision)?
            .info_request()
            .query("blobs", "true")
            .config()
            .http_status_as_error(false)
            .build()
            .call()
            .map_err(|error| self.network(&error))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let code = header("x-error-code").unwrap_or_default().to_owned();
        let status = response.status();
        match (status.as_u16(), &*code) {
            (200, _) => {
                let info = response.body_mut().read_json::<Info>();
                info.map_err(|error| self.answer(id, "the description", error.to_string()))
            }
            (_, "RevisionNotFound") => Err(HubError::Revision {
                id: id.into(),
                revision: revision.into(),
            }),
            (_, "GatedRepo") | (403, _) => Err(self.gated(kind, id)),
            // Without access, the hub does not tell whether a private repository exists.
            (401 | 404, _) => Err(HubError::Missing {
                kind: match kind {
                    RepoType::Dataset => "data set",
                    _ => "model",
                },
                id: id.into(),
                endpoint: self.endpoint.clone(),
            }),
            _ => Err(self.answer(id, "the description", format!("with status {status}"))),
        }
    }

    /// A client for a repository.
    fn api(&self, kind: RepoType, id: &str, revision: &str) -> Result<ApiRepo, HubError> {
        let api = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(3)
            .build()
            .map_err(|error| self.answer(id, "a connection", error.to_string()))?;
        Ok(api.repo(Repo::with_revision(id.into(), kind, revision.into())))
    }

    fn gated(&self, kind: RepoType, id: &str) -> HubError {
        let repo = Repo::new(id.into(), kind);
        HubError::Gated {
            id: id.into(),
            url: format!("{}/{}", self.endpoint, repo.url()),
            then: match self.token {
                None => "then set HF_TOKEN to a token of that account",
                Some(_) => "with the account that the token is of",
            },
        }
    }

    fn network(&self, error: &ureq::Error) -> HubError {
        HubError::Network {
            endpoint: self.endpoint.clone(),
            why: error.to_string(),
            cache: self.cache.clone(),
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
    siblings: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes, where the hub tells.
    pub size: Option<u64>,
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    hub: Hub,
    kind: RepoType,
    /// Name.
    pub id: String,
    /// Revision asked for.
    pub revision: String,
    /// Commit that the revision stood for.
    pub commit: String,
    /// All files; without the network, those in the cache.
    pub files: Vec<RemoteFile>,
}

impl Snapshot {
    /// The folder of fetched files.
    pub fn folder(&self) -> PathBuf {
        let repo = Repo::new(self.id.clone(), self.kind);
        let cache = Cache::new(self.hub.cache.clone()).repo(repo);
        cache.pointer_path(&self.commit)
    }

    /// The file of a name, if the repository has it.
    pub fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Path of a file in the cache, fetched if it is not there; an interrupted download is continued.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn fetch(&self, name: &str, progress: &dyn DownloadProgress) -> Result<PathBuf, HubError> {
        let plain = |part: Component| matches!(part, Component::Normal(_));
        if !Path::new(name).components().all(plain) {
            return Err(self
                .hub
                .answer(&self.id, name, "with a path that leads elsewhere".into()));
        }
        let path = self.folder().join(name);
        if path.exists() {
            return Ok(path);
        }
        if self.hub.offline {
            return Err(HubError::Offline {
                id: self.id.clone(),
                what: format!("`{name}`"),
                cache: self.hub.cache.clone(),
            });
        }
        let repo = self.hub.api(self.kind, &self.id, &self.commit)?;
        let size = Cell::new(0);
        let adapter = Adapter {
            progress,
            size: &size,
        };
        let path = repo
            .download_with_progress(name, adapter)
            .map_err(|error| self.explain(name, error))?;
        let len = std::fs::metadata(&path)
            .map_err(|e| self.hub.disk(e))?
            .len();
        if len != size.get() {
            // Removes the link and its target: otherwise the file would be taken for complete the next time.
            let target = path.canonicalize();
            for file in target.iter().chain([&path]) {
                std::fs::remove_file(file).map_err(|e| self.hub.disk(e))?;
            }
            let answer = format!("with {len} bytes in place of {}; try again", size.get());
            return Err(self.hub.answer(&self.id, name, answer));
        }
        Ok(path)
    }

    /// Writes to the cache which commit the revision stands for, for later use without the network.
    fn remember(&self) -> Result<(), HubError> {
        let revision = self.revision.clone();
        let repo = Repo::with_revision(self.id.clone(), self.kind, revision);
        Cache::new(self.hub.cache.clone())
            .repo(repo)
            .create_ref(&self.commit)
            .map_err(|error| self.hub.disk(error))
    }

    /// The error of a failed download of a file.
    fn explain(&self, name: &str, error: ApiError) -> HubError {
        let hub = &self.hub;
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(401 | 403) => hub.gated(self.kind, &self.id),
                ureq::Error::StatusCode(status) => {
                    hub.answer(&self.id, name, format!("with status {status}"))
                }
                error => hub.network(&error),
            },
            ApiError::TooManyRetries(error) => self.explain(name, *error),
            ApiError::IoError(error) if is_of_disk(&error) => hub.disk(error),
            ApiError::IoError(error) => hub.network(&ureq::Error::from(error)),
            other => hub.answer(&self.id, name, other.to_string()),
        }
    }
}

/// Whether an I/O error is of the disk; errors of the network have the same type.
fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    let kinds = [
        FileTooLarge,
        NotADirectory,
        PermissionDenied,
        QuotaExceeded,
        ReadOnlyFilesystem,
        StorageFull,
    ];
    kinds.contains(&error.kind())
}

/// Passes hf-hub's progress on to a [`DownloadProgress`], and remembers the file's size.
struct Adapter<'a> {
    progress: &'a dyn DownloadProgress,
    size: &'a Cell<u64>,
}

impl hf_hub::api::Progress for Adapter<'_> {
    fn init(&mut self, size: usize, file: &str) {
        self.size.set(size as u64);
        self.progress.started(file, size as u64);
    }
    fn update(&mut self, size: usize) {
        self.progress.advanced(size as u64);
    }
    fn finish(&mut self) {
        self.progress.finished();
    }
}

/// Adds the files below `root/inside` to `files`, with paths relative to `root`.
fn list(root: &Path, inside: &mut PathBuf, files: &mut Vec<RemoteFile>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(&inside))? {
        let entry = entry?;
        inside.push(entry.file_name());
        // Follows the cache's links.
        let metadata = std::fs::metadata(entry.path())?;
        if metadata.is_dir() {
            list(root, inside, files)?;
        } else {
            let name = inside.to_string_lossy().into_owned();
            let size = Some(metadata.len());
            files.push(RemoteFile { name, size });
        }
        inside.pop();
    }
    Ok(())
}
