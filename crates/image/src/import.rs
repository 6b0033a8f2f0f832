//! Importing: the tar of a root filesystem becomes an image of one layer.

use std::io::{self, Read};

use spec::image::{ContainerSettings, History, ImageConfig};
use spec::{Platform, Reference, chain_id};

use crate::bounded::Bounded;
use crate::compression;
use crate::error::ImageError;
use crate::image::Image;
use crate::images::{Images, now_text};
use crate::progress::{Progress, ProgressEvent, Reporter};
use crate::unpack::Pending;
use crate::write::write_layer;

/// What an imported image is given.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// The comment of its only history entry.
    pub message: String,
    pub changes: ContainerSettings,
    /// The host's if none.
    pub platform: Option<Platform>,
}

impl Images {
    /// Imports a tar, compressed in any way Docker knows. Blocks; must not run on a thread of the async runtime.
    pub fn import(
        &self,
        reader: impl Read + Send,
        options: ImportOptions,
        progress: Progress,
    ) -> Result<Image, ImageError> {
        if let Some(name) = &options.reference {
            self.refuse_signed_name(name)?;
        }
        let lease = self.inner.store.lease();
        let snapshots = self.inner.store.snapshots();
        let pending = Pending::create(snapshots, None, &lease)?;
        let mut tar = Bounded::new(compression::decoder(reader), self.max_layer());
        let written = write_layer(self.inner.store.content(), &pending.part()?, |out| {
            let copied = copy(&mut tar, out)?;
            match copied {
                0 => Err(ImageError::Archive(
                    "it is empty; expected the tar of a root filesystem".to_owned(),
                )),
                _ => Ok(()),
            }
        })?;
        lease.hold_blob(&written.blob.digest);
        let top = pending.commit(&chain_id(None, &written.diff), &written.diff)?;
        lease.hold_snapshot(top);
        self.record_layer(&written.diff, &written.blob)?;
        let created = now_text();
        let mut config = ImageConfig::new(&options.platform.clone().unwrap_or_else(Platform::host));
        config.created = Some(created.clone());
        config.config = options.changes;
        config.rootfs.diff_ids.push(written.diff);
        config.history.push(History {
            created: Some(created),
            comment: Some(options.message).filter(|m| !m.is_empty()),
            ..History::default()
        });
        let names = options.reference.as_slice();
        let image = self.write_image(vec![written.blob], &config, top, names, &lease)?;
        Reporter(progress).say_blocking(ProgressEvent {
            status: image.shown.to_string(),
            ..ProgressEvent::default()
        });
        Ok(image)
    }
}

/// Copies, telling a broken source from a broken sink.
pub(crate) fn copy(from: &mut dyn Read, to: &mut dyn io::Write) -> Result<u64, ImageError> {
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImageError::Read(error)),
        };
        to.write_all(buffer.get(..read).unwrap_or_default())
            .map_err(ImageError::Write)?;
        copied += read as u64;
    }
}
