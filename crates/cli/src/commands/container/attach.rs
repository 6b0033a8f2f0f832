//! `attach`, and what every command that attaches shares.

use super::wait;
use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::session::Session;
use crate::terminal::keys::DetachKeys;
use crate::terminal::pump::{self, Wanted};
use crate::terminal::{self, signals};

pub const COMMAND: Command = Command::new(
    "attach",
    "Attach local standard input, output, and error streams to a running container",
    "[OPTIONS] CONTAINER",
    Arity::Exactly(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::text("detach-keys", "Keys that detach the terminal"),
    Flag::bool("no-stdin", "Do not attach STDIN"),
    Flag::bool("sig-proxy", "Forward signals to the container").default("true"),
]]);

/// The keys that detach: the flag, or the configuration, or ctrl-p ctrl-q.
pub fn detach_keys(session: &Session, flag: Option<&str>) -> Result<DetachKeys, Failure> {
    let text = match flag {
        Some(text) => text.to_owned(),
        // The configuration is read only when a terminal makes the keys matter.
        None if terminal::stdin_is_terminal() => session.config().text("detachKeys").unwrap_or_default(),
        None => String::new(),
    };
    DetachKeys::parse(&text).map_err(Failure::text)
}

/// The path of an attach request.
pub fn path(id: &str, wanted: &Wanted, stream: bool, keys: &str) -> String {
    Query::new(format!("/containers/{}/attach", segment(id)))
        .text("detachKeys", keys)
        .flag("stderr", wanted.stderr)
        .flag("stdin", wanted.stdin)
        .flag("stdout", wanted.stdout)
        .flag("stream", stream)
        .build()
}

/// The end of an output copy: the exit code, where the stream told it.
pub fn check_output(result: std::io::Result<Option<i32>>) -> Result<Option<i32>, Failure> {
    match result {
        // As a program that SIGPIPE ends: the container goes on, the client does not.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::code(141)),
        Err(error) => Err(Failure::text(error.to_string()).with_code(125)),
        Ok(code) => Ok(code),
    }
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    let client = &session.client;
    let inspect = client
        .get(&format!("/containers/{}/json", segment(name)))
        .await?
        .document()
        .await?;
    if !inspect.at(&["State", "Running"]).flag() {
        return Err(Failure::text(
            "cannot attach to a stopped container, start it first",
        ));
    }
    if inspect.at(&["State", "Paused"]).flag() {
        return Err(Failure::text(
            "cannot attach to a paused container, unpause it first",
        ));
    }
    if inspect.at(&["State", "Restarting"]).flag() {
        return Err(Failure::text(
            "cannot attach to a restarting container, wait until it is running",
        ));
    }
    let tty = inspect.at(&["Config", "Tty"]).flag();
    let stdin = !matches.bool("no-stdin") && inspect.at(&["Config", "OpenStdin"]).flag();
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::text("the input device is not a TTY"));
    }
    let keys = detach_keys(session, matches.text("detach-keys"))?;
    let wanted = Wanted {
        stdin,
        stdout: true,
        stderr: true,
        raw: tty,
        detach: tty.then_some(keys),
    };
    let id = inspect.at(&["Id"]).text();
    follow(session, id, wanted, matches.bool("sig-proxy") && !tty).await
}

/// How `attach` and `exec` end when the user typed the keys that detach: with Docker's words and code. `run` and `start`
/// did what they were asked, and succeed.
pub fn left() -> Failure {
    Failure::text("read escape sequence")
}

/// Attaches to a running container until its output ends, and answers with its exit code.
async fn follow(session: &Session, id: &str, wanted: Wanted, proxy: bool) -> Outcome {
    let client = &session.client;
    let tty = wanted.raw;
    let attach_path = path(id, &wanted, true, "");
    let wait_path = wait::path(id, "");
    let caught = proxy.then(signals::Caught::forwarded);
    let (hijacked, waiting) = tokio::join!(client.hijack(&attach_path, None), client.post(&wait_path));
    let (hijacked, waiting) = (hijacked?, waiting?);
    let raw = if tty && wanted.stdin {
        terminal::Raw::enter()
    } else {
        None
    };
    let pump = pump::start(hijacked, wanted).map_err(|error| Failure::text(error.to_string()))?;
    let detached = watch(session, id, pump, caught, tty).await?;
    drop(raw);
    if detached {
        return Err(left());
    }
    wait::finish(waiting).await
}

/// Copies until the output ends (false) or the user detaches (true); forwards signals and sizes meanwhile.
pub async fn watch(
    session: &Session,
    id: &str,
    pump: pump::Pump,
    caught: Option<signals::Caught>,
    tty: bool,
) -> Result<bool, Failure> {
    let forward = async {
        match caught {
            Some(caught) => signals::forward(&session.client, id, caught).await,
            None => std::future::pending().await,
        }
    };
    let resize = async {
        match tty && terminal::stdout_is_terminal() {
            true => {
                signals::follow_size(&session.client, format!("/containers/{}/resize", segment(id))).await;
            }
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        output = pump.output => { check_output(output.unwrap_or(Ok(None)))?; Ok(false) }
        Ok(()) = pump.detached => Ok(true),
        () = forward => Ok(false),
        () = resize => Ok(false),
    }
}
