//! Images that are here for somebody's work alone: nobody sees them in a list, and they go with whoever holds them.

use std::sync::Arc;

use spec::image::Descriptor;
use store::Lease;

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;

/// An image that stays as long as a clone of this does.
#[derive(Clone)]
pub struct Guest {
    pub image: Image,
    _lease: Arc<Lease>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "guest {}", self.image.id)
    }
}

impl Images {
    /// The image whose manifest or index is `target`. `lease` holds what it is made of, all of which is in the store already.
    pub fn guest(&self, target: &Descriptor, lease: Lease) -> Result<Guest, ImageError> {
        Ok(Guest {
            image: self.view(target, None, target.digest.as_str())?,
            _lease: Arc::new(lease),
        })
    }
}
