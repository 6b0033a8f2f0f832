//! What is mounted into a container besides its root: binds, volumes, tmpfs and images.
//!
//! Two steps. At creation the wishes of every flag are read into one list of [`PlannedMount`]s, sorted so that
//! a mount never hides one below it, and volumes are made and filled. At each start the plan becomes the
//! bundle's mounts; a source that vanished meanwhile is an error that names it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use api_types::{BindOptions, Mount, MountPoint};
use serde::{Deserialize, Serialize};
use spec::{Id, runtime};
use store::SnapshotId;
use volume::{CreateVolume, VolumeSource};

use super::Container;
use super::ownership::Ownership;
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::selinux;
use crate::userns::IdMaps;
use crate::volumes::claims::Wanted;

/// One mount as it will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedMount {
    pub destination: String,
    pub read_only: bool,
    pub kind: MountKind,
    /// Options as the user wrote them, for `Mode` in inspect.
    #[serde(default)]
    pub mode: String,
    /// Whose its files are.
    #[serde(default)]
    pub ownership: Ownership,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: String,
        propagation: String,
        recursive: bool,
        create: bool,
        /// Read-only is meant for the mount itself and not for those below it.
        #[serde(default)]
        read_only_top: bool,
        /// A directory or file of the engine's own: who owns it is told in ids of the image, not of the host.
        #[serde(default)]
        own: bool,
    },
    Volume {
        name: String,
        driver: String,
        no_copy: bool,
        subpath: String,
        anonymous: bool,
    },
    Tmpfs {
        options: Vec<String>,
    },
    Image {
        snapshot: SnapshotId,
        name: String,
        subpath: String,
    },
    /// Directories of the engine stacked read-only, for steps of a build.
    Overlay {
        overlay: sys::mount::Overlay,
    },
}

/// The wishes of a creation request, read but not yet acted on.
pub(super) struct Plan {
    pub(super) mounts: Vec<PlannedMount>,
    /// Volumes to make first: name (empty for anonymous), driver, options and labels, and the mount's index.
    wishes: Vec<(usize, CreateVolume)>,
}

const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Reads every mount flag. Later flags for one destination are refused as duplicates, except that a volume
/// the image declares yields to whatever the user mounts there.
pub(super) fn plan(
    engine: &Inner,
    request: &super::CreateContainer,
    image_volumes: &[String],
) -> Result<Plan> {
    let mut plan = Plan {
        mounts: Vec::new(),
        wishes: Vec::new(),
    };
    let host = &request.host_config;
    for from in &host.volumes_from {
        volumes_from(engine, &mut plan, from)?;
    }
    let inherited = plan.mounts.len();
    for bind in &host.binds {
        let parsed = parse_bind(bind)?;
        plan.push(parsed, &host.volume_driver, inherited)?;
    }
    for mount in &host.mounts {
        let (planned, wish) = parse_mount(engine, mount)?;
        plan.push_with(planned, wish, inherited)?;
    }
    for (destination, options) in &host.tmpfs {
        check_destination(destination)?;
        let options = options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect();
        let kind = MountKind::Tmpfs { options };
        plan.push(
            PlannedMount {
                destination: clean(destination),
                read_only: false,
                kind,
                mode: String::new(),
                ownership: Ownership::AsItIs,
            },
            "",
            inherited,
        )?;
    }
    let declared = request.config.volumes.keys().chain(image_volumes);
    for destination in declared {
        let destination = clean(destination);
        if destination == "/" {
            return Err(Error::invalid(
                "invalid volume specification: destination can't be '/'",
            ));
        }
        if plan.mounts.iter().any(|m| m.destination == destination) {
            continue;
        }
        let kind = MountKind::Volume {
            name: String::new(),
            driver: "local".to_owned(),
            no_copy: false,
            subpath: String::new(),
            anonymous: true,
        };
        plan.push(
            PlannedMount {
                destination,
                read_only: false,
                kind,
                mode: String::new(),
                ownership: Ownership::AsItIs,
            },
            &host.volume_driver,
            0,
        )?;
    }
    Ok(plan)
}

impl Plan {
    fn push(&mut self, mount: PlannedMount, driver: &str, inherited: usize) -> Result<()> {
        let wish = match &mount.kind {
            MountKind::Volume { name, .. } => Some(CreateVolume {
                name: (!name.is_empty()).then(|| name.clone()),
                driver: driver.to_owned(),
                driver_opts: BTreeMap::new(),
                labels: BTreeMap::new(),
                pending: true,
            }),
            _ => None,
        };
        self.push_with(mount, wish, inherited)
    }

    fn push_with(&mut self, mount: PlannedMount, wish: Option<CreateVolume>, inherited: usize) -> Result<()> {
        // What was taken over from another container gives way to what is said here.
        if let Some(old) = self
            .mounts
            .iter()
            .position(|m| m.destination == mount.destination)
        {
            if old >= inherited {
                return Err(Error::invalid(format!(
                    "Duplicate mount point: {}",
                    mount.destination
                )));
            }
            self.mounts[old] = mount;
            self.wishes.retain(|(index, _)| *index != old);
            self.wishes.extend(wish.map(|wish| (old, wish)));
            return Ok(());
        }
        self.mounts.push(mount);
        self.wishes.extend(wish.map(|wish| (self.mounts.len() - 1, wish)));
        Ok(())
    }

    /// Makes the volumes, fills new ones from the image, and gives the finished plan. Volumes that were made
    /// here are named in `made`, for the caller to remove if the creation fails later; none that the plan has goes as long
    /// as it is `wanted`.
    pub(super) fn carry_out(
        mut self,
        engine: &Inner,
        image_root: &dyn Fn() -> Result<std::os::fd::OwnedFd>,
        label: &str,
        made: &mut Vec<String>,
        wanted: &mut Wanted,
    ) -> Result<Vec<PlannedMount>> {
        // All that have a name; of other containers, too, whose wishes were fulfilled long ago.
        for mount in &self.mounts {
            if let MountKind::Volume { name, .. } = &mount.kind
                && !name.is_empty()
            {
                wanted.add(name);
            }
        }
        for (index, mut wish) in self.wishes {
            let given = wish.name.take().filter(|name| !name.is_empty());
            let anonymous = given.is_none();
            let name = given.unwrap_or_else(|| Id::random().to_string());
            if anonymous {
                wanted.add(&name);
            }
            let (volume, created) = engine.volumes.create_called(name, anonymous, wish)?;
            if created {
                made.push(volume.name.clone());
                super::super::volumes::emit(engine, "create", &volume.name, &[("driver", &volume.driver)]);
            }
            let mount = &mut self.mounts[index];
            if let MountKind::Volume {
                name,
                driver,
                no_copy,
                subpath,
                ..
            } = &mut mount.kind
            {
                name.clone_from(&volume.name);
                driver.clone_from(&volume.driver);
                if !*no_copy
                    && subpath.is_empty()
                    && volume.driver == volume::LOCAL
                    && !volume.options.contains_key("device")
                {
                    let root = image_root()?;
                    volume::copy_up(&volume.mountpoint, root.as_fd(), &mount.destination)?;
                }
                if created
                    && !label.is_empty()
                    && volume.driver == volume::LOCAL
                    && !volume.options.contains_key("device")
                {
                    // Others may use it as well, unless one says `:Z`.
                    selinux::relabel(&volume.mountpoint, &selinux::shared(label))?;
                }
            }
        }
        self.mounts
            .sort_by_key(|m| (m.destination.matches('/').count(), m.destination.clone()));
        Ok(self.mounts)
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

/// The mounts of another container, as `--volumes-from NAME[:ro|rw]` asks.
fn volumes_from(engine: &Inner, plan: &mut Plan, text: &str) -> Result<()> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    let read_only = match mode {
        "" | "rw" | "z" | "Z" => false,
        "ro" => true,
        _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
    };
    let other = engine.containers.find(name)?.snapshot();
    for mount in &other.plan {
        if matches!(mount.kind, MountKind::Tmpfs { .. }) {
            continue;
        }
        let mut mount = mount.clone();
        mount.read_only |= read_only;
        // Whose files they are was said by the one that had them first.
        mount.mode.clear();
        match plan
            .mounts
            .iter_mut()
            .find(|m| m.destination == mount.destination)
        {
            Some(old) => *old = mount,
            None => plan.mounts.push(mount),
        }
    }
    Ok(())
}

fn clean(path: &str) -> String {
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

fn check_destination(destination: &str) -> Result<()> {
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
fn parse_bind(text: &str) -> Result<PlannedMount> {
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
fn parse_mount(engine: &Inner, mount: &Mount) -> Result<(PlannedMount, Option<CreateVolume>)> {
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

/// What inspect shows of the plan.
pub(super) fn points(engine: &Inner, plan: &[PlannedMount]) -> Vec<MountPoint> {
    let point = |mount: &PlannedMount| {
        let mut point = MountPoint {
            destination: mount.destination.clone(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        match &mount.kind {
            MountKind::Bind {
                source, propagation, ..
            } => {
                "bind".clone_into(&mut point.kind);
                point.source.clone_from(source);
                point.propagation = if propagation.is_empty() {
                    "rprivate".to_owned()
                } else {
                    propagation.clone()
                };
            }
            MountKind::Volume { name, driver, .. } => {
                "volume".clone_into(&mut point.kind);
                point.name.clone_from(name);
                point.source = engine.volumes.place(name, None).to_string_lossy().into_owned();
                point.driver.clone_from(driver);
            }
            MountKind::Tmpfs { .. } => "tmpfs".clone_into(&mut point.kind),
            MountKind::Overlay { .. } => "overlay".clone_into(&mut point.kind),
            MountKind::Image { name, .. } => {
                "image".clone_into(&mut point.kind);
                point.source.clone_from(name);
            }
        }
        point
    };
    plan.iter().map(point).collect()
}

/// Where volumes of plugins are is known only once they are mounted.
pub(super) fn show_places(engine: &Inner, container: &mut Container) {
    let holder = container.id.as_str();
    for point in &mut container.mounts {
        if point.kind == "volume" && point.driver != volume::LOCAL {
            let place = engine.volumes.place(&point.name, Some(holder));
            point.source = place.to_string_lossy().into_owned();
        }
    }
}

/// The plan as mounts of the bundle, for a process with the ids of `user`. In a user namespace with these maps what is the
/// engine's own is shown with the ids of the container; what is the host's keeps the host's, unless it is asked for
/// otherwise.
pub(super) fn bundle(
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
            super::propagation::check(source, propagation)?;
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
                    options.push("ro".to_owned());
                }
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

/// Directories stacked as overlayfs, mounted in the container's own namespace; one needs no union.
fn stacked(destination: &str, overlay: &sys::mount::Overlay) -> Result<runtime::Mount> {
    if let Some((directory, writable)) = overlay.single() {
        let access = if writable && !overlay.read_only {
            "rw"
        } else {
            "ro"
        };
        return Ok(runtime::Mount {
            destination: destination.into(),
            r#type: Some("bind".to_owned()),
            source: Some(plain(directory)?.to_owned()),
            options: vec!["rbind".to_owned(), access.to_owned()],
            ..runtime::Mount::default()
        });
    }
    let lower = overlay.lower.iter().map(|path| listed(path));
    let lower = lower.collect::<Result<Vec<_>>>()?;
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    match (&overlay.upper, &overlay.work) {
        (Some(upper), Some(work)) if !overlay.read_only => {
            options.push(format!("upperdir={}", plain(upper)?));
            options.push(format!("workdir={}", plain(work)?));
        }
        _ => options.push("ro".to_owned()),
    }
    if let Some(objects) = &overlay.objects {
        // The runtime's own: the kernel has no one option for it.
        options.push(format!(
            "x-berth.objects={}:{}",
            objects.layers,
            plain(&objects.dir)?
        ));
    }
    Ok(runtime::Mount {
        destination: destination.into(),
        r#type: Some("overlay".to_owned()),
        source: Some("overlay".to_owned()),
        options,
        ..runtime::Mount::default()
    })
}

/// A path that may come from an image as text. A similar one would do for another file, or for a link that an image has there.
fn plain(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::invalid(format!("the path {} is not valid UTF-8", path.display())))
}

/// A path in the list of overlayfs, where a colon would end it.
fn listed(path: &Path) -> Result<String> {
    Ok(plain(path)?.replace('\\', "\\\\").replace(':', "\\:"))
}

/// A path below a volume that symbolic links inside it do not lead out of, as it is now.
pub(super) fn beneath(base: &Path, subpath: &str) -> Result<String> {
    let utf8 = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::invalid(format!("the path {} is not valid UTF-8", path.display())))
    };
    if subpath.is_empty() {
        return utf8(base);
    }
    open_beneath(base, subpath)
        .map_err(|error| {
            Error::invalid(format!(
                "cannot access path {}/{subpath}: {error}",
                base.display()
            ))
        })
        .map(drop)?;
    utf8(&base.join(subpath))
}

/// The same, held: what is put there later makes no difference.
pub(super) fn open_beneath(base: &Path, subpath: &str) -> std::io::Result<OwnedFd> {
    let base = std::fs::File::open(base)?;
    let path = rustix::fs::OFlags::PATH;
    sys::beneath::open_beneath(base.as_fd(), subpath, path, rustix::fs::Mode::empty())
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
