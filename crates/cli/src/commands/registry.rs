//! Registries: login, logout, search.

use crate::auth;
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::connect::config::Config;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::listing::{FORMAT, Format, Listing, Row, render};
use crate::format::{ellipsis, printable};
use crate::grammar::filter::{self, Filters};
use crate::session::{Session, print, say};
use crate::terminal;
use api_types::{AuthConfig, AuthResponse};
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};

pub const LOGIN: Command = Command::new(
    "login",
    "Authenticate to a registry",
    "[OPTIONS] [SERVER]",
    Arity::AtMost(1),
    |session, matches| Box::pin(login(session, matches)),
)
.flags(&[&[
    Flag::text("password", "Password or token").short('p'),
    Flag::bool("password-stdin", "Take the password from stdin"),
    Flag::text("username", "User name").short('u'),
]]);

pub const LOGOUT: Command = Command::new(
    "logout",
    "Log out from a registry",
    "[SERVER]",
    Arity::AtMost(1),
    |session, matches| Box::pin(logout(session, matches)),
);

pub const SEARCH: Command = Command::new(
    "search",
    "Search a registry for images",
    "[OPTIONS] TERM",
    Arity::Exactly(1),
    |session, matches| Box::pin(search(session, matches)),
)
.flags(&[&[
    Flag::list("filter", "Show only what matches")
        .short('f')
        .value("filter")
        .check(filter::check),
    FORMAT,
    Flag::int("limit", "How many results at most"),
    Flag::bool("no-trunc", "Do not cut values short"),
]]);

fn server_key(matches: &Matches) -> String {
    match matches.args.first().map(String::as_str) {
        None | Some("" | "docker.io" | "index.docker.io" | "https://index.docker.io/v1/") => {
            auth::DOCKER_HUB.to_owned()
        }
        Some(server) => auth::host(server).to_owned(),
    }
}

fn no_echo(prompt: &str) -> Result<String, Failure> {
    print(prompt)?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(&stdin, OptionalActions::Now, &silent);
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Now, before);
    }
    println!();
    read.map_err(|error| Failure::text(format!("cannot read the password: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn login(session: &Session, matches: &Matches) -> Outcome {
    let key = server_key(matches);
    let mut username = matches.text("username").unwrap_or_default().to_owned();
    let mut password = matches.text("password").unwrap_or_default().to_owned();
    if matches.changed("password") {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if matches.bool("password-stdin") {
            return Err(Failure::text(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
    }
    if matches.bool("password-stdin") {
        if username.is_empty() {
            return Err(Failure::text(
                "the --password-stdin option requires --username to be set",
            ));
        }
        let mut text = String::new();
        io::stdin()
            .take(1 << 20)
            .read_to_string(&mut text)
            .map_err(|error| Failure::text(format!("cannot read the password: {error}")))?;
        password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            return Err(Failure::text("password is empty"));
        }
    }
    let mut config = Config::load(&session.globals.config);
    let known = auth::find(&config, &key)?;
    let mut request = AuthConfig {
        serveraddress: key.clone(),
        ..AuthConfig::default()
    };
    match known.filter(|known| username.is_empty() && password.is_empty() && !known.username.is_empty()) {
        Some(known) => {
            eprintln!(
                "Authenticating with existing credentials... [Username: {}]\n\n\
                 To log in with another account, run 'berth logout' first.\n",
                known.username
            );
            request = AuthConfig {
                serveraddress: key.clone(),
                ..known
            };
        }
        None => {
            if username.is_empty() || password.is_empty() {
                if !terminal::stdin_is_terminal() {
                    return Err(Failure::text(
                        "Error: Cannot perform an interactive login from a non TTY device",
                    )
                    .hint("use --username with --password-stdin"));
                }
                if username.is_empty() {
                    print("Username: ")?;
                    let _ = io::stdout().flush();
                    let mut line = String::new();
                    io::stdin()
                        .read_line(&mut line)
                        .map_err(|error| Failure::text(format!("cannot read the name: {error}")))?;
                    username = line.trim().to_owned();
                    if username.is_empty() {
                        return Err(Failure::text("Error: Non-null Username Required"));
                    }
                }
                if password.is_empty() {
                    password = no_echo("Password: ")?;
                    if password.is_empty() {
                        return Err(Failure::text("Error: Password Required"));
                    }
                }
            }
            request.username = username;
            request.password = password;
        }
    }
    let answer: AuthResponse = session.client.post_json("/auth", &request).await?.model().await?;
    if !answer.identity_token.is_empty() {
        request.password = String::new();
        request.identitytoken = answer.identity_token;
    }
    if let Some(warning) = auth::store(&mut config, &key, &request)? {
        eprintln!("{warning}");
    }
    say(if answer.status.is_empty() {
        "Login Succeeded"
    } else {
        &answer.status
    })?;
    Ok(0)
}

async fn logout(session: &Session, matches: &Matches) -> Outcome {
    let key = server_key(matches);
    let mut config = Config::load(&session.globals.config);
    let shown = if key == auth::DOCKER_HUB {
        auth::DOCKER_HUB
    } else {
        &key
    };
    say(&format!("Removing login credentials for {shown}"))?;
    if !auth::erase(&mut config, &key)? {
        eprintln!("Not logged in to {shown}");
    }
    Ok(0)
}

const LISTING: Listing = Listing {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ],
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
    kind: "*registry.searchContext",
};

async fn search(session: &Session, matches: &Matches) -> Outcome {
    // As many as the daemon gives, where it is said that it does not matter.
    let limit = matches.int("limit").filter(|limit| *limit > 0);
    let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
    let path = Query::new("/images/search")
        .text("filters", &Filters::read(matches.list("filter")).document())
        .text("limit", &limit)
        .text("term", matches.arg(0))
        .build();
    let domain = match matches.arg(0).split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => domain,
        _ => "docker.io",
    };
    let headers = auth::headers(session.config(), domain)?;
    let reply = session
        .client
        .send(Method::GET, &path, headers, crate::client::body::Body::empty())
        .await?;
    let results = reply.document().await?;
    let json = matches.text("format") == Some("json");
    let rows = results.items().iter().map(|item| {
        let text = printable(&item.at(&["description"]).text().replace(['\n', '\r'], " "));
        let official = match (json, item.at(&["is_official"]).flag()) {
            (true, true) => "true",
            (true, false) => "false",
            (false, true) => "[OK]",
            (false, false) => "",
        };
        Row::new()
            .cell("Name", printable(item.at(&["name"]).text()))
            .cell(
                "Description",
                if matches.bool("no-trunc") {
                    text
                } else {
                    ellipsis(&text, 45)
                },
            )
            .cell("StarCount", item.at(&["star_count"]).int().to_string())
            .cell("IsOfficial", official)
    });
    let format = Format::new(matches.text("format"), false);
    print(&render(&LISTING, &format, rows.collect())?)?;
    Ok(0)
}
