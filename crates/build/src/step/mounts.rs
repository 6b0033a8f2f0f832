//! What a RUN sees besides its root filesystem: prepared before it, cleared away after it.
//!
//! Files for secrets and scripts lie in a directory in memory (/dev/shm where there is one) and go with it. Its name tells
//! whose it is, so that the daemon that follows one that was killed finds what that left.
//! A bind mount from a stage of several layers is given to the executor as the list of the layers' directories
//! that make up its source, as overlayfs itself would merge them, so that nothing is copied.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use spec::Digest;
use store::{SnapshotId, Store};
use sys::beneath::get_xattr;
use sys::mount::{Objects, Overlay};

use super::place::{Ownership, Placer};
use super::run::{PlannedMount, RunPlan, remove_mount_point};
use super::scratch::{Scratch, mount as mount_snapshot, volatile};
use super::select::{Rules, literal, select};
use super::{Build, StepOperation, Tree, root};
use crate::cache::CacheMount;
use crate::client::Agent;
use crate::error::BuildError;
use crate::executor::{MountSource, StepMount};
use crate::instruction::MountKind;
use crate::pattern::{Ignore, clean};

/// Where directories in memory are made.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

/// How the directories of the engine on this store begin.
fn own_prefix(store: &Store) -> String {
    let root = Digest::sha256(store.root().as_os_str().as_encoded_bytes());
    format!("berth-step-{}-", root.hex().get(..12).unwrap_or_default())
}

/// Removes what a daemon on this store left in memory when it was killed, secrets above all.
pub fn forget_private(store: &Store) -> io::Result<()> {
    let prefix = own_prefix(store);
    for entry in fs::read_dir(memory())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Mounts ready to be used by one step.
pub struct Prepared {
    pub mounts: Vec<StepMount>,
    /// Secrets that are given as variables.
    pub env: Vec<String>,
    /// Places to mount on that did not exist before, by target.
    made: Vec<(PathBuf, Vec<PathBuf>)>,
    _cache: Vec<CacheMount>,
    /// What is written into bind mounts, which goes with the step.
    _written: Vec<Scratch>,
    /// What is written into mounts whose files are kept, by the number of the result.
    kept: Vec<(usize, Scratch)>,
    prefix: String,
    _private: Option<tempfile::TempDir>,
    _agents: Vec<Box<dyn Agent>>,
}

impl Prepared {
    /// Prepares the mounts of `plan`, which will run on `scratch`.
    pub async fn new(
        step: &StepOperation,
        plan: &RunPlan,
        inputs: &[Tree],
        scratch: &Scratch,
    ) -> Result<Prepared, BuildError> {
        let build = &step.build;
        let mut prepared = Prepared {
            mounts: Vec::new(),
            env: Vec::new(),
            made: Vec::new(),
            _cache: Vec::new(),
            _written: Vec::new(),
            kept: Vec::new(),
            prefix: own_prefix(&build.store),
            _private: None,
            _agents: Vec::new(),
        };
        if plan.mounts.is_empty() && plan.script.is_none() {
            return Ok(prepared);
        }
        // The client may let itself be waited for: nothing that others need is held meanwhile.
        for planned in &plan.mounts {
            match planned.mount.kind {
                MountKind::Secret => prepared.secret(step, planned).await?,
                MountKind::Ssh => prepared.ssh(step, planned).await?,
                MountKind::Cache | MountKind::Bind | MountKind::Tmpfs => {}
            }
        }
        // Directories are claimed in one order, so that two steps never wait for each other.
        let mut order: Vec<&PlannedMount> = plan.mounts.iter().collect();
        order.sort_by_key(|planned| cache_id(plan, planned));
        for planned in order
            .iter()
            .filter(|planned| planned.mount.kind == MountKind::Cache)
        {
            prepared.cache(build, plan, planned, inputs).await?;
        }
        for planned in &plan.mounts {
            match planned.mount.kind {
                MountKind::Cache | MountKind::Secret | MountKind::Ssh => {}
                MountKind::Bind => prepared.bind(build, planned, inputs).await?,
                MountKind::Tmpfs => prepared.mounts.push(StepMount::Tmpfs {
                    target: planned.target.clone(),
                    size: planned.mount.size,
                }),
            }
        }
        if let Some((target, content)) = &plan.script {
            let source = prepared.private_file("script", content.as_bytes(), 0o755, (0, 0))?;
            let source = MountSource::Path(source);
            prepared.mounts.push(StepMount::Bind {
                source,
                target: target.clone(),
                read_only: true,
            });
        }
        prepared.note_missing(scratch)?;
        Ok(prepared)
    }

    /// Removes the mount points that the executor had to make.
    pub fn tidy(&self, layer: &Path) {
        for (target, made) in self.made.iter().rev() {
            remove_mount_point(layer, target, made);
        }
    }

    /// What was written into mounts whose files are kept; everything else is cleared away.
    pub fn into_kept(self) -> Vec<(usize, Scratch)> {
        self.kept
    }

    /// Notes which parts of the mounts' targets do not exist yet.
    fn note_missing(&mut self, scratch: &Scratch) -> Result<(), BuildError> {
        let tree = scratch.mount()?;
        for mount in &self.mounts {
            let target = root::clean(Path::new(mount.target()));
            let mut missing = Vec::new();
            for path in target.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                let found = root::stat_in(tree.as_fd(), path).map_err(|error| {
                    BuildError::io(format_args!("mount target {}", mount.target()), &error)
                })?;
                if found.is_some() {
                    break;
                }
                missing.push(path.to_owned());
            }
            missing.reverse();
            self.made.push((target, missing));
        }
        Ok(())
    }

    /// A directory in memory that only this step sees something of.
    fn private_dir(&mut self) -> io::Result<&Path> {
        let dir = match self._private.take() {
            Some(dir) => dir,
            None => tempfile::Builder::new()
                .prefix(&self.prefix)
                .tempdir_in(memory())?,
        };
        Ok(self._private.insert(dir).path())
    }

    /// A file that only this step sees.
    fn private_file(
        &mut self,
        name: &str,
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<PathBuf, BuildError> {
        let fail = |error: io::Error| BuildError::io("preparing a file for a step", &error);
        let path = self.private_dir().map_err(fail)?.join(name);
        fs::write(&path, content).map_err(fail)?;
        chown(&path, Some(owner.0), Some(owner.1)).map_err(fail)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(fail)?;
        Ok(path)
    }

    async fn secret(&mut self, step: &StepOperation, planned: &PlannedMount) -> Result<(), BuildError> {
        let mount = &planned.mount;
        let target_name = mount
            .target
            .as_deref()
            .and_then(|target| target.rsplit('/').next());
        let id = mount
            .id
            .as_deref()
            .or(mount.source.as_deref())
            .or(target_name)
            .unwrap_or("default");
        let content = match &step.build.request.client {
            Some(client) => {
                let _asked = step.patience.ask();
                client.secret(id).await?
            }
            None => None,
        };
        let Some(content) = content else {
            if mount.required {
                return Err(BuildError::invalid(format!(
                    "secret {id}: not found: the build was not given a secret of this id"
                )));
            }
            return Ok(());
        };
        if let Some(name) = &mount.env {
            let text = String::from_utf8_lossy(&content);
            self.env.push(format!("{name}={}", text.trim_end_matches('\0')));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let name = format!("secret{}", self.mounts.len());
        let source = self.private_file(&name, &content, mount.mode.unwrap_or(0o400), owner)?;
        self.mounts.push(StepMount::Secret {
            source,
            target: planned.target.clone(),
        });
        Ok(())
    }

    /// Gives the step a socket that leads to the client's agent.
    async fn ssh(&mut self, step: &StepOperation, planned: &PlannedMount) -> Result<(), BuildError> {
        let mount = &planned.mount;
        let id = mount.id.as_deref().unwrap_or("default");
        let agent = match &step.build.request.client {
            Some(client) => client.agent(id, &step.patience).await?,
            None => None,
        };
        let Some(agent) = agent else {
            if mount.required {
                return Err(BuildError::invalid(format!(
                    "ssh {id}: not found: the build was given no agent of this id: build with --ssh {id}"
                )));
            }
            return Ok(());
        };
        let fail = |error: io::Error| BuildError::io("preparing an agent's socket for a step", &error);
        let source = agent.socket();
        let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o600));
        fs::set_permissions(&source, mode).map_err(fail)?;
        chown(
            &source,
            Some(mount.uid.unwrap_or(0)),
            Some(mount.gid.unwrap_or(0)),
        )
        .map_err(fail)?;
        if !self.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
            self.env.push(format!("SSH_AUTH_SOCK={}", planned.target));
        }
        self.mounts.push(StepMount::Secret {
            source,
            target: planned.target.clone(),
        });
        self._agents.push(agent);
        Ok(())
    }

    async fn cache(
        &mut self,
        build: &Arc<Build>,
        plan: &RunPlan,
        planned: &PlannedMount,
        inputs: &[Tree],
    ) -> Result<(), BuildError> {
        let mount = &planned.mount;
        let id = cache_id(plan, planned);
        let description = format!("cached mount {} with id {id:?}", planned.target);
        let claimed = build
            .cache_mounts
            .claim(&build.store, &id, mount.sharing, &description)
            .await?;
        if claimed.fresh {
            let fail = |error: io::Error| BuildError::io("preparing a cache mount", &error);
            let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o755));
            chown(
                &claimed.path,
                Some(mount.uid.unwrap_or(0)),
                Some(mount.gid.unwrap_or(0)),
            )
            .map_err(fail)?;
            fs::set_permissions(&claimed.path, mode).map_err(fail)?;
            if let Some(seed) = planned.input.and_then(|input| inputs.get(input)) {
                fill(build, seed, mount.source.as_deref().unwrap_or("/"), &claimed.path)?;
            }
        }
        let source = match (&mount.source, planned.input) {
            (Some(below), None) => part_of(&claimed.path, below)?,
            _ => claimed.path.clone(),
        };
        self.mounts.push(StepMount::Cache {
            source,
            target: planned.target.clone(),
            read_only: mount.read_only.unwrap_or(false),
        });
        self._cache.push(claimed);
        Ok(())
    }

    async fn bind(
        &mut self,
        build: &Build,
        planned: &PlannedMount,
        inputs: &[Tree],
    ) -> Result<(), BuildError> {
        let mount = &planned.mount;
        let path = clean(mount.source.as_deref().unwrap_or("/"));
        let tree = planned.input.and_then(|input| inputs.get(input));
        let empty = tree.is_some_and(|tree| tree.snapshot.is_none()) && mount.read_only == Some(false);
        if planned.output.is_some() || empty {
            let room = Scratch::create(&build.store, tree.and_then(|tree| tree.snapshot), &build.id)?;
            self.mounts.push(StepMount::Bind {
                source: MountSource::Overlay(volatile(&build.store, room.id()?)?),
                target: planned.target.clone(),
                read_only: false,
            });
            match planned.output {
                Some(number) => self.kept.push((number, room)),
                None => self._written.push(room),
            }
            return Ok(());
        }
        let source = match planned
            .input
            .map(|input| inputs.get(input).and_then(|tree| tree.snapshot))
        {
            None => MountSource::Path(beneath_context(&build.context().await?, &path)?),
            Some(None) => {
                return Err(BuildError::invalid(
                    "a bind mount cannot come from an empty image",
                ));
            }
            Some(Some(snapshot)) => self.whole(build, merged(&build.store, snapshot, &path)?)?,
        };
        let read_only = mount.read_only.unwrap_or(true);
        let source = match read_only {
            true => source,
            false => self.writable(build, source)?,
        };
        self.mounts.push(StepMount::Bind {
            source,
            target: planned.target.clone(),
            read_only,
        });
        Ok(())
    }

    /// A file of a layer that has its content elsewhere, as a copy.
    fn whole(&mut self, build: &Build, source: MountSource) -> Result<MountSource, BuildError> {
        let fail = |error: io::Error| BuildError::io("reading the source of a bind mount", &error);
        let MountSource::Path(path) = &source else {
            return Ok(source);
        };
        let meta = fs::symlink_metadata(path).map_err(fail)?;
        if !meta.is_file() || !store::SharedFiles::has_elsewhere(path).map_err(fail)? {
            return Ok(source);
        }
        let room = Scratch::create(&build.store, None, &build.id)?;
        let copy = build.store.snapshots().fs(room.id()?).join("file");
        self._written.push(room);
        let copied = || -> io::Result<()> {
            // The layer's directory is above the file, however deep that lies.
            let snapshots = build.store.root().join("snapshots");
            let layer = path
                .ancestors()
                .find(|at| at.ancestors().nth(2) == Some(snapshots.as_path()));
            let shared = layer.map(store::SharedFiles::beside).transpose()?.flatten();
            let shared = shared.ok_or(io::ErrorKind::NotFound)?;
            let mut content = shared.content(fs::File::open(path)?)?;
            let mut file = fs::File::create(&copy)?;
            io::copy(&mut content, &mut file)?;
            chown(&copy, Some(meta.uid()), Some(meta.gid()))?;
            file.set_permissions(meta.permissions())?;
            file.set_modified(meta.modified()?)
        };
        copied().map_err(fail)?;
        Ok(MountSource::Path(copy))
    }

    /// The same files, with room for changes that nobody will see after the step.
    fn writable(&mut self, build: &Build, source: MountSource) -> Result<MountSource, BuildError> {
        let fail = |error: io::Error| BuildError::io("preparing a writable bind mount", &error);
        let (lower, objects) = match source {
            MountSource::Overlay(overlay) => (overlay.lower, overlay.objects),
            MountSource::Path(path) if path.is_dir() => (vec![path], None),
            MountSource::Path(path) => {
                let name = format!("file{}", self.mounts.len());
                let copy = self.private_dir().map_err(fail)?.join(name);
                fs::copy(&path, &copy).map_err(fail)?;
                return Ok(MountSource::Path(copy));
            }
        };
        let room = Scratch::create(&build.store, None, &build.id)?;
        let own = volatile(&build.store, room.id()?)?;
        if let (Some(top), Some(upper)) = (lower.first(), &own.upper) {
            // The upper's root is what shows as the directory itself.
            let meta = fs::metadata(top).map_err(fail)?;
            chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(fail)?;
            fs::set_permissions(upper, meta.permissions()).map_err(fail)?;
        }
        self._written.push(room);
        if own.work.is_none()
            && let Some(upper) = &own.upper
        {
            // A driver without overlays: room for changes is a copy.
            let below = Overlay {
                lower,
                objects,
                read_only: true,
                ..Overlay::default()
            };
            let (from, into) = (
                below.mount_detached().map_err(fail)?,
                fs::File::open(upper).map_err(fail)?,
            );
            store::copy_tree(from.as_fd(), into.as_fd()).map_err(fail)?;
            return Ok(MountSource::Overlay(own));
        }
        Ok(MountSource::Overlay(Overlay {
            lower,
            upper: own.upper,
            work: own.work,
            objects,
            volatile: own.volatile,
            ..Overlay::default()
        }))
    }
}

/// Fills the directory of a cache mount with what lies at `path` of `seed`.
fn fill(build: &Build, seed: &Tree, path: &str, into: &Path) -> Result<(), BuildError> {
    let fail = |error: io::Error| BuildError::io("filling a cache mount", &error);
    let Some(snapshot) = seed.snapshot else {
        return Ok(());
    };
    let from = mount_snapshot(&build.store, snapshot)?;
    let rules = Rules {
        ignore: None,
        exclude: &Ignore::default(),
        parents: false,
    };
    let groups = select(from.as_fd(), &[literal(path)], &rules)
        .map_err(|error| BuildError::invalid(format!("filling a cache mount from {path}: {error}")))?;
    let root = fs::File::open(into).map_err(fail)?;
    let mut placer = Placer::new(root.as_fd(), Ownership::Keep, None);
    for group in groups.iter().filter(|group| group.directory) {
        placer.put(from.as_fd(), group, Path::new("")).map_err(fail)?;
    }
    placer.finish().map_err(fail)
}

/// A directory below the one of a cache mount, made where it is missing.
fn part_of(directory: &Path, below: &str) -> Result<PathBuf, BuildError> {
    let fail =
        |error: io::Error| BuildError::io(format_args!("preparing {below:?} of a cache mount"), &error);
    let root = fs::File::open(directory).map_err(fail)?;
    root::make_dirs(root.as_fd(), Path::new(below), None).map_err(fail)?;
    real_path(root.as_fd(), below)
        .map(|real| directory.join(real))
        .map_err(fail)
}

/// By what a cache directory is known: its id, else its target, within the build's namespace.
fn cache_id(plan: &RunPlan, planned: &PlannedMount) -> String {
    let id = planned.mount.id.clone().unwrap_or_else(|| planned.target.clone());
    match plan.cache_namespace.as_deref() {
        None | Some("") => id,
        Some(namespace) => format!("{namespace}/{id}"),
    }
}

/// A path of the context with its links resolved inside the context.
fn beneath_context(root: &Path, path: &str) -> Result<PathBuf, BuildError> {
    let fail =
        |error: io::Error| BuildError::io(format_args!("bind mount from {path:?} of the context"), &error);
    let context = fs::File::open(root).map_err(fail)?;
    real_path(context.as_fd(), path)
        .map(|real| root.join(real))
        .map_err(fail)
}

fn real_path(root: std::os::fd::BorrowedFd<'_>, path: &str) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let flags = rustix::fs::OFlags::PATH;
    let opened = sys::beneath::resolve_in_root(root, path, flags, rustix::fs::Mode::empty())?;
    let name = |fd: std::os::fd::RawFd| fs::read_link(format!("/proc/self/fd/{fd}"));
    let (top, real) = (name(root.as_raw_fd())?, name(opened.as_raw_fd())?);
    real.strip_prefix(&top)
        .map(Path::to_owned)
        .map_err(|_| io::ErrorKind::NotFound.into())
}

/// The source of a bind mount from a snapshot: the directories that overlayfs would merge at `path`.
fn merged(store: &Store, snapshot: SnapshotId, path: &str) -> Result<MountSource, BuildError> {
    let fail =
        |error: io::Error| BuildError::io(format_args!("bind mount from {path:?} of an image"), &error);
    let tree = mount_snapshot(store, snapshot)?;
    let real = real_path(tree.as_fd(), path).map_err(fail)?;
    let mut lower = Vec::new();
    let overlay = store.snapshots().overlay(snapshot)?;
    'layers: for layer in overlay.lower {
        let place = layer.join(&real);
        match kind_in(&layer, &real) {
            Ok(Some(FileType::Directory)) => lower.push(place),
            // A file is whole in the topmost layer that has it.
            Ok(Some(_)) if lower.is_empty() => return Ok(MountSource::Path(place)),
            Ok(Some(_)) => break,
            Ok(None) => {}
            // What this layer has on the way is no directory, and hides what those below have there.
            Err(Errno::LOOP | Errno::NOTDIR) => break,
            Err(error) => return Err(fail(error.into())),
        }
        // A directory that replaced one below hides what lies under it.
        let mut at = PathBuf::new();
        for part in std::iter::once(OsStr::new("")).chain(real.iter()) {
            at.push(part);
            match opaque(&layer, &at) {
                Ok(false) => {}
                Ok(true) => break 'layers,
                Err(error) if root::is_missing(&error) => break,
                Err(error) => return Err(fail(error)),
            }
        }
    }
    let objects = overlay.objects.map(|objects| Objects {
        layers: lower.len(),
        ..objects
    });
    match (lower.as_slice(), &objects) {
        ([], _) => Err(fail(io::ErrorKind::NotFound.into())),
        ([only], None) => Ok(MountSource::Path(only.clone())),
        _ => Ok(MountSource::Overlay(Overlay {
            lower,
            upper: None,
            work: None,
            read_only: true,
            objects,
            ..Overlay::default()
        })),
    }
}

/// What one layer alone has at a path that has no link in it where all layers are merged. In one of them a part of it may
/// be a link, which must lead nowhere: that is an error.
fn kind_in(layer: &Path, real: &Path) -> rustix::io::Result<Option<FileType>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(layer, flags, Mode::empty())?;
    if real.as_os_str().is_empty() {
        return Ok(Some(FileType::Directory));
    }
    let opened = rustix::fs::openat2(
        &root,
        real,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    );
    match opened {
        Ok(found) => Ok(Some(FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a layer marks the directory as hiding those below, or marks it as deleted.
fn opaque(layer: &Path, path: &Path) -> io::Result<bool> {
    let Some(name) = path.file_name() else {
        return Ok(false);
    };
    let parent = fs::File::open(layer.join(path.parent().unwrap_or(Path::new(""))))?;
    let stat = rustix::fs::statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    if sys::beneath::is_whiteout(&stat) {
        return Ok(true);
    }
    let marked = get_xattr(parent.as_fd(), name, "trusted.overlay.opaque")?;
    Ok(marked.is_some_and(|value| value == b"y"))
}
