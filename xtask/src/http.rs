//! Just enough of an HTTP client to talk to the demonstration's own application.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Sends one request and gives status and body.
pub fn request(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .with_context(|| format!("no answer from {address}{path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("the answer has no status")?;
    Ok((status, body.to_owned()))
}

/// Asks again until the path answers 200.
pub fn wait_until_ready(address: &str, path: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match request(address, "GET", path, "") {
            Ok((200, _)) => return Ok(()),
            Ok((status, body)) if Instant::now() > deadline => {
                bail!("{address}{path} answers {status}: {body}")
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
