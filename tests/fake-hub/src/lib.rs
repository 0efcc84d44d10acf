//! A hub on this machine with the endpoints from which models and data sets are fetched.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// The commit that every repository's `main` stands for.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a hub may do to those who ask it.
#[derive(Clone, Debug)]
pub enum Evil {
    /// Weights are redirected to another address.
    Elsewhere(String),
    /// The commit that descriptions name.
    Commit(String),
    /// The tag of every file.
    Tag(String),
    /// A redirect of weights names no place.
    NoPlace,
    /// A redirect of weights leads back to them.
    Circle,
    /// Descriptions are never answered.
    Silent,
    /// Weights stop after some bytes, and the connection stays open.
    Stall,
    /// Weights come byte by byte.
    Drip,
    /// One bit of the weights is another.
    OtherBit,
}

/// Repositories, and the requests for them.
#[derive(Default)]
pub struct FakeHub {
    /// Files by repository (`models/ORG/NAME`, `datasets/ORG/NAME`) and path.
    pub repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Repositories whose files need the token `good`.
    pub gated: Vec<String>,
    /// Bytes of a file that are sent before the connection breaks, once.
    pub breaks: Mutex<BTreeMap<String, usize>>,
    /// Requests, `PATH RANGE`.
    pub requests: Mutex<Vec<String>>,
    /// Paths of the requests that came with a token.
    pub with_token: Mutex<Vec<String>>,
    /// What it does that no hub should.
    pub evil: Option<Evil>,
}

impl FakeHub {
    /// Adds a repository.
    pub fn with(mut self, repo: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let files = files
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.clone()));
        self.repos.insert(repo.into(), files.collect());
        self
    }

    /// Serves until the process ends; returns the address.
    pub fn serve(self) -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = format!("http://{}", listener.local_addr().expect("address"));
        let hub = Arc::new(self);
        let (served, own) = (hub.clone(), address.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (hub, own) = (served.clone(), own.clone());
                // A client that hangs up early is no error.
                thread::spawn(move || hub.answer(stream, &own));
            }
        });
        (address, hub)
    }

    /// Requests so far that contain a text.
    pub fn asked(&self, text: &str) -> Vec<String> {
        let requests = self.requests.lock().expect("lock");
        requests
            .iter()
            .filter(|request| request.contains(text))
            .cloned()
            .collect()
    }

    /// Reads a request and answers it; `None` if the client hangs up.
    fn answer(&self, mut stream: TcpStream, own: &str) -> Option<()> {
        let request = Request::read(&mut stream)?;
        let asked = format!("{} {}", request.path, request.header("range"));
        self.requests.lock().ok()?.push(asked.trim_end().into());
        if !request.header("authorization").is_empty() {
            self.with_token.lock().ok()?.push(request.path.clone());
        }
        let path = request.path.split('?').next()?;
        let reply = match path.strip_prefix("/api/") {
            Some(path) => self.description(path)?,
            None => self.file(&request, path, own)?,
        };
        stream.write_all(&reply.head()).ok()?;
        if request.is_head {
            return Some(());
        }
        let body = &reply.body[..reply.sent];
        let is_weights = path.contains("/elsewhere/") && path.ends_with(".safetensors");
        match &self.evil {
            Some(Evil::Stall) if is_weights => {
                stream.write_all(&body[..body.len().min(500)]).ok()?;
                wait()
            }
            Some(Evil::Drip) if is_weights => body.iter().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(50));
                stream.write_all(&[*byte]).ok()
            }),
            _ => stream.write_all(body).ok(),
        }
    }

    /// The description of a repository: `models/ORG/NAME/revision/main`.
    fn description(&self, path: &str) -> Option<Reply> {
        let (repo, revision) = path.split_once("/revision/")?;
        let Some(files) = self.repos.get(repo) else {
            // As the hub answers without access.
            return Some(Reply::error("401 Unauthorized", "RepoNotFound"));
        };
        if ![COMMIT, "main"].contains(&revision) {
            return Some(Reply::error("404 Not Found", "RevisionNotFound"));
        }
        let commit = match &self.evil {
            Some(Evil::Silent) => wait()?,
            Some(Evil::Commit(commit)) => commit,
            _ => COMMIT,
        };
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let (len, git) = (bytes.len(), git_hash(bytes));
            let lfs = match is_large(name) {
                true => format!(
                    ",\"lfs\":{{\"sha256\":\"{}\",\"size\":{len}}}",
                    sha256(bytes)
                ),
                false => String::new(),
            };
            format!("{{\"rfilename\":{name:?},\"size\":{len},\"blobId\":\"{git}\"{lfs}}}")
        };
        let siblings: Vec<String> = files.iter().map(sibling).collect();
        let body = format!(
            "{{\"sha\":{commit:?},\"siblings\":[{}]}}",
            siblings.join(",")
        );
        Some(Reply::new("200 OK", "", body.as_bytes()))
    }

    /// A file, `/ORG/NAME/resolve/main/FILE`; weights are redirected elsewhere, as on the hub.
    fn file(&self, request: &Request, path: &str, own: &str) -> Option<Reply> {
        let (redirected, path) = match path.strip_prefix("/elsewhere") {
            Some(path) => (true, path),
            None => (false, path),
        };
        let (repo, file) = path.trim_start_matches('/').split_once("/resolve/")?;
        let repo = if repo.starts_with("datasets/") {
            repo.to_owned()
        } else {
            format!("models/{repo}")
        };
        let (_, name) = file.split_once('/')?;
        if self.gated.contains(&repo) && !redirected {
            match request.header("authorization") {
                "Bearer good" => {}
                "" => return Some(Reply::error("401 Unauthorized", "GatedRepo")),
                _ => return Some(Reply::error("403 Forbidden", "GatedRepo")),
            }
        }
        let Some(bytes) = self.repos.get(&repo).and_then(|files| files.get(name)) else {
            return Some(Reply::error("404 Not Found", "EntryNotFound"));
        };
        let tag = match &self.evil {
            Some(Evil::Tag(tag)) => tag.clone(),
            _ if is_large(name) => sha256(bytes),
            _ => git_hash(bytes),
        };
        if is_large(name) && !redirected {
            let location = match &self.evil {
                Some(Evil::NoPlace) => String::new(),
                Some(Evil::Circle) => format!("location: {path}\r\n"),
                Some(Evil::Elsewhere(other)) => format!("location: {other}/elsewhere{path}\r\n"),
                _ => format!("location: {own}/elsewhere{path}\r\n"),
            };
            let headers = format!(
                "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{tag}\"\r\nx-linked-size: {}\r\n{location}",
                bytes.len()
            );
            return Some(Reply::new("302 Found", &headers, b""));
        }
        let tags = format!("x-repo-commit: {COMMIT}\r\netag: \"{tag}\"\r\n");
        let mut bytes = bytes.clone();
        if let (Some(Evil::OtherBit), true, Some(last)) =
            (&self.evil, is_large(name), bytes.last_mut())
        {
            *last ^= 1;
        }
        let Some(from) = request.header("range").strip_prefix("bytes=") else {
            let reply = Reply::new("200 OK", &tags, &bytes);
            return Some(match request.is_head {
                true => reply,
                false => self.cut(name, reply),
            });
        };
        let from: usize = from.trim_end_matches('-').parse().ok()?;
        if from >= bytes.len() {
            return Some(Reply::new("416 Range Not Satisfiable", "", b""));
        }
        let (last, len) = (bytes.len() - 1, bytes.len());
        let headers = format!("{tags}content-range: bytes {from}-{last}/{len}\r\n");
        let reply = Reply::new("206 Partial Content", &headers, &bytes[from..]);
        Some(self.cut(name, reply))
    }

    /// A reply that breaks off where it should.
    fn cut(&self, name: &str, mut reply: Reply) -> Reply {
        if let Some(sent) = self.breaks.lock().ok().and_then(|mut b| b.remove(name)) {
            reply.sent = sent;
        }
        reply
    }
}

/// Whether a file is in large file storage.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Git's hash of a blob.
pub fn git_hash(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says nothing for as long as tests may take.
fn wait<T>() -> Option<T> {
    thread::sleep(Duration::from_secs(120));
    None
}

/// The head of an HTTP request.
struct Request {
    head: String,
    path: String,
    is_head: bool,
}

impl Request {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let is_head = head.starts_with("HEAD ");
        Some(Self {
            head,
            path,
            is_head,
        })
    }

    /// The value of a header; empty if it is missing.
    fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        value.unwrap_or_default()
    }
}

/// An HTTP response.
struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is closed.
    sent: usize,
}

impl Reply {
    fn new(status: &'static str, headers: &str, body: &[u8]) -> Self {
        Self {
            status,
            headers: headers.into(),
            body: body.into(),
            sent: body.len(),
        }
    }

    /// An error as the hub answers it.
    fn error(status: &'static str, code: &str) -> Self {
        Self::new(status, &format!("x-error-code: {code}\r\n"), b"")
    }

    fn head(&self) -> Vec<u8> {
        let (status, len, headers) = (self.status, self.body.len(), &self.headers);
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n"
        );
        head.into_bytes()
    }
}
