//! Archives for the client: an image as Docker's tools and OCI's read it, or the files alone.

use std::collections::HashMap;
use std::os::fd::AsFd;

use super::{Export, image};
use crate::error::Failure;
use crate::files::send_stream;
use crate::result::Attributes;

/// An image as an archive. It gets its names in the archive, not here.
pub async fn image(
    export: &Export<'_>,
    number: usize,
    kind: &str,
    attributes: &Attributes,
) -> Result<HashMap<String, String>, Failure> {
    if !attributes.flag_or("tar", true) {
        return Err(Failure::unimplemented(format!(
            "an image as a directory is not offered: leave out tar=false of the {kind} exporter and unpack the archive"
        )));
    }
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
        let made = export.image().await?;
        step.progress("exporting layers", 0, 0, true);
        step.progress(
            &format!("exporting manifest {}", made.manifest_digest),
            0,
            0,
            true,
        );
        step.progress(&format!("exporting config {}", made.config_digest), 0, 0, true);
        let session = export.service.sessions.get(&export.job.request.session).await?;
        step.progress("sending tarball", 0, 0, false);
        let (images, id, named) = (export.service.images.clone(), made.id.clone(), names.clone());
        let told = image::told(&made, &names);
        send_stream(&session, number, &[], move |out| {
            images
                .save_as(&id, &named, out)
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
