//! What a container gets that asks for nothing: capabilities, hidden paths, devices, environment.
//!
//! Facts: the capability set and the path lists are those of a current Docker engine (recorded bundle), which
//! are the tightest defaults in the field.

/// One list each, where it is used first: the kernel's names in `sys`, the defaults in `runtime`.
use ::runtime::template::MASKED_PATHS;
pub(super) use ::runtime::template::{
    DEFAULT_CAPABILITIES as CAPABILITIES, READ_ONLY_PATHS as READONLY_PATHS,
};
use std::path::Path;

use sys::caps::NAMES as ALL_CAPABILITIES;

/// `/dev/null` and its kin: character devices every container may use (major, minor).
pub(super) const DEVICES: &[(i64, i64)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// 64 MiB.
pub(super) const SHM_SIZE: i64 = 64 << 20;

/// What a container must not see, the sensors that each processor of this host has among it: their readings are
/// a side channel.
pub(super) fn masked_paths() -> Vec<String> {
    let sensors = sensors(Path::new("/sys/devices/system/cpu"));
    MASKED_PATHS
        .iter()
        .map(|path| (*path).to_owned())
        .chain(sensors)
        .collect()
}

fn sensors(processors: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(processors) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            let path = entry.path().join("thermal_throttle");
            path.is_dir()
                .then(|| (number, path.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// The container's capabilities from what is added and dropped; names with or without `CAP_`, `ALL` for all.
pub(super) fn capabilities(add: &[String], drop: &[String], privileged: bool) -> crate::Result<Vec<String>> {
    let normal = |name: &String| -> crate::Result<String> {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(upper);
        }
        let full = if upper.starts_with("CAP_") {
            upper
        } else {
            format!("CAP_{upper}")
        };
        if ALL_CAPABILITIES.contains(&full.as_str()) {
            Ok(full)
        } else {
            Err(crate::Error::invalid(format!(
                "invalid capability: {name:?}: see capabilities(7) for the names"
            )))
        }
    };
    let add = add.iter().map(normal).collect::<crate::Result<Vec<_>>>()?;
    let drop = drop.iter().map(normal).collect::<crate::Result<Vec<_>>>()?;
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    if privileged {
        return Ok(owned(&ALL_CAPABILITIES));
    }
    let mut set = match (all(&add), all(&drop)) {
        (true, _) => owned(&ALL_CAPABILITIES),
        (false, true) => Vec::new(),
        (false, false) => owned(&CAPABILITIES),
    };
    if !all(&drop) || all(&add) {
        set.retain(|name| !drop.contains(name));
    }
    for name in add {
        if name != "ALL" && !set.contains(&name) {
            set.push(name);
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn sensors_of_every_processor() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "cpu10/thermal_throttle",
            "cpu2/thermal_throttle",
            "cpu3",
            "cpufreq/thermal_throttle",
        ] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let expected = ["cpu2", "cpu10"].map(|cpu| {
            dir.path()
                .join(cpu)
                .join("thermal_throttle")
                .display()
                .to_string()
        });
        assert_eq!(sensors(dir.path()), expected);
    }

    #[test]
    fn adding_and_dropping() {
        let caps = |add: &[&str], drop: &[&str]| capabilities(&list(add), &list(drop), false).unwrap();
        assert_eq!(caps(&[], &[]).len(), 14);
        assert_eq!(caps(&["net_admin"], &["MKNOD"]).len(), 14);
        assert_eq!(caps(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(caps(&["CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
        assert_eq!(caps(&["ALL"], &["SYS_ADMIN"]).len(), ALL_CAPABILITIES.len() - 1);
        assert!(capabilities(&list(&["CAP_NOPE"]), &[], false).is_err());
    }
}
