//! The engine as a whole.

pub mod check;
pub mod events;
pub mod info;
pub mod prune;
pub mod usage;
pub mod version;

use crate::client::hijack::Hijacked;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::session::Session;

/// For ssh: a raw connection to the daemon on stdin and stdout.
pub const DIAL_STDIO: Command = Command::new(
    "dial-stdio",
    "Connect STDIN and STDOUT to the daemon's socket",
    "",
    Arity::Exactly(0),
    |session, matches| Box::pin(dial(session, matches)),
);

async fn dial(session: &Session, _: &Matches) -> Outcome {
    let socket = session.client.raw().await?;
    let failed = |error: std::io::Error| Failure::text(format!("cannot copy: {error}"));
    let mut sender = socket.try_clone().map_err(failed)?;
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut sender);
            Hijacked::close_write(&sender);
        })
        .map_err(failed)?;
    let copy = move || {
        let mut socket = socket;
        std::io::copy(&mut socket, &mut std::io::stdout().lock()).map(|_| ())
    };
    match tokio::task::spawn_blocking(copy).await {
        Ok(Ok(())) => Ok(0),
        Ok(Err(error)) => Err(failed(error)),
        Err(error) => Err(Failure::text(error.to_string())),
    }
}
