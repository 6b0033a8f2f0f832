//! The wishes of every flag in one list, and the volumes that are made and filled for it.
//!
//! A mount that was taken over from another container gives way to what is said here; two that are said for one place are
//! refused. The list is sorted so that no mount hides one below it.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use spec::Id;
use volume::CreateVolume;

use super::wish::{check_destination, clean, parse_bind, parse_mount};
use super::{MountKind, PlannedMount};
use crate::container::ownership::Ownership;
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::selinux;
use crate::volumes::claims::Wanted;

/// The wishes of a creation request, read but not yet acted on.
pub(crate) struct Plan {
    pub(crate) mounts: Vec<PlannedMount>,
    /// Volumes to make first: name (empty for anonymous), driver, options and labels, and the mount's index.
    wishes: Vec<(usize, CreateVolume)>,
}

/// Reads every mount flag. Later flags for one destination are refused as duplicates, except that a volume
/// the image declares yields to whatever the user mounts there.
pub(crate) fn plan(
    engine: &Inner,
    request: &crate::container::CreateContainer,
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
    /// as it is `wanted`. With `translated` ids the container is in a user namespace.
    pub(crate) fn carry_out(
        mut self,
        engine: &Inner,
        image_root: &dyn Fn() -> Result<std::os::fd::OwnedFd>,
        label: &str,
        translated: bool,
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
                crate::volumes::emit(engine, "create", &volume.name, &[("driver", &volume.driver)]);
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
                if !*no_copy && subpath.is_empty() && volume.driver == volume::LOCAL {
                    let root = image_root()?;
                    let label = selinux::shared(label);
                    engine
                        .volumes
                        .fill(&volume, root.as_fd(), &mount.destination, &label, translated)?;
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
