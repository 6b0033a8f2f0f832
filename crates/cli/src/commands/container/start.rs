//! `start`: starts stopped containers, one of them attached if asked.

use super::timings::Timings;
use super::{attach, run, wait};
use crate::client::query::segment;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::session::{Session, say};
use crate::terminal::pump::{self, Wanted};
use crate::terminal::{self, signals};

pub const COMMAND: Command = Command::new(
    "start",
    "Start one or more stopped containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(start(session, matches)),
)
.flags(&[&[
    Flag::bool("attach", "Attach STDOUT and STDERR and forward signals").short('a'),
    Flag::text("detach-keys", "Keys that detach the terminal"),
    Flag::bool("interactive", "Attach the container's STDIN").short('i'),
]]);

async fn start(session: &Session, matches: &Matches) -> Outcome {
    let (attach, interactive) = (matches.bool("attach"), matches.bool("interactive"));
    if attach || interactive {
        if matches.args.len() > 1 {
            return Err(Failure::text(
                "you cannot start and attach multiple containers at once",
            ));
        }
        return attached(session, matches, attach, interactive).await;
    }
    let mut failures = Failures::new();
    for name in &matches.args {
        match run::start(session, name, &mut Timings::begin(false)).await {
            Ok(()) => say(name)?,
            Err(failure) => {
                eprintln!("{failure}");
                failures.push(Failure::text(name.clone()));
            }
        }
    }
    match failures.outcome() {
        Ok(code) => Ok(code),
        Err(names) => Err(Failure::text(format!(
            "failed to start containers: {}",
            names.message.replace('\n', ", ")
        ))),
    }
}

async fn attached(session: &Session, matches: &Matches, attach: bool, interactive: bool) -> Outcome {
    let client = &session.client;
    let path = format!("/containers/{}/json", segment(matches.arg(0)));
    let inspect = client.get(&path).await?.document().await?;
    let tty = inspect.at(&["Config", "Tty"]).flag();
    let stdin = interactive && inspect.at(&["Config", "OpenStdin"]).flag();
    let remove = inspect.at(&["HostConfig", "AutoRemove"]).flag();
    let id = inspect.at(&["Id"]).text().to_owned();
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::text("the input device is not a TTY"));
    }
    let keys = attach::detach_keys(session, matches.text("detach-keys"))?;
    let wanted = Wanted {
        stdin,
        stdout: true,
        stderr: true,
        raw: tty,
        detach: tty.then_some(keys),
    };
    let attach_path = attach::path(&id, &wanted, true, "");
    let wait_path = wait::path(&id, if remove { "removed" } else { "next-exit" });
    let caught = (attach && !tty).then(signals::Caught::forwarded);
    let (hijacked, waiting) = tokio::join!(client.hijack(&attach_path, None), client.post(&wait_path));
    let (hijacked, waiting) = (hijacked?, waiting?);
    let raw = if tty && stdin {
        terminal::Raw::enter()
    } else {
        None
    };
    let pump = pump::start(hijacked, wanted).map_err(|error| Failure::text(error.to_string()))?;
    run::start(session, &id, &mut Timings::begin(false)).await?;
    let detached = attach::watch(session, &id, pump, caught, tty).await?;
    drop(raw);
    if detached {
        Ok(0)
    } else {
        wait::finish(waiting).await
    }
}
