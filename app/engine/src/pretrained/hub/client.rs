//! Requests to the hub: the token goes to the hub's own host alone, redirects are looked at one by one, and
//! nothing is waited for without end.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{Method, Response, Uri};
use ureq::{Agent, Body, Timeout};

/// Redirects that are followed in a row.
const MOST_REDIRECTS: usize = 10;
/// Seconds that a server may be silent, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const PATIENCE: u64 = 30;
/// Bytes a second below which a download is given up.
const SLOWEST: u64 = 1024;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The network, or a server that does not answer.
    Network(String),
    /// Silence, or next to nothing, for too long.
    Slow(String),
    /// An answer that cannot be used; it completes "the hub answered …".
    Answer(String),
}

/// A client for one hub.
pub(super) struct Client {
    agent: Agent,
    origin: Origin,
    token: Option<String>,
    /// How long a server may be silent.
    patience: Duration,
}

impl Client {
    /// A client for the hub at a URL.
    ///
    /// # Errors
    /// An endpoint that is no URL.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self, RequestError> {
        let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok();
        let seconds = seconds.and_then(|seconds| seconds.parse().ok());
        let patience = Duration::from_secs(seconds.filter(|&s| s > 0).unwrap_or(PATIENCE));
        let url: Uri = endpoint.parse().unwrap_or_default();
        let origin = Origin::of(&url)
            .ok_or_else(|| RequestError::Network("it is no http(s) address".into()))?;
        let config = Agent::config_builder()
            .user_agent(concat!("forgetlab/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_send_request(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience));
        Ok(Self {
            agent: config.build().into(),
            origin,
            token: token.map(str::to_owned),
            patience,
        })
    }

    /// The fewest bytes that must arrive in a span of patience.
    pub fn least(&self) -> u64 {
        SLOWEST * self.patience.as_secs()
    }

    /// What a URL of the hub says, wherever it leads.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, RequestError> {
        self.follow(&Method::GET, url, from, true)
    }

    /// What the hub itself says of a file: redirects to other hosts are not followed.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn head(&self, url: &str) -> Result<Response<Body>, RequestError> {
        self.follow(&Method::HEAD, url, None, false)
    }

    fn follow(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        elsewhere: bool,
    ) -> Result<Response<Body>, RequestError> {
        let parsed = url.parse();
        let mut url: Uri =
            parsed.map_err(|error| RequestError::Network(format!("{url}: {error}")))?;
        let mut seen = Vec::new();
        loop {
            let response = self.send(method, &url, from)?;
            if ![301, 302, 303, 307, 308].contains(&response.status().as_u16()) {
                return Ok(response);
            }
            let next = redirect(&url, &response)?;
            if !elsewhere && Origin::of(&next) != Origin::of(&url) {
                return Ok(response);
            }
            seen.push(std::mem::replace(&mut url, next));
            if seen.contains(&url) {
                return Err(RequestError::Answer("with redirects in a circle".into()));
            }
            if seen.len() > MOST_REDIRECTS {
                let answer = format!("with more than {MOST_REDIRECTS} redirects in a row");
                return Err(RequestError::Answer(answer));
            }
        }
    }

    /// Sends one request; a token only where the hub itself is asked.
    fn send(
        &self,
        method: &Method,
        url: &Uri,
        from: Option<u64>,
    ) -> Result<Response<Body>, RequestError> {
        let mut request = match *method {
            Method::HEAD => self.agent.head(url),
            _ => self.agent.get(url),
        };
        if let Some(token) = &self.token
            && Origin::of(url).as_ref() == Some(&self.origin)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| self.explain(url, error))
    }

    /// The error of a request or of reading its body.
    pub fn explain(&self, url: &Uri, error: ureq::Error) -> RequestError {
        let host = url.authority().map_or("", |host| host.as_str());
        match error {
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                let seconds = self.patience.as_secs();
                RequestError::Slow(format!("no connection to {host} within {seconds} s"))
            }
            ureq::Error::Timeout(_) => {
                let seconds = self.patience.as_secs();
                RequestError::Slow(format!("{host} said nothing for {seconds} s"))
            }
            error => RequestError::Network(format!("{host}: {error}")),
        }
    }
}

/// Where a redirect leads.
fn redirect(from: &Uri, response: &Response<Body>) -> Result<Uri, RequestError> {
    let refused = |answer: String| Err(RequestError::Answer(answer));
    let Some(location) = header(response, "location") else {
        let status = response.status();
        return refused(format!("with a redirect that names no place ({status})"));
    };
    let (scheme, host) = (
        from.scheme_str().unwrap_or_default(),
        from.authority().map_or("", |host| host.as_str()),
    );
    let whole = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ => location.to_owned(),
    };
    match whole.parse::<Uri>() {
        Ok(next) if scheme == "https" && next.scheme_str() != Some("https") => {
            refused("with a redirect that leaves https".into())
        }
        Ok(next) if Origin::of(&next).is_some() => Ok(next),
        _ => refused("with a redirect to what is no http(s) address".into()),
    }
}

/// The text of a header.
pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port: who is spoken to.
#[derive(PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    /// The origin of an http(s) URL.
    fn of(url: &Uri) -> Option<Self> {
        let port = match url.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = url.host().filter(|host| !host.is_empty())?;
        let port = url.port_u16().unwrap_or(port);
        let scheme = url.scheme_str()?.to_owned();
        Some(Self(scheme, host.to_ascii_lowercase(), port))
    }
}

/// How fast something arrives, looked at once a span of patience.
pub(super) struct Pace {
    patience: Duration,
    least: u64,
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub fn new(client: &Client) -> Self {
        Self {
            patience: client.patience,
            least: client.least(),
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Notes bytes that arrived.
    ///
    /// # Errors
    /// [`RequestError::Slow`] where too few did since the last look.
    pub fn arrived(&mut self, bytes: usize) -> Result<(), RequestError> {
        self.bytes += bytes as u64;
        let elapsed = self.since.elapsed();
        if elapsed < self.patience {
            return Ok(());
        }
        if self.bytes < self.least {
            let (bytes, seconds) = (self.bytes, elapsed.as_secs());
            return Err(RequestError::Slow(format!(
                "only {bytes} bytes came in {seconds} s"
            )));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// Reads a body of up to `most` bytes.
///
/// # Errors
/// [`RequestError`]; a body that is longer, or too slow, is one.
pub(super) fn read_all(
    client: &Client,
    url: &Uri,
    body: Body,
    most: usize,
) -> Result<Vec<u8>, RequestError> {
    let mut reader = body.into_with_config().limit(u64::MAX).reader();
    let mut pace = Pace::new(client);
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let n = reader
            .read(&mut piece)
            .map_err(|error: io::Error| client.explain(url, error.into()))?;
        if n == 0 {
            return Ok(bytes);
        }
        pace.arrived(n)?;
        bytes.extend_from_slice(&piece[..n]);
        if bytes.len() > most {
            return Err(RequestError::Answer(format!("with more than {most} bytes")));
        }
    }
}

/// A path as a part of a URL: everything but letters, digits, `-_.~/` is escaped.
pub(super) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a token would reach whoever answers on another port, or under a name that only looks the same.
    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().ok()?);
        assert!(origin("https://Hub.co/a") == origin("https://hub.co:443/b?c"));
        for other in [
            "http://hub.co/",
            "https://hub.co:444/",
            "https://hub.co.evil/",
            "https://cdn.hub.co/",
            "https://hub.co@evil/",
        ] {
            assert!(origin("https://hub.co/") != origin(other), "{other}");
        }
        for none in ["/a", "ftp://hub.co/", "file:///etc/passwd"] {
            assert!(origin(none).is_none(), "{none}");
        }
    }
}
