//! Provenance: what an image was built from and how, as a statement that lies beside it (SLSA 1 or 0.2, in BuildKit's
//! words, `docs/attestations/slsa-provenance.md`).
//!
//! `min` tells sources and what kind of build it was, `max` the build's arguments, labels and the Dockerfile as well.
//! Values of arguments whose names look like secrets are told by their digests, addresses of contexts without logins.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use build::lint::looks_secret;
use serde_json::{Map, Value, json};
use spec::{Digest, Platform, Reference};

use crate::address::without_login;
use crate::error::Failure;
use crate::job::Job;

const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
const BUILD_TYPE_1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    ZeroTwo,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    mode: Mode,
    version: Version,
    builder: String,
    reproducible: bool,
    /// Only where the image goes away from here. Clients ask for it by default.
    inline_only: bool,
    /// Nowhere but in what the client is told.
    told_only: bool,
}

impl Wanted {
    /// Reads the attestations of a request, by kind.
    pub fn read(attestations: &BTreeMap<String, String>) -> Result<Option<Wanted>, Failure> {
        let mut wanted = None;
        for (kind, text) in attestations {
            let fields = text.split(',').filter(|field| !field.is_empty());
            let fields: BTreeMap<&str, &str> = fields
                .map(|field| field.split_once('=').unwrap_or((field, "")))
                .collect();
            let yes = |key: &str| matches!(fields.get(key).copied(), Some("" | "1" | "true"));
            if yes("disabled") {
                continue;
            }
            match kind.as_str() {
                "provenance" => {}
                // Told by a scanner.
                "sbom" => continue,
                other => {
                    return Err(Failure::invalid(format!(
                        "unknown attestation type {other:?}: provenance and sbom are offered"
                    )));
                }
            }
            let mode = match fields.get("mode").copied() {
                None | Some("" | "min") => Mode::Min,
                Some("max") => Mode::Max,
                Some(other) => {
                    return Err(Failure::invalid(format!(
                        "provenance has no mode {other:?}: min or max"
                    )));
                }
            };
            let version = match fields.get("version").copied() {
                None | Some("" | "v1") => Version::One,
                Some("v0.2") => Version::ZeroTwo,
                Some(other) => {
                    return Err(Failure::invalid(format!(
                        "provenance has no version {other:?}: v1 or v0.2"
                    )));
                }
            };
            wanted = Some(Wanted {
                mode,
                version,
                builder: fields.get("builder-id").copied().unwrap_or_default().to_owned(),
                reproducible: yes("reproducible"),
                inline_only: yes("inline-only"),
                told_only: yes("told-only"),
            });
        }
        Ok(wanted)
    }
}

/// Under which clients are told the provenance of a result.
const TOLD: &str = "buildx.build.provenance";

/// What clients note down of the provenance, by result; each is a document in base64.
pub fn told(job: &Job, results: &[(String, String)]) -> HashMap<String, String> {
    let mut told = HashMap::new();
    for (platform, name) in results {
        let said = job.outcome(name).and_then(|outcome| outcome.provenance.clone());
        let Some(said) = said else { continue };
        let key = match platform.as_str() {
            "" => TOLD.to_owned(),
            platform => format!("{TOLD}/{platform}"),
        };
        told.insert(key, STANDARD.encode(said.predicate.to_string()));
    }
    told
}

/// What is known of one build.
pub struct Facts<'a> {
    pub reference: &'a str,
    pub attributes: &'a HashMap<String, String>,
    /// Name and content of the Dockerfile.
    pub dockerfile: (&'a str, &'a [u8]),
    pub platform: &'a Platform,
    /// The client's directories.
    pub locals: &'a [String],
    /// Images that stages start from, and that files are taken from.
    pub images: Vec<(Reference, Digest)>,
    pub begun: SystemTime,
    pub ended: SystemTime,
}

/// A statement without the images it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    pub predicate_type: String,
    /// Only for images that go away from here.
    pub inline_only: bool,
    /// Not beside any image.
    pub told_only: bool,
    predicate: Value,
    platform: Platform,
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

fn hex(digest: &Digest) -> Value {
    json!({digest.algorithm(): digest.hex()})
}

/// An image as package URLs write it.
fn package(name: &Reference, platform: &Platform) -> String {
    let version = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{}{version}?platform={platform}", name.familiar_name())
}

impl Provenance {
    pub fn of(wanted: &Wanted, facts: &Facts<'_>) -> Provenance {
        let max = wanted.mode == Mode::Max;
        let told = |key: &str| {
            let kept = !key.starts_with("attest:") && !key.starts_with("local-sessionid:");
            // Where steps were taken from changes nothing about the image, and may name the client's directories.
            let caches = matches!(key, "cache-imports" | "cache-from");
            kept && !caches && (max || !key.starts_with("build-arg:") && !key.starts_with("label:"))
        };
        let value = |key: &str, value: &str| match key.split_once(':') {
            Some(("build-arg", name)) if looks_secret(name) => Digest::sha256(value.as_bytes()).to_string(),
            Some(("context", _)) => without_login(value),
            None if key == "context" => without_login(value),
            _ => value.to_owned(),
        };
        let arguments: BTreeMap<&str, String> = facts
            .attributes
            .iter()
            .filter(|(key, _)| told(key))
            .map(|(key, text)| (key.as_str(), value(key, text)))
            .collect();
        let locals: Vec<Value> = facts.locals.iter().map(|name| json!({"name": name})).collect();
        let materials: Vec<Value> = facts
            .images
            .iter()
            .map(|(name, digest)| json!({"uri": package(name, facts.platform), "digest": hex(digest)}))
            .collect();
        let request = json!({"frontend": "dockerfile.v0", "args": arguments, "locals": locals});
        let mut more = Map::new();
        if max {
            let source = json!({
                "infos": [{
                    "filename": facts.dockerfile.0,
                    "language": "Dockerfile",
                    "data": STANDARD.encode(facts.dockerfile.1),
                }],
            });
            more.insert("source".to_owned(), source);
        }
        let platform = facts.platform.to_string();
        let (begun, ended) = (time(facts.begun), time(facts.ended));
        let (predicate_type, predicate) = match wanted.version {
            Version::One => (
                "https://slsa.dev/provenance/v1",
                json!({
                    "buildDefinition": {
                        "buildType": BUILD_TYPE_1,
                        "externalParameters": {
                            "configSource": {"path": facts.dockerfile.0},
                            "request": request,
                        },
                        "internalParameters": {"builderPlatform": Platform::host().to_string()},
                        "resolvedDependencies": materials,
                    },
                    "runDetails": {
                        "builder": {"id": wanted.builder},
                        "metadata": {
                            "invocationID": facts.reference,
                            "startedOn": begun,
                            "finishedOn": ended,
                            "buildkit_completeness": {"request": max, "resolvedDependencies": false},
                            "buildkit_reproducible": wanted.reproducible,
                            "buildkit_metadata": more,
                        },
                    },
                }),
            ),
            Version::ZeroTwo => (
                "https://slsa.dev/provenance/v0.2",
                json!({
                    "builder": {"id": wanted.builder},
                    "buildType": BUILD_TYPE_02,
                    "materials": materials,
                    "invocation": {
                        "configSource": {"entryPoint": facts.dockerfile.0},
                        "parameters": request,
                        "environment": {"platform": platform},
                    },
                    "metadata": {
                        "buildInvocationID": facts.reference,
                        "buildStartedOn": begun,
                        "buildFinishedOn": ended,
                        "completeness": {"parameters": max, "environment": true, "materials": false},
                        "reproducible": wanted.reproducible,
                        "https://mobyproject.org/buildkit@v1#metadata": more,
                    },
                }),
            ),
        };
        Provenance {
            predicate_type: predicate_type.to_owned(),
            inline_only: wanted.inline_only,
            told_only: wanted.told_only,
            predicate,
            platform: facts.platform.clone(),
        }
    }

    /// The statement about the image whose manifest has this digest, under these names.
    pub fn about(&self, manifest: &Digest, names: &[Reference]) -> image::Statement {
        let about = subjects(manifest, &self.platform, names);
        let (about, predicate) = (Value::from(about).to_string(), self.predicate.to_string());
        statement(&self.predicate_type, &about, &predicate, manifest)
    }
}

/// An image as statements name it.
pub fn subjects(manifest: &Digest, platform: &Platform, names: &[Reference]) -> Vec<Value> {
    let mut subjects: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": package(name, platform), "digest": hex(manifest)}))
        .collect();
    if subjects.is_empty() {
        subjects.push(json!({"name": "_", "digest": hex(manifest)}));
    }
    subjects
}

/// A statement that lies beside the image with this manifest. `subjects` and `predicate` are JSON already: a predicate may be
/// large, and many times as large as a tree in memory.
pub fn statement(kind: &str, subjects: &str, predicate: &str, manifest: &Digest) -> image::Statement {
    let (of, is) = (Value::from(STATEMENT), Value::from(kind));
    let document =
        format!(r#"{{"_type":{of},"predicate":{predicate},"predicateType":{is},"subject":{subjects}}}"#);
    image::Statement {
        about: manifest.clone(),
        predicate_type: kind.to_owned(),
        document: document.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: &str, text: &str) -> Result<Option<Wanted>, Failure> {
        Wanted::read(&BTreeMap::from([(kind.to_owned(), text.to_owned())]))
    }

    fn made(text: &str) -> Value {
        let attributes: HashMap<String, String> = [
            ("build-arg:WORD", "hello"),
            ("build-arg:API_TOKEN", "sesame"),
            ("label:a", "b"),
            ("target", "last"),
            ("attest:provenance", text),
            ("cache-imports", "[{\"Type\":\"local\"}]"),
            ("cache-from", "elsewhere"),
            ("context", "https://me:sesame@h/x.git"),
            ("context:a", "https://sesame@h/a.git"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let platform = Platform::new("linux", "arm64", Some("v8"));
        let facts = Facts {
            reference: "r",
            attributes: &attributes,
            dockerfile: ("Dockerfile", b"FROM a"),
            platform: &platform,
            locals: &["context".to_owned()],
            images: vec![(
                Reference::parse_normalized("alpine:3").unwrap(),
                Digest::sha256(b"a"),
            )],
            begun: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
        };
        let provenance = Provenance::of(&wanted("provenance", text).unwrap().unwrap(), &facts);
        let statement = provenance.about(
            &Digest::sha256(b"m"),
            &[Reference::parse_normalized("app:1").unwrap()],
        );
        serde_json::from_slice(&statement.document).unwrap()
    }

    #[test]
    fn little_is_told_unless_more_is_asked_for() {
        let min = made("mode=min").to_string();
        assert!(
            min.contains("\"target\":\"last\"") && min.contains("pkg:docker/alpine@3?platform=linux%2Farm64")
        );
        assert!(
            !min.contains("hello") && !min.contains("RlJPTSBh") && !min.contains("attest:"),
            "{min}"
        );
        assert!(
            min.contains("https://h/x.git") && min.contains("https://h/a.git"),
            "{min}"
        );
        assert!(!min.contains("sesame"), "{min}");
        let max = made("mode=max").to_string();
        assert!(max.contains("hello") && max.contains("RlJPTSBh"), "{max}");
        assert!(!max.contains("sesame"), "{max}");
        assert!(!max.contains("cache-") && !max.contains("elsewhere"), "{max}");
    }

    #[test]
    fn both_versions_say_whom_they_are_about() {
        for (text, kind) in [("version=v0.2", "v0.2"), ("mode=max", "v1")] {
            let statement = made(text);
            assert_eq!(
                statement["predicateType"],
                format!("https://slsa.dev/provenance/{kind}")
            );
            assert!(
                statement["subject"][0]["name"]
                    .as_str()
                    .unwrap()
                    .starts_with("pkg:docker/app@1?")
            );
            assert_eq!(
                statement["subject"][0]["digest"]["sha256"],
                Digest::sha256(b"m").hex()
            );
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert_eq!(wanted("sbom", "").unwrap(), None);
        let other = wanted("vex", "").unwrap_err().message;
        assert!(other.contains("unknown attestation type \"vex\""), "{other}");
        assert!(wanted("provenance", "mode=all").is_err() && wanted("provenance", "version=v9").is_err());
        assert_eq!(wanted("provenance", "disabled=true").unwrap(), None);
        assert_eq!(wanted("sbom", "disabled=true").unwrap(), None);
        assert!(
            wanted("provenance", "mode=min,inline-only=true")
                .unwrap()
                .is_some()
        );
    }
}
