//! `manifest`: indexes of several platforms, put together here and pushed as a whole.
//!
//! What is being put together stays on the [`shelf`] until it is pushed with `--purge` or removed.

mod shelf;

use http::Method;
use serde_json::json;
use spec::image::{Descriptor, media_type};
use spec::{Digest, Platform, Reference};

use crate::auth;
use crate::client::body::Body;
use crate::client::json_headers;
use crate::client::query::{Query, name};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Value;
use crate::session::{Session, print, say};
use shelf::Part;

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
    Flag::list(
        "os-features",
        "Features of the operating system, with commas between them",
    ),
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

/// What Go programs are made for (go.dev/doc/install/source), and linux/s390x: what `annotate` takes.
const PLATFORMS: &[(&str, &[&str])] = &[
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64"]),
];

fn reference(text: &str) -> Result<Reference, Failure> {
    let parsed = Reference::parse_normalized(text).map_err(|error| Failure::text(error.to_string()))?;
    Ok(parsed.or_latest())
}

/// The manifest of a name at its registry, with its descriptor.
async fn fetch(session: &Session, image: &Reference) -> Result<Part, Failure> {
    let path = Query::new(format!("/distribution/{}/manifest", name(&image.canonical()))).build();
    let headers = auth::headers(session.config(), image.domain())?;
    let reply = session
        .client
        .send(Method::GET, &path, headers, Body::empty())
        .await
        .map_err(|failure| {
            let unknown = ["manifest unknown", "name unknown", "repository name not known"];
            match unknown.iter().any(|words| failure.message.contains(words)) {
                true => Failure::text(format!("no such manifest: {}", image.familiar())),
                false => failure,
            }
        })?;
    let document = reply.document().await?;
    let descriptor = serde_json::from_str(&document.at(&["Descriptor"]).compact());
    Ok(Part {
        image: image.clone(),
        descriptor: descriptor.map_err(|error| Failure::text(format!("the daemon's answer: {error}")))?,
        raw: document.at(&["Raw"]).text().to_owned(),
    })
}

async fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let verbose = matches.bool("verbose");
    if let [list, image] = matches.args.as_slice() {
        let (list, image) = (reference(list)?, reference(image)?);
        let part = shelf::get(session, &list, &image)?.ok_or_else(|| shelf::not_found(&image))?;
        return show(&part, verbose);
    }
    let named = reference(matches.arg(0))?;
    if let Some(known) = shelf::all(session, &named)? {
        return show_all(&named, &known, verbose);
    }
    let found = fetch(session, &named).await?;
    match media_type::is_index(&found.descriptor.media_type) {
        true => show_all(&named, &children(session, &found, verbose).await?, verbose),
        false => show(&found, verbose),
    }
}

/// The images that an index at a registry names; their manifests only if they are wanted.
async fn children(session: &Session, index: &Part, whole: bool) -> Result<Vec<Part>, Failure> {
    let document = Value::parse(index.raw.as_bytes())
        .map_err(|error| Failure::text(format!("the manifest is not JSON: {error}")))?;
    let mut parts = Vec::new();
    for entry in document.at(&["manifests"]).items() {
        let wrong = || Failure::text("the index names something that is no digest");
        let digest: Digest = entry.at(&["digest"]).text().parse().map_err(|_| wrong())?;
        let image = index.image.with_digest(&digest);
        // Called by the tag of its index, too, as Docker's client does it; the digest is what it is asked for by.
        let called = match index.image.tag() {
            Some(tag) => Reference::parse_normalized(&format!("{}:{tag}@{digest}", index.image.name()))
                .map_err(|_| wrong())?,
            None => image.clone(),
        };
        let mut part = match whole {
            true => Part {
                image: called,
                ..fetch(session, &image).await?
            },
            false => {
                let kind = entry.at(&["mediaType"]).text();
                let descriptor = Descriptor::new(kind, digest, entry.at(&["size"]).uint());
                Part {
                    image: called,
                    descriptor,
                    raw: String::new(),
                }
            }
        };
        // What the index says counts, whatever the image says of itself.
        let platform = serde_json::from_str(&entry.at(&["platform"]).compact());
        part.descriptor.platform = Some(platform.unwrap_or_else(|_| nowhere()));
        parts.push(part);
    }
    Ok(parts)
}

/// A platform of which nothing is said.
fn nowhere() -> Platform {
    Platform {
        architecture: String::new(),
        os: String::new(),
        variant: None,
        os_version: None,
        os_features: Vec::new(),
    }
}

fn show(part: &Part, verbose: bool) -> Outcome {
    let shown = match verbose {
        true => part.document(),
        false => Value::parse(part.raw.as_bytes())
            .map_err(|error| Failure::text(format!("the manifest is not JSON: {error}")))?,
    };
    print(&format!("{}\n", shown.indented("\t")))?;
    Ok(0)
}

fn show_all(list: &Reference, parts: &[Part], verbose: bool) -> Outcome {
    let text = match verbose {
        true => Value::Array(parts.iter().map(Part::document).collect()).indented("\t"),
        false => {
            same_registry(list, parts).map_err(|failure| {
                Failure::text(format!("failed to assemble ManifestDescriptor: {failure}"))
            })?;
            index(parts).1
        }
    };
    print(&format!("{text}\n"))?;
    Ok(0)
}

fn same_registry(list: &Reference, parts: &[Part]) -> Result<(), Failure> {
    match parts.iter().find(|part| part.image.domain() != list.domain()) {
        None => Ok(()),
        Some(other) => Err(Failure::text(format!(
            "cannot use source images from a different registry than the target image: {} != {}",
            other.image.domain(),
            list.domain()
        ))),
    }
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let list = reference(matches.arg(0))?;
    if shelf::all(session, &list)?.is_some() && !matches.bool("amend") {
        return Err(Failure::text(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    let mut found = Vec::new();
    for text in matches.args.iter().skip(1) {
        let image = reference(text)?;
        // What is in it already stays as it was annotated.
        let known = shelf::get(session, &list, &image)?.filter(|part| !part.raw.is_empty());
        let part = match known {
            Some(part) => part,
            None => fetch(session, &image).await?,
        };
        if media_type::is_index(&part.descriptor.media_type) {
            return Err(Failure::text(format!(
                "{} is a manifest list",
                part.image.canonical()
            )));
        }
        found.push(part);
    }
    for part in &found {
        shelf::put(session, &list, part)?;
    }
    say(&format!("Created manifest list {}", list.canonical()))?;
    Ok(0)
}

async fn annotate(session: &Session, matches: &Matches) -> Outcome {
    let (list, image) = (reference(matches.arg(0))?, reference(matches.arg(1))?);
    let Some(mut part) = shelf::get(session, &list, &image)? else {
        return Err(Failure::text(format!(
            "manifest for image {} does not exist in {}",
            matches.arg(1),
            matches.arg(0)
        )));
    };
    let given = |flag: &str| matches.text(flag).filter(|text| !text.is_empty());
    let mut platform = part.descriptor.platform.take().unwrap_or_else(nowhere);
    if let Some(os) = given("os") {
        os.clone_into(&mut platform.os);
    }
    if let Some(architecture) = given("arch") {
        architecture.clone_into(&mut platform.architecture);
    }
    if let Some(variant) = given("variant") {
        platform.variant = Some(variant.to_owned());
    }
    if let Some(version) = given("os-version") {
        platform.os_version = Some(version.to_owned());
    }
    for feature in matches
        .list("os-features")
        .iter()
        .flat_map(|text| text.split(','))
    {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    let is_known = PLATFORMS
        .iter()
        .any(|(os, machines)| *os == platform.os && machines.contains(&platform.architecture.as_str()));
    if !is_known {
        return Err(Failure::text(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            given("os").unwrap_or_default(),
            given("arch").unwrap_or_default()
        )));
    }
    part.descriptor.platform = Some(platform);
    shelf::put(session, &list, &part)?;
    Ok(0)
}

/// An entry with its keys in the order that Docker's client writes.
fn listed(descriptor: &Descriptor) -> Value {
    Value::Object(vec![
        ("mediaType".to_owned(), descriptor.media_type.as_str().into()),
        ("size".to_owned(), Value::of(&descriptor.size)),
        ("digest".to_owned(), descriptor.digest.as_str().into()),
        (
            "platform".to_owned(),
            shelf::platform(descriptor).unwrap_or(Value::Null),
        ),
    ])
}

/// Media type and text of the index: of the first image's kind.
fn index(parts: &[Part]) -> (&'static str, String) {
    let first = parts.first().map(|part| part.descriptor.media_type.as_str());
    let kind = match first {
        Some(media_type::OCI_MANIFEST) => media_type::OCI_INDEX,
        _ => media_type::DOCKER_LIST,
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
    let known = shelf::all(session, &list)?.ok_or_else(|| shelf::not_found(&list))?;
    if known.is_empty() {
        return Err(Failure::text(format!("{} not found", list.canonical())));
    }
    for part in &known {
        let platform = part.descriptor.platform.as_ref();
        if platform.is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty()) {
            return Err(Failure::text(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                part.image.canonical()
            )));
        }
    }
    same_registry(&list, &known)?;
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
    for part in known.iter().filter(|part| part.image.name() != list.name()) {
        let digest = &part.descriptor.digest;
        say(&format!(
            "Pushed ref {}@{digest} with digest: {digest}",
            list.name()
        ))?;
    }
    say(answer.at(&["Digest"]).text())?;
    if matches.bool("purge") {
        shelf::remove(session, &list)?;
    }
    Ok(0)
}

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let mut failures = Failures::new();
    for text in &matches.args {
        let forgotten = reference(text).and_then(|list| match shelf::all(session, &list)? {
            Some(_) => shelf::remove(session, &list),
            None => Err(shelf::not_found(&list)),
        });
        if let Err(failure) = forgotten {
            failures.push(failure);
        }
    }
    failures.outcome()
}
