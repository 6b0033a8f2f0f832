//! Volumes as the engine knows them: what `volume` does, with who uses them, and events.

pub(crate) mod claims;
pub(crate) mod snapshot;
pub(crate) mod trash;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use api_types::VolumeCreateRequest;
use spec::Id;
use volume::{CreateVolume, Volume, Volumes};

use crate::container::{ByteStream, Incoming, MountKind, PlannedMount, Pruned, stream};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use crate::filters::{self, Filters};

pub(crate) fn emit(inner: &Inner, action: &str, name: &str, extra: &[(&str, &str)]) {
    let mut attributes = std::collections::BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    attributes.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    inner.events.publish("volume", action, name, attributes);
}

/// Of every volume that a container is about to use, or has just let go.
pub(crate) fn emit_of_container(inner: &Inner, action: &str, container: &crate::Container) {
    for mount in &container.plan {
        let MountKind::Volume { name, driver, .. } = &mount.kind else {
            continue;
        };
        let writable = (!mount.read_only).to_string();
        let whose = [("container", container.id.as_str()), ("driver", driver.as_str())];
        // What Docker tells of a mount, and of its end.
        let how = [
            ("destination", mount.destination.as_str()),
            ("propagation", ""),
            ("read/write", &writable),
        ];
        match action {
            "mount" => emit(inner, action, name, &[&whose[..], &how].concat()),
            _ => emit(inner, action, name, &whose),
        }
    }
}

/// Lets go of the volumes of a container whose run is over, or never began.
pub(crate) async fn release(inner: &Arc<Inner>, container: &crate::Container) {
    let is_volume = |mount: &PlannedMount| matches!(mount.kind, MountKind::Volume { .. });
    if !container.plan.iter().any(is_volume) {
        return;
    }
    let (inner, holder) = (Arc::clone(inner), container.id.to_string());
    let released = blocking(move || {
        inner.volumes.release(&holder);
        Ok(())
    });
    if let Err(error) = released.await {
        tracing::warn!(container = %container.id, %error, "could not let go of a container's volumes");
    }
}

/// The containers, running or not, that have a volume in their plan.
pub(crate) fn users(inner: &Inner, name: &str) -> Vec<Id> {
    users_that(inner, name, |_, _| true)
}

/// Those of them that, with one of the mounts, are as asked.
fn users_that(inner: &Inner, name: &str, are: impl Fn(&crate::Container, &PlannedMount) -> bool) -> Vec<Id> {
    let is_of = |m: &PlannedMount| matches!(&m.kind, MountKind::Volume { name: n, .. } if n == name);
    inner
        .containers
        .snapshots()
        .iter()
        .filter(|c| c.plan.iter().any(|m| is_of(m) && are(c, m)))
        .map(|c| c.id.clone())
        .collect()
}

/// Keeps a volume from being used while something is done with it; refused if containers have it.
fn take<'a>(inner: &'a Inner, action: &str, name: &str) -> Result<claims::Going<'a>> {
    let taken = inner.volume_claims.take(name, || users(inner, name));
    taken.map_err(|users| {
        let ids: Vec<&str> = users.iter().map(Id::as_str).collect();
        Error::conflict(format!(
            "{action} {name}: volume is in use - [{}]",
            ids.join(", ")
        ))
    })
}

/// Removes a volume with the container it was made for; unless another one has it by now. Gives whether it is gone.
pub(crate) fn remove_with(inner: &Inner, volumes: &Volumes, name: &str, container: &Id, force: bool) -> bool {
    let others = || -> Vec<Id> {
        let users = users(inner, name).into_iter();
        users.filter(|id| id != container).collect()
    };
    match inner.volume_claims.take(name, others) {
        Ok(_going) => volumes.remove(name, force).is_ok(),
        Err(_) => false,
    }
}

impl Engine {
    /// Creates a volume, or gives the one that has the name.
    pub async fn volume_create(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let create = CreateVolume {
                name: (!request.name.is_empty()).then_some(request.name),
                driver: request.driver,
                driver_opts: request.driver_opts.into_map(),
                labels: request.labels.into_map(),
                pending: false,
            };
            let (volume, created) = inner.volumes.create(create)?;
            if created {
                emit(&inner, "create", &volume.name, &[("driver", &volume.driver)]);
            }
            match volume.driver == volume::LOCAL {
                true => Ok(volume),
                // It is made, whatever its plugin says of it now.
                false => Ok(inner.volumes.describe(&volume.name).unwrap_or(volume)),
            }
        })
        .await
    }

    /// One volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || inner.volumes.describe(&name).map_err(Error::from)).await
    }

    /// The volumes that pass the filters.
    pub async fn volume_list(&self, filters: &Filters) -> Result<Vec<Volume>> {
        filters::check_keys(filters, &["dangling", "driver", "label", "name"])?;
        let dangling = filters::boolean(filters, "dangling")?;
        let (inner, filters) = (Arc::clone(&self.inner), filters.clone());
        blocking(move || {
            let mut volumes = inner.volumes.list_all()?;
            volumes.retain(|v| {
                let any = |key: &str, test: &dyn Fn(&str) -> bool| {
                    filters
                        .get(key)
                        .is_none_or(|values| values.is_empty() || values.iter().any(|x| test(x)))
                };
                any("driver", &|x| v.driver == x)
                    && any("name", &|x| v.name.contains(x))
                    && filters
                        .get("label")
                        .is_none_or(|w| filters::matches_labels(&v.labels, w))
                    && dangling.is_none_or(|wanted| users(&inner, &v.name).is_empty() == wanted)
            });
            Ok(volumes)
        })
        .await
    }

    /// Gives a volume that no container has another name.
    pub async fn volume_rename(&self, old: &str, new: &str) -> Result<Volume> {
        let (inner, old, new) = (Arc::clone(&self.inner), old.to_owned(), new.to_owned());
        blocking(move || {
            inner.volumes.get(&old)?;
            let _going = take(&inner, "rename", &old)?;
            let volume = inner.volumes.rename(&old, &new)?;
            emit(&inner, "rename", &new, &[("oldName", &old)]);
            Ok(volume)
        })
        .await
    }

    /// Makes a volume with the content of another.
    pub async fn volume_clone(&self, source: &str, new: &str) -> Result<Volume> {
        let (inner, source, new) = (Arc::clone(&self.inner), source.to_owned(), new.to_owned());
        blocking(move || {
            let volume = inner.volumes.clone_volume(&source, &new)?;
            emit(&inner, "create", &new, &[("clonedFrom", &source)]);
            Ok(volume)
        })
        .await
    }

    /// A volume's content as a tar: owners, modes, times, attributes, links, devices; holes in files are left out. What a
    /// container writes meanwhile may be in it or not.
    pub async fn volume_export(&self, name: &str) -> Result<ByteStream> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let dir = blocking(move || {
            let volume = inner.volumes.own(&name, "export")?;
            let opened = File::open(&volume.mountpoint);
            opened.map_err(|error| {
                Error::internal(format!("cannot open {}: {error}", volume.mountpoint.display()))
            })
        })
        .await?;
        Ok(stream(move |out| {
            image::archive::pack_tree(dir.as_fd(), out).map_err(io::Error::other)
        }))
    }

    /// Makes a volume with the content of a tar, compressed or not. One that is broken or hostile leaves none.
    pub async fn volume_import(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        body: ByteStream,
    ) -> Result<Volume> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || {
            let volume = inner.volumes.fill_new(&name, labels, |data| {
                let root = File::open(data)?;
                let options = image::archive::ExtractOptions {
                    top: true,
                    ..Default::default()
                };
                let reader = image::compression::decoder(Incoming::new(body));
                image::archive::extract(reader, root.as_fd(), "/", &options).map_err(Error::from)
            })?;
            emit(&inner, "create", &volume.name, &[]);
            Ok(volume)
        })
        .await
    }

    /// Removes a volume no container has; without a stay in the trash if it is to go `at_once`. Gives the bytes that are
    /// free now.
    pub async fn volume_remove(&self, name: &str, force: bool, at_once: bool) -> Result<u64> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || {
            if inner.volumes.owner(&name)?.is_none() {
                return match force {
                    true => Ok(0),
                    false => Err(volume::VolumeError::NotFound(name).into()),
                };
            }
            let _going = take(&inner, "remove", &name)?;
            trash::remove(&inner, &name, force, at_once)
        })
        .await
    }

    /// Removes the anonymous volumes nobody uses, or with `all` every unused one. What is in the trash then is not free
    /// yet, and not counted.
    pub async fn volumes_prune(&self, filters: &Filters, rehearse: bool, at_once: bool) -> Result<Pruned> {
        filters::check_keys(filters, &["all", "label", "label!"])?;
        let all = filters::boolean(filters, "all")?.unwrap_or(false);
        let mut pruned = Pruned::default();
        // What a plugin has is not ours to call unused, another host may use it: none is asked.
        let inner = Arc::clone(&self.inner);
        for volume in blocking(move || Ok(inner.volumes.list()?)).await? {
            let wanted = (all || volume.anonymous)
                && volume.driver == volume::LOCAL
                && users(&self.inner, &volume.name).is_empty()
                && filters::label_filters_match(filters, &volume.labels);
            if !wanted {
                continue;
            }
            let freed = match rehearse {
                true => match at_once || self.live().volume_trash_ttl.is_zero() {
                    true => Ok(self.volume_size(&volume).await),
                    false => Ok(0),
                },
                false => self.volume_remove(&volume.name, false, at_once).await,
            };
            // One that is used meanwhile is not to be pruned.
            if let Ok(freed) = freed {
                pruned.deleted.push(volume.name);
                pruned.space += freed;
            }
        }
        if rehearse {
            return Ok(pruned);
        }
        let attributes = [("reclaimed".to_owned(), pruned.space.to_string())].into();
        self.inner.events.publish("volume", "prune", "", attributes);
        Ok(pruned)
    }

    /// Bytes a volume takes on disk with its snapshots, as far as they can be counted.
    pub async fn volume_size(&self, volume: &Volume) -> u64 {
        if volume.driver != volume::LOCAL {
            return 0;
        }
        let path = volume.mountpoint.clone();
        blocking(move || Ok(volume_bytes(&path))).await.unwrap_or(0)
    }

    /// How many containers have a volume.
    pub fn volume_users(&self, name: &str) -> usize {
        users(&self.inner, name).len()
    }
}

/// What a volume and its snapshots take, which lie beside its content.
fn volume_bytes(mountpoint: &Path) -> u64 {
    let beside = mountpoint.parent().and_then(|home| std::fs::read_dir(home).ok());
    let parts = beside.into_iter().flatten().flatten();
    parts.map(|part| disk_bytes(&part.path())).sum()
}

/// Allocated bytes below a directory; hard links count once.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![dir.to_owned()];
    let mut total = 0;
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            }
            if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                total += meta.blocks() * 512;
            }
        }
    }
    total
}
