//! How much the build cache may take: `--build-cache-size`, `--build-cache-free`, `--build-cache-age`, or Docker's
//! `builder.gc` in the file.

use std::time::Duration;

use build::CachePolicy;
use serde_json::Value;

use super::SettingsError;
use super::file::File;

/// A limit on bytes as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Bytes(u64),
    /// Of the filesystem of the data root.
    Percent(u64),
}

/// The limits as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildCache {
    pub(crate) size: Option<Room>,
    pub(crate) free: Option<Room>,
    pub(crate) age: Option<Duration>,
}

impl Default for BuildCache {
    /// A cache that nobody limits fills the disk in the end.
    fn default() -> BuildCache {
        BuildCache {
            size: Some(Room::Percent(75)),
            free: Some(Room::Bytes(2 << 30)),
            age: None,
        }
    }
}

impl BuildCache {
    /// The limits on a filesystem of `total` bytes.
    pub(crate) fn policy(&self, total: u64) -> CachePolicy {
        let bytes = |room: Room| match room {
            Room::Bytes(bytes) => bytes,
            Room::Percent(percent) => total / 100 * percent,
        };
        CachePolicy {
            max_bytes: self.size.map(bytes),
            min_free: self.free.map(bytes),
            max_age: self.age,
        }
    }
}

fn room(option: &'static str, text: &str) -> Result<Option<Room>, SettingsError> {
    let wrong = |reason: &str| SettingsError::Value {
        option,
        value: text.to_owned(),
        reason: reason.to_owned(),
    };
    if matches!(text.trim(), "" | "0") {
        return Ok(None);
    }
    if let Some(percent) = text.trim().strip_suffix('%') {
        return match percent.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Some(Room::Percent(percent))),
            _ => Err(wrong("expected 1% to 100%")),
        };
    }
    let bytes = engine::monitor::log::binary_size(text).map_err(wrong)?;
    Ok(Some(Room::Bytes(bytes)))
}

/// A span of time; none for zero.
pub(super) fn age(option: &'static str, text: &str) -> Result<Option<Duration>, SettingsError> {
    if matches!(text.trim(), "" | "0") {
        return Ok(None);
    }
    match engine::parse_duration(text).and_then(|nanoseconds| u64::try_from(nanoseconds).ok()) {
        Some(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
        None => Err(SettingsError::Value {
            option,
            value: text.to_owned(),
            reason: "expected a duration such as 168h".to_owned(),
        }),
    }
}

/// Reads flags and file.
pub(super) fn settings(
    file: &mut File,
    size: Option<String>,
    free: Option<String>,
    unused: Option<String>,
) -> Result<BuildCache, SettingsError> {
    let mut cache = BuildCache::default();
    let size = file.text("build-cache-size", size)?;
    let free = file.text("build-cache-free", free)?;
    let unused = file.text("build-cache-age", unused)?;
    if let Some(Value::Object(builder)) = file.keys.remove("builder") {
        let own = [&size, &free, &unused].into_iter().any(Option::is_some);
        if own {
            file.both.push("builder".to_owned());
        }
        docker(&builder, &mut cache)?;
    }
    if let Some(text) = &size {
        cache.size = room("--build-cache-size", text)?;
    }
    if let Some(text) = &free {
        cache.free = room("--build-cache-free", text)?;
    }
    if let Some(text) = &unused {
        cache.age = age("--build-cache-age", text)?;
    }
    Ok(cache)
}

/// Docker's `{"gc": {"enabled": true, "maxUsedSpace": "20GB", "minFreeSpace": "10%"}}`.
fn docker(builder: &serde_json::Map<String, Value>, cache: &mut BuildCache) -> Result<(), SettingsError> {
    let wrong = |key: &str, expected: &'static str| SettingsError::Type {
        key: key.to_owned(),
        expected,
    };
    for (key, value) in builder {
        let (Value::Object(gc), "gc") = (value, key.as_str()) else {
            return Err(wrong(&format!("builder.{key}"), "only builder.gc"));
        };
        for (key, value) in gc {
            let text = || match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                _ => Err(wrong(&format!("builder.gc.{key}"), "a size")),
            };
            match key.as_str() {
                "enabled" => match value {
                    Value::Bool(true) => {}
                    Value::Bool(false) => {
                        (cache.size, cache.free, cache.age) = (None, None, None);
                        return Ok(());
                    }
                    _ => return Err(wrong("builder.gc.enabled", "true or false")),
                },
                // What Docker calls the storage to keep is where its collection stops.
                "maxUsedSpace" | "defaultMaxUsedSpace" | "defaultKeepStorage" => {
                    cache.size = room("builder.gc", &text()?)?;
                }
                "minFreeSpace" | "defaultMinFreeSpace" => cache.free = room("builder.gc", &text()?)?,
                // What is always kept needs no word: nothing goes before a limit is met.
                "reservedSpace" | "defaultReservedSpace" => {
                    room("builder.gc", &text()?)?;
                }
                _ => {
                    return Err(wrong(
                        &format!("builder.gc.{key}"),
                        "enabled, maxUsedSpace, minFreeSpace or reservedSpace",
                    ));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares() {
        assert_eq!(room("x", "20%").unwrap(), Some(Room::Percent(20)));
        assert_eq!(room("x", "2g").unwrap(), Some(Room::Bytes(2 << 30)));
        assert_eq!(room("x", "0").unwrap(), None);
        for wrong in ["much", "0%", "101%"] {
            assert!(room("x", wrong).is_err(), "{wrong}");
        }
        let policy = BuildCache::default().policy(1000);
        assert_eq!(policy.max_bytes, Some(750));
    }

    #[test]
    fn dockers_keys() {
        let read = |json: &str| {
            let mut cache = BuildCache::default();
            let Value::Object(builder) = serde_json::from_str(json).unwrap() else {
                panic!("not an object");
            };
            docker(&builder, &mut cache).map(|()| cache)
        };
        let cache = read(r#"{"gc":{"enabled":true,"maxUsedSpace":"20GB","minFreeSpace":"10%"}}"#).unwrap();
        assert_eq!(
            (cache.size, cache.free),
            (Some(Room::Bytes(20 << 30)), Some(Room::Percent(10)))
        );
        let off = read(r#"{"gc":{"enabled":false}}"#).unwrap();
        assert_eq!((off.size, off.free), (None, None));
        assert!(
            read(r#"{"gc":{"policy":[]}}"#)
                .unwrap_err()
                .to_string()
                .contains("builder.gc.policy")
        );
        assert!(read(r#"{"entitlements":{}}"#).is_err());
    }
}
