//! `run`: create, attach, wait, start, and copy until the container is done.
//!
//! Order on the wire: create → attach and wait (side by side, each on its own connection) → start. Both must be under
//! way before the start, or the output or exit of a short-lived container would be missed.

use super::create::{self, refused};
use super::timings::Timings;
use super::{attach, config, flags, wait};
use crate::client::body::Body;
use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::session::{Session, say};
use crate::terminal::pump::Wanted;
use crate::terminal::{self, pump, signals};
use http::Method;
use std::time::Duration;

pub const COMMAND: Command = Command::new(
    "run",
    "Create and run a new container from an image",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[flags::CONTAINER, flags::RUN])
.flags_first()
.refuses();

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let mut timings = Timings::begin(matches.bool("timings"));
    let detach = matches.bool("detach");
    if detach && matches.changed("attach") {
        return Err(Failure::text(
            "conflicting options: cannot specify both --attach and --detach",
        ));
    }
    let mut request = config::request(matches).map_err(refused)?;
    let (mut stdin, tty) = (request.config.attach_stdin, request.config.tty);
    if detach {
        let config = &mut request.config;
        config.attach_stdin = false;
        config.attach_stdout = false;
        config.attach_stderr = false;
        config.stdin_once = false;
        stdin = false;
    } else if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::text("the input device is not a TTY")
            .hint("leave out -t when standard input is no terminal"));
    }
    let keys = attach::detach_keys(session, matches.text("detach-keys"))?;
    let refuse = |failure: Failure| {
        if failure.message.is_empty() {
            failure
        } else {
            failure.with_code(125)
        }
    };
    let id = create::create(session, matches, &mut request)
        .await
        .map_err(refuse)?;
    timings.end("create");
    if detach {
        let started = start(session, &id, &mut timings).await.map_err(start_code);
        // The container is there, whatever became of its start.
        say(&id)?;
        timings.show();
        return started.map(|()| 0);
    }
    let config = &request.config;
    let remove = request.host_config.as_ref().is_some_and(|host| host.auto_remove);
    let wanted = Wanted {
        stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        raw: tty,
        detach: tty.then_some(keys),
    };
    let proxy = matches.bool("sig-proxy");
    let outcome = attached(session, &id, wanted, remove, proxy, &mut timings).await;
    timings.show();
    outcome
}

async fn attached(
    session: &Session,
    id: &str,
    wanted: Wanted,
    remove: bool,
    proxy: bool,
    timings: &mut Timings,
) -> Outcome {
    let client = &session.client;
    let refuse = |failure: Failure| failure.with_code(125);
    let (stdin, tty) = (wanted.stdin, wanted.raw);
    let attach_path = attach::path(id, &wanted, true, "");
    let wait_path = wait::path(id, if remove { "removed" } else { "next-exit" });
    let caught = proxy.then(signals::Caught::forwarded);
    let (hijacked, waiting) = tokio::join!(client.hijack(&attach_path, None), client.post(&wait_path));
    let (mut hijacked, waiting) = (hijacked.map_err(refuse)?, waiting.map_err(refuse)?);
    hijacked.multiplexed = Some(!tty);
    let raw = if tty && stdin {
        terminal::Raw::enter()
    } else {
        None
    };
    let pump =
        pump::start(hijacked, wanted).map_err(|error| Failure::text(error.to_string()).with_code(125))?;
    timings.end("attach");
    if let Err(failure) = start(session, id, timings).await {
        drop(raw);
        if remove {
            // The engine removes it; wait for that, so that its name is free when the client ends.
            let _ = tokio::time::timeout(Duration::from_secs(10), waiting.done()).await;
        }
        return Err(start_code(failure));
    }
    let detached = attach::watch(session, id, pump, caught, tty).await?;
    drop(raw);
    if detached {
        return Ok(0);
    }
    let outcome = wait::finish(waiting).await;
    timings.end(if remove { "run and remove" } else { "run" });
    outcome
}

pub async fn start(session: &Session, id: &str, timings: &mut Timings) -> Result<(), Failure> {
    let path = Query::new(format!("/containers/{}/start", segment(id))).build();
    let reply = session
        .client
        .send(Method::POST, &path, timings.headers(), Body::empty())
        .await?;
    timings.end_with("start", reply.header("server-timing"));
    reply.done().await
}

/// The exit code that tells why a container could not start.
pub fn start_code(failure: Failure) -> Failure {
    let text = failure.message.to_lowercase();
    let code = if text.contains("executable file not found")
        || text.contains("no such file or directory")
        || text.contains("system cannot find the file specified")
    {
        127
    } else if ["permission denied", "is a directory", "exec format error"]
        .iter()
        .any(|words| text.contains(words))
    {
        126
    } else {
        125
    };
    failure.with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_failed_starts() {
        let code = |text: &str| start_code(Failure::text(text)).code;
        assert_eq!(
            code("exec: \"x\": executable file not found in $PATH: unknown"),
            127
        );
        assert_eq!(code("exec: \"/etc\": permission denied"), 126);
        assert_eq!(code("exec: \"/\": is a directory"), 126);
        assert_eq!(code("exec /x: exec format error (for aarch64)"), 126);
        assert_eq!(code("port is already allocated"), 125);
    }
}
