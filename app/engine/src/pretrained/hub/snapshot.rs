//! A repository at one commit, and the download of its files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::Uri;

use super::cache::{Digest, is_tag, stays_inside};
use super::client::{Client, Escaped, Pace, RequestError, header};
use super::{DownloadProgress, Hub, HubError, Kind, RemoteFile};

/// Failures in a row, nothing having arrived between them, after which a download is given up.
const MOST_FAILURES: u32 = 4;

/// A repository at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) hub: Hub,
    pub(super) kind: Kind,
    /// Name.
    pub id: String,
    /// Revision asked for.
    pub revision: String,
    /// Commit that the revision stood for.
    pub commit: String,
    /// All files of the commit; without its listing, those in the cache.
    pub files: Vec<RemoteFile>,
    /// Whether `files` are all that the commit has, by the hub's word.
    pub is_listed: bool,
}

/// What the hub says of a file before it is fetched.
struct Metadata {
    /// Name of its content in the cache.
    tag: String,
    size: Option<u64>,
}

/// Why a piece of a download failed.
enum Failure {
    Request(RequestError),
    /// An answer that the hub may not give again.
    Busy(String),
    Disk(io::Error),
    Denied,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Snapshot {
    /// The folder of fetched files.
    pub fn folder(&self) -> PathBuf {
        self.hub.repo(self.kind, &self.id).snapshot(&self.commit)
    }

    /// The file of a name, if the repository has it.
    pub fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Whether a file is in the cache.
    pub fn has(&self, name: &str) -> bool {
        self.folder().join(name).exists()
    }

    /// Path of a file in the cache, fetched if it is not there; an interrupted download is continued. The content
    /// is what the hub promised, by its hash where one is known, else by its size.
    ///
    /// # Errors
    /// [`HubError`]
    pub fn fetch(&self, name: &str, progress: &dyn DownloadProgress) -> Result<PathBuf, HubError> {
        if !stays_inside(name) {
            return Err(self.answer(name, "with a path that leads elsewhere".into()));
        }
        let path = self.folder().join(name);
        if path.exists() {
            self.check(name, &path)?;
            return Ok(path);
        }
        if self.hub.offline {
            let blob = fs::read_link(&path).ok();
            let link = blob.map_or(String::new(), |blob| {
                format!(
                    ", whose link leads to {}, which is not there,",
                    blob.display()
                )
            });
            return Err(HubError::Offline {
                id: self.id.clone(),
                what: format!("`{name}`{link}"),
                cache: self.hub.cache.clone(),
            });
        }
        self.download(name, progress)
    }

    /// Checks that a file in the cache is what was fetched.
    fn check(&self, name: &str, path: &Path) -> Result<(), HubError> {
        let blob = fs::read_link(path).ok();
        let tag = blob.as_ref().and_then(|blob| blob.file_name()?.to_str());
        let file = self.file(name);
        let disk = |error| self.hub.disk(error);
        let damaged = |why: String| {
            Err(HubError::Damaged {
                path: path.into(),
                why,
                remove: path.canonicalize().unwrap_or_else(|_| path.into()),
            })
        };
        let len = fs::metadata(path).map_err(disk)?.len();
        if let Some(size) = file.and_then(|file| file.size).filter(|&size| size != len) {
            return damaged(format!("it has {len} bytes in place of {size}"));
        }
        let Some(digest) = Digest::of(file, tag) else {
            return Ok(());
        };
        match digest.differs(path).map_err(disk)? {
            Some(found) => damaged(format!(
                "its {} is {found} in place of {}",
                digest.kind(),
                digest.hex()
            )),
            None => Ok(()),
        }
    }

    fn download(&self, name: &str, progress: &dyn DownloadProgress) -> Result<PathBuf, HubError> {
        let explain = |failure| self.explain(name, failure);
        let client = self.hub.client().map_err(|error| explain(error.into()))?;
        let page = self.kind.page(&self.id);
        let (endpoint, commit) = (&self.hub.endpoint, &self.commit);
        let url = format!("{endpoint}/{page}/resolve/{commit}/{}", Escaped(name));
        let metadata = self.metadata(&client, &url, name).map_err(explain)?;
        let repo = self.hub.repo(self.kind, &self.id);
        let (tag, blob) = (&metadata.tag, repo.blob(&metadata.tag));
        let disk = |error| self.hub.disk(error);
        let was_there = blob.exists();
        if !was_there {
            let mut partial = Partial::open(&blob).map_err(disk)?;
            let download = Download {
                client: &client,
                url: &url,
                name,
                size: metadata.size,
                progress,
            };
            download.complete(&mut partial).map_err(explain)?;
            self.verify(&partial, &metadata, name)?;
            fs::rename(&partial.path, &blob).map_err(disk)?;
            progress.finished();
        }
        let path = repo.link(tag, &self.commit, name).map_err(disk)?;
        if was_there {
            self.check(name, &path)?;
        }
        Ok(path)
    }

    /// Asks the hub for the tag and the size of a file.
    fn metadata(&self, client: &Client, url: &str, name: &str) -> Result<Metadata, Failure> {
        let response = client.head(url)?;
        let status = response.status().as_u16();
        if !(200..400).contains(&status) {
            return Err(refusal(status));
        }
        let answer = |answer: &str| Err(RequestError::Answer(answer.into()).into());
        if header(&response, "x-repo-commit").is_some_and(|commit| commit != self.commit) {
            return answer("with the file of another commit");
        }
        let tag = header(&response, "x-linked-etag").or(header(&response, "etag"));
        let Some(tag) = tag else {
            return answer("without an ETag");
        };
        let tag = tag.trim_start_matches("W/").trim_matches('"');
        if !is_tag(tag) {
            return answer("with an ETag that is none");
        }
        let listed = self.file(name);
        let sha256 = listed.and_then(|file| file.sha256.as_deref());
        if tag.len() == 64 && sha256.is_some_and(|sha256| sha256 != tag) {
            return answer("with another hash than it lists");
        }
        let len = match status {
            200 => header(&response, "content-length"),
            _ => None,
        };
        let size = header(&response, "x-linked-size").or(len);
        Ok(Metadata {
            tag: tag.to_owned(),
            size: listed
                .and_then(|file| file.size)
                .or_else(|| size?.parse().ok()),
        })
    }

    /// Checks that what has arrived is what the hub promised; removes it otherwise.
    fn verify(&self, partial: &Partial, metadata: &Metadata, name: &str) -> Result<(), HubError> {
        let disk = |error| self.hub.disk(error);
        let len = partial.file.metadata().map_err(disk)?.len();
        let digest = Digest::of(self.file(name), Some(&metadata.tag));
        let differs = digest.as_ref().map(|digest| digest.differs(&partial.path));
        let wrong = match (metadata.size, differs.transpose().map_err(disk)?.flatten()) {
            (Some(size), _) if size != len => {
                format!("with {len} bytes in place of {size}; try again")
            }
            (_, Some(found)) => format!(
                "with other content than it promised: its {} is {found} in place of {}; try again",
                digest.as_ref().map_or("hash", Digest::kind),
                digest.as_ref().map_or("", Digest::hex)
            ),
            _ => return Ok(()),
        };
        fs::remove_file(&partial.path).map_err(disk)?;
        Err(self.answer(name, wrong))
    }

    fn answer(&self, name: &str, answer: String) -> HubError {
        self.hub.answer(&self.id, &format!("`{name}`"), answer)
    }

    fn explain(&self, name: &str, failure: Failure) -> HubError {
        match failure {
            Failure::Request(error) => self.hub.failed(&self.id, &format!("`{name}`"), error),
            Failure::Busy(answer) => self.answer(name, answer),
            Failure::Disk(error) => self.hub.disk(error),
            Failure::Denied => self.hub.gated(self.kind, &self.id),
        }
    }
}

/// The failure that a status other than success stands for.
fn refusal(status: u16) -> Failure {
    let answer = format!("with status {status}");
    match status {
        401 | 403 => Failure::Denied,
        408 | 429 | 500..=599 => Failure::Busy(answer),
        _ => RequestError::Answer(answer).into(),
    }
}

/// The download of one file.
struct Download<'a> {
    client: &'a Client,
    url: &'a str,
    name: &'a str,
    size: Option<u64>,
    progress: &'a dyn DownloadProgress,
}

impl Download<'_> {
    /// Fetches what is missing of a file, trying again where a connection breaks.
    fn complete(&self, partial: &mut Partial) -> Result<(), Failure> {
        let mut failures = 0;
        loop {
            let before = partial.file.metadata()?.len();
            let Err(failure) = self.fetch_rest(partial) else {
                return Ok(());
            };
            let arrived = partial.file.metadata()?.len().saturating_sub(before);
            let is_further = arrived >= self.client.least();
            failures = if is_further { 1 } else { failures + 1 };
            let again = match &failure {
                Failure::Request(RequestError::Network(_)) | Failure::Busy(_) => {
                    failures < MOST_FAILURES
                }
                // Silence after a good part is worth another connection.
                Failure::Request(RequestError::Slow(_)) => is_further,
                _ => false,
            };
            if !again {
                return Err(failure);
            }
            thread::sleep(Duration::from_millis(150 << failures));
        }
    }

    /// Appends what is missing of a file to what is there.
    fn fetch_rest(&self, partial: &mut Partial) -> Result<(), Failure> {
        let there = partial.file.metadata()?.len();
        let mut from = match self.size {
            Some(size) if there > size => 0,
            _ => there,
        };
        if self.size == Some(from) {
            self.begin(from);
            return Ok(());
        }
        let response = self.client.get(self.url, (from > 0).then_some(from))?;
        match response.status().as_u16() {
            200 => from = 0,
            206 if starts_at(header(&response, "content-range"), from) => {}
            206 => return Err(RequestError::Answer("with another part".into()).into()),
            status => return Err(refusal(status)),
        }
        self.begin(from);
        partial.file.set_len(from)?;
        partial.file.seek(SeekFrom::Start(from))?;
        let url: Uri = self.url.parse().unwrap_or_default();
        let body = response.into_body().into_with_config().limit(u64::MAX);
        let (mut reader, mut piece) = (body.reader(), vec![0; 1 << 16]);
        let mut pace = Pace::new(self.client);
        loop {
            let n = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Err(self.client.explain(&url, error.into()).into()),
            };
            partial.file.write_all(&piece[..n])?;
            self.progress.advanced(n as u64);
            from += n as u64;
            pace.arrived(n)?;
            if self.size.is_some_and(|size| from > size) {
                return Err(RequestError::Answer("with more bytes than it promised".into()).into());
            }
        }
        match self.size {
            Some(size) if from < size => {
                let why = format!("the connection ended {} bytes early", size - from);
                Err(RequestError::Network(why).into())
            }
            _ => Ok(()),
        }
    }

    fn begin(&self, from: u64) {
        self.progress.started(self.name, self.size.unwrap_or(0));
        self.progress.advanced(from);
    }
}

/// Whether a `Content-Range` begins at a position.
fn starts_at(range: Option<&str>, from: u64) -> bool {
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    first.is_some_and(|(first, _)| first.parse() == Ok(from))
}

/// A file that is being fetched, under a temporary name.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// What is there of a blob already, unless another process is fetching it: then a new file.
    fn open(blob: &Path) -> io::Result<Self> {
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder)?;
        }
        let open = |suffix: &str| -> io::Result<Self> {
            let mut path = blob.as_os_str().to_owned();
            path.push(suffix);
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).open(&path)?;
            Ok(Self {
                path: path.into(),
                file,
            })
        };
        let partial = open(".incomplete")?;
        match partial.file.try_lock() {
            Ok(()) => Ok(partial),
            Err(_) => open(&format!(".{}.incomplete", std::process::id())),
        }
    }
}
