//! The builder's cache: `POST /build/prune`, and its rows in `/system/df`.

use std::time::Duration;

use api_types::{BuildCache, BuildPruneReport};
use axum::extract::State;
use axum::response::Response;
use build::{CacheEntry, PruneOptions};

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::request::filters::{Filters, filters};
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::views::{null_when_empty, signed};

/// The filters that `prune` knows.
const KEYS: &[&str] = &["until", "unused-for", "id", "type"];

pub async fn prune(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    let options = options(&query, version)?;
    let rehearsed = options.rehearse;
    let pruned = state
        .builder
        .prune(options)
        .await
        .map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    if !rehearsed {
        let attributes = [("reclaimed".to_owned(), pruned.bytes.to_string())].into();
        state.engine.publish_event("builder", "prune", "", attributes);
    }
    Ok(ok(&BuildPruneReport {
        caches_deleted: null_when_empty(pruned.ids),
        space_reclaimed: pruned.bytes,
    }))
}

/// Every record of the cache.
pub async fn cache_rows(state: &AppState) -> Result<Vec<BuildCache>> {
    let entries = state.builder.disk_usage().await;
    let entries = entries.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    Ok(entries.into_iter().map(row).collect())
}

fn row(entry: CacheEntry) -> BuildCache {
    BuildCache {
        id: entry.id,
        parents: null_when_empty(entry.parents),
        kind: entry.kind,
        description: entry.description,
        in_use: entry.in_use,
        shared: entry.shared,
        size: signed(entry.size),
        created_at: entry.created_at.to_string(),
        last_used_at: entry.last_used_at.map(|time| time.to_string()),
        usage_count: i64::try_from(entry.usage_count).unwrap_or(i64::MAX),
    }
}

fn options(query: &Query, version: ApiVersion) -> Result<PruneOptions> {
    let filters = filters(query)?;
    if let Some(key) = filters.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("invalid filter '{key}'")));
    }
    // The parameter got a better name in API 1.48.
    let reserved = if version.has(48) {
        bytes(query, "reserved-space")?
    } else {
        None
    };
    let keep = match reserved {
        Some(bytes) => Some(bytes),
        None => bytes(query, "keep-storage")?,
    };
    let limit = |name: &str| match version.has(48) {
        true => bytes(query, name),
        false => Ok(None),
    };
    Ok(PruneOptions {
        rehearse: query.flag("dryrun"),
        all: query.flag("all"),
        mounts: false,
        unused_for: unused_for(&filters)?,
        ids: filters.get("id").cloned().unwrap_or_default(),
        kinds: filters.get("type").cloned().unwrap_or_default(),
        keep_bytes: limit("max-used-space")?,
        min_free: limit("min-free-space")?,
        reserved: keep.unwrap_or(0),
    })
}

fn bytes(query: &Query, name: &str) -> Result<Option<u64>> {
    let value = query.get(name);
    if value.is_empty() {
        return Ok(None);
    }
    let refuse = || ApiError::invalid(format!("{name} is in bytes and expects an integer, got {value}"));
    value
        .parse()
        .map(|bytes: u64| (bytes > 0).then_some(bytes))
        .map_err(|_| refuse())
}

fn unused_for(filters: &Filters) -> Result<Option<Duration>> {
    let given: Vec<&String> = ["until", "unused-for"]
        .iter()
        .filter_map(|key| filters.get(*key))
        .flatten()
        .collect();
    let text = match given.as_slice() {
        [] => return Ok(None),
        [one] => one.as_str(),
        _ => {
            return Err(ApiError::invalid(
                "filters expect only one value for until and unused-for",
            ));
        }
    };
    let nanoseconds = match engine::parse_duration(text) {
        Some(nanoseconds) => nanoseconds,
        // A point in time means: unused since then.
        None => {
            let time = engine::parse_time(text)?;
            jiff::Timestamp::now().as_nanosecond() - time.as_nanosecond()
        }
    };
    let nanoseconds = u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX);
    Ok(Some(Duration::from_nanos(nanoseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: ApiVersion = ApiVersion::new(1, 53);

    #[test]
    fn what_goes_is_chosen() {
        let query = Query::parse("all=1&reserved-space=5&filters=%7B%22until%22%3A%5B%2224h%22%5D%7D");
        let chosen = options(&query, NEW).unwrap();
        assert!(chosen.all);
        assert_eq!(chosen.reserved, 5);
        assert_eq!(chosen.unused_for, Some(Duration::from_secs(86_400)));
        let old = options(
            &Query::parse("reserved-space=5&keep-storage=7"),
            ApiVersion::new(1, 47),
        )
        .unwrap();
        assert_eq!(old.reserved, 7);
        let limits = "max-used-space=3&min-free-space=4";
        let chosen = options(&Query::parse(limits), NEW).unwrap();
        assert_eq!((chosen.keep_bytes, chosen.min_free), (Some(3), Some(4)));
        let old = options(&Query::parse(limits), ApiVersion::new(1, 47)).unwrap();
        assert_eq!((old.keep_bytes, old.min_free), (None, None));
    }

    #[test]
    fn nonsense_is_named() {
        let refused = |query: &str| options(&Query::parse(query), NEW).unwrap_err().message;
        assert_eq!(
            refused("keep-storage=x"),
            "keep-storage is in bytes and expects an integer, got x"
        );
        assert_eq!(
            refused("filters=%7B%22x%22%3A%5B%22y%22%5D%7D"),
            "invalid filter 'x'"
        );
    }
}
