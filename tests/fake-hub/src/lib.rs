//! A hub on this machine with the endpoints from which models and data sets are fetched.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The commit that every repository's `main` stands for.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

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
        let path = request.path.split('?').next()?;
        let reply = match path.strip_prefix("/api/") {
            Some(path) => self.description(path)?,
            None => self.file(&request, path, own)?,
        };
        stream.write_all(&reply.head()).ok()?;
        stream.write_all(&reply.body[..reply.sent]).ok()
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
        let siblings: Vec<String> = files
            .iter()
            .map(|(name, b)| format!("{{\"rfilename\":{name:?},\"size\":{}}}", b.len()))
            .collect();
        let body = format!(
            "{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}",
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
        if self.gated.contains(&repo) {
            match request.header("authorization") {
                "Bearer good" => {}
                "" => return Some(Reply::error("401 Unauthorized", "GatedRepo")),
                _ => return Some(Reply::error("403 Forbidden", "GatedRepo")),
            }
        }
        let Some(bytes) = self.repos.get(&repo).and_then(|files| files.get(name)) else {
            return Some(Reply::error("404 Not Found", "EntryNotFound"));
        };
        let etag = format!("{}-{}", bytes.len(), name.replace(['/', '.'], "-"));
        let tags = format!("x-repo-commit: {COMMIT}\r\netag: \"{etag}\"\r\n");
        if name.ends_with(".safetensors") && !redirected {
            let location = format!("location: {own}/elsewhere{path}\r\n");
            let headers = format!("{tags}x-linked-etag: \"{etag}\"\r\n{location}");
            return Some(Reply::new("302 Found", &headers, b""));
        }
        let range = request.header("range").strip_prefix("bytes=")?;
        let (from, to) = range.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to = to.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
        if from > to {
            return Some(Reply::new("416 Range Not Satisfiable", "", b""));
        }
        let headers = format!("{tags}content-range: bytes {from}-{to}/{}\r\n", bytes.len());
        let mut reply = Reply::new("206 Partial Content", &headers, &bytes[from..=to]);
        if reply.body.len() > 1
            && let Some(sent) = self.breaks.lock().ok()?.remove(name)
        {
            reply.sent = sent;
        }
        Some(reply)
    }
}

/// The head of an HTTP request.
struct Request {
    head: String,
    path: String,
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
        Some(Self { head, path })
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
