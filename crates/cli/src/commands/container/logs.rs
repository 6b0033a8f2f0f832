//! `logs`: what a container wrote.

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::time;
use crate::session::Session;
use crate::terminal::pump::{Frames, to_standard};
use std::io::ErrorKind;

pub const COMMAND: Command = Command::new(
    "logs",
    "Fetch the logs of a container",
    "[OPTIONS] CONTAINER",
    Arity::Exactly(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("details", "Show the attributes given by the log options"),
    Flag::bool("follow", "Go on with what the container writes").short('f'),
    Flag::text(
        "since",
        "Begin here: a time (2013-01-02T13:23:37Z) or how long ago (42m)",
    ),
    Flag::text("tail", "How many lines from the end")
        .short('n')
        .default("all"),
    Flag::bool("timestamps", "Show when each line was written").short('t'),
    Flag::text(
        "until",
        "End here: a time (2013-01-02T13:23:37Z) or how long ago (42m)",
    ),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let stamp = |flag: &str| {
        time::api_stamp(matches.text(flag).unwrap_or_default())
            .map_err(|error| Failure::text(format!("invalid value for {flag:?}: {error}")))
    };
    let path = Query::new(format!("/containers/{}/logs", segment(matches.arg(0))))
        .flag("details", matches.bool("details"))
        .flag("follow", matches.bool("follow"))
        .text("since", &stamp("since")?)
        .flag("stderr", true)
        .flag("stdout", true)
        .text("tail", matches.text_or_default("tail"))
        .flag("timestamps", matches.bool("timestamps"))
        .text("until", &stamp("until")?)
        .build();
    let reply = session.client.get(&path).await?;
    let raw = match reply.header("content-type") {
        Some("application/vnd.docker.raw-stream") => true,
        Some("application/vnd.docker.multiplexed-stream") => false,
        // A daemon of old does not say; the container's configuration does.
        _ => {
            let path = format!("/containers/{}/json", segment(matches.arg(0)));
            session
                .client
                .get(&path)
                .await?
                .document()
                .await?
                .at(&["Config", "Tty"])
                .flag()
        }
    };
    let mut chunks = reply.stream();
    let mut frames = Frames::default();
    let mut sink = to_standard(true, true);
    while let Some(bytes) = chunks.next().await? {
        let written = if raw {
            sink(1, &bytes)
        } else {
            frames.feed(&bytes, &mut sink)
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(Failure::text(error.to_string())),
        }
    }
    Ok(0)
}
