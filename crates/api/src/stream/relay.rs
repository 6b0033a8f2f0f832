//! Carrying bytes between a client and a container until one of them is done.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Client, DetachKeys};

const BUFFER: usize = 32 << 10;

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The container's output ended.
    Finished,
    /// The client pressed the detach keys.
    Detached,
    /// The client can no longer be written to, or its input broke.
    ClientGone,
}

/// Relays both ways. `keys` is given for terminals only. When it returns both sides are shut down or dropped.
pub async fn relay<S>(client: Client, container: S, keys: Option<DetachKeys>) -> End
where
    S: AsyncRead + AsyncWrite + Send,
{
    relay_then(client, container, keys, std::future::ready(Bytes::new())).await
}

/// The same, with a last word to a client that has got all of the output.
pub async fn relay_then<S>(
    client: Client,
    container: S,
    keys: Option<DetachKeys>,
    last: impl Future<Output = Bytes>,
) -> End
where
    S: AsyncRead + AsyncWrite + Send,
{
    let Client {
        mut input,
        mut output,
    } = client;
    let (mut from_container, mut to_container) = tokio::io::split(container);
    let outwards = async {
        let end = match copy(&mut from_container, &mut output).await {
            Copied::All | Copied::ReadFailed => {
                // A client that leaves at the last moment has missed nothing of the output.
                let _ = output.write_all(&last.await).await;
                End::Finished
            }
            Copied::WriteFailed => End::ClientGone,
        };
        let _ = output.shutdown().await;
        end
    };
    let inwards = async {
        match feed(&mut input, &mut to_container, keys).await {
            Ok(true) => return End::Detached,
            // A broken client can't be told; one that only ended its input goes on listening.
            Err(_) => return End::ClientGone,
            Ok(false) => {}
        }
        let _ = to_container.shutdown().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        end = outwards => end,
        end = inwards => end,
    }
}

enum Copied {
    All,
    ReadFailed,
    WriteFailed,
}

async fn copy<R, W>(from: &mut R, to: &mut W) -> Copied
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return Copied::All,
            Ok(length) => length,
            Err(_) => return Copied::ReadFailed,
        };
        let data = buffer.get(..length).unwrap_or_default();
        if to.write_all(data).await.is_err() || to.flush().await.is_err() {
            return Copied::WriteFailed;
        }
    }
}

/// The client's input into the container; true when the detach keys came. A container that takes no more input does not end
/// the relay: its output may still come.
async fn feed<R, W>(from: &mut R, to: &mut W, mut keys: Option<DetachKeys>) -> io::Result<bool>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    let mut open = true;
    loop {
        let length = from.read(&mut buffer).await?;
        let data = buffer.get(..length).unwrap_or_default();
        let (passed, detached) = match &mut keys {
            None => (data.to_vec(), false),
            Some(keys) if length == 0 => (keys.rest(), false),
            Some(keys) => keys.filter(data),
        };
        if open && !passed.is_empty() {
            open = to.write_all(&passed).await.is_ok() && to.flush().await.is_ok();
        }
        if detached {
            return Ok(true);
        }
        if length == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    fn client() -> (Client, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (input, output) = tokio::io::split(ours);
        (
            Client {
                input: Box::pin(input),
                output: Box::pin(output),
            },
            theirs,
        )
    }

    #[tokio::test]
    async fn half_close_reaches_the_container_and_output_goes_on() {
        let (client, mut theirs) = client();
        let (container, mut inside) = tokio::io::duplex(1024);
        let relaying = tokio::spawn(relay(client, container, None));
        theirs.write_all(b"in").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut seen = String::new();
        inside.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "in");
        inside.write_all(b"out").await.unwrap();
        drop(inside);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "out");
        assert_eq!(relaying.await.unwrap(), End::Finished);
    }

    #[tokio::test]
    async fn the_keys_detach() {
        let (client, mut theirs) = client();
        let (container, mut inside) = tokio::io::duplex(1024);
        let relaying = tokio::spawn(relay(client, container, Some(DetachKeys::parse("").unwrap())));
        theirs.write_all(b"a\x10\x11b").await.unwrap();
        assert_eq!(relaying.await.unwrap(), End::Detached);
        let mut seen = String::new();
        inside.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "a");
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_it() {
        let (client, theirs) = client();
        let (container, mut inside) = tokio::io::duplex(1024);
        let relaying = tokio::spawn(relay(client, container, None));
        drop(theirs);
        inside.write_all(b"x").await.unwrap();
        assert_eq!(relaying.await.unwrap(), End::ClientGone);
    }
}
