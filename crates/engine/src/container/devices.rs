//! Device nodes a container gets and the rules of its cgroup: `--device`, `--device-cgroup-rule`, `--privileged`.
//!
//! Without any of them a container may open the devices of the default list and its own terminals, and make nodes
//! of any kind (archives hold them) without being able to open those.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use api_types::{DeviceMapping, HostConfig};
use spec::runtime::{Device, DeviceCgroup};

use super::defaults;
use crate::error::{Error, Result};

/// The host's directories and nodes below /dev that a privileged container has its own of.
const OWN: &[&str] = &[
    "pts",
    "shm",
    "fd",
    "mqueue",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "console",
    "ptmx",
];

/// Refuses what no host could give.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    host.devices
        .iter()
        .try_for_each(|mapping| access(mapping).map(|_| ()))?;
    host.device_cgroup_rules
        .iter()
        .try_for_each(|text| rule(text).map(|_| ()))
}

/// Nodes and rules, in the order in which they count.
pub(super) fn of(host: &HostConfig) -> Result<(Vec<Device>, Vec<DeviceCgroup>)> {
    let mut devices = Vec::new();
    let mut rules = Vec::new();
    if host.privileged {
        below(Path::new("/dev"), &mut devices)?;
        rules.push(allow("a", None, None, "rwm"));
    } else {
        rules.push(DeviceCgroup {
            allow: false,
            ..allow("a", None, None, "rwm")
        });
        rules.push(allow("c", None, None, "m"));
        rules.push(allow("b", None, None, "m"));
        let usual = defaults::DEVICES.iter();
        rules.extend(usual.map(|(major, minor)| allow("c", Some(*major), Some(*minor), "rwm")));
        // Terminals of the container's own devpts.
        rules.push(allow("c", Some(136), None, "rwm"));
    }
    for mapping in &host.devices {
        let access = access(mapping)?;
        let found = mapped(mapping)?;
        if !host.privileged {
            rules.extend(
                found
                    .iter()
                    .map(|d| allow(&d.r#type, Some(d.major), Some(d.minor), access)),
            );
        }
        // The later word on a place counts.
        devices.retain(|device: &Device| !found.iter().any(|new| new.path == device.path));
        devices.extend(found);
    }
    for text in &host.device_cgroup_rules {
        rules.push(rule(text)?);
    }
    Ok((devices, rules))
}

pub(super) fn allow(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceCgroup {
    DeviceCgroup {
        allow: true,
        r#type: Some(kind.to_owned()),
        major,
        minor,
        access: access.to_owned(),
    }
}

fn access(mapping: &DeviceMapping) -> Result<&str> {
    match mapping.cgroup_permissions.as_str() {
        "" => Ok("rwm"),
        access if access.len() <= 3 && access.bytes().all(|b| b"rwm".contains(&b)) => Ok(access),
        access => Err(Error::invalid(format!("invalid device mode: {access}"))),
    }
}

/// The node a mapping names, or all below a directory.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<Device>> {
    let source = Path::new(&mapping.path_on_host);
    let inside = match mapping.path_in_container.as_str() {
        "" => source,
        inside => Path::new(inside),
    };
    if !source.is_dir() {
        return Ok(vec![node(source, inside)?]);
    }
    let mut found = Vec::new();
    below(source, &mut found)?;
    if found.is_empty() {
        return Err(gathering(source, "no device nodes in this directory"));
    }
    for device in &mut found {
        if let Ok(rest) = device.path.strip_prefix(source) {
            device.path = inside.join(rest);
        }
    }
    Ok(found)
}

fn gathering(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!(
        "error gathering device information while adding custom device {:?}: {reason}",
        path.display().to_string()
    ))
}

/// The node behind a path of the host, links followed.
pub(super) fn node(path: &Path, inside: &Path) -> Result<Device> {
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => gathering(path, "no such file or directory"),
        _ => gathering(path, error),
    })?;
    let kind = if meta.file_type().is_char_device() {
        "c"
    } else if meta.file_type().is_block_device() {
        "b"
    } else {
        return Err(gathering(path, "not a device node"));
    };
    Ok(Device {
        path: inside.to_owned(),
        r#type: kind.to_owned(),
        major: i64::from(rustix::fs::major(meta.rdev())),
        minor: i64::from(rustix::fs::minor(meta.rdev())),
        file_mode: Some(meta.mode() & 0o777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

/// Every device node below a directory, leaving out what the container has its own of.
fn below(dir: &Path, into: &mut Vec<Device>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if kind.is_dir() {
            below(&path, into)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            // A node may vanish between the listing and the look.
            if let Ok(device) = node(&path, &path) {
                into.push(device);
            }
        }
    }
    Ok(())
}

/// Reads `c 1:3 rwm` of `--device-cgroup-rule`.
fn rule(text: &str) -> Result<DeviceCgroup> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts.as_slice() else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text
            .parse::<u32>()
            .map(|n| Some(i64::from(n)))
            .map_err(|_| invalid()),
    };
    let known = !access.is_empty() && access.len() <= 3 && access.bytes().all(|b| b"rwm".contains(&b));
    if !matches!(*kind, "a" | "b" | "c") || !known {
        return Err(invalid());
    }
    Ok(allow(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(paths: &[(&str, &str, &str)], rules: &[&str]) -> HostConfig {
        let mapping = |(host, inside, access): &(&str, &str, &str)| DeviceMapping {
            path_on_host: (*host).to_owned(),
            path_in_container: (*inside).to_owned(),
            cgroup_permissions: (*access).to_owned(),
        };
        HostConfig {
            devices: paths.iter().map(mapping).collect::<Vec<_>>().into(),
            device_cgroup_rules: rules.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>().into(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn mappings_follow_links_and_the_last_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let link = link.to_str().unwrap();
        let (devices, rules) = of(&host(
            &[("/dev/null", "/dev/x", "r"), (link, "/dev/x", "")],
            &["c 10:* w"],
        ))
        .unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(
            (devices[0].path.to_str(), devices[0].major, devices[0].minor),
            (Some("/dev/x"), 1, 5)
        );
        let last: Vec<_> = rules
            .iter()
            .rev()
            .take(3)
            .map(|r| (r.major, r.minor, r.access.as_str()))
            .collect();
        assert_eq!(
            last,
            [
                (Some(10), None, "w"),
                (Some(1), Some(5), "rwm"),
                (Some(1), Some(3), "r")
            ]
        );
        assert!(!rules[0].allow && rules[0].r#type.as_deref() == Some("a"));
    }

    #[test]
    fn what_cannot_be_given() {
        let message = |paths: &[(&str, &str, &str)]| of(&host(paths, &[])).unwrap_err().message;
        let gathering = "error gathering device information while adding custom device";
        assert_eq!(
            message(&[("/dev/nosuch", "", "")]),
            format!("{gathering} \"/dev/nosuch\": no such file or directory")
        );
        assert_eq!(
            message(&[("/etc/passwd", "", "")]),
            format!("{gathering} \"/etc/passwd\": not a device node")
        );
        assert_eq!(message(&[("/dev/null", "", "rx")]), "invalid device mode: rx");
        for text in ["c 1:3", "x 1:3 r", "c 1:-3 r", "c 1:3 rwmr", "c *:* ", "c 1 r"] {
            let error = check(&host(&[], &[text])).unwrap_err();
            assert_eq!(
                error.message,
                format!("invalid device cgroup rule format: '{text}'")
            );
        }
    }
}
