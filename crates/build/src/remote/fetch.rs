//! A file from a web server: fetched into an unnamed file, digested on the way, bounded.
//!
//! The file has no name, so nothing of it stays, whatever happens. Servers are foreign: redirects are limited,
//! the size is bounded, a promised digest is checked before anything is used.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use spec::{Digest, ErrorClass, Hasher};
use tokio_util::sync::CancellationToken;

use crate::error::BuildError;

/// The largest file that is fetched.
const MAX_SIZE: u64 = 16 << 30;
const CONNECT: Duration = Duration::from_secs(30);
/// A server that sends nothing for this long has broken off.
const SILENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;

/// A fetched file.
pub struct Fetched {
    /// The last part of the URL, where that is usable as a file's name.
    pub name: Option<String>,
    pub digest: Digest,
    /// Seconds since 1970 as the server says, 0 if it does not.
    pub modified: i64,
    file: File,
}

impl Fetched {
    /// The file from its beginning, with a position of its own.
    pub fn open(&self) -> io::Result<File> {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Whether a source of ADD is fetched.
pub fn is_url(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Fetches `url`; `room` is a directory on the disk that shall take it.
pub async fn fetch(
    url: &str,
    checksum: Option<&Digest>,
    room: &Path,
    stop: &CancellationToken,
) -> Result<Fetched, BuildError> {
    tokio::select! {
        fetched = get(url, checksum, room) => fetched,
        () = stop.cancelled() => Err(BuildError::Cancelled),
    }
}

fn failed(url: &str, why: impl std::fmt::Display) -> BuildError {
    BuildError::step(
        format!("{}: {why}", without_password(url)),
        ErrorClass::Unavailable,
    )
}

/// The URL without a password it may hold.
pub fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Only URLs without a host refuse this, and those have no password.
            let _ = parsed.set_password(Some("xxxxx"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

async fn get(url: &str, checksum: Option<&Digest>, room: &Path) -> Result<Fetched, BuildError> {
    let parsed = url::Url::parse(url)
        .map_err(|error| BuildError::invalid(format!("{}: {error}", without_password(url))))?;
    let mut response = client()?
        .get(parsed)
        .send()
        .await
        .map_err(|error| failed(url, without_url(error)))?;
    if !response.status().is_success() {
        let status = response.status();
        let text = format!(
            "{} {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        );
        let class = match status.as_u16() {
            401 => ErrorClass::Unauthorized,
            403 => ErrorClass::Forbidden,
            404 | 410 => ErrorClass::NotFound,
            _ => ErrorClass::Unavailable,
        };
        let text = format!("{}: the server answered {}", without_password(url), text.trim());
        return Err(BuildError::step(text, class));
    }
    let name = file_name(response.url());
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let modified = header("last-modified")
        .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
        .map_or(0, |time| time.timestamp().as_second());
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file: File = rustix::fs::open(room, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| BuildError::io("making a temporary file", &error.into()))?
        .into();
    let algorithm = checksum.cloned();
    let mut hasher = algorithm.as_ref().map_or_else(Hasher::new, Hasher::like);
    let mut size = 0;
    while let Some(bytes) = response
        .chunk()
        .await
        .map_err(|error| failed(url, without_url(error)))?
    {
        size += bytes.len() as u64;
        if size > MAX_SIZE {
            return Err(failed(url, format!("larger than {MAX_SIZE} bytes")));
        }
        hasher.update(&bytes);
        // The page cache takes it; a disk that is behind slows this one build down.
        file.write_all(&bytes)
            .map_err(|error| BuildError::io(format_args!("storing {}", without_password(url)), &error))?;
    }
    file.rewind()
        .map_err(|error| BuildError::io(format_args!("storing {}", without_password(url)), &error))?;
    let digest = hasher.finish();
    if let Some(wanted) = checksum
        && *wanted != digest
    {
        let message = format!(
            "digest mismatch {digest}: {wanted} was promised for {}",
            without_password(url)
        );
        return Err(BuildError::invalid(message));
    }
    Ok(Fetched {
        name,
        digest,
        modified,
        file,
    })
}

/// The URL is named already, and may hold a password.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

fn file_name(url: &url::Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    let name = last.trim();
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['\0', '/']);
    plain.then(|| name.to_owned())
}

/// One client for all builds; the system's certificates are read at its first use.
fn client() -> Result<reqwest::Client, BuildError> {
    static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        let tls = tls::client(tls::Trust::Host, None).map_err(|error| error.to_string())?;
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .build()
            .map_err(|error| error.to_string())
    });
    made.clone()
        .map_err(|error| BuildError::step(format!("no HTTP client: {error}"), ErrorClass::Internal))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sources_are_told_apart() {
        assert!(is_url("HTTPS://h/x"));
        assert!(!is_url("httpx"));
        let name = |text: &str| file_name(&url::Url::parse(text).unwrap());
        assert_eq!(name("http://h/a/b.txt?x=1").as_deref(), Some("b.txt"));
        assert_eq!(name("http://h/"), None);
        assert_eq!(name("http://h/a/"), None);
    }

    /// Answers one request with `body` and goes.
    fn server(status: &'static str, body: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(body));
        });
        format!("http://{address}/dir/file.txt")
    }

    #[tokio::test]
    async fn files_are_fetched_and_checked() {
        let room = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let wanted = Digest::sha256(b"hello");
        let url = server("200 OK", b"hello");
        let fetched = fetch(&url, Some(&wanted), room.path(), &stop).await.unwrap();
        assert_eq!(
            (fetched.name.as_deref(), fetched.modified),
            (Some("file.txt"), 784_111_777)
        );
        let mut text = String::new();
        fetched.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let url = server("200 OK", b"other");
        let error = fetch(&url, Some(&wanted), room.path(), &stop)
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("digest mismatch"), "{error}");
        let url = server("404 Not Found", b"");
        let error = fetch(&url, None, room.path(), &stop).await.err().unwrap();
        assert!(
            error.to_string().contains("the server answered 404 Not Found"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
    }
}
