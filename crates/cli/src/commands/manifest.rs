//! `manifest`: indexes of several platforms, put together here and pushed as a whole.
//!
//! What is being put together lies in `manifests` beside the configuration, one directory for each index and one file for
//! each image in it, until it is pushed with `--purge` or removed.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::json;
use spec::Reference;
use spec::image::{Descriptor, media_type};

use crate::auth;
use crate::client::body::Body;
use crate::client::json_headers;
use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Value;
use crate::session::{Session, print, say};

const INSECURE: Flag = Flag::bool(
    "insecure",
    "Accepted for scripts: the daemon's insecure-registries decide",
);

const INSPECT: Command = Command::new(
    "inspect",
    "Show an image's manifest, or an index, at its registry",
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    Arity::Between(1, 2),
    |session, matches| Box::pin(inspect(session, matches)),
)
.flags(&[&[
    INSECURE,
    Flag::bool("verbose", "Show descriptors and all manifests of an index").short('v'),
]]);

const CREATE: Command = Command::new(
    "create",
    "Put an index together from images at a registry",
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    Arity::AtLeast(2),
    |session, matches| Box::pin(create(session, matches)),
)
.flags(&[&[
    Flag::bool("amend", "Add to an index that is there").short('a'),
    INSECURE,
]]);

const ANNOTATE: Command = Command::new(
    "annotate",
    "Say what platform an image in an index is for",
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    Arity::Exactly(2),
    |session, matches| Box::pin(annotate(session, matches)),
)
.flags(&[&[
    Flag::text("arch", "Architecture"),
    Flag::text("os", "Operating system"),
    Flag::list("os-features", "Features of the operating system"),
    Flag::text("os-version", "Version of the operating system"),
    Flag::text("variant", "Variant of the architecture"),
]]);

const PUSH: Command = Command::new(
    "push",
    "Push an index",
    "[OPTIONS] MANIFEST_LIST",
    Arity::Exactly(1),
    |session, matches| Box::pin(push(session, matches)),
)
.flags(&[&[
    INSECURE,
    Flag::bool("purge", "Forget the index here when it is pushed").short('p'),
]]);

const REMOVE: Command = Command::new(
    "rm",
    "Forget indexes that are being put together here",
    "MANIFEST_LIST [MANIFEST_LIST...]",
    Arity::AtLeast(1),
    |session, matches| Box::pin(remove(session, matches)),
);

pub const COMMANDS: &[&Command] = &[&ANNOTATE, &CREATE, &INSPECT, &PUSH, &REMOVE];

/// An image in an index that is being put together.
struct Part {
    /// The name it was given by.
    image: Reference,
    descriptor: Descriptor,
    raw: String,
}

fn reference(text: &str) -> Result<Reference, Failure> {
    let parsed = Reference::parse_normalized(text).map_err(|error| Failure::text(error.to_string()))?;
    Ok(parsed.or_latest())
}

/// A name as a file's.
fn file_name(name: &Reference) -> String {
    name.canonical().replace(['/', ':'], "_")
}

fn directory(session: &Session, list: &Reference) -> PathBuf {
    session.globals.config.join("manifests").join(file_name(list))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::text(format!("{path}: {error}"))
}

/// The images of an index that is being put together, none if there is no such index.
fn parts(dir: &Path) -> Result<Vec<Part>, Failure> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(dir)(error)),
    };
    files.sort();
    files.iter().map(|file| part(file)).collect()
}

fn part(file: &Path) -> Result<Part, Failure> {
    let broken = || Failure::text(format!("{}: not an image of an index", file.display()));
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).map_err(failed(file))?).map_err(|_| broken())?;
    let image = document
        .get("Ref")
        .and_then(|name| name.as_str())
        .ok_or_else(broken)?;
    let descriptor = document.get("Descriptor").cloned().ok_or_else(broken)?;
    let raw = document
        .get("Raw")
        .and_then(|raw| raw.as_str())
        .ok_or_else(broken)?;
    Ok(Part {
        image: image.parse().map_err(|_| broken())?,
        descriptor: serde_json::from_value(descriptor).map_err(|_| broken())?,
        raw: raw.to_owned(),
    })
}

fn store(dir: &Path, part: &Part) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    let file = dir.join(file_name(&part.image));
    let document = json!({ "Ref": part.image.canonical(), "Descriptor": part.descriptor, "Raw": part.raw });
    std::fs::write(&file, document.to_string()).map_err(failed(&file))
}

/// The manifest of a name at its registry, with its descriptor.
async fn fetch(session: &Session, image: &Reference) -> Result<Part, Failure> {
    let path = Query::new(format!("/distribution/{}/manifest", name(&image.canonical()))).build();
    let headers = auth::headers(session.config(), image.domain())?;
    let reply = session
        .client
        .send(Method::GET, &path, headers, Body::empty())
        .await
        .map_err(|failure| match failure.message.contains("manifest unknown") {
            true => Failure::text(format!("no such manifest: {}", image.familiar())),
            false => failure,
        })?;
    let document = reply.document().await?;
    let descriptor = serde_json::from_str(&document.at(&["Descriptor"]).compact());
    Ok(Part {
        image: image.clone(),
        descriptor: descriptor.map_err(|error| Failure::text(format!("the daemon's answer: {error}")))?,
        raw: document.at(&["Raw"]).text().to_owned(),
    })
}

fn not_found(list: &str) -> Failure {
    Failure::text(format!("No such manifest: {list}"))
}

async fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let found = match matches.args.as_slice() {
        [list, image] => {
            let image = reference(image)?;
            let dir = directory(session, &reference(list)?);
            let mut known = parts(&dir)?.into_iter();
            known
                .find(|part| part.image == image)
                .ok_or_else(|| not_found(&image.familiar()))?
        }
        _ => {
            let list = reference(matches.arg(0))?;
            let known = parts(&directory(session, &list))?;
            if !known.is_empty() {
                print(&format!("{}\n", index(&known).1))?;
                return Ok(0);
            }
            fetch(session, &list).await?
        }
    };
    let raw = Value::parse(found.raw.as_bytes())
        .map_err(|error| Failure::text(format!("the manifest is not JSON: {error}")))?;
    let is_index = media_type::is_index(&found.descriptor.media_type);
    if !matches.bool("verbose") {
        let indent = if is_index { "   " } else { "\t" };
        print(&format!("{}\n", raw.indented(indent)))?;
        return Ok(0);
    }
    let mut shown = Vec::new();
    if is_index {
        for entry in raw.at(&["manifests"]).items() {
            let digest = entry.at(&["digest"]).text().parse();
            let digest = digest.map_err(|_| Failure::text("the index names something that is no digest"))?;
            let child = found.image.with_digest(&digest);
            let part = fetch(session, &child).await?;
            shown.push(described(&part, Some(entry)));
        }
        print(&format!("{}\n", Value::Array(shown).indented("\t")))?;
    } else {
        print(&format!("{}\n", described(&found, None).indented("\t")))?;
    }
    Ok(0)
}

/// An image with its descriptor, as the index has it if it comes from one.
fn described(part: &Part, entry: Option<&Value>) -> Value {
    let descriptor = match entry {
        Some(entry) => entry.clone(),
        None => Value::of(&part.descriptor),
    };
    let kind = match part.descriptor.media_type.as_str() {
        media_type::OCI_MANIFEST => "OCIManifest",
        _ => "SchemaV2Manifest",
    };
    Value::Object(vec![
        ("Ref".to_owned(), part.image.canonical().into()),
        ("Descriptor".to_owned(), descriptor),
        ("Raw".to_owned(), Value::from(encoded(&part.raw))),
        (
            kind.to_owned(),
            Value::parse(part.raw.as_bytes()).unwrap_or_default(),
        ),
    ])
}

fn encoded(raw: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(raw)
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let list = reference(matches.arg(0))?;
    let dir = directory(session, &list);
    if dir.exists() && !matches.bool("amend") {
        return Err(Failure::text(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    let mut found = Vec::new();
    for text in matches.args.iter().skip(1) {
        let part = fetch(session, &reference(text)?).await?;
        if media_type::is_index(&part.descriptor.media_type) {
            return Err(Failure::text(format!("{text} is a manifest list")));
        }
        found.push(part);
    }
    for part in &found {
        store(&dir, part)?;
    }
    say(&format!("Created manifest list {}", list.canonical()))?;
    Ok(0)
}

async fn annotate(session: &Session, matches: &Matches) -> Outcome {
    let dir = directory(session, &reference(matches.arg(0))?);
    let image = reference(matches.arg(1))?;
    let mut known = parts(&dir)?;
    if known.is_empty() {
        return Err(not_found(matches.arg(0)));
    }
    let Some(part) = known.iter_mut().find(|part| part.image == image) else {
        return Err(Failure::text(format!(
            "manifest for image {} does not exist in {}",
            matches.arg(1),
            matches.arg(0)
        )));
    };
    let mut platform = json!(part.descriptor.platform);
    if platform.is_null() {
        platform = json!({ "os": "", "architecture": "" });
    }
    for (flag, key) in [
        ("os", "os"),
        ("arch", "architecture"),
        ("variant", "variant"),
        ("os-version", "os.version"),
    ] {
        if let Some(value) = matches.text(flag) {
            platform[key] = json!(value);
        }
    }
    if !matches.list("os-features").is_empty() {
        platform["os.features"] = json!(matches.list("os-features"));
    }
    part.descriptor.platform = serde_json::from_value(platform)
        .map_err(|error| Failure::text(format!("not a platform: {error}")))?;
    store(&dir, part)?;
    Ok(0)
}

/// A descriptor with its keys in the order that Docker's client writes.
fn listed(descriptor: &Descriptor) -> Value {
    let Value::Object(mut members) = Value::of(descriptor) else {
        return Value::Null;
    };
    let place = |key: &str| {
        ["mediaType", "size", "digest"]
            .iter()
            .position(|known| *known == key)
            .unwrap_or(3)
    };
    members.sort_by_key(|(key, _)| place(key));
    Value::Object(members)
}

/// Media type and text of the index.
fn index(parts: &[Part]) -> (&'static str, String) {
    let oci = parts
        .iter()
        .any(|part| part.descriptor.media_type == media_type::OCI_MANIFEST);
    let kind = if oci {
        media_type::OCI_INDEX
    } else {
        media_type::DOCKER_LIST
    };
    let manifests = parts.iter().map(|part| listed(&part.descriptor)).collect();
    let document = Value::Object(vec![
        ("schemaVersion".to_owned(), 2.into()),
        ("mediaType".to_owned(), kind.into()),
        ("manifests".to_owned(), Value::Array(manifests)),
    ]);
    (kind, document.indented("   "))
}

async fn push(session: &Session, matches: &Matches) -> Outcome {
    let list = reference(matches.arg(0))?;
    let dir = directory(session, &list);
    let known = parts(&dir)?;
    if known.is_empty() {
        return Err(not_found(matches.arg(0)));
    }
    for part in &known {
        let platform = part.descriptor.platform.as_ref();
        if platform.is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty()) {
            return Err(Failure::text(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                part.image.familiar()
            )));
        }
    }
    let (kind, raw) = index(&known);
    let sources: Vec<String> = known
        .iter()
        .map(|part| format!("{}@{}", part.image.name(), part.descriptor.digest))
        .collect();
    let path = Query::new(format!("/distribution/{}/manifest", name(&list.canonical()))).build();
    let mut headers = auth::headers(session.config(), list.domain())?;
    headers.extend(json_headers());
    let body = Body::full(json!({ "MediaType": kind, "Raw": raw, "Sources": sources }).to_string());
    let answer = session
        .client
        .send(Method::POST, &path, headers, body)
        .await?
        .document()
        .await?;
    if matches.bool("purge") {
        std::fs::remove_dir_all(&dir).map_err(failed(&dir))?;
    }
    say(answer.at(&["Digest"]).text())?;
    Ok(0)
}

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for text in &matches.args {
        let dir = directory(session, &reference(text)?);
        if !dir.exists() {
            failures.push(not_found(text));
            continue;
        }
        std::fs::remove_dir_all(&dir).map_err(failed(&dir))?;
    }
    failures.outcome()
}
