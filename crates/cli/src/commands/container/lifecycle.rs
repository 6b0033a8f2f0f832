//! Commands that act on containers by name and echo the name: stop, restart, kill, pause, unpause, rm; and rename, top.

use crate::client::query::{Query, segment};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::table;
use crate::session::{Session, print, say};
use api_types::ContainerTopResponse;
use futures_util::future::join_all;

const SIGNAL: Flag = Flag::text("signal", "Signal to send").short('s');
const STOP_FLAGS: &[Flag] = &[
    SIGNAL,
    Flag::int("timeout", "Seconds to wait before the container is killed").short('t'),
    Flag::int("time", "Same as --timeout").hidden(),
];

pub const STOP: Command = Command::new(
    "stop",
    "Stop one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(stop(session, matches, "stop")),
)
.flags(&[STOP_FLAGS]);

pub const RESTART: Command = Command::new(
    "restart",
    "Restart one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(stop(session, matches, "restart")),
)
.flags(&[STOP_FLAGS]);

pub const KILL: Command = Command::new(
    "kill",
    "Kill one or more running containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(kill(session, matches)),
)
.flags(&[&[SIGNAL]]);

pub const PAUSE: Command = Command::new(
    "pause",
    "Pause all processes within one or more containers",
    "CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| {
        Box::pin(each(session, &matches.args, |path| {
            Query::new(format!("{path}/pause"))
        }))
    },
);

pub const UNPAUSE: Command = Command::new(
    "unpause",
    "Unpause all processes within one or more containers",
    "CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| {
        Box::pin(each(session, &matches.args, |path| {
            Query::new(format!("{path}/unpause"))
        }))
    },
);

pub const RM: Command = Command::new(
    "rm",
    "Remove one or more containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(rm(session, matches)),
)
.aliases(&["remove"])
.flags(&[&[
    Flag::bool("force", "Kill a running container first").short('f'),
    Flag::bool("link", "Remove the link, not the container").short('l'),
    Flag::bool("volumes", "Remove the container's anonymous volumes too").short('v'),
]]);

pub const RENAME: Command = Command::new(
    "rename",
    "Rename a container",
    "CONTAINER NEW_NAME",
    Arity::Exactly(2),
    |session, matches| Box::pin(rename(session, matches)),
);

pub const TOP: Command = Command::new(
    "top",
    "Display the running processes of a container",
    "CONTAINER [ps OPTIONS]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(top(session, matches)),
)
.flags_first();

/// Posts for every container side by side; names are echoed in order, failures shown at the end.
async fn each(session: &Session, names: &[String], path: impl Fn(String) -> Query) -> Outcome {
    let requests = names.iter().map(|name| {
        let query = path(format!("/containers/{}", segment(name))).build();
        async move {
            let reply = session.client.post(&query).await?;
            if let Some(warning) = reply.header("berth-warning") {
                eprintln!("WARNING: {warning}");
            }
            reply.done().await
        }
    });
    let mut failures = Failures::new();
    for (name, result) in names.iter().zip(join_all(requests).await) {
        match result {
            Ok(()) => say(name)?,
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

async fn stop(session: &Session, matches: &Matches, verb: &str) -> Outcome {
    let signal = matches.text("signal").unwrap_or_default();
    let time = matches
        .int("timeout")
        .or_else(|| matches.int("time"))
        .map(|time| time.to_string());
    each(session, &matches.args, |path| {
        Query::new(format!("{path}/{verb}"))
            .text("signal", signal)
            .text("t", time.as_deref().unwrap_or_default())
    })
    .await
}

async fn kill(session: &Session, matches: &Matches) -> Outcome {
    let signal = matches.text("signal").unwrap_or_default();
    each(session, &matches.args, |path| {
        Query::new(format!("{path}/kill")).text("signal", signal)
    })
    .await
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let force = matches.bool("force");
    let requests = matches.args.iter().map(|name| {
        let name = name.trim_start_matches('/');
        let query = Query::new(format!("/containers/{}", segment(name)))
            .flag("v", matches.bool("volumes"))
            .flag("link", matches.bool("link"))
            .flag("force", force)
            .build();
        async move { session.client.delete(&query).await?.done().await }
    });
    let mut failures = Failures::new();
    for (name, result) in matches.args.iter().zip(join_all(requests).await) {
        match result {
            Ok(()) => say(name)?,
            // What is gone already is what --force asked for.
            Err(failure) if force && failure.is_not_found() => eprintln!("{failure}"),
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

async fn rename(session: &Session, matches: &Matches) -> Outcome {
    let (old, new) = (matches.arg(0).trim(), matches.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::text("Error: Neither old nor new names may be empty"));
    }
    let path = Query::new(format!("/containers/{}/rename", segment(old)))
        .text("name", new)
        .build();
    session.client.post(&path).await?.done().await?;
    Ok(0)
}

async fn top(session: &Session, matches: &Matches) -> Outcome {
    let options = matches.args.get(1..).unwrap_or_default().join(" ");
    let path = Query::new(format!("/containers/{}/top", segment(matches.arg(0))))
        .text("ps_args", &options)
        .build();
    let top: ContainerTopResponse = session.client.get(&path).await?.model().await?;
    let mut lines = vec![top.titles.join("\t")];
    lines.extend(top.processes.iter().map(|process| process.join("\t")));
    lines.push(String::new());
    print(&table::align(&lines.join("\n"), table::TOP))?;
    Ok(0)
}
