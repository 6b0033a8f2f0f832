//! Caches that clients name: read before a build, written after it.
//!
//! A cache that cannot be read is told and forgotten, since a build can do without. One that cannot be written fails the
//! build, unless its client says otherwise: whoever asked for it relies on it.

use std::collections::HashMap;
use std::sync::Arc;

use ::session::content::CACHE_STORE;
use ::session::control::CACHE_TOP;
use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptionsEntry, SolveRequest};
use build::BuildError;
use build::exchange::{
    CacheExport, CacheGoal, CacheSource, CacheTarget, Draft, INLINE_ARGUMENT, Imported, MAX_TOP, Origin,
    Wish, import,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::Images;
use spec::Digest;
use spec::image::Descriptor;
use store::Lease;
use tokio::sync::mpsc;

use crate::content;
use crate::error::Failure;
use crate::export::tell_push;
use crate::job::{Job, Step};
use crate::result::Answer;
use crate::service::Service;
use crate::session::{Session, login};

/// Under which clients are told what begins a cache that was written; they note it in the index of a directory.
const MANIFEST: &str = "cache.manifest";
const PENDING: usize = 64;

fn wish(entry: &CacheOptionsEntry) -> Wish {
    Wish {
        kind: entry.r#type.clone(),
        options: entry.attrs.clone().into_iter().collect(),
    }
}

/// The caches that a build is to write. What is not understood is refused before anything is built.
pub fn targets(request: &SolveRequest) -> Result<Vec<CacheTarget>, Failure> {
    let exports = request.cache.iter().flat_map(|cache| &cache.exports);
    let mut targets: Vec<CacheTarget> = exports
        .map(|entry| CacheTarget::read(&wish(entry)))
        .collect::<Result<_, BuildError>>()?;
    let asked = request
        .frontend_attrs
        .get(&format!("build-arg:{INLINE_ARGUMENT}"));
    CacheTarget::add_inline(&mut targets, asked.map(String::as_str));
    Ok(targets)
}

/// How much of the build has to be remembered for them.
pub fn export_of(request: &SolveRequest) -> Result<CacheExport, Failure> {
    Ok(CacheTarget::most(&targets(request)?))
}

/// What a client names to be read, in the request of the build and in the attributes of its frontend.
fn wishes(request: &SolveRequest, attributes: &HashMap<String, String>) -> Result<Vec<Wish>, Failure> {
    let imports = request.cache.iter().flat_map(|cache| &cache.imports);
    let mut wishes: Vec<Wish> = imports.map(wish).collect();
    if let Some(text) = attributes.get("cache-imports").filter(|text| !text.is_empty()) {
        let entries: Vec<Wish> = serde_json::from_str(text)
            .map_err(|error| Failure::invalid(format!("failed to unmarshal cache-imports: {error}")))?;
        wishes.extend(entries);
    }
    let names = attributes
        .get("cache-from")
        .map(String::as_str)
        .unwrap_or_default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        wishes.push(Wish::parse(name)?);
    }
    let mut once: Vec<Wish> = Vec::new();
    for wish in wishes {
        if !once.contains(&wish) {
            once.push(wish);
        }
    }
    Ok(once)
}

/// Reads the caches that a build may use; each is a step of it.
pub async fn imports(
    service: &Service,
    job: &Arc<Job>,
    session: Option<&Session>,
    attributes: &HashMap<String, String>,
) -> Result<Vec<Arc<Imported>>, Failure> {
    let mut found = Vec::new();
    for wish in wishes(&job.request, attributes)? {
        let source = CacheSource::read(&wish);
        let title = match &source {
            Ok(source) => source.title(),
            Err(_) => wish.kind.clone(),
        };
        let step = job.begin(&format!("importing cache manifest from {title}"));
        let reading = async {
            match (source?, session) {
                (CacheSource::Registry(name) | CacheSource::Named(name), session) => {
                    let auth = match session {
                        Some(session) => login(session, name.domain()).await,
                        None => None,
                    };
                    Ok(service.builder.import_cache(&name, auth.as_ref()).await?)
                }
                (CacheSource::Local { directory, digest }, Some(session)) => {
                    let origin = Directory {
                        session: session.clone(),
                        store: format!("{CACHE_STORE}{directory}"),
                        images: service.images.clone(),
                        digest,
                    };
                    Ok(import(Arc::new(origin), &title).await?)
                }
                (CacheSource::Local { .. }, None) => Err(Failure::invalid(
                    "a cache in a directory needs the client's session",
                )),
            }
        };
        let read: Result<Imported, Failure> = tokio::select! {
            read = reading => read,
            () = job.stop.cancelled() => return Err(Failure::new(tonic::Code::Cancelled, "context canceled")),
        };
        step.end(read.as_ref().err().map(|failure| failure.message.clone()));
        found.extend(read.ok().map(Arc::new));
    }
    Ok(found)
}

/// A directory of the client, laid out as OCI has it.
struct Directory {
    session: Session,
    store: String,
    images: Images,
    digest: Digest,
}

impl Directory {
    async fn read(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, BuildError> {
        Ok(content::read(&self.session, &self.store, digest, size).await?)
    }
}

impl Origin for Directory {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        async move {
            let size = content::size(&self.session, &self.store, &self.digest).await?;
            if size > MAX_TOP {
                let digest = &self.digest;
                let text = format!("{digest} has {size} bytes, at most {MAX_TOP} are read");
                return Err(Failure::invalid(text).into());
            }
            self.read(&self.digest, size).await
        }
        .boxed()
    }

    fn document<'a>(&'a self, of: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        async move { self.read(&of.digest, of.size).await }.boxed()
    }

    fn layer<'a>(&'a self, of: &'a Descriptor, lease: &'a Lease) -> BoxFuture<'a, Result<(), BuildError>> {
        async move {
            let store = self.images.store();
            lease.hold_blob(&of.digest);
            if store.content().has(&of.digest) {
                return Ok(());
            }
            store
                .room()
                .check()
                .map_err(|error| Failure::unavailable(error.to_string()))?;
            Ok(content::fetch(&self.session, &self.store, of, store).await?)
        }
        .boxed()
    }
}

/// Has the images of a build carry what they hold of the cache, where that is asked for; before there are images.
pub async fn carry(job: &Arc<Job>, answer: &Answer) -> Result<(), Failure> {
    let targets = targets(&job.request)?;
    if !targets.iter().any(|target| target.goal == CacheGoal::Inline) {
        return Ok(());
    }
    for (_, name) in &answer.results {
        if let Some(outcome) = job.outcome(name) {
            let carry = move || outcome.solution.carry_cache();
            tokio::task::spawn_blocking(carry)
                .await
                .map_err(Failure::broken)??;
        }
    }
    Ok(())
}

/// Writes the caches that a build was asked for; what clients are told about them.
pub async fn export(
    service: &Service,
    job: &Arc<Job>,
    answer: &Answer,
) -> Result<HashMap<String, String>, Failure> {
    let mut said = HashMap::new();
    for (number, target) in targets(&job.request)?.into_iter().enumerate() {
        let title = match target.goal {
            CacheGoal::Inline => continue,
            CacheGoal::Registry(_) => "exporting cache to registry",
            CacheGoal::Local(_) => "exporting cache to client directory",
        };
        let step = job.begin(title);
        let written = tokio::select! {
            written = write(service, job, answer, &target, &step) => written,
            () = job.stop.cancelled() => Err(Failure::new(tonic::Code::Cancelled, "context canceled")),
        };
        // Its documents are of no use here, however it ended.
        service.builder.sweep().await?;
        step.end(written.as_ref().err().map(|failure| failure.message.clone()));
        match written {
            Ok(Some(top)) => {
                let top = serde_json::to_string(&top).unwrap_or_default();
                // BuildKit's clients know of one only.
                said.insert(format!("{CACHE_TOP}.{number}"), top.clone());
                said.insert(MANIFEST.to_owned(), top);
            }
            Ok(None) => {}
            Err(failure) if target.ignore_error && !job.stop.is_cancelled() => {
                tracing::warn!(%failure, "a cache was not exported");
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(said)
}

async fn write(
    service: &Service,
    job: &Arc<Job>,
    answer: &Answer,
    target: &CacheTarget,
    step: &Step,
) -> Result<Option<Descriptor>, Failure> {
    let names = answer.results.iter();
    let outcomes: Vec<_> = names.filter_map(|(_, name)| job.outcome(name)).collect();
    let mode = target.mode;
    let preparing = "preparing build cache for export";
    step.progress(preparing, 0, 0, false);
    let collect = move || {
        let mut draft = Draft::default();
        for outcome in outcomes {
            outcome.solution.draft_cache(&mut draft, mode)?;
        }
        Ok::<_, BuildError>(draft)
    };
    let draft = tokio::task::spawn_blocking(collect)
        .await
        .map_err(Failure::broken)??;
    step.progress(preparing, 0, 0, true);
    if draft.is_empty() {
        step.progress("skipping cache export for empty result", 0, 0, true);
        return Ok(None);
    }
    let session = match job.request.session.as_str() {
        "" => None,
        id => Some(service.sessions.get(id).await?),
    };
    match (&target.goal, session) {
        (CacheGoal::Registry(name), session) => {
            let auth = match &session {
                Some(session) => login(session, name.domain()).await,
                None => None,
            };
            let (progress, events) = mpsc::channel(PENDING);
            let pushing = service
                .builder
                .export_cache(draft, target.form, name, auth, progress);
            let (pushed, ()) = tokio::join!(pushing, tell_push(step, events));
            let top = pushed.map_err(|error| {
                Failure::from(error).context(format!("failed to export the cache to {}", name.familiar()))
            })?;
            step.progress(&format!("writing cache manifest {}", top.digest), 0, 0, true);
            Ok(Some(top))
        }
        (CacheGoal::Local(directory), Some(session)) => {
            let (images, form) = (service.images.clone(), target.form);
            let written = tokio::task::spawn_blocking(move || draft.write(&images, form))
                .await
                .map_err(Failure::broken)??;
            let store = format!("{CACHE_STORE}{directory}");
            for blob in written.blobs.iter().chain([&written.top]) {
                let what = format!("writing {}", blob.digest);
                step.progress(&what, 0, blob.size, false);
                let file = service
                    .images
                    .store()
                    .content()
                    .open(&blob.digest)
                    .map_err(|error| Failure::internal(error.to_string()))?;
                content::write(&session, &store, &blob.digest, file).await?;
                step.progress(&what, blob.size, blob.size, true);
            }
            Ok(Some(written.top))
        }
        (CacheGoal::Local(_), None) => Err(Failure::invalid(
            "a cache in a directory needs the client's session",
        )),
        (CacheGoal::Inline, _) => Ok(None),
    }
}
