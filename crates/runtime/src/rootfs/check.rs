//! Whether what a configuration says of files makes sense. Nothing is opened.

use std::path::Path;

use spec::runtime::{Linux, Mount, NamespaceType, Spec};

use super::devices;
use super::options::{self, Options};
use super::outside;
use crate::error::LaunchError;
use crate::namespaces::check_map;

/// Mounts, devices and paths of a configuration.
pub(crate) fn check(spec: &Spec, linux: &Linux) -> Result<(), LaunchError> {
    let mut namespaces = linux.namespaces.iter();
    let user = namespaces.any(|namespace| namespace.r#type == NamespaceType::User);
    for (index, mount) in spec.mounts.iter().enumerate() {
        let place = format!("mounts[{index}]");
        check_mount(mount, user).map_err(|why| invalid(format!("{place}.{why}")))?;
        check_map(&format!("{place}.uidMappings"), &mount.uid_mappings)?;
        check_map(&format!("{place}.gidMappings"), &mount.gid_mappings)?;
    }
    devices::check(&linux.devices)?;
    for (field, paths) in [
        ("linux.maskedPaths", &linux.masked_paths),
        ("linux.readonlyPaths", &linux.readonly_paths),
    ] {
        for (index, path) in paths.iter().enumerate() {
            if !Path::new(path).is_absolute() || path.contains('\0') {
                return Err(invalid(format!("{field}[{index}]: {path:?} is not absolute")));
            }
        }
    }
    match linux.rootfs_propagation.as_str() {
        "" => Ok(()),
        word if options::propagation(word).is_none() => Err(invalid(format!(
            "linux.rootfsPropagation: {word:?} is no propagation"
        ))),
        _ => Ok(()),
    }
}

/// The source of a bind.
pub(crate) fn bound(mount: &Mount) -> Option<&str> {
    Options::parse(mount).bind.and(mount.source.as_deref())
}

fn invalid(text: String) -> LaunchError {
    LaunchError::Invalid(text)
}

/// A mistake begins with the name of its field.
fn check_mount(mount: &Mount, user: bool) -> Result<(), String> {
    let kind = mount.r#type.as_deref().unwrap_or_default();
    let source = mount.source.as_deref().unwrap_or_default();
    let options = Options::parse(mount);
    if mount.destination.as_os_str().is_empty() {
        return Err("destination is missing".to_owned());
    }
    let texts = [
        ("destination", mount.destination.to_str().unwrap_or_default()),
        ("type", kind),
        ("source", source),
    ];
    if let Some((field, text)) = texts.iter().find(|(_, text)| text.contains('\0')) {
        return Err(format!("{field}: {text:?} has a null byte"));
    }
    match options.bind {
        Some(_) if source.is_empty() => return Err("source is missing: a bind needs one".to_owned()),
        None if kind.is_empty() => {
            return Err("type is missing, and the option bind is not there either".to_owned());
        }
        _ => {}
    }
    for (index, word) in mount.options.iter().enumerate() {
        if let Some(why) = useless(word, kind, options.bind.is_some()) {
            return Err(format!("options[{index}]: {word:?} {why}"));
        }
    }
    let mapped = options.idmap.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err("uidMappings and gidMappings belong together".to_owned());
    }
    if mapped && mount.uid_mappings.is_empty() && !user {
        return Err("uidMappings are missing, and there is no user namespace whose would hold".to_owned());
    }
    let can_be = options.bind.is_some() || kind == "overlay" || outside::is_made_outside(kind);
    if mapped && !can_be {
        return Err("uidMappings: what is mounted there cannot be id-mapped".to_owned());
    }
    Ok(())
}

/// Why a word of the options would change nothing, if it would not.
fn useless(word: &str, kind: &str, bind: bool) -> Option<&'static str> {
    let alone = Options::of(word);
    if word.contains('\0') {
        return Some("has a null byte");
    }
    if alone.copy_up && (bind || kind != "tmpfs") {
        return Some("is for a tmpfs");
    }
    // What is the kernel's for every filesystem holds for all that is mounted of one, and so for no bind of it.
    const OF_ALL: [&str; 4] = ["sync", "dirsync", "lazytime", "mand"];
    if alone.data.is_empty() || OF_ALL.contains(&word) {
        return None;
    }
    match kind {
        _ if bind => Some("is an option of filesystems, and a bind has those of its source"),
        "cgroup" | "cgroup2" => Some("is an option of filesystems, and the view of a cgroup takes none"),
        _ => None,
    }
}
