//! Compares what should be with what is: records, directories, processes, control groups, links, packet filter, mounts.
//!
//! Things are made and removed all the time, so every look is taken twice: what counts is what both have seen. A
//! finding that can be put right says how; nothing of a user's data is ever part of a repair but a directory that a
//! removal left behind.
//!
//! The same looks are taken when the engine opens (`recover`), each by the room it belongs to.

mod content;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api_types::check::{Finding, SystemCheck};
use monitor::client::Monitor;
use monitor::protocol::Event;
use spec::{Digest, ErrorClass, Id};
use store::{SnapshotId, Stop};
use tokio_util::sync::CancellationToken;

use crate::container::Status;
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result, chain};

/// Between the two looks: longer than making or removing anything takes.
const APART: Duration = Duration::from_millis(700);

/// How long a process that was killed may take to be gone.
const LEAVE: Duration = Duration::from_secs(5);

/// What was seen, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// A control group in which no container of ours lives.
    Cgroup(Id),
    /// A container is said to run, and its monitor does not answer.
    Unsupervised(String),
    /// A monitor of a container that does not live.
    Monitor(String),
    /// The socket of a monitor that is gone.
    Socket(PathBuf),
    /// The directory of a container that is not recorded.
    Directory(PathBuf),
    /// A mount of ours on the host, where none should be.
    Mount(PathBuf),
    /// An image lacks a part.
    Image {
        image: String,
        blob: String,
    },
    Network(network::Stray),
    Snapshot(store::Stray),
    /// The files of a container that is not recorded.
    Files(SnapshotId),
    /// A blob whose bytes are others.
    Blob(Digest),
    /// Content that layers share, and that is another; who has it.
    Object {
        name: String,
        holders: String,
    },
    Volume(volume::Stray),
}

impl Engine {
    /// Looks, and with `repair` puts right what can be. With `content` everything that has a digest is read, which takes as
    /// long as it takes; once `stop` is cancelled, or the engine closes, it ends with an error.
    pub async fn check(&self, repair: bool, content: bool, stop: CancellationToken) -> Result<SystemCheck> {
        let look = || {
            let inner = Arc::clone(&self.inner);
            blocking(move || look(&inner))
        };
        self.ask_monitors().await;
        let before = look().await?;
        let mut seen = Vec::new();
        if !before.is_empty() {
            tokio::time::sleep(APART).await;
            seen = look().await?;
            seen.retain(|one| before.contains(one));
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let stopped = || stop.is_cancelled() || inner.shutdown.is_cancelled();
            if content {
                // Never changed where nothing is wrong: one look is enough.
                let damaged = content::damage(&inner, &stopped);
                go_on(&stopped)?;
                seen.extend(damaged?);
            }
            let mut findings = Vec::new();
            for one in &seen {
                findings.push(finding(&inner, one, repair, &stopped));
                // What was not looked at is not in order.
                go_on(&stopped)?;
            }
            Ok(SystemCheck { findings })
        })
        .await
    }
}

fn go_on(stopped: &Stop<'_>) -> Result<()> {
    match stopped() {
        true => Err(Error::new(
            ErrorClass::Unavailable,
            "the check was given up before its end, since the daemon stops; ask the next one",
        )),
        false => Ok(()),
    }
}

impl Engine {
    /// Makes the host's side of every network as it is recorded: rules, bridges, containers' links, names. Gives what
    /// was not so.
    pub async fn networks_reload(&self) -> Result<SystemCheck> {
        let inner = Arc::clone(&self.inner);
        let found = blocking(move || {
            let mut strays = inner.networks.strays(&alive(&inner))?;
            // What is left over may be of a container that is just starting; that is the check's to tell.
            strays.retain(|stray| !matches!(stray, network::Stray::Link(_) | network::Stray::Sandbox(_)));
            inner.networks.refresh()?;
            let findings = strays
                .into_iter()
                .map(|stray| finding(&inner, &Seen::Network(stray), true, &|| false));
            Ok(SystemCheck {
                findings: findings.collect(),
            })
        })
        .await?;
        self.tell_served().await;
        Ok(found)
    }
}

fn look(inner: &Inner) -> Result<Vec<Seen>> {
    let containers = inner.containers.snapshots();
    let alive = alive(inner);
    let mut seen = Vec::new();
    for container in containers.iter().filter(|c| c.state.status.is_alive()) {
        let there = Monitor::is_there(&inner.config.run_dir, container.id.as_str());
        if !there || container.silent_since.is_some() {
            seen.push(Seen::Unsupervised(container.name.clone()));
        }
    }
    seen.extend(cgroups(inner, &alive)?);
    seen.extend(monitors(inner, &alive)?);
    let recorded: HashSet<Id> = containers
        .iter()
        .map(|c| c.id.clone())
        .chain(alive.clone())
        .collect();
    seen.extend(
        unrecorded_directories(&inner.config.root, &recorded)?
            .into_iter()
            .map(Seen::Directory),
    );
    seen.extend(mounts(&inner.config.root)?);
    let missing = inner.images.missing_blobs()?;
    seen.extend(missing.into_iter().map(|(image, blob)| Seen::Image {
        image: image.to_string(),
        blob: blob.to_string(),
    }));
    seen.extend(inner.networks.strays(&alive)?.into_iter().map(Seen::Network));
    seen.extend(inner.store.snapshots().strays()?.into_iter().map(Seen::Snapshot));
    seen.extend(unrecorded_files(inner, &recorded)?.into_iter().map(Seen::Files));
    seen.extend(inner.volumes.strays()?.into_iter().map(Seen::Volume));
    Ok(seen)
}

fn cgroups(inner: &Inner, alive: &HashSet<Id>) -> Result<Vec<Seen>> {
    let unknown = inner.groups()?.into_iter().filter(|id| !alive.contains(id));
    Ok(unknown.map(Seen::Cgroup).collect())
}

/// Control sockets carry the beginning of a container's id.
fn monitors(inner: &Inner, alive: &HashSet<Id>) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(&inner.config.run_dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(short) = name.strip_suffix(".sock").filter(|short| is_short_id(short)) else {
            continue;
        };
        if alive.iter().any(|id| id.as_str().starts_with(short)) {
            continue;
        }
        seen.push(match Monitor::is_there(&inner.config.run_dir, short) {
            true => Seen::Monitor(short.to_owned()),
            false => Seen::Socket(path),
        });
    }
    Ok(seen)
}

fn is_short_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Directories of containers that no record explains.
fn unrecorded_directories(root: &Path, recorded: &HashSet<Id>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join("containers"))? {
        let entry = entry?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<Id>().ok());
        if id.is_some_and(|id| !recorded.contains(&id)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Writable snapshots of containers that no record explains: a creation or a removal was cut short.
fn unrecorded_files(inner: &Inner, recorded: &HashSet<Id>) -> Result<Vec<SnapshotId>> {
    let of_nobody = |owner: &str| {
        let id = owner
            .strip_prefix("container:")
            .and_then(|id| id.parse::<Id>().ok());
        id.is_some_and(|id| !recorded.contains(&id))
    };
    let rows = inner.store.snapshots().list()?;
    let found = rows
        .into_iter()
        .filter(|row| !row.committed && of_nobody(&row.owner));
    Ok(found.map(|row| row.id).collect())
}

/// What creations and removals left when the last daemon was killed.
pub(crate) fn remove_unrecorded(inner: &Inner, recorded: &HashSet<Id>) -> Result<()> {
    for path in unrecorded_directories(&inner.config.root, recorded)? {
        std::fs::remove_dir_all(path)?;
    }
    for snapshot in unrecorded_files(inner, recorded)? {
        inner.store.snapshots().remove(snapshot)?;
    }
    Ok(())
}

/// Root filesystems are mounted in their containers' namespaces alone.
fn mounts(root: &Path) -> Result<Vec<Seen>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    let volumes = root.join("volumes");
    // A volume may be a filesystem of its own, mounted for as long as containers use it.
    let ours =
        points.filter(|point| point.starts_with(root) && point != root && !point.starts_with(&volumes));
    Ok(ours.map(Seen::Mount).collect())
}

/// Spaces and the like are octal numbers in mount tables.
pub(crate) fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let code = escaped
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = if code.is_some() {
            escaped.get(3..).unwrap_or_default()
        } else {
            escaped
        };
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// What every look counts as living: containers with a process, and build steps.
fn alive(inner: &Inner) -> HashSet<Id> {
    let is_alive = |status| matches!(status, Status::Running | Status::Paused | Status::Restarting);
    let containers = inner.containers.snapshots();
    let living = containers.iter().filter(|c| is_alive(c.state.status));
    living.map(|c| c.id.clone()).chain(inner.steps.ids()).collect()
}

fn finding(inner: &Inner, seen: &Seen, repair: bool, stop: &Stop<'_>) -> Finding {
    let mut finding = describe(seen);
    if repair {
        match put_right(inner, seen, stop) {
            Ok(repaired) => finding.repaired = repaired,
            Err(error) => finding.error = error.message,
        }
        tracing::warn!(
            kind = finding.kind,
            name = finding.name,
            problem = finding.problem,
            repaired = finding.repaired,
            "a check found something"
        );
    }
    finding
}

fn describe(seen: &Seen) -> Finding {
    let shown = |path: &Path| path.display().to_string();
    let (kind, name, problem, remedy) = match seen {
        Seen::Cgroup(id) => (
            "cgroup",
            id.to_string(),
            "no container lives in it".to_owned(),
            "its processes are ended and it is removed",
        ),
        Seen::Unsupervised(name) => (
            "container",
            name.clone(),
            "it is said to run, and its monitor does not answer".to_owned(),
            "kill and start it, or restart the daemon",
        ),
        Seen::Monitor(id) => (
            "monitor",
            id.clone(),
            "it supervises a container that is not known to run".to_owned(),
            "its container is killed and it is let go",
        ),
        Seen::Socket(path) => (
            "socket",
            shown(path),
            "no monitor listens on it".to_owned(),
            "it is removed",
        ),
        Seen::Directory(path) => (
            "directory",
            shown(path),
            "no container is recorded for it".to_owned(),
            "it is removed",
        ),
        Seen::Mount(path) => (
            "mount",
            shown(path),
            "root filesystems are mounted inside their containers alone".to_owned(),
            "it is unmounted",
        ),
        Seen::Image { image, blob } => (
            "image",
            image.clone(),
            format!("{blob} is missing"),
            "pull or load it again",
        ),
        Seen::Network(stray) => return of_network(stray),
        Seen::Snapshot(store::Stray::Directory(path)) => (
            "snapshot",
            shown(path),
            "no layer and no container has it".to_owned(),
            "it is removed",
        ),
        Seen::Snapshot(store::Stray::Lost(id)) => (
            "snapshot",
            id.to_string(),
            "its files are gone".to_owned(),
            "a container begins anew from its image, a layer is unpacked again when it is needed",
        ),
        Seen::Snapshot(store::Stray::Object(name)) => (
            "object",
            name.clone(),
            "no layer has it".to_owned(),
            "it is removed",
        ),
        Seen::Snapshot(store::Stray::LostObject { layer, object }) => (
            "object",
            object.clone(),
            format!("layer {layer} has a file with it, and it is not in its place"),
            "it is put back from the layer's own link",
        ),
        Seen::Blob(digest) => (
            "blob",
            digest.to_string(),
            "its bytes have another digest".to_owned(),
            "it is made or fetched again; what cannot be had is missing then",
        ),
        Seen::Object { name, holders } => (
            "object",
            name.clone(),
            format!("its bytes are not those that layers shared: {holders}"),
            "it is taken out of the archive of a layer again; where none has it, the build cache forgets it, and the next layer with the file puts it right",
        ),
        Seen::Files(id) => (
            "snapshot",
            id.to_string(),
            "the container it was made for is not recorded".to_owned(),
            "it is removed",
        ),
        Seen::Volume(volume::Stray::Lost(name)) => (
            "volume",
            name.clone(),
            "its directory is gone".to_owned(),
            "it becomes empty",
        ),
        Seen::Volume(volume::Stray::Unrecorded(name)) => (
            "volume",
            name.clone(),
            "it has a directory and no record".to_owned(),
            "it is recorded again, with its data",
        ),
        Seen::Volume(volume::Stray::Moving { old, new }) => (
            "volume",
            old.clone(),
            format!("it is to become {new}, and its directory was not moved"),
            "it is moved",
        ),
        Seen::Volume(volume::Stray::LostTrash(id)) => (
            "volume trash",
            id.clone(),
            "its directory is gone".to_owned(),
            "it is forgotten",
        ),
        Seen::Volume(volume::Stray::UnrecordedTrash(id)) => (
            "volume trash",
            id.clone(),
            "it has a directory and no record".to_owned(),
            "it is recorded again, with its data, and stays as long as if it were removed now",
        ),
        Seen::Volume(volume::Stray::Removed(name) | volume::Stray::Removing(name)) => (
            "volume",
            name.clone(),
            "a removal was not finished".to_owned(),
            "it is finished",
        ),
    };
    Finding {
        kind: kind.to_owned(),
        name,
        problem,
        remedy: remedy.to_owned(),
        ..Finding::default()
    }
}

fn of_network(stray: &network::Stray) -> Finding {
    let (kind, problem, remedy) = match stray {
        network::Stray::Link(_) => (
            "link",
            "no container and no network has it".to_owned(),
            "it is removed",
        ),
        network::Stray::NoBridge { .. } => (
            "bridge",
            "it is gone".to_owned(),
            "it is made again, with the containers on it",
        ),
        network::Stray::NoLink { container, .. } => (
            "link",
            format!("it is gone, and container {container} is cut off"),
            "it is made again with its addresses while the container runs",
        ),
        network::Stray::Firewall(difference) => ("firewall", difference.clone(), "it is written anew"),
        network::Stray::Sandbox(_) => (
            "addresses",
            "a container that does not live holds them".to_owned(),
            "they are given back",
        ),
    };
    Finding {
        kind: kind.to_owned(),
        name: stray.to_string(),
        problem,
        remedy: remedy.to_owned(),
        ..Finding::default()
    }
}

/// False where nothing can be done from here.
fn put_right(inner: &Inner, seen: &Seen, stop: &Stop<'_>) -> Result<bool> {
    match seen {
        Seen::Unsupervised(_) | Seen::Image { .. } => return Ok(false),
        Seen::Cgroup(id) => inner.next_place("", id)?.remove()?,
        Seen::Monitor(short) => dismiss(&inner.config.run_dir, short)?,
        Seen::Socket(path) => std::fs::remove_file(path)?,
        Seen::Directory(path) => std::fs::remove_dir_all(path)?,
        Seen::Mount(path) => sys::mount::detach(path)?,
        Seen::Network(stray) => return repair_network(inner, stray),
        Seen::Files(id) => {
            inner.store.snapshots().remove(*id)?;
        }
        Seen::Blob(digest) => inner.images.mend(digest, stop)?,
        Seen::Object { name, .. } => content::mend_object(inner, name, stop)?,
        Seen::Snapshot(stray) => inner.store.snapshots().repair(stray)?,
        Seen::Volume(stray) => inner.volumes.repair(stray)?,
    }
    Ok(true)
}

/// A container's link is made again inside its namespace, which is known by its process.
fn repair_network(inner: &Inner, stray: &network::Stray) -> Result<bool> {
    let namespace = match stray {
        network::Stray::NoLink { container, .. } => inner.containers.netns(container),
        _ => None,
    };
    let namespace = namespace.as_ref().map(|namespace| namespace.as_fd());
    Ok(inner.networks.repair(stray, namespace)?)
}

/// Lets every monitor go that no container in `alive` needs: of ones that ended, or whose start or build step nobody
/// waits for any more, when the last daemon was killed. Control groups of monitors that were killed, too, go with them.
pub(crate) fn dismiss_unknown(inner: &Inner, alive: &HashSet<Id>) -> Result<()> {
    let end = |seen: Vec<Seen>| {
        for seen in seen {
            if let Err(error) = put_right(inner, &seen, &|| false) {
                tracing::warn!(?seen, %error, "could not be let go");
            }
        }
    };
    end(monitors(inner, alive)?);
    // What a monitor that lived had, it has taken along.
    end(cgroups(inner, alive)?);
    Ok(())
}

/// Ends what a monitor supervises, if it still lives, and lets the monitor go.
fn dismiss(run_dir: &Path, id: &str) -> Result<()> {
    let failed = |error| Error::internal(format!("monitor {id}: {}", chain(&error)));
    let Some((monitor, watch)) = Monitor::find(run_dir, id).map_err(failed)? else {
        return Ok(());
    };
    watch.set_read_timeout(Some(LEAVE))?;
    let process = monitor::client::process_of(&watch);
    let mut lines = BufReader::new(watch).lines();
    if lines.next().is_none_or(|answer| answer.is_err()) {
        // Its control group is found without it.
        monitor.end(process?)?;
        return Ok(Monitor::forget(run_dir, id)?);
    }
    // One that has ended needs no killing.
    let _ = monitor.kill(crate::signal::KILL);
    for line in lines {
        if let Ok(Event::Exited(_)) = serde_json::from_str(&line?) {
            break;
        }
    }
    monitor.release().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are_named() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\9"), Path::new("/a\\9"));
        assert_eq!(unescape("/plain"), Path::new("/plain"));
    }

    #[test]
    fn only_ids_are_taken_for_ids() {
        assert!(is_short_id("0123456789ab"));
        for other in ["berth", "0123456789a", "0123456789ag", "0123456789abc"] {
            assert!(!is_short_id(other), "{other}");
        }
    }
}
