//! Contexts: named daemons in Docker's store.

use crate::command::{Arity, Command};
use crate::connect::config::Config;
use crate::connect::context::{self, Certificates, Context};
use crate::connect::endpoint::{DEFAULT_SOCKET, resolve};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::json::Value;
use crate::session::{Session, print, say};
use crate::template::{Missing, Template};
use std::path::PathBuf;

pub const COMMANDS: &[&Command] = &[&CREATE, &INSPECT, &LS, &RM, &SHOW, &USE];

const LS: Command = Command::new(
    "ls",
    "List contexts",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(ls(session, matches)),
)
.aliases(&["list"])
.flags(&[&[FORMAT, Flag::bool("quiet", "Show names only").short('q')]]);

const SHOW: Command = Command::new(
    "show",
    "Print the name of the current context",
    "",
    Arity::Exactly(0),
    |session, matches| Box::pin(show(session, matches)),
);

const USE: Command = Command::new(
    "use",
    "Set the current context",
    "CONTEXT",
    Arity::Exactly(1),
    |session, matches| Box::pin(use_(session, matches)),
);

const CREATE: Command = Command::new(
    "create",
    "Create a context",
    "[OPTIONS] CONTEXT",
    Arity::Exactly(1),
    |session, matches| Box::pin(create(session, matches)),
)
.flags(&[&[
    Flag::text("description", "What the context is"),
    Flag::list("docker", "Endpoint: host=…,ca=…,cert=…,key=…,skip-tls-verify=…").value("stringToString"),
    Flag::text("from", "Begin with a copy of another context"),
]]);

const RM: Command = Command::new(
    "rm",
    "Remove one or more contexts",
    "CONTEXT [CONTEXT...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(rm(session, matches)),
)
.aliases(&["remove"])
.flags(&[&[Flag::bool("force", "Remove even the current context").short('f')]]);

const INSPECT: Command = Command::new(
    "inspect",
    "Display detailed information on one or more contexts",
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    Arity::AtLeast(0),
    |session, matches| Box::pin(inspect(session, matches)),
)
.flags(&[&[Flag::text("format", "Layout: 'json' or a Go template").short('f')]]);

const LISTING: Listing = Listing {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Current", "CURRENT"),
    ],
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet: "{{.Name}}",
    kind: "*formatter.clientContextContext",
};

fn default_context() -> Context {
    Context {
        name: "default".into(),
        description: "Current DOCKER_HOST based configuration".into(),
        host: format!("unix://{DEFAULT_SOCKET}"),
        skip_verify: false,
        document: Value::Null,
    }
}

fn current(session: &Session) -> Result<String, Failure> {
    Ok(resolve(&session.globals)?.context)
}

async fn ls(session: &Session, matches: &Matches) -> Outcome {
    let current = current(session)?;
    let mut all = vec![default_context()];
    all.extend(context::list(&session.globals.config));
    let rows = all.into_iter().map(|item| {
        Row::new()
            .cell("Current", item.name == current)
            .cell("Name", item.name)
            .cell("Description", item.description)
            .cell("DockerEndpoint", item.host)
            .cell("Error", "")
    });
    let format = Format::new(matches.text("format"), matches.bool("quiet"));
    print(&render(&LISTING, &format, rows.collect())?)?;
    Ok(0)
}

async fn show(session: &Session, _: &Matches) -> Outcome {
    say(&current(session)?)?;
    Ok(0)
}

async fn use_(session: &Session, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    if name != "default" {
        context::load(&session.globals.config, name)?;
    }
    let mut config = Config::load(&session.globals.config);
    config.set(
        "currentContext",
        (name != "default").then(|| serde_json::json!(name)),
    );
    config.save()?;
    say(name)?;
    for variable in ["BERTH_HOST", "DOCKER_HOST"] {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            eprintln!(
                "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset {variable} environment variable."
            );
        }
    }
    eprintln!("Current context is now {name:?}");
    Ok(0)
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    context::check_name(name)?;
    let dir = &session.globals.config;
    if context::exists(dir, name) {
        return Err(Failure::text(format!("context {name:?} already exists")));
    }
    let (mut host, mut skip, mut files) = (String::new(), false, Certificates::new());
    if let Some(from) = matches.text("from").filter(|from| *from != "default") {
        let stored = context::load(dir, from)?;
        if let Some(tls) = stored.tls_files(dir) {
            let pairs = [("ca.pem", tls.ca), ("cert.pem", tls.cert), ("key.pem", tls.key)];
            files.extend(
                pairs
                    .into_iter()
                    .filter_map(|(file, path)| path.map(|path| (file, path))),
            );
        }
        (host, skip) = (stored.host, stored.skip_verify);
    }
    for pair in matches.list("docker").iter().flat_map(|text| text.split(',')) {
        match pair.split_once('=') {
            Some(("host", value)) => host = value.to_owned(),
            Some(("skip-tls-verify", value)) => {
                skip = crate::flags::parse::parse_bool(value).unwrap_or(false)
            }
            Some(("ca", value)) => files.push(("ca.pem", PathBuf::from(value))),
            Some(("cert", value)) => files.push(("cert.pem", PathBuf::from(value))),
            Some(("key", value)) => files.push(("key.pem", PathBuf::from(value))),
            _ => {
                return Err(Failure::text(format!(
                    "unable to create docker endpoint config: unrecognized config key: {pair:?}"
                )));
            }
        }
    }
    if host.is_empty() {
        host = format!("unix://{DEFAULT_SOCKET}");
    }
    context::create(
        dir,
        name,
        matches.text("description").unwrap_or_default(),
        &host,
        skip,
        &files,
    )?;
    say(name)?;
    eprintln!("Successfully created context {name:?}");
    Ok(0)
}

async fn rm(session: &Session, matches: &Matches) -> Outcome {
    let current = current(session)?;
    let mut failures = Failures::new();
    for name in &matches.args {
        if name == "default" {
            failures.push(Failure::text("context \"default\" cannot be removed"));
        } else if *name == current && !matches.bool("force") {
            failures.push(Failure::text(format!(
                "context {name:?} is in use, set -f flag to force remove"
            )));
        } else {
            match context::remove(&session.globals.config, name) {
                Ok(()) => say(name)?,
                Err(failure) => failures.push(failure),
            }
        }
    }
    failures.outcome()
}

async fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let names = if matches.args.is_empty() {
        vec![current(session)?]
    } else {
        matches.args.clone()
    };
    let mut documents = Vec::new();
    for name in names {
        let document = if name == "default" {
            Value::of(&serde_json::json!({
                "Name": "default",
                "Metadata": {},
                "Endpoints": { "docker": { "Host": default_context().host, "SkipTLSVerify": false } },
                "TLSMaterial": {},
                "Storage": { "MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>" },
            }))
        } else {
            context::load(&session.globals.config, &name)?.document
        };
        documents.push(document);
    }
    match matches.text("format").unwrap_or_default() {
        "" | "json" => print(&format!("{}\n", Value::Array(documents).indented("    ")))?,
        text => {
            let failed = |error| Failure::text(format!("template parsing error: {error}"));
            let template = Template::parse(text).map_err(failed)?;
            for document in &documents {
                say(&template.execute(document, Missing::Error).map_err(failed)?)?;
            }
        }
    }
    Ok(0)
}
