//! What a user namespace cannot make for itself, made by the caller: mounts with translated ids, and a `/dev` with
//! real nodes in it.
//!
//! The `/dev` is a tmpfs of the caller's, so its nodes are devices; it belongs to user 0 of the container, who may
//! add to it as to any other. A node that belongs outside of `/dev` waits in it under a name of its own.
//!
//! Source: OCI runtime-spec 1.2 config.md "Linux mounts" (`uidMappings`, `idmap`, `ridmap`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use spec::runtime::{Device, Mount};
use sys::mount::{Filesystem, IdMap, Objects, Overlay, Tree};

use super::devices;
use super::options::{self, Options};
use crate::error::{During, LaunchError, reason};
use crate::namespaces::{Namespaces, id_ranges};

/// The user namespace by whose maps a mount is to be translated, if it is.
pub(super) fn translation(
    mount: &Mount,
    options: &Options,
    namespaces: &Namespaces,
) -> Result<Option<OwnedFd>, LaunchError> {
    let invalid = |why: &str| {
        let text = format!("id-mapped mount at {}: {why}", mount.destination.display());
        Err(LaunchError::Invalid(text))
    };
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    if options.idmap.is_none() && uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    if uids.is_empty() != gids.is_empty() {
        return invalid("uidMappings and gidMappings belong together");
    }
    let made = if uids.is_empty() {
        if let Some(map) = namespaces.id_map() {
            return map
                .namespace
                .try_clone_to_owned()
                .map(Some)
                .during("user namespace");
        }
        match namespaces.maps() {
            Some((uids, gids)) => sys::namespace::create_user(uids, gids, &[]),
            None => {
                return invalid("it needs uidMappings and gidMappings, or a user namespace of the container");
            }
        }
    } else {
        sys::namespace::create_user(&id_ranges(uids), &id_ranges(gids), &[])
    };
    made.map(|made| Some(made.user))
        .during(&format!("id-mapped mount at {}", mount.destination.display()))
}

/// Not the kernel's: where the content of files is that the lowest so many layers have without, `COUNT:DIR`.
const OBJECTS: &str = "x-berth.objects=";

/// Whether only [`overlay`] can mount it.
pub(super) fn is_for_us(options: &Options) -> bool {
    options.part.is_some() || options.data.iter().any(|option| option.starts_with(OBJECTS))
}

/// An overlay whose layers are translated or share files, or of which a part is wanted, from its options as mount(8) has
/// them.
pub(super) fn overlay(options: &Options, map: Option<IdMap<'_>>) -> io::Result<Tree> {
    let value = |key: &str| {
        let found = options.data.iter().find_map(|option| option.strip_prefix(key));
        found.filter(|value| !value.is_empty())
    };
    let objects = value(OBJECTS).and_then(|value| {
        let (layers, dir) = value.split_once(':')?;
        Some(Objects {
            dir: dir.into(),
            layers: layers.parse().ok()?,
        })
    });
    let lower = value("lowerdir=").unwrap_or_default();
    let overlay = Overlay {
        lower: layers(lower),
        upper: value("upperdir=").map(PathBuf::from),
        work: value("workdir=").map(PathBuf::from),
        read_only: options.read_only(),
        objects,
        label: value(options::CONTEXT).map(str::to_owned),
        volatile: options.data.iter().any(|option| option == "volatile"),
    };
    let whole = match map {
        Some(map) => overlay.mount_mapped(map),
        None => overlay.mount_detached(),
    };
    let whole = Tree::from_fd(whole?);
    match &options.part {
        None => Ok(whole),
        Some(part) => whole.part(part).map_err(|error| {
            let why = reason(&error);
            io::Error::new(
                error.kind(),
                format!("cannot access path {}: {why}", part.display()),
            )
        }),
    }
}

/// The paths in a list of layers. As overlayfs has it, a colon ends one, and what follows a backslash is a part of it.
pub(super) fn layers(list: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match (character, paths.last_mut()) {
            (':', _) => paths.push(String::new()),
            ('\\', Some(path)) => path.extend(characters.next()),
            (other, Some(path)) => path.push(other),
            (_, None) => {}
        }
    }
    paths.retain(|path| !path.is_empty());
    paths.into_iter().map(PathBuf::from).collect()
}

/// A device outside of `/dev`, and the path in the container where its node waits.
pub(super) type Spare = (PathBuf, PathBuf);

/// The `/dev` of a container in a user namespace; nothing where the caller may not make nodes itself.
pub(super) fn dev(
    options: &Options,
    wanted: &[Device],
    namespaces: &Namespaces,
) -> Result<Option<(Tree, Vec<Spare>)>, LaunchError> {
    let Some(owner) = namespaces.outside(0, 0) else {
        return Ok(None);
    };
    match make_dev(options, wanted, namespaces, owner) {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error).during("make /dev"),
    }
}

fn make_dev(
    options: &Options,
    wanted: &[Device],
    namespaces: &Namespaces,
    owner: (u32, u32),
) -> io::Result<(Tree, Vec<Spare>)> {
    let fs = Filesystem::new("tmpfs")?;
    fs.string("uid", &owner.0.to_string())?;
    fs.string("gid", &owner.1.to_string())?;
    for option in &options.data {
        fs.option(option)?;
    }
    let tree = fs.mount(options.mount_attributes())?;
    let mut spares = Vec::new();
    let umask = rustix::process::umask(Mode::empty());
    let made = sys::process::with_filesystem_ids(owner.0, owner.1, || {
        for device in devices::defaults().chain(wanted.iter().cloned()) {
            let path = match device.path.strip_prefix("/dev") {
                Ok(below) => Path::new("/").join(below),
                Err(_) => {
                    let name = format!(".device-{}", spares.len());
                    spares.push((device.path.clone(), Path::new("/dev").join(&name)));
                    Path::new("/").join(name)
                }
            };
            let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
            // An id that the container does not have stays the outside's root, whom it cannot be.
            let (uid, gid) = namespaces.outside(uid, gid).unwrap_or((0, 0));
            let node = Device {
                path,
                uid: Some(uid),
                gid: Some(gid),
                ..device
            };
            let (kind, id) = devices::number(&node)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
            devices::node(tree.as_fd(), &node, kind, id)?;
        }
        Ok::<(), io::Error>(())
    });
    rustix::process::umask(umask);
    made??;
    Ok((tree, spares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_in_a_layers_path_is_a_part_of_it() {
        let paths = |list| -> Vec<String> {
            let layers = layers(list).into_iter();
            layers.map(|path| path.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(paths("/a:/b"), ["/a", "/b"]);
        assert_eq!(paths(r"/a\:/etc:/b\\:/c"), ["/a:/etc", r"/b\", "/c"]);
        assert_eq!(paths(""), Vec::<String>::new());
        assert_eq!(paths(r"/a::/b\"), ["/a", "/b"]);
    }
}
