//! `exec`: another process in a running container.

use super::attach;
use crate::client::hijack::{Hijacked, Upgraded};
use crate::client::query::segment;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::env;
use crate::session::Session;
use crate::terminal::pump::{self, Wanted};
use crate::terminal::{self, signals};
use api_types::{ConsoleSize, ExecInspect, IdResponse};
use serde_json::json;

/// How often a process that seems to run is asked after, and how long it is left alone in between.
const LATE: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
/// As of everything that has no exit code of its own.
const REFUSED: i32 = 125;

pub const COMMAND: Command = Command::new(
    "exec",
    "Execute a command in a running container",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    Arity::AtLeast(2),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::bool("detach", "Run in the background").short('d'),
    Flag::text("detach-keys", "Keys that detach the terminal"),
    Flag::list("env", "Set an environment variable")
        .short('e')
        .check(env::check_env),
    Flag::list("env-file", "Read environment variables from a file"),
    Flag::bool("interactive", "Keep STDIN open even when nobody is attached").short('i'),
    Flag::bool("privileged", "Give the command nearly all rights of the host"),
    Flag::bool("tty", "Give the command a terminal").short('t'),
    Flag::text("user", "User to run as (name|uid[:group|gid])").short('u'),
    Flag::text("workdir", "Directory to run in").short('w'),
]])
.flags_first();

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let client = &session.client;
    let (detach, tty) = (matches.bool("detach"), matches.bool("tty"));
    let stdin = matches.bool("interactive") && !detach;
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::text("the input device is not a TTY")
            .hint("leave out -t when standard input is no terminal"));
    }
    let environment =
        env::environment(matches.list("env-file"), matches.list("env")).map_err(Failure::text)?;
    let size = if tty { terminal::size() } else { None };
    let size = size.map(|(rows, columns)| ConsoleSize([u64::from(rows), u64::from(columns)]));
    let keys = attach::detach_keys(session, matches.text("detach-keys"))?;
    let mut document = json!({
        "User": matches.text("user").unwrap_or_default(),
        "Privileged": matches.bool("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStderr": !detach,
        "AttachStdout": !detach,
        "DetachKeys": "",
        "Env": if environment.is_empty() { json!(null) } else { json!(environment) },
        "WorkingDir": matches.text("workdir").unwrap_or_default(),
        "Cmd": matches.args.get(1..).unwrap_or_default(),
    });
    if let (Some(size), Some(fields)) = (size, document.as_object_mut()) {
        fields.insert("ConsoleSize".into(), json!(size));
    }
    let path = format!("/containers/{}/exec", segment(matches.arg(0)));
    let wanted = Wanted {
        stdin,
        stdout: true,
        stderr: true,
        raw: tty,
        detach: tty.then_some(keys),
    };
    let created = if detach || tty {
        client.post_json(&path, &document).await?
    } else {
        // A daemon that knows this makes, starts and ends the exec in one exchange.
        let bytes = document.to_string().into_bytes();
        match client.upgrade(&path, Some(bytes), "berth-exec").await? {
            Upgraded::Taken(hijacked) => {
                let id = hijacked.exec.clone().unwrap_or_default();
                return stream(session, &id, hijacked, wanted).await;
            }
            Upgraded::Answered(reply) => reply,
        }
    };
    let exec: IdResponse = created.model().await?;
    let id = exec.id;
    let start = json!({ "Detach": detach, "Tty": tty, "ConsoleSize": size });
    let start_path = format!("/exec/{}/start", segment(&id));
    if detach {
        client.post_json(&start_path, &start).await?.done().await?;
        return Ok(0);
    }
    let hijacked = client
        .hijack(&start_path, Some(start.to_string().into_bytes()))
        .await?;
    stream(session, &id, hijacked, wanted).await
}

async fn stream(session: &Session, id: &str, hijacked: Hijacked, wanted: Wanted) -> Outcome {
    let client = &session.client;
    let tty = wanted.raw;
    // A daemon that makes and starts an exec by one request tells its exit code with the output.
    let tells = hijacked.exec.is_some();
    if !tty && !wanted.stdin && !hijacked.bridged {
        return match attach::check_output(pump::output(hijacked))? {
            Some(code) => Ok(code),
            None => exit_code(session, id, tells).await,
        };
    }
    let raw = if tty && wanted.stdin {
        terminal::Raw::enter()
    } else {
        None
    };
    let pump = pump::start(hijacked, wanted).map_err(|error| Failure::text(error.to_string()))?;
    let resize = async {
        match tty && terminal::stdout_is_terminal() {
            true => signals::follow_size(client, format!("/exec/{}/resize", segment(id))).await,
            false => std::future::pending().await,
        }
    };
    let told = tokio::select! {
        output = pump.output => attach::check_output(output.unwrap_or(Ok(None)))?,
        Ok(()) = pump.detached => {
            drop(raw);
            return Err(attach::left());
        }
        () = resize => None,
    };
    drop(raw);
    match told {
        Some(code) => Ok(code),
        None => exit_code(session, id, tells).await,
    }
}

/// Asked for, where it did not come with the output. A process whose output has ended is about to end, or has closed it and
/// goes on, which is a success to Docker's client; of a daemon that `tells` it with the output, the connection was lost.
async fn exit_code(session: &Session, id: &str, tells: bool) -> Outcome {
    for _ in 0..LATE {
        let inspect = inspect(session, id).await.map_err(|failure| lost(id, &failure))?;
        if let Some(code) = inspect.exit_code {
            return Ok(i32::try_from(code).unwrap_or(0));
        }
        if !inspect.running || !tells {
            return Ok(0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(lost(id, &Failure::text("it runs without this client")))
}

async fn inspect(session: &Session, id: &str) -> Result<ExecInspect, Failure> {
    let path = format!("/exec/{}/json", segment(id));
    session.client.get(&path).await?.model().await
}

fn lost(id: &str, why: &Failure) -> Failure {
    let told = Failure::text(format!(
        "the connection to the daemon was lost before the command's exit code was told: {}",
        why.message
    ));
    let told = match why.status {
        // With its container's end it is forgotten.
        Some(404) => told,
        _ => told.hint(format!(
            "the command goes on in its container; as long as that lives, a daemon tells its end at GET /exec/{id}/json"
        )),
    };
    told.with_code(REFUSED)
}
