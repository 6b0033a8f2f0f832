//! The plan as mounts of the bundle, at each start. A source that vanished meanwhile is an error that names it.

use std::path::Path;

use spec::runtime;
use volume::VolumeSource;

use super::beneath::beneath;
use super::stack::stacked;
use super::{MountKind, PlannedMount};
use crate::container::Container;
use crate::container::ownership::Ownership;
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::selinux;
use crate::userns::IdMaps;

/// The plan as mounts of the bundle, for a process with the ids of `user`. In a user namespace with these maps what is the
/// engine's own is shown with the ids of the container; what is the host's keeps the host's, unless it is asked for
/// otherwise.
pub(crate) fn bundle(
    engine: &Inner,
    container: &Container,
    maps: Option<&IdMaps>,
    user: (u32, u32),
) -> Result<Vec<runtime::Mount>> {
    let one = |mount: &PlannedMount| {
        let mut made = bundle_one(engine, container, mount)?;
        let own = match &mount.kind {
            MountKind::Bind { own, .. } => *own,
            // A plugin's filesystem has the host's ids, and often can show no others.
            MountKind::Volume { driver, .. } => driver == volume::LOCAL && is_translated(&made),
            MountKind::Image { .. } | MountKind::Overlay { .. } => true,
            MountKind::Tmpfs { .. } => false,
        };
        if let Some(chosen) = chosen_ids(mount, &made, maps, user, own)? {
            made.uid_mappings = chosen.uids;
            made.gid_mappings = chosen.gids;
            made.options.push("ridmap".to_owned());
        } else if maps.is_some() && own {
            made.options.push("idmap".to_owned());
        }
        Ok(made)
    };
    container.plan.iter().map(one).collect()
}

fn chosen_ids(
    mount: &PlannedMount,
    made: &runtime::Mount,
    maps: Option<&IdMaps>,
    user: (u32, u32),
    own: bool,
) -> Result<Option<IdMaps>> {
    let bound = made
        .options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    match &made.source {
        _ if mount.ownership == Ownership::AsItIs => Ok(None),
        Some(source) if bound => mount.ownership.maps(Path::new(source), user, maps, own),
        _ => Err(Error::invalid(format!(
            "the mount at {}: whose the files are can be chosen for a directory of the host, and the volume's options \
             mount something else",
            mount.destination
        ))),
    }
}

/// Whether a volume's mount can show other ids: its directory can, and a filesystem on a device of its own. What a
/// volume's options bind from the host keeps the host's ids.
fn is_translated(volume: &runtime::Mount) -> bool {
    let bound = volume
        .options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    match volume.r#type.as_deref().unwrap_or_default() {
        "bind" => true,
        "tmpfs" | "overlay" | "nfs" | "nfs4" | "cifs" | "smb3" => false,
        _ => !bound,
    }
}

fn bundle_one(engine: &Inner, container: &Container, mount: &PlannedMount) -> Result<runtime::Mount> {
    let access = match &mount.kind {
        _ if !mount.read_only => "rw",
        MountKind::Bind {
            read_only_top: true, ..
        } => "ro",
        _ => "rro",
    };
    let bind = |source: String, propagation: &str, recursive: bool| {
        let propagation = if propagation.is_empty() {
            "rprivate"
        } else {
            propagation
        };
        runtime::Mount {
            destination: mount.destination.clone().into(),
            r#type: Some("bind".to_owned()),
            source: Some(source),
            options: vec![
                if recursive { "rbind" } else { "bind" }.to_owned(),
                propagation.to_owned(),
                access.to_owned(),
            ],
            ..runtime::Mount::default()
        }
    };
    match &mount.kind {
        MountKind::Bind {
            source,
            propagation,
            recursive,
            create,
            ..
        } => {
            if !Path::new(source).exists() {
                if !create {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                    )));
                }
                std::fs::create_dir_all(source).map_err(|error| {
                    Error::internal(format!(
                        "error while creating mount source path '{source}': mkdir {source}: {error}"
                    ))
                })?;
            }
            crate::container::propagation::check(source, propagation)?;
            relabel(container, mount, Path::new(source))?;
            Ok(bind(source.clone(), propagation, *recursive))
        }
        MountKind::Volume { name, subpath, .. } => match engine.volumes.mount(name, container.id.as_str())? {
            VolumeSource::Directory(base) => {
                relabel(container, mount, &base)?;
                let mut made = bind(beneath(&base, subpath)?, "", true);
                // Another container that has the volume may put a link there between now and the mount.
                if !subpath.is_empty() {
                    made.options.push(format!("x-berth.beneath={}", base.display()));
                }
                Ok(made)
            }
            VolumeSource::Mount {
                fstype,
                device,
                mut options,
                server,
            } => {
                // It is mounted inside the container, so there is no directory of the host to be a part of.
                if !subpath.is_empty() {
                    return Err(Error::invalid(format!(
                        "volume {name}: its part {subpath} cannot be mounted at {}, since the volume has a device of its \
                         own ({device}); mount the whole volume",
                        mount.destination
                    )));
                }
                if mount.read_only {
                    // The whole tree, and its top even if the options say otherwise.
                    options.extend(["rro", "ro"].map(str::to_owned));
                }
                let server = server.map_or_else(String::new, |server| format!(" on the server {server}"));
                options.push(format!("x-berth.called=volume {name}{server}"));
                if !container.mount_label.is_empty() && !options.iter().any(|o| o.starts_with("context=")) {
                    // A filesystem has one label for all who mount it at a time.
                    options.push(format!("context={}", selinux::shared(&container.mount_label)));
                }
                Ok(runtime::Mount {
                    destination: mount.destination.clone().into(),
                    r#type: Some(fstype),
                    source: Some(device),
                    options,
                    ..runtime::Mount::default()
                })
            }
        },
        MountKind::Tmpfs { options } => {
            // What the user says comes last and wins.
            let mut all = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
            all.extend(options.iter().cloned());
            if mount.read_only {
                all.push("ro".to_owned());
            }
            Ok(runtime::Mount {
                destination: mount.destination.clone().into(),
                r#type: Some("tmpfs".to_owned()),
                source: Some("tmpfs".to_owned()),
                options: all,
                ..runtime::Mount::default()
            })
        }
        MountKind::Image {
            snapshot, subpath, ..
        } => {
            let overlay = engine.store.snapshots().overlay(*snapshot)?;
            match overlay.single() {
                Some((single, _)) => Ok(bind(beneath(single, subpath)?, "", true)),
                None => {
                    let mut made = stacked(&mount.destination, &overlay)?;
                    if !subpath.is_empty() {
                        // What is there is known once the layers are one on the other.
                        made.options.push(format!("x-berth.part={subpath}"));
                    }
                    Ok(made)
                }
            }
        }
        MountKind::Overlay { overlay } => stacked(&mount.destination, overlay),
    }
}

/// Relabels what a mount shows, where `z` (for all containers) or `Z` (for this one) asks for it.
fn relabel(container: &Container, mount: &PlannedMount, source: &Path) -> Result<()> {
    let label = container.mount_label.as_str();
    let mut words = mount.mode.split(',').filter(|_| !label.is_empty());
    match words.find(|word| matches!(*word, "z" | "Z")) {
        Some("Z") => selinux::relabel(source, label),
        Some(_) => selinux::relabel(source, &selinux::shared(label)),
        None => Ok(()),
    }
}
