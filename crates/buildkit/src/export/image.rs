//! Images that stay here, get names, and go to registries.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Image, PushOptions};
use tokio::sync::mpsc;

use super::form::{self, Form};
use super::{Export, To};
use crate::error::Failure;
use crate::job::Step;
use crate::result::{Attributes, Outcome};
use crate::session::login;

/// Under which clients are told the digest of an image.
pub const DIGEST: &str = "containerimage.digest";
/// Under which clients are told the digest of an image's configuration.
pub const CONFIG_DIGEST: &str = "containerimage.config.digest";
/// Under which clients are told the descriptor of an image.
pub const DESCRIPTOR: &str = "containerimage.descriptor";
/// Progress that may wait to be told.
const PENDING: usize = 64;

/// What clients are told about an image.
pub fn told(image: &Image, names: &[spec::Reference]) -> HashMap<String, String> {
    let descriptor = serde_json::to_vec(&image.target).unwrap_or_default();
    let mut said = HashMap::from([
        (DIGEST.to_owned(), image.id.to_string()),
        (CONFIG_DIGEST.to_owned(), image.config_digest.to_string()),
        (DESCRIPTOR.to_owned(), STANDARD.encode(descriptor)),
    ]);
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        said.insert("image.name".to_owned(), names.join(","));
    }
    said
}

/// Does something that is told with the time it took.
async fn timed<T>(
    step: &Step,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    step.progress(what, 0, 0, false);
    let done = work.await?;
    step.progress(what, 0, 0, true);
    Ok(done)
}

/// Makes the image, names it, and pushes it where that is asked for.
pub async fn export(
    export: &Export<'_>,
    attributes: &Attributes,
) -> Result<HashMap<String, String>, Failure> {
    let step = export.job.begin("exporting to image");
    let done = work(export, attributes, &step).await;
    step.end(done.as_ref().err().map(|failure| failure.message.clone()));
    done
}

async fn work(
    export: &Export<'_>,
    attributes: &Attributes,
    step: &Step,
) -> Result<HashMap<String, String>, Failure> {
    let names = attributes.names()?;
    let to = if attributes.flag("push") {
        To::Registry
    } else {
        To::Here
    };
    let image = timed(step, "exporting layers", export.image(&names, to, attributes)).await?;
    step.progress(
        &format!("exporting manifest {}", image.manifest_digest),
        0,
        0,
        true,
    );
    step.progress(&format!("exporting config {}", image.config_digest), 0, 0, true);
    for name in &names {
        let naming = async {
            // One that was made under its names needs no more.
            if image.references.contains(name) {
                return Ok(());
            }
            let (images, id, name) = (export.service.images.clone(), image.id.clone(), name.clone());
            tokio::task::spawn_blocking(move || images.tag(id.as_str(), &name))
                .await
                .map_err(Failure::broken)?
                .map_err(|error| Failure::from(build::BuildError::from(error)))
        };
        timed(step, &format!("naming to {name}"), naming).await?;
    }
    (export.service.told)(&image, &names);
    if let [(_, outcome)] = export.outcomes.as_slice() {
        outcome.solution.remember(&image).await;
    }
    if attributes.flag("push") {
        push(export, &names, step).await?;
    }
    Ok(told(&image, &names))
}

async fn push(export: &Export<'_>, names: &[spec::Reference], step: &Step) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(Failure::invalid("tag is needed when pushing to registry"));
    }
    let session = export.service.sessions.get(&export.job.request.session).await?;
    for name in names {
        let options = PushOptions {
            auth: login(&session, name.domain()).await,
            ..PushOptions::default()
        };
        let (progress, events) = mpsc::channel::<image::ProgressEvent>(PENDING);
        let pushing = async {
            export
                .service
                .images
                .push(name, options, progress)
                .await
                .map_err(|error| {
                    Failure::from(build::BuildError::from(error)).context(format!("failed to push {name}"))
                })
        };
        let pushing = async { tokio::join!(pushing, tell_push(step, events)).0 };
        let what = format!("pushing manifest for {name}");
        let pushed = tokio::select! {
            pushed = timed(step, &what, pushing) => pushed,
            () = export.job.stop.cancelled() => Err(Failure::new(tonic::Code::Cancelled, "context canceled")),
        };
        pushed?;
    }
    Ok(())
}

/// Tells how far the blobs of a push have come.
pub async fn tell_push(step: &Step, mut events: mpsc::Receiver<image::ProgressEvent>) {
    while let Some(event) = events.recv().await {
        if let (Some(id), Some(current)) = (&event.id, event.current) {
            let total = event.total.unwrap_or(0);
            let done = total > 0 && current == total;
            step.progress(&format!("pushing {id}"), current, total, done);
        }
    }
}

impl Export<'_> {
    /// The image of the result: one for one platform, an index for several and where something is said about them.
    pub async fn image(
        &self,
        names: &[spec::Reference],
        to: To,
        attributes: &Attributes,
    ) -> Result<Image, Failure> {
        let form = form::read(attributes)?;
        let said_of = |outcome: &Outcome| {
            outcome.provenance.clone().filter(|said| match to {
                To::Here => !said.inline_only && !said.told_only,
                To::Registry | To::Layout => !said.told_only,
                To::DockerArchive => false,
            })
        };
        let with_bills = matches!(to, To::Here | To::Registry | To::Layout);
        let mut outcomes = self.outcomes.iter();
        let said = outcomes
            .any(|(_, outcome)| said_of(outcome).is_some() || with_bills && !outcome.bills.is_empty());
        match self.outcomes.as_slice() {
            [(platform, outcome)] if platform.is_empty() && !said => {
                form.annotations.without_index()?;
                let named = matches!(to, To::Here | To::Registry) && form.of(&outcome.platform).is_plain();
                let mut image = match named {
                    true => outcome.tag(names).await?,
                    false => self.in_form(outcome, &form).await?,
                };
                let said = form.annotations.of_descriptor(&outcome.platform);
                image.target.annotations.extend(said);
                Ok(image)
            }
            several => {
                let mut images = Vec::new();
                let mut statements = Vec::new();
                for (_, outcome) in several {
                    let mut image = self.in_form(outcome, &form).await?;
                    let entry = form.annotations.of_descriptor(&outcome.platform);
                    image.manifest_descriptor.annotations.extend(entry);
                    let (manifest, platform) = (&image.manifest_digest, &outcome.platform);
                    let bills = outcome.bills.iter().filter(|_| with_bills);
                    statements.extend(bills.map(|bill| bill.about(manifest, platform, names)));
                    statements.extend(said_of(outcome).map(|said| said.about(manifest, names)));
                    images.push(image);
                }
                let (store, annotations) = (self.service.images.clone(), form.annotations.index.clone());
                let index = move || store.commit_index(&images, &statements, annotations);
                let index = tokio::task::spawn_blocking(index)
                    .await
                    .map_err(Failure::broken)?;
                let mut index = index.map_err(|error| Failure::from(build::BuildError::from(error)))?;
                index.target.annotations.extend(form.annotations.index_descriptor);
                Ok(index)
            }
        }
    }

    /// The image of one platform, as the exporter wants it.
    async fn in_form(&self, outcome: &Outcome, form: &Form) -> Result<Image, Failure> {
        let (image, form) = (outcome.image().await?.clone(), form.of(&outcome.platform));
        if form.is_plain() {
            return Ok(image);
        }
        let below = outcome.solution.base_layers();
        let images = self.service.images.clone();
        let written = tokio::task::spawn_blocking(move || images.in_form(&image, &form, below));
        let written = written.await.map_err(Failure::broken)?;
        written.map_err(|error| Failure::from(build::BuildError::from(error)))
    }
}
