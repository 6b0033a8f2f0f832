//! One flag of a creation request becomes one planned mount, and what it wishes of a volume.

use std::path::Path;

use api_types::{BindOptions, Mount};
use volume::CreateVolume;

use super::{MountKind, PlannedMount};
use crate::container::ownership::Ownership;
use crate::engine::Inner;
use crate::error::{Error, Result};

const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

pub(super) fn check_destination(destination: &str) -> Result<()> {
    if !destination.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount config: mount path must be absolute: {destination:?}"
        )));
    }
    if clean(destination) == "/" {
        return Err(Error::invalid(
            "invalid volume specification: destination can't be '/'",
        ));
    }
    Ok(())
}

/// Reads `[source:]destination[:options]`.
pub(super) fn parse_bind(text: &str) -> Result<PlannedMount> {
    // Docker answers this one with a server error; clients rely on the text.
    let invalid = || Error::internal(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] if destination.starts_with('/') => (*source, *destination, ""),
        [destination, options] => ("", *destination, *options),
        [source, destination, options] => (*source, *destination, *options),
        _ => return Err(invalid()),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty() && !parts[0].starts_with('/')) {
        return Err(invalid());
    }
    if !destination.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid mount path: '{destination}' mount path must be absolute"
        )));
    }
    if clean(destination) == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )));
    }
    let (mut read_only, mut no_copy, mut propagation) = (false, false, String::new());
    let mut ownership = Ownership::AsItIs;
    if options.split(',').filter(|o| matches!(*o, "z" | "Z")).count() > 1 {
        return Err(Error::invalid(format!("invalid mode: {options}")));
    }
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "U" => ownership = Ownership::OfTheUser,
            "nocopy" if !source.starts_with('/') => no_copy = true,
            p if PROPAGATIONS.contains(&p) && source.starts_with('/') => p.clone_into(&mut propagation),
            _ => return Err(Error::invalid(format!("invalid mode: {options}"))),
        }
    }
    let kind = if source.starts_with('/') {
        MountKind::Bind {
            source: clean(source),
            propagation,
            recursive: true,
            create: true,
            read_only_top: false,
            own: false,
        }
    } else {
        if !source.is_empty() && !crate::names::is_valid(source) {
            return Err(Error::invalid(format!(
                "create {source}: {source:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        MountKind::Volume {
            name: source.to_owned(),
            driver: "local".to_owned(),
            no_copy,
            subpath: String::new(),
            anonymous: source.is_empty(),
        }
    };
    Ok(PlannedMount {
        destination: clean(destination),
        read_only,
        kind,
        mode: options.to_owned(),
        ownership,
    })
}

/// What of a bind's options says nothing together.
fn conflict(options: &BindOptions, read_only: bool) -> Option<&'static str> {
    match (options.read_only_non_recursive, options.read_only_force_recursive) {
        (true, true) => Some("ReadOnlyNonRecursive && ReadOnlyForceRecursive"),
        (true, false) if !read_only => Some("Writable && ReadOnlyNonRecursive"),
        (false, true) if !read_only => Some("Writable && ReadOnlyForceRecursive"),
        _ => None,
    }
}

/// Reads one entry of `HostConfig.Mounts`.
pub(super) fn parse_mount(engine: &Inner, mount: &Mount) -> Result<(PlannedMount, Option<CreateVolume>)> {
    let invalid =
        |why: String| Error::invalid(format!("invalid mount config for type {:?}: {why}", mount.kind));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty".to_owned()));
    }
    if !mount.target.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.target
        )));
    }
    if clean(&mount.target) == "/" {
        return Err(invalid(
            "invalid specification: destination can't be '/'".to_owned(),
        ));
    }
    let ownership = Ownership::parse(&mount.id_map)?;
    if ownership != Ownership::AsItIs && !matches!(mount.kind.as_str(), "bind" | "volume") {
        return Err(invalid(
            "field IDMap must not be specified: only binds and volumes have files of others".to_owned(),
        ));
    }
    let mut wish = None;
    let kind = match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            if !mount.source.starts_with('/') {
                return Err(invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(invalid(format!(
                    "invalid propagation mode: {}",
                    options.propagation
                )));
            }
            if !options.create_mountpoint && !Path::new(&mount.source).exists() {
                return Err(invalid(format!(
                    "bind source path does not exist: {}",
                    mount.source
                )));
            }
            if let Some(conflict) = conflict(&options, mount.read_only) {
                return Err(invalid(format!("options conflict: {conflict}")));
            }
            MountKind::Bind {
                source: clean(&mount.source),
                propagation: options.propagation,
                recursive: !options.non_recursive,
                create: options.create_mountpoint,
                read_only_top: options.read_only_non_recursive,
                own: false,
            }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            if mount.source.contains('/') {
                return Err(invalid(format!(
                    "invalid volume name {:?}: a volume name has no slash",
                    mount.source
                )));
            }
            wish = Some(CreateVolume {
                name: (!mount.source.is_empty()).then(|| mount.source.clone()),
                driver: driver.name,
                driver_opts: driver.options.into_map(),
                labels: options.labels.into_map(),
                pending: true,
            });
            MountKind::Volume {
                name: mount.source.clone(),
                driver: "local".to_owned(),
                no_copy: options.no_copy,
                subpath: options.subpath,
                anonymous: mount.source.is_empty(),
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut list = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            if options.size_bytes > 0 {
                list.push(format!("size={}", options.size_bytes));
            }
            if options.mode > 0 {
                list.push(format!("mode={:o}", options.mode & 0o7777));
            }
            list.extend(options.options.iter().map(|pair| pair.join("=")));
            MountKind::Tmpfs { options: list }
        }
        "image" => {
            let image = engine.images.resolve(&mount.source)?;
            let snapshot = engine.images.snapshot(&image)?;
            let subpath = mount.image_options.clone().unwrap_or_default().subpath;
            MountKind::Image {
                snapshot,
                name: mount.source.clone(),
                subpath,
            }
        }
        other => {
            return Err(Error::invalid(format!(
                "mount type unknown: {other:?}: use bind, volume, tmpfs or image"
            )));
        }
    };
    let read_only = mount.read_only || matches!(kind, MountKind::Image { .. });
    Ok((
        PlannedMount {
            destination: clean(&mount.target),
            read_only,
            kind,
            mode: String::new(),
            ownership,
        },
        wish,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_deep_read_only_goes_is_said_of_what_is_read_only() {
        let options = |top, all| BindOptions {
            read_only_non_recursive: top,
            read_only_force_recursive: all,
            ..BindOptions::default()
        };
        for (top, all, read_only, said) in [
            (false, false, false, None),
            (true, false, true, None),
            (false, true, true, None),
            (true, false, false, Some("Writable && ReadOnlyNonRecursive")),
            (false, true, false, Some("Writable && ReadOnlyForceRecursive")),
            (
                true,
                true,
                true,
                Some("ReadOnlyNonRecursive && ReadOnlyForceRecursive"),
            ),
        ] {
            assert_eq!(conflict(&options(top, all), read_only), said);
        }
    }

    #[test]
    fn binds() {
        let bind = parse_bind("/src:/dst:ro,rslave").unwrap();
        assert!(bind.read_only);
        assert_eq!(
            bind.kind,
            MountKind::Bind {
                source: "/src".into(),
                propagation: "rslave".into(),
                recursive: true,
                create: true,
                read_only_top: false,
                own: false,
            }
        );
        let named = parse_bind("data:/var//lib/../lib/x").unwrap();
        assert_eq!(named.destination, "/var/lib/x");
        assert!(matches!(named.kind, MountKind::Volume { anonymous: false, .. }));
        assert!(matches!(
            parse_bind("/data").unwrap().kind,
            MountKind::Volume { anonymous: true, .. }
        ));
        assert_eq!(
            parse_bind("a:b:c:d").unwrap_err().message,
            "invalid volume specification: 'a:b:c:d'"
        );
        for bad in ["", ":", "/a:/", "a:b", "/a:b", "a b:/c", "/a:/b:nope", "../x:/y"] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }
}
