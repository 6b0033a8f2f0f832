//! Directories of the store, stacked in the container's own namespace. Their names may come from an image, so none is put into
//! an option as something else than it is.

use std::path::Path;

use spec::runtime;

use crate::error::{Error, Result};

/// Directories stacked as overlayfs, mounted in the container's own namespace; one needs no union.
pub(super) fn stacked(destination: &str, overlay: &sys::mount::Overlay) -> Result<runtime::Mount> {
    if let Some((directory, writable)) = overlay.single() {
        let access = if writable && !overlay.read_only {
            "rw"
        } else {
            "ro"
        };
        return Ok(runtime::Mount {
            destination: destination.into(),
            r#type: Some("bind".to_owned()),
            source: Some(plain(directory)?.to_owned()),
            options: vec!["rbind".to_owned(), access.to_owned()],
            ..runtime::Mount::default()
        });
    }
    let lower = overlay.lower.iter().map(|path| listed(path));
    let lower = lower.collect::<Result<Vec<_>>>()?;
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    match (&overlay.upper, &overlay.work) {
        (Some(upper), Some(work)) if !overlay.read_only => {
            options.push(format!("upperdir={}", plain(upper)?));
            options.push(format!("workdir={}", plain(work)?));
            options.extend(overlay.volatile.then(|| "volatile".to_owned()));
        }
        _ => options.push("ro".to_owned()),
    }
    if let Some(objects) = &overlay.objects {
        // The runtime's own: the kernel has no one option for it.
        options.push(format!(
            "x-berth.objects={}:{}",
            objects.layers,
            plain(&objects.dir)?
        ));
    }
    Ok(runtime::Mount {
        destination: destination.into(),
        r#type: Some("overlay".to_owned()),
        source: Some("overlay".to_owned()),
        options,
        ..runtime::Mount::default()
    })
}

/// A path that may come from an image as text. A similar one would do for another file, or for a link that an image has there.
fn plain(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::invalid(format!("the path {} is not valid UTF-8", path.display())))
}

/// A path in the list of overlayfs, where a colon would end it.
fn listed(path: &Path) -> Result<String> {
    Ok(plain(path)?.replace('\\', "\\\\").replace(':', "\\:"))
}
