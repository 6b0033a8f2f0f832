//! Indexes that are being put together: `manifests` beside the configuration holds a directory for each, with a file for each
//! image in it. Names and contents are those of Docker's client, so that either client goes on with what the other began.

use std::path::{Path, PathBuf};

use spec::Reference;
use spec::image::{Descriptor, media_type};

use crate::failure::Failure;
use crate::json::Value;
use crate::session::Session;

/// An image in an index.
pub struct Part {
    /// The name it was given by.
    pub image: Reference,
    pub descriptor: Descriptor,
    /// Its manifest; empty where nobody asked for it.
    pub raw: String,
}

impl Part {
    /// As it is written down and shown: with the manifest as it is, and as a document.
    pub fn document(&self) -> Value {
        let kind = match self.descriptor.media_type.as_str() {
            media_type::OCI_MANIFEST => "OCIManifest",
            _ => "SchemaV2Manifest",
        };
        let manifest = Value::parse(self.raw.as_bytes()).unwrap_or_default();
        Value::Object(vec![
            ("Ref".to_owned(), self.image.canonical().into()),
            ("Descriptor".to_owned(), described(&self.descriptor)),
            ("Raw".to_owned(), Value::from(encoded(&self.raw))),
            (kind.to_owned(), manifest),
        ])
    }
}

/// A descriptor without what an entry of an index says beside the platform.
fn described(descriptor: &Descriptor) -> Value {
    let mut members = vec![
        ("mediaType".to_owned(), descriptor.media_type.as_str().into()),
        ("digest".to_owned(), descriptor.digest.as_str().into()),
        ("size".to_owned(), Value::of(&descriptor.size)),
    ];
    members.extend(platform(descriptor).map(|platform| ("platform".to_owned(), platform)));
    Value::Object(members)
}

/// The platform with its keys in the order that Docker's client writes.
pub fn platform(descriptor: &Descriptor) -> Option<Value> {
    let platform = descriptor.platform.as_ref()?;
    let mut members = vec![
        ("architecture".to_owned(), platform.architecture.as_str().into()),
        ("os".to_owned(), platform.os.as_str().into()),
    ];
    let version = platform.os_version.as_deref();
    members.extend(version.map(|version| ("os.version".to_owned(), version.into())));
    if !platform.os_features.is_empty() {
        members.push(("os.features".to_owned(), Value::of(&platform.os_features)));
    }
    let variant = platform.variant.as_deref();
    members.extend(variant.map(|variant| ("variant".to_owned(), variant.into())));
    Some(Value::Object(members))
}

fn encoded(raw: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(raw)
}

fn decoded(raw: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(raw).ok()?;
    String::from_utf8(bytes).ok()
}

/// A name as a file's.
fn file_name(name: &Reference) -> String {
    name.canonical().replace(':', "-").replace('/', "_")
}

fn directory(session: &Session, list: &Reference) -> PathBuf {
    session.globals.config.join("manifests").join(file_name(list))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::text(format!("{path}: {error}"))
}

/// Said of an index, or an image in one, that is not here.
pub fn not_found(name: &Reference) -> Failure {
    Failure::text(format!("No such manifest: {}", name.canonical()))
}

/// The images of an index, in the order of their files' names; `None` if there is no such index.
pub fn all(session: &Session, list: &Reference) -> Result<Option<Vec<Part>>, Failure> {
    let dir = directory(session, list);
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&dir)(error)),
    };
    files.sort();
    files
        .iter()
        .map(|file| part(file))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// One image of an index.
pub fn get(session: &Session, list: &Reference, image: &Reference) -> Result<Option<Part>, Failure> {
    let file = directory(session, list).join(file_name(image));
    match file.exists() {
        true => part(&file).map(Some),
        false => Ok(None),
    }
}

fn part(file: &Path) -> Result<Part, Failure> {
    let broken = || Failure::text(format!("{}: not an image of an index", file.display()));
    let bytes = std::fs::read(file).map_err(failed(file))?;
    let document = Value::parse(&bytes).map_err(|_| broken())?;
    let image = document.at(&["Ref"]).text().parse().map_err(|_| broken())?;
    let descriptor = document.at(&["Descriptor"]).compact();
    let raw = match document.at(&["Raw"]).text() {
        // Of a client that kept the document only.
        "" => {
            let kinds = ["SchemaV2Manifest", "OCIManifest"];
            let manifest = kinds.iter().find_map(|kind| document.get(kind));
            manifest.map(Value::compact).unwrap_or_default()
        }
        raw => decoded(raw).ok_or_else(broken)?,
    };
    Ok(Part {
        image,
        descriptor: serde_json::from_str(&descriptor).map_err(|_| broken())?,
        raw,
    })
}

/// Puts an image into an index, in the place of one of the same name.
pub fn put(session: &Session, list: &Reference, part: &Part) -> Result<(), Failure> {
    let dir = directory(session, list);
    std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
    let file = dir.join(file_name(&part.image));
    std::fs::write(&file, part.document().compact()).map_err(failed(&file))
}

/// Forgets an index.
pub fn remove(session: &Session, list: &Reference) -> Result<(), Failure> {
    let dir = directory(session, list);
    std::fs::remove_dir_all(&dir).map_err(failed(&dir))
}
