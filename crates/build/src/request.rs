//! What a client asks to be built, and what it hears while it waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use image::{Auth, ProgressEvent};
use spec::{Digest, Platform, Reference};
use tokio_util::sync::CancellationToken;

use crate::executor::Limits;

/// A build as asked for.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The unpacked context; a directory nobody else writes to.
    pub context: PathBuf,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// The Dockerfile's content where it does not lie in the context.
    pub dockerfile_content: Option<Vec<u8>>,
    pub tags: Vec<Reference>,
    /// `None`: named without a value, which leaves the default.
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    /// Ask the registry even where the base image is here.
    pub pull: bool,
    pub platform: Option<Platform>,
    /// As in the API: empty, `default`, `none`, `host`, a network's name.
    pub network_mode: String,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub shm_size: i64,
    pub limits: Limits,
    /// Refused: it would need Docker's experimental mode there as well.
    pub squash: bool,
    /// Logins for base images, by the registry's host as references name it (`docker.io` for the Hub).
    pub logins: BTreeMap<String, Auth>,
    /// Secrets for `RUN --mount=type=secret`, by id.
    pub secrets: BTreeMap<String, Arc<Vec<u8>>>,
    /// Cancelling it ends the build and everything that runs for it.
    pub stop: CancellationToken,
}

impl BuildRequest {
    /// A build of the `Dockerfile` in `context` with everything else left at its default.
    pub fn new(context: impl Into<PathBuf>) -> BuildRequest {
        BuildRequest {
            context: context.into(),
            dockerfile: "Dockerfile".to_owned(),
            dockerfile_content: None,
            tags: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            no_cache: false,
            pull: false,
            platform: None,
            network_mode: String::new(),
            extra_hosts: Vec::new(),
            shm_size: 0,
            limits: Limits::default(),
            squash: false,
            logins: BTreeMap::new(),
            secrets: BTreeMap::new(),
            stop: CancellationToken::new(),
        }
    }
}

/// What a build says while it runs, in the order in which Docker's classic builder says it.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// Text of the builder or of a step's standard output.
    Text(String),
    /// Text of a step's standard error.
    ErrorText(String),
    /// Progress of getting an image.
    Progress(ProgressEvent),
    /// The image that was built; Docker's `aux` with an `ID`.
    Image(Digest),
}
