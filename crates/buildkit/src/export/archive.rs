//! Archives for the client: an image as Docker's tools and OCI's read it, or the files alone. With `tar=false` the image
//! goes blob by blob into a directory of the client, which writes the index itself.

use std::collections::HashMap;
use std::os::fd::AsFd;

use ::session::content::EXPORT_STORE;
use ::session::control;

use super::{Export, To, image};
use crate::error::Failure;
use crate::files::send_stream;
use crate::job::Step;
use crate::result::Attributes;
use crate::session::Session;

/// An image as an archive. It gets its names in the archive, not here.
pub async fn image(
    export: &Export<'_>,
    number: usize,
    kind: &str,
    attributes: &Attributes,
) -> Result<HashMap<String, String>, Failure> {
    if kind == "docker" && export.outcomes.len() > 1 {
        return Err(Failure::invalid(
            "docker exporter does not currently support exporting manifest lists",
        ));
    }
    let names = attributes.names()?;
    let title = match kind {
        "docker" => "exporting to docker image format",
        _ => "exporting to oci image format",
    };
    let step = export.job.begin(title);
    let work = async {
        step.progress("exporting layers", 0, 0, false);
        let to = if kind == "docker" {
            To::DockerArchive
        } else {
            To::Layout
        };
        let made = export.image(&names, to, attributes).await?;
        step.progress("exporting layers", 0, 0, true);
        step.progress(
            &format!("exporting manifest {}", made.manifest_digest),
            0,
            0,
            true,
        );
        step.progress(&format!("exporting config {}", made.config_digest), 0, 0, true);
        let session = export.service.sessions.get(&export.job.request.session).await?;
        let mut told = image::told(&made, &names);
        if !attributes.flag_or("tar", true) {
            blobs(export, &session, &made, &step).await?;
            // Another exporter may tell of another image under the same key.
            let descriptor = told.get(image::DESCRIPTOR).cloned();
            told.extend(descriptor.map(|text| (format!("{}.{number}", control::DESCRIPTOR), text)));
            return Ok(told);
        }
        step.progress("sending tarball", 0, 0, false);
        let (images, image, named) = (export.service.images.clone(), made.clone(), names.clone());
        send_stream(&session, number, &[], move |out| {
            images
                .save_as(&image, &named, out)
                .map_err(|error| Failure::from(build::BuildError::from(error)))
        })
        .await?;
        step.progress("sending tarball", 0, 0, true);
        Ok(told)
    };
    let done = work.await;
    step.end(
        done.as_ref()
            .err()
            .map(|failure: &Failure| failure.message.clone()),
    );
    done
}

/// Sends every blob of an image into the client's store.
async fn blobs(
    export: &Export<'_>,
    session: &Session,
    made: &::image::Image,
    step: &Step,
) -> Result<(), Failure> {
    let (images, image) = (export.service.images.clone(), made.clone());
    let found = tokio::task::spawn_blocking(move || images.blobs_of(&image))
        .await
        .map_err(Failure::broken)?;
    let (found, _held) = found.map_err(|error| Failure::from(build::BuildError::from(error)))?;
    let content = export.service.images.store().content();
    for blob in found {
        let what = format!("sending {}", blob.digest);
        step.progress(&what, 0, blob.size, false);
        let file = content
            .open(&blob.digest)
            .map_err(|error| Failure::internal(error.to_string()))?;
        crate::content::write(session, EXPORT_STORE, &blob.digest, file).await?;
        step.progress(&what, blob.size, blob.size, true);
    }
    Ok(())
}

/// The files of the result as an archive.
pub async fn files(export: &Export<'_>, number: usize) -> Result<HashMap<String, String>, Failure> {
    let step = export.job.begin("exporting to client tarball");
    let work = async {
        let [(_, outcome)] = export.outcomes.as_slice() else {
            return Err(Failure::unimplemented(
                "an archive of several platforms' files is not offered: export to a directory",
            ));
        };
        let session = export.service.sessions.get(&export.job.request.session).await?;
        step.progress("sending tarball", 0, 0, false);
        let outcome = outcome.clone();
        send_stream(&session, number, &[], move |out| {
            let write = |root: std::os::fd::BorrowedFd<'_>, out: &mut dyn std::io::Write| {
                ::image::layer::tree_tar(root, out).map_err(|error| Failure::internal(error.to_string()))
            };
            match outcome.files()? {
                Some(root) => write(root.as_fd(), out),
                None => {
                    let empty = tempfile::tempdir().map_err(|error| Failure::internal(error.to_string()))?;
                    let root = std::fs::File::open(empty.path())
                        .map_err(|error| Failure::internal(error.to_string()))?;
                    write(root.as_fd(), out)
                }
            }
        })
        .await?;
        step.progress("sending tarball", 0, 0, true);
        Ok(HashMap::new())
    };
    let done = work.await;
    step.end(
        done.as_ref()
            .err()
            .map(|failure: &Failure| failure.message.clone()),
    );
    done
}
