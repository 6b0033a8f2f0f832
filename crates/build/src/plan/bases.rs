//! The images that a build starts from or copies from: found here, or fetched, each once.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use image::{Image, ImageError};
use spec::{Platform, Reference};
use tokio::sync::{Mutex, mpsc};

use crate::error::BuildError;
use crate::instruction::Statement;
use crate::report::StepId;
use crate::step::Build;
use crate::transcript::StepNumber;

/// How many lines of progress may wait.
const PROGRESS_QUEUE: usize = 64;

/// An image as something names it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: String,
    pub platform: Option<Platform>,
    pub number: StepNumber,
    pub statement: Statement,
    /// A stage whose name is nearly this one's.
    pub alike: Option<String>,
}

/// Images by name and platform.
#[derive(Default)]
pub struct Bases {
    known: Mutex<HashMap<(String, Option<String>), Image>>,
}

impl Bases {
    /// Gets all of `wanted` at the same time.
    pub async fn get_all(build: &Arc<Build>, wanted: Vec<Wanted>) -> Result<Bases, BuildError> {
        let bases = Bases::default();
        let mut unique: Vec<Wanted> = Vec::new();
        for wanted in wanted {
            let same = |other: &Wanted| other.name == wanted.name && other.platform == wanted.platform;
            if !unique.iter().any(same) {
                unique.push(wanted);
            }
        }
        for got in join_all(unique.iter().map(|wanted| bases.get(build, wanted))).await {
            got?;
        }
        Ok(bases)
    }

    /// Gets one image.
    pub async fn get(&self, build: &Arc<Build>, wanted: &Wanted) -> Result<Image, BuildError> {
        let key = (
            wanted.name.clone(),
            wanted.platform.as_ref().map(Platform::to_string),
        );
        if let Some(image) = self.known.lock().await.get(&key) {
            return Ok(image.clone());
        }
        let image = tokio::select! {
            image = resolve(build, wanted) => image.map_err(|error| {
                let error = match &wanted.alike {
                    Some(stage) => error.hint(format_args!("did you mean the stage {stage}?")),
                    None => error,
                };
                error.at(&wanted.statement.snippet)
            })?,
            () = build.request.stop.cancelled() => return Err(BuildError::Cancelled),
        };
        self.known.lock().await.insert(key, image.clone());
        Ok(image)
    }
}

/// Finds or fetches an image, which is told as one thing that the builder does.
async fn resolve(build: &Arc<Build>, wanted: &Wanted) -> Result<Image, BuildError> {
    let shown = Reference::parse_normalized(&wanted.name)
        .map_or_else(|_| wanted.name.clone(), |name| name.or_latest().to_string());
    let id = build
        .reporter
        .begin_before(format!("[internal] load metadata for {shown}"))
        .await;
    let found = find_or_fetch(build, wanted, id).await;
    let failure = found.as_ref().err().cloned();
    build.reporter.end_before(id, failure).await;
    found
}

async fn find_or_fetch(build: &Arc<Build>, wanted: &Wanted, id: StepId) -> Result<Image, BuildError> {
    let name = wanted.name.clone();
    if let Some(guest) = build.request.guest(&name) {
        return Ok(guest);
    }
    if !build.request.pull {
        let (images, platform) = (build.images.clone(), wanted.platform.clone());
        let asked = name.clone();
        let found = tokio::task::spawn_blocking(move || match &platform {
            Some(platform) => images.resolve_platform(&asked, Some(platform)),
            None => images.resolve(&asked),
        })
        .await?;
        match found {
            Ok(image) => return Ok(image),
            Err(
                ImageError::NotFound(_)
                | ImageError::NoPlatform(_)
                | ImageError::PlatformMissing { .. }
                | ImageError::NothingHere(_),
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let reference = Reference::parse_normalized(&name)
        .map_err(|error| BuildError::invalid(format!("failed to parse image name \"{name}\": {error}")))?
        .or_latest();
    let login = match (
        &build.request.client,
        build.request.logins.get(reference.domain()),
    ) {
        (_, Some(login)) => Some(login.clone()),
        (Some(client), None) => client.login(reference.domain()).await,
        (None, None) => None,
    };
    let (progress, mut events) = mpsc::channel(PROGRESS_QUEUE);
    let platform = wanted.platform.as_ref();
    let pull = build
        .executor
        .pull(&reference, platform, login.as_ref(), progress);
    let pass_on = async {
        while let Some(event) = events.recv().await {
            build.reporter.progress(wanted.number, id, event).await;
        }
    };
    let (pulled, ()) = tokio::join!(pull, pass_on);
    Ok(pulled?)
}
