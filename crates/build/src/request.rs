//! What a client asks to be built, and what it hears while it waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use image::{Auth, Guest, Image, ProgressEvent};
use spec::{Digest, Platform, Reference};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::exchange::{CacheExport, CacheSource, CacheTarget, Imported};
use crate::executor::{Limits, NetworkMode};
use crate::history::Explained;
use crate::instruction::RunNetwork;
use crate::report::{StepId, StepNews};

/// How a build tells what it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Narration {
    /// As one text in the order of the Dockerfile.
    #[default]
    Text,
    /// Each step by itself.
    Steps,
}

/// What the Dockerfile calls by a name that the client gave a meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedContext {
    /// An image.
    Image(String),
    /// A directory of the client.
    Directory,
    /// What another build made.
    Built(Box<BuiltContext>),
}

/// The result of another build, which has to be held while this one runs.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltContext {
    /// By what those that use the files know them.
    pub identity: Digest,
    /// `None`: no files.
    pub snapshot: Option<store::SnapshotId>,
    /// With its history; the root filesystem is told by the snapshot.
    pub config: spec::image::ImageConfig,
}

/// What a build allows its commands beyond what every command may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --security=insecure`.
    pub insecure: bool,
    /// `RUN --network=host`.
    pub host_network: bool,
}

impl Allowed {
    /// The word for the first thing that a command wants and is not allowed.
    pub(crate) fn lacks(self, insecure: bool, network: Option<RunNetwork>) -> Option<&'static str> {
        if insecure && !self.insecure {
            return Some(INSECURE);
        }
        (network == Some(RunNetwork::Host) && !self.host_network).then_some(HOST_NETWORK)
    }
}

/// As clients call commands without the confinement of containers.
pub const INSECURE: &str = "security.insecure";
/// As clients call commands in the host's own network.
pub const HOST_NETWORK: &str = "network.host";

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
    /// Stages whose steps are all made again.
    pub no_cache_stages: Vec<String>,
    /// Ask the registry even where the base image is here.
    pub pull: bool,
    pub platform: Option<Platform>,
    /// As in the API: empty, `default`, `none`, `host`, a network's name.
    pub network_mode: String,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub shm_size: i64,
    pub limits: Limits,
    /// The new layers become one.
    pub squash: bool,
    /// No file of a new layer has a time later than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// Logins for base images, by the registry's host as references name it (`docker.io` for the Hub).
    pub logins: BTreeMap<String, Auth>,
    /// Whom to ask for the context, for secrets and for agents; without it the context lies in its directory, and there is
    /// nothing of the others.
    pub client: Option<Arc<dyn Client>>,
    /// What names stand for instead of a stage or an image.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Images that are here for this build alone, found by their ids.
    pub guests: Vec<Guest>,
    /// The host name of every step; empty: one made up.
    pub hostname: String,
    pub narration: Narration,
    /// Tell of each step whether the cache knew it, and why not.
    pub explain: bool,
    /// Caches in registries, and in images that are here, to be read first.
    pub cache_sources: Vec<CacheSource>,
    /// Caches to be written of what becomes an image at once.
    pub cache_targets: Vec<CacheTarget>,
    /// What others exported of their caches; the first that knows a step counts.
    pub cache_imports: Vec<Arc<Imported>>,
    /// Whether, and how much of, what the build used is going to be exported.
    pub cache_export: CacheExport,
    pub allowed: Allowed,
    /// Cancelling it ends the build and everything that runs for it.
    pub stop: CancellationToken,
}

impl BuildRequest {
    /// What the commands of this build may: where all of them run in the host's network, each may say so.
    pub(crate) fn allowed(&self) -> Allowed {
        let host_network =
            self.allowed.host_network || NetworkMode::parse(&self.network_mode) == NetworkMode::Host;
        Allowed {
            host_network,
            ..self.allowed
        }
    }

    /// The guest that is called so.
    pub(crate) fn guest(&self, id: &str) -> Option<Image> {
        let mut guests = self.guests.iter();
        let found = guests.find(|guest| guest.image.id.as_str() == id);
        found.map(|guest| guest.image.clone())
    }

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
            no_cache_stages: Vec::new(),
            pull: false,
            platform: None,
            network_mode: String::new(),
            extra_hosts: Vec::new(),
            shm_size: 0,
            limits: Limits::default(),
            squash: false,
            rewrite_timestamp: false,
            logins: BTreeMap::new(),
            client: None,
            named_contexts: BTreeMap::new(),
            guests: Vec::new(),
            hostname: String::new(),
            narration: Narration::default(),
            explain: false,
            cache_sources: Vec::new(),
            cache_targets: Vec::new(),
            cache_imports: Vec::new(),
            cache_export: CacheExport::default(),
            allowed: Allowed::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// What a build says while it runs, in the order in which Docker's classic builder says it.
#[derive(Debug, Clone)]
pub enum BuildEvent {
    /// Text of the builder or of a step's standard output.
    Text(String),
    /// Text of a step's standard error.
    ErrorText(String),
    /// Progress of getting an image.
    Progress(ProgressEvent),
    /// The image that was built; Docker's `aux` with an `ID`.
    Image(Digest),
    /// News of one step; only with [`Narration::Steps`].
    Step { id: StepId, news: StepNews },
    /// Whether the cache knew a step, and why not; only where the request asks for it.
    Explained(Explained),
    /// By what the build is known afterwards; only where the request asks for explanations.
    Reference(String),
}
