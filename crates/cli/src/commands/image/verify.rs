//! `image verify`: whether an image is signed by one of the given keys, or of those that the daemon's rules name.

use http::Method;
use serde_json::json;
use spec::Reference;

use crate::auth;
use crate::client::body::Body;
use crate::client::json_headers;
use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::printable;
use crate::json::Value;
use crate::session::{Session, print, say};

pub const COMMAND: Command = Command::new(
    "verify",
    "Check the signatures of an image",
    "[OPTIONS] IMAGE",
    Arity::Exactly(1),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::list(
        "key",
        "File with a public key; the rules of the daemon name keys, too",
    )
    .value("file"),
    Flag::text("format", "'json' prints all that was signed"),
]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let wanted =
        Reference::parse_normalized(matches.arg(0)).map_err(|error| Failure::text(error.to_string()))?;
    let mut keys = Vec::new();
    for file in matches.list("key") {
        let pem = std::fs::read_to_string(file).map_err(|error| Failure::text(format!("{file}: {error}")))?;
        keys.push(json!({ "Name": file, "Pem": pem }));
    }
    let path = Query::new(format!("/images/{}/verify", name(&wanted.canonical()))).build();
    let mut headers = auth::headers(session.config(), wanted.domain())?;
    headers.extend(json_headers());
    let body = Body::full(json!({ "Keys": keys }).to_string());
    let reply = session.client.send(Method::POST, &path, headers, body).await?;
    let found = reply.document().await?;
    if matches.text("format") == Some("json") {
        print(&format!("{}\n", found.indented("    ")))?;
        return Ok(0);
    }
    for signature in found.items() {
        say(&line(signature))?;
    }
    Ok(0)
}

fn line(signature: &Value) -> String {
    let identity = signature.at(&["Identity"]).text();
    let of = match identity.is_empty() {
        true => String::new(),
        false => format!(", as {}", printable(identity)),
    };
    format!(
        "{} is signed by {}{of}",
        signature.at(&["Digest"]).text(),
        printable(signature.at(&["Key"]).text())
    )
}
