//! What an image holds, as a scanner tells it in statements that lie beside the image.
//!
//! ```text
//!   the result's files ──(read-only, /run/src/core/sbom)──> scanner ──(/run/out/…)──> in-toto statements
//! ```
//!
//! The scanner is an image that the client names, run as any command of a build under BuildKit's protocol for it
//! (`docs/attestations/sbom-protocol.md`): isolated, known to the cache, fetched like a base image where it is not here. What it
//! says is foreign: bounded, and each file has to be one statement of the type that was asked for. Only the result is
//! scanned, no other stage and no context.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use build::instruction::{Mount, MountKind};
use build::recipe::{Action, Exec, ExecMount, Operation, Output, Recipe};
use build::{BuildRequest, BuiltContext, Narration};
use image::Image;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;
use serde_json::value::RawValue;
use spec::{Digest, Platform, Reference};
use sys::beneath::{list_sorted, open_beneath_no_links};
use tokio::sync::mpsc;

use crate::error::Failure;
use crate::frontend::{Options, tell};
use crate::job::Job;
use crate::provenance::{statement, subjects};
use crate::service::Service;
use crate::session::{Session, SessionClient, login};

/// The scanner of BuildKit's clients where none is named.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";
/// The type of what a scanner says.
const SPDX: &str = "https://spdx.dev/Document";
/// Where the scanner finds the result, and where it writes.
const SOURCE: &str = "/run/src/core/sbom";
const DESTINATION: &str = "/run/out";
/// What tells of the result itself begins so, and comes first.
const CORE: &str = "sbom.";
/// The most that a scanner may say, in all.
const MOST: u64 = 40 << 20;
/// Events that may wait to be told.
const PENDING: usize = 256;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    scanner: String,
    name: Reference,
    /// For the scanner, which is told them as variables.
    parameters: BTreeMap<String, String>,
    /// Ask the registry even where the scanner is here.
    pull: bool,
    /// Scan again whatever the cache knows.
    anew: bool,
}

impl Wanted {
    /// Reads what a request says.
    pub fn read(options: &Options) -> Result<Option<Wanted>, Failure> {
        let Some(text) = options.attestations.get("sbom") else {
            return Ok(None);
        };
        let fields = text.split(',').filter(|field| !field.is_empty());
        let mut parameters: BTreeMap<String, String> = fields
            .map(|field| field.split_once('=').unwrap_or((field, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if let Some("" | "1" | "true") = parameters.remove("disabled").as_deref() {
            return Ok(None);
        }
        let scanner = parameters.remove("generator").filter(|name| !name.is_empty());
        let scanner = scanner.unwrap_or_else(|| SCANNER.to_owned());
        let name = Reference::parse_normalized(&scanner)
            .map_err(|error| Failure::invalid(format!("invalid scanner {scanner:?}: {error}")))?;
        Ok(Some(Wanted {
            scanner,
            name,
            parameters,
            pull: options.pull,
            anew: options.no_cache,
        }))
    }
}

/// One document about an image, as text: a tree of it may take a hundred times as much memory.
#[derive(Debug, Clone)]
pub struct Bill {
    /// What else it is about, as the scanner says.
    subjects: Option<Box<RawValue>>,
    predicate: Box<RawValue>,
}

impl Bill {
    /// The statement about the image whose manifest has this digest, under these names.
    pub fn about(&self, manifest: &Digest, platform: &Platform, names: &[Reference]) -> image::Statement {
        let about = match &self.subjects {
            None => Value::from(subjects(manifest, platform, names)).to_string(),
            Some(subjects) => subjects.get().to_owned(),
        };
        statement(SPDX, &about, self.predicate.get(), manifest)
    }
}

/// The scanner's command on the result.
fn recipe(
    wanted: &Wanted,
    scanner: &Image,
    result: BuiltContext,
    platform: &Platform,
) -> Result<Recipe, Failure> {
    let settings = &scanner.config.config;
    let words = settings
        .entrypoint
        .iter()
        .flatten()
        .chain(settings.cmd.iter().flatten());
    let args: Vec<String> = words.cloned().collect();
    let has_files = result.snapshot.is_some();
    if args.is_empty() {
        return Err(Failure::invalid(format!(
            "the scanner {} cannot be run: the image has neither ENTRYPOINT nor CMD",
            wanted.scanner
        )));
    }
    let mut env = settings.env.clone();
    env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}/"));
    env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
    let parameters = wanted.parameters.iter();
    env.extend(parameters.map(|(key, value)| format!("BUILDKIT_SCAN_{key}={value}")));
    let cwd = match settings.working_dir.as_str() {
        "" => "/".to_owned(),
        directory => directory.to_owned(),
    };
    let of = |operation| Some(Output { operation, number: 0 });
    let bind = |target: &str, read_only, input, output| ExecMount {
        mount: Mount {
            read_only: Some(read_only),
            ..Mount::plain(MountKind::Bind)
        },
        target: target.to_owned(),
        input,
        output,
    };
    let tmp = ExecMount {
        mount: Mount::plain(MountKind::Tmpfs),
        target: "/tmp".to_owned(),
        input: None,
        output: None,
    };
    let exec = Exec {
        args,
        env,
        proxy: Vec::new(),
        cwd,
        user: String::new(),
        hostname: String::new(),
        hosts: Vec::new(),
        network: None,
        insecure: false,
        good_codes: Vec::new(),
        mounts: vec![
            bind("/", false, of(0), None),
            tmp,
            // Nothing cannot be mounted; an empty room can, which is for the scanner alone.
            bind(SOURCE, has_files, of(1), None),
            bind(DESTINATION, false, None, Some(0)),
        ],
    };
    let operation = |title: String, anew, action| Operation {
        title,
        anew,
        platform: Some(Platform::host()),
        action,
    };
    let image = Action::Image {
        name: scanner.id.to_string(),
        pull: false,
    };
    Ok(Recipe {
        operations: vec![
            operation(format!("[internal] scanner {}", wanted.scanner), false, image),
            operation(
                "[internal] result to be scanned".to_owned(),
                false,
                Action::Built(Box::new(result)),
            ),
            operation(
                format!("[{platform}] generating sbom using {}", wanted.scanner),
                wanted.anew,
                Action::Exec(Box::new(exec)),
            ),
        ],
        wanted: Output {
            operation: 2,
            number: 0,
        },
    })
}

/// Has the result of a build for this platform scanned.
pub async fn scan(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    wanted: &Wanted,
    (result, platform): (BuiltContext, &Platform),
) -> Result<Vec<Bill>, Failure> {
    let auth = login(session, wanted.name.domain()).await;
    let host = Platform::host();
    let getting = service
        .builder
        .image(&wanted.scanner, Some(&host), wanted.pull, auth);
    let scanner = tokio::select! {
        scanner = getting => scanner.map_err(|error| {
            Failure::from(error).context(format!(
                "what the image holds cannot be told without the scanner {} (--sbom=generator=IMAGE names another one)",
                wanted.scanner
            ))
        })?,
        () = job.stop.cancelled() => return Err(Failure::new(tonic::Code::Cancelled, "context canceled")),
    };
    let recipe = recipe(wanted, &scanner, result, platform)?;
    let request = BuildRequest {
        platform: Some(Platform::host()),
        client: Some(Arc::new(SessionClient::plain(service, session, job))),
        narration: Narration::Steps,
        stop: job.stop.child_token(),
        ..BuildRequest::new(service.empty()?)
    };
    let (output, events) = mpsc::channel(PENDING);
    let solving = service.builder.solve_recipe(recipe, request, output);
    let (solution, ()) = tokio::join!(solving, tell(job, events, None));
    let solution = solution?;
    job.settles(&solution);
    let reading = move || match solution.files()? {
        Some(said) => read(&said),
        None => Ok(Vec::new()),
    };
    let bills = tokio::task::spawn_blocking(reading)
        .await
        .map_err(Failure::broken)?;
    let bills =
        bills.map_err(|failure| failure.context(format!("what the scanner {} says", wanted.scanner)))?;
    match bills.is_empty() {
        false => Ok(bills),
        true => Err(Failure::invalid(format!(
            "the scanner {} says nothing: it has to write statements to $BUILDKIT_SCAN_DESTINATION",
            wanted.scanner
        ))),
    }
}

/// Reads what a scanner wrote: what tells of the result itself, then the rest, each by name.
fn read(said: &OwnedFd) -> Result<Vec<Bill>, Failure> {
    let failed = |error: io::Error| Failure::internal(format!("cannot be read: {error}"));
    let mut names = list_sorted(said.as_fd()).map_err(failed)?;
    names.sort_by_key(|name| !name.to_string_lossy().starts_with(CORE));
    let (mut bills, mut room) = (Vec::new(), MOST);
    for name in names {
        let shown = name.to_string_lossy();
        let invalid = |why: &str| Failure::invalid(format!("{shown}: {why}"));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_beneath_no_links(said.as_fd(), Path::new(&name), flags, Mode::empty());
        let file = File::from(file.map_err(|error| invalid(&error.to_string()))?);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(invalid("it is no regular file"));
        }
        let mut text = Vec::new();
        file.take(room + 1).read_to_end(&mut text).map_err(failed)?;
        room = room
            .checked_sub(text.len() as u64)
            .ok_or_else(|| invalid(&format!("more than {MOST} bytes, in all")))?;
        bills.push(bill(&text).map_err(|why| invalid(&why))?);
    }
    Ok(bills)
}

/// An in-toto statement, as far as it is looked into.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    predicate_type: String,
    subject: Option<Box<RawValue>>,
    predicate: Option<Box<RawValue>>,
}

/// The document in a statement.
fn bill(text: &[u8]) -> Result<Bill, String> {
    let said: Said =
        serde_json::from_slice(text).map_err(|error| format!("this is no in-toto statement: {error}"))?;
    let kind = said.predicate_type;
    if kind != SPDX {
        return Err(format!(
            "a statement of the type {kind:?}, where {SPDX} was asked for"
        ));
    }
    let names_something = |subjects: &RawValue| {
        let inside = subjects.get().strip_prefix('[');
        inside.is_some_and(|inside| inside.trim() != "]")
    };
    Ok(Bill {
        subjects: said.subject.filter(|subjects| names_something(subjects)),
        predicate: said
            .predicate
            .ok_or_else(|| "a statement without a predicate".to_owned())?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(text: &str) -> Option<Wanted> {
        let mut options = Options::default();
        options.attestations.insert("sbom".to_owned(), text.to_owned());
        Wanted::read(&options).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_read() {
        assert_eq!(Wanted::read(&Options::default()).unwrap(), None);
        assert_eq!(wanted("disabled=true"), None);
        let mut misspelt = Options::default();
        misspelt
            .attestations
            .insert("sbom".to_owned(), "generator=Bad/Name".to_owned());
        let told = Wanted::read(&misspelt).unwrap_err().message;
        assert!(told.starts_with("invalid scanner \"Bad/Name\": "), "{told}");
        assert_eq!(wanted("").unwrap().scanner, SCANNER);
        let own = wanted("generator=h:5000/scan:1,DEPTH=3").unwrap();
        assert_eq!(own.scanner, "h:5000/scan:1");
        assert_eq!(
            own.parameters,
            BTreeMap::from([("DEPTH".to_owned(), "3".to_owned())])
        );
    }

    #[test]
    fn statements_are_read_and_told_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str, kind: &str, subject: Value| {
            let text = json!({"predicateType": kind, "subject": subject, "predicate": {"name": name}});
            std::fs::write(dir.path().join(name), text.to_string()).unwrap();
        };
        said(
            "a.spdx.json",
            SPDX,
            json!([{"name": "part", "digest": {"sha256": "0"}}]),
        );
        said("sbom.spdx.json", SPDX, Value::Null);
        let read = || read(&OwnedFd::from(File::open(dir.path()).unwrap()));
        let bills = read().unwrap();
        let told: Vec<&str> = bills.iter().map(|bill| bill.predicate.get()).collect();
        assert_eq!(
            told,
            [r#"{"name":"sbom.spdx.json"}"#, r#"{"name":"a.spdx.json"}"#]
        );
        let (manifest, platform) = (Digest::sha256(b"m"), Platform::new("linux", "arm64", None));
        let about = |bill: &Bill| -> Value {
            let statement = bill.about(&manifest, &platform, &[]);
            assert_eq!(statement.predicate_type, SPDX);
            serde_json::from_slice(&statement.document).unwrap()
        };
        assert_eq!(about(&bills[0])["subject"][0]["digest"]["sha256"], manifest.hex());
        assert_eq!(about(&bills[1])["subject"][0]["name"], "part");
        said("other.json", "https://slsa.dev/provenance/v1", Value::Null);
        assert!(
            read()
                .unwrap_err()
                .message
                .contains("other.json: a statement of the type")
        );
        std::fs::write(dir.path().join("other.json"), "x").unwrap();
        assert!(read().unwrap_err().message.contains("no in-toto statement"));
        std::fs::remove_file(dir.path().join("other.json")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(read().unwrap_err().message.starts_with("link: "));
    }
}
