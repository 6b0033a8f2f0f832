//! Where files come from: images, the client's directories, web servers, repositories, results of this engine.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb::{SourceOp, op};
use build::Ssh;
use build::recipe::{Action, Web};

use super::graph::Node;
use super::read::Known;
use crate::error::Failure;
use crate::session::Directory;

/// Permissions of a file from a web server, unless they are given.
const WEB_MODE: u32 = 0o600;

/// What sources add to what was read.
pub struct Found<'a> {
    /// The operation's number.
    pub number: usize,
    /// By what others name it.
    pub digest: &'a str,
    pub directories: &'a mut BTreeMap<String, Directory>,
    pub sessions: &'a mut HashMap<String, String>,
    pub known: &'a Known<'a>,
}

/// How images of a client's store are called.
pub const LAYOUT: &str = "oci-layout://";

/// The operations that take an image out of a store of the client.
pub fn layouts(nodes: &[Node]) -> impl Iterator<Item = (&Node, &SourceOp)> {
    nodes.iter().filter_map(|node| match &node.op.op {
        Some(op::Op::Source(source)) if source.identifier.starts_with(LAYOUT) => Some((node, source)),
        _ => None,
    })
}

/// How a source is shown: without what may be a password.
pub fn title(op: &SourceOp) -> String {
    let identifier = op.identifier.as_str();
    match (identifier.split_once("://"), identifier.split_once('@')) {
        (Some(("http" | "https" | "git", _)), Some((before, after))) if before.matches('/').count() == 2 => {
            let scheme = before.split("://").next().unwrap_or_default();
            format!("{scheme}://{after}")
        }
        _ => identifier.to_owned(),
    }
}

pub fn read(op: &SourceOp, found: &mut Found<'_>) -> Result<Action, Failure> {
    if let Some(built) = (found.known.results)(&op.identifier)? {
        return Ok(Action::Built(Box::new(built)));
    }
    let (scheme, rest) = op.identifier.split_once("://").unwrap_or((&op.identifier, ""));
    let attribute = |key: &str| {
        op.attrs
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    match scheme {
        "docker-image" => Ok(Action::Image {
            name: rest.to_owned(),
            pull: attribute("image.resolvemode") == Some("pull"),
        }),
        "local" => {
            let list = |key: &str| -> Result<Vec<String>, Failure> {
                let Some(text) = attribute(key) else {
                    return Ok(Vec::new());
                };
                // Go writes an empty list as null.
                let list: Option<Vec<String>> = serde_json::from_str(text)
                    .map_err(|error| Failure::invalid(format!("{key} of {}: {error}", op.identifier)))?;
                Ok(list.unwrap_or_default())
            };
            let paths = list("local.followpaths")?;
            let directory = Directory::Session {
                name: rest.to_owned(),
                exclude: list("local.excludepatterns")?,
                include: list("local.includepattern")?,
                paths: (!paths.is_empty()).then_some(paths),
            };
            // Several sources may select differently from one directory.
            let name = format!("source {}", found.number);
            found.directories.insert(name.clone(), directory);
            if let Some(session) = attribute("local.session") {
                found.sessions.insert(rest.to_owned(), session.to_owned());
            }
            Ok(Action::Directory(name))
        }
        "http" | "https" => Ok(Action::Web(web(&op.identifier, attribute)?)),
        "git" => {
            let fragment = rest.split_once('#').map_or("", |(_, fragment)| fragment);
            let source = match attribute("git.fullurl") {
                Some(url) if fragment.is_empty() => url.to_owned(),
                Some(url) => format!("{url}#{fragment}"),
                None => op.identifier.clone(),
            };
            Ok(Action::Git {
                source,
                keep_git_dir: attribute("git.keepgitdir") == Some("true"),
                ssh: Ssh {
                    agent: attribute("git.mountsshsock").unwrap_or_default().to_owned(),
                    known_hosts: attribute("git.knownsshhosts").unwrap_or_default().to_owned(),
                },
            })
        }
        "oci-layout" => match found.known.layouts.get(found.digest) {
            Some(image) => Ok(Action::Image {
                name: image.clone(),
                pull: false,
            }),
            None => Err(Failure::invalid(format!(
                "the source {} needs the session of its client",
                op.identifier
            ))),
        },
        other => Err(Failure::unimplemented(format!(
            "the source {}: {other} is not offered; there are docker-image, oci-layout, local, git, http and https",
            op.identifier
        ))),
    }
}

fn web<'a>(url: &str, attribute: impl Fn(&str) -> Option<&'a str>) -> Result<Web, Failure> {
    let wrong = |what: &str, text: &str| Failure::invalid(format!("{what} of {url}: {text:?} is no number"));
    let number = |key: &str| match attribute(key) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| wrong(key, text)),
    };
    let mode = match attribute("http.perm") {
        None => WEB_MODE,
        Some(text) => {
            u32::from_str_radix(text.trim_start_matches("0o"), 8).map_err(|_| wrong("http.perm", text))?
        }
    };
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path
        .splitn(4, '/')
        .nth(3)
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    let name = match (attribute("http.filename"), last) {
        (Some(name), _) => name,
        (None, "") => "download",
        (None, last) => last,
    };
    if name.contains('/') || matches!(name, "." | "..") {
        return Err(Failure::invalid(format!(
            "the file name {name:?} for {url} is none"
        )));
    }
    let checksum = attribute("http.checksum").map(str::parse).transpose();
    Ok(Web {
        url: url.to_owned(),
        checksum: checksum.map_err(|error| Failure::invalid(format!("http.checksum of {url}: {error}")))?,
        name: name.to_owned(),
        mode,
        owner: (number("http.uid")?, number("http.gid")?),
    })
}
