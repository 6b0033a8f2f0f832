//! What becomes of compressed layers once they are unpacked.

use std::str::FromStr;

/// Which compressed layers stay on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlobPolicy {
    /// All.
    #[default]
    Keep,
    /// Those that cannot be made again here.
    Recipe,
    /// Those that can neither be made again here nor be fetched from where they came.
    Drop,
}

impl BlobPolicy {
    /// The policy where none is configured: who has equal files kept once wants the room more than the time.
    pub fn unless_said(dedup: bool) -> BlobPolicy {
        match dedup {
            true => BlobPolicy::Recipe,
            false => BlobPolicy::Keep,
        }
    }

    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            BlobPolicy::Keep => "keep",
            BlobPolicy::Recipe => "recipe",
            BlobPolicy::Drop => "drop",
        }
    }
}

impl FromStr for BlobPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BlobPolicy, &'static str> {
        [BlobPolicy::Keep, BlobPolicy::Recipe, BlobPolicy::Drop]
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or("expected keep, recipe or drop")
    }
}
