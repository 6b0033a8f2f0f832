//! How an image came to be, newest step first.

use spec::Reference;
use spec::image::History;

use crate::error::ImageError;
use crate::image::{Image, chains};
use crate::images::Images;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image's ID for the newest step, that of its parent for the one before if it was committed from an image that
    /// is here, and so on; `<missing>` for all others.
    pub id: String,
    /// RFC 3339 time, empty where the image does not say.
    pub created: String,
    pub created_by: String,
    pub comment: String,
    /// Bytes of the unpacked layer; 0 for steps that changed only settings.
    pub size: u64,
    /// Names of that image.
    pub tags: Vec<String>,
}

impl Images {
    /// The history of `image`. Layers that no entry explains get empty ones.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryItem>, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let mut layers = chains(&image.config.rootfs.diff_ids).into_iter();
        let mut items = Vec::new();
        let mut measured = |has_layer: bool| -> Result<u64, ImageError> {
            let chain = if has_layer { layers.next() } else { None };
            match chain.and_then(|chain| snapshots.by_chain(&chain)) {
                Some(snapshot) => Ok(snapshots.usage(snapshot)?.bytes),
                None => Ok(0),
            }
        };
        for entry in &image.config.history {
            items.push(item(entry, measured(!entry.empty_layer)?));
        }
        let explained = image.config.history.iter().filter(|h| !h.empty_layer).count();
        for _ in explained..image.config.rootfs.diff_ids.len() {
            items.push(item(&History::default(), measured(true)?));
        }
        items.reverse();
        // A commit adds one step, so each parent that is here is the image of the step before.
        let mut shown = Some((image.id.clone(), image.repo_tags()));
        for item in &mut items {
            let Some((id, tags)) = shown else { break };
            let parent = self.parent_of(&id)?;
            (item.id, item.tags) = (self.shown(&id)?.to_string(), tags);
            shown = match parent {
                Some(parent) if self.target(&parent)?.is_some() => {
                    let (names, _) = self.names_of(&parent)?;
                    let tags = names.iter().filter(|name| name.tag().is_some());
                    let tags = tags.map(Reference::familiar).collect();
                    Some((parent, tags))
                }
                _ => None,
            };
        }
        Ok(items)
    }
}

fn item(entry: &History, size: u64) -> HistoryItem {
    HistoryItem {
        id: "<missing>".to_owned(),
        created: entry.created.clone().unwrap_or_default(),
        created_by: entry.created_by.clone().unwrap_or_default(),
        comment: entry.comment.clone().unwrap_or_default(),
        size,
        tags: Vec::new(),
    }
}
