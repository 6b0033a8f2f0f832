//! How much the cache may take, which holds after every build.
//!
//! What goes first is what was used longest ago, cache mounts included. What an image holds as well frees nothing, so it
//! neither counts nor goes. Layers are the store's: the limits are on what the cache alone keeps of it.

use std::time::Duration;

use super::PruneOptions;

/// Limits of the cache; `None` for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePolicy {
    /// Bytes that the cache takes at most.
    pub max_bytes: Option<u64>,
    /// Bytes that stay free on the filesystem, as far as the cache can give them.
    pub min_free: Option<u64>,
    /// What was not used for this long goes.
    pub max_age: Option<Duration>,
}

impl CachePolicy {
    /// Whether something may have to go while everything on the filesystem together takes `used` and `free` is left. The cache
    /// is a part of that, so that it need not be looked at where there is room for all.
    pub(crate) fn may_be_due(&self, used: u64, free: u64) -> bool {
        self.max_age.is_some()
            || self.max_bytes.is_some_and(|most| used > most)
            || self.min_free.is_some_and(|least| free < least)
    }

    /// What has to go while the cache takes `used` and the filesystem has `free` bytes; nothing for nothing.
    pub(crate) fn due(&self, used: u64, free: u64) -> Vec<PruneOptions> {
        let mut due = Vec::new();
        if let Some(age) = self.max_age {
            due.push(PruneOptions {
                mounts: true,
                unused_for: Some(age),
                ..PruneOptions::default()
            });
        }
        // What is missing on the filesystem comes off what the cache may take.
        let missing = self.min_free.unwrap_or(0).saturating_sub(free);
        let room = used.saturating_sub(missing);
        let most = self.max_bytes.unwrap_or(u64::MAX).min(room);
        if most < used {
            due.push(PruneOptions {
                mounts: true,
                keep_bytes: Some(most),
                ..PruneOptions::default()
            });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(policy: &CachePolicy, used: u64, free: u64) -> Option<u64> {
        policy
            .due(used, free)
            .last()
            .and_then(|options| options.keep_bytes)
    }

    #[test]
    fn a_disk_with_room_needs_no_look() {
        let policy = CachePolicy {
            max_bytes: Some(100),
            min_free: Some(50),
            max_age: None,
        };
        assert!(!policy.may_be_due(100, 50));
        assert!(policy.may_be_due(101, 50) && policy.may_be_due(100, 49));
        assert!(!CachePolicy::default().may_be_due(u64::MAX, 0));
        let old = CachePolicy {
            max_age: Some(Duration::from_secs(5)),
            ..CachePolicy::default()
        };
        assert!(old.may_be_due(0, u64::MAX));
    }

    #[test]
    fn the_narrower_limit_counts() {
        let policy = CachePolicy {
            max_bytes: Some(100),
            min_free: Some(50),
            max_age: None,
        };
        assert_eq!(kept(&policy, 90, 60), None);
        assert_eq!(kept(&policy, 120, 60), Some(100));
        assert_eq!(kept(&policy, 120, 10), Some(80));
        assert_eq!(kept(&policy, 30, 0), Some(0));
        assert!(CachePolicy::default().due(u64::MAX, 0).is_empty());
        let old = CachePolicy {
            max_age: Some(Duration::from_secs(5)),
            ..CachePolicy::default()
        };
        assert_eq!(old.due(0, 0)[0].unused_for, Some(Duration::from_secs(5)));
    }
}
