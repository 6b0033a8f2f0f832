//! One step of a build: a process in a container that nobody lists, on a snapshot the builder owns.
//!
//! It runs under a monitor as every container does, with the same isolation; it has no row, no log and no name. When it
//! has ended its exit code is told at once, and what it took is given back beside the next step;
//! [`Engine::steps_left`] waits for that. The monitor of the next step and its network namespace are made beside it, too.
//! Its directory is removed at the next start of the daemon if this one dies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::{ContainerConfig, HostConfig};
use bytes::Bytes;
use jiff::Timestamp;
use monitor::client::{Monitor, Standing};
use monitor::protocol::{AttachStreams, Event, Heard};
use spec::{Digest, Id, Platform};
use store::SnapshotId;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::attach::{PendingAttach, pair};
use super::{Container, Files, State, Status, launch, mounts::PlannedMount};
use crate::engine::{Engine, Inner, make_private_dir};
use crate::error::{Error, Result};

/// How long a monitor stands ahead where no step runs: whoever gives a build up waits for nothing.
const STANDS: Duration = Duration::from_secs(30);

/// What to run.
pub struct Step {
    pub id: Id,
    pub snapshot: SnapshotId,
    pub args: Vec<String>,
    pub config: ContainerConfig,
    pub host_config: HostConfig,
    pub mounts: Vec<PlannedMount>,
    /// Whether another one is going to follow, which may be prepared meanwhile.
    pub more: bool,
    /// Kills the step.
    pub stop: CancellationToken,
}

/// A piece of a step's output.
pub struct StepOutput {
    pub stderr: bool,
    pub bytes: Bytes,
}

/// The steps that run now: they have no row by which others could know of them.
#[derive(Default)]
pub(crate) struct Steps {
    running: Mutex<HashSet<Id>>,
    /// Those that have ended and are being cleared away.
    leaving: watch::Sender<HashSet<Id>>,
    ahead: Mutex<Ahead>,
}

/// Monitors of steps that do not run yet: starting one takes longer than many a step, and can be done while another one runs.
#[derive(Default)]
struct Ahead {
    /// The id of the step that begins next.
    next: Option<Id>,
    standing: HashMap<Id, Standing>,
}

/// A step's place among them.
struct Running(Arc<Inner>, Id);

impl Steps {
    pub(crate) fn ids(&self) -> HashSet<Id> {
        self.lock().clone()
    }

    /// How many have not ended.
    fn running(&self) -> usize {
        let all = self.lock().len();
        all.saturating_sub(self.leaving.borrow().len())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of what stands ahead where no step runs: whoever is about to run one starts a monitor for it.
    fn dismiss_ahead(&self) {
        if self.lock().is_empty() {
            let ahead = std::mem::take(&mut *self.ahead());
            drop(ahead);
        }
    }
}

impl Running {
    fn enter(engine: &Arc<Inner>, id: &Id) -> Running {
        engine.steps.lock().insert(id.clone());
        Running(Arc::clone(engine), id.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.steps.lock().remove(&self.1);
        self.0
            .steps
            .leaving
            .send_if_modified(|leaving| leaving.remove(&self.1));
    }
}

impl Engine {
    /// The id for a step that is about to run.
    pub fn step_id(&self) -> Id {
        let next = self.inner.steps.ahead().next.take();
        next.unwrap_or_else(Id::random)
    }

    /// Runs a step to its end and gives its exit code.
    pub async fn run_step(&self, step: Step, output: mpsc::Sender<StepOutput>) -> Result<i32> {
        let standing = self.inner.steps.ahead().standing.remove(&step.id);
        let more = step.more;
        let running = Running::enter(&self.inner, &step.id);
        let activity = self.inner.activities.begin("build step", step.id.short(), "run");
        let dir = self.inner.config.root.join("containers").join(step.id.as_str());
        make_private_dir(&dir)?;
        let stop = step.stop.clone();
        let container = transient(step, dir.clone())?;
        let ran = self
            .run_transient(&container, (standing, more), stop, output)
            .await;
        let (code, monitor) = match ran {
            Ok((code, monitor)) => (code, Some(monitor)),
            Err(error) => (Err(error), None),
        };
        let inner = Arc::clone(&self.inner);
        inner.steps.leaving.send_modify(|leaving| {
            leaving.insert(running.1.clone());
        });
        tokio::spawn(async move {
            if let Some(monitor) = monitor {
                launch::release(&inner, &container, monitor).await;
            }
            launch::detach_networks(&inner, &container).await;
            if let Err(error) = tokio::fs::remove_dir_all(&dir).await {
                tracing::error!(dir = %dir.display(), %error, "cannot remove what a build step left");
            }
            drop((running, activity));
            if !more {
                return;
            }
            tokio::select! {
                () = inner.shutdown.cancelled() => {}
                () = tokio::time::sleep(STANDS) => inner.steps.dismiss_ahead(),
            }
        });
        code
    }

    /// Waits until nothing is left of the steps that have ended by now, whosever they are.
    pub async fn steps_left(&self) {
        let mut leaving = self.inner.steps.leaving.subscribe();
        let these = leaving.borrow().clone();
        // The sender lives as long as the engine.
        let _ = leaving.wait_for(|leaving| these.is_disjoint(leaving)).await;
        self.inner.steps.dismiss_ahead();
    }

    /// Makes ready, beside a step that runs, what the next one needs: its monitor and, where `connected`, a network namespace.
    /// The pool of those fills itself in quiet moments only, and steps leave none.
    fn make_ready(&self, connected: bool) {
        let inner = Arc::clone(&self.inner);
        let running = inner.steps.running();
        tokio::task::spawn_blocking(move || {
            let stands = inner.steps.ahead().next.is_some();
            // The step itself will tell what fails.
            if !stands && let Err(error) = stand_ahead(&inner) {
                tracing::debug!(%error, "no monitor stands for the next step");
            }
            if connected && let Err(error) = inner.networks.make_ready(running) {
                tracing::debug!(%error, "no network namespace is ready for the next step");
            }
        });
    }

    /// The exit code, and the monitor, which is still to be released.
    async fn run_transient(
        &self,
        container: &Container,
        (standing, more): (Option<Standing>, bool),
        stop: CancellationToken,
        output: mpsc::Sender<StepOutput>,
    ) -> Result<(Result<i32>, Arc<Monitor>)> {
        let (socket, mut stream) = pair()?;
        let streams = AttachStreams {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let attaching = vec![PendingAttach { streams, socket }];
        let (_, mut supervision) = launch::launch(
            &self.inner,
            container,
            attaching,
            launch::Records::Nothing,
            standing,
        )
        .await?;
        if more {
            self.make_ready(container.has_endpoints());
        }
        let monitor = Arc::clone(&supervision.monitor);
        let killer = {
            let monitor = Arc::clone(&monitor);
            tokio::spawn(async move {
                stop.cancelled().await;
                // A step that has ended meanwhile needs no killing.
                let _ = tokio::task::spawn_blocking(move || monitor.kill(crate::signal::KILL)).await;
            })
        };
        let read = async {
            let mut header = [0u8; 8];
            while stream.read_exact(&mut header).await.is_ok() {
                let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let mut body = Vec::new();
                if (&mut stream)
                    .take(u64::from(length))
                    .read_to_end(&mut body)
                    .await
                    .is_err()
                {
                    break;
                }
                // A builder that stopped listening has cancelled the step.
                let _ = output
                    .send(StepOutput {
                        stderr: header[0] == 2,
                        bytes: body.into(),
                    })
                    .await;
            }
        };
        let end = async {
            while let Some(heard) = supervision.next().await {
                if let Ok(Heard::Event(Event::Exited(record))) = heard {
                    return Ok(record.exit_code);
                }
            }
            Err(Error::internal(
                "the monitor of a build step died: its exit code is unknown",
            ))
        };
        let (_, code) = tokio::join!(read, end);
        killer.abort();
        Ok((code, monitor))
    }
}

/// Starts the monitor of the step that comes next.
fn stand_ahead(inner: &Inner) -> Result<()> {
    let id = Id::random();
    let mut standing = Monitor::stand(&inner.program, id.as_str())?;
    standing.wait()?;
    let mut ahead = inner.steps.ahead();
    if ahead.next.is_none() && !inner.steps.lock().is_empty() {
        ahead.next = Some(id.clone());
        ahead.standing.insert(id, standing);
    }
    Ok(())
}

fn transient(step: Step, dir: std::path::PathBuf) -> Result<Container> {
    let mut words = step.args.into_iter();
    let path = words
        .next()
        .ok_or_else(|| Error::invalid("no command specified"))?;
    let mut host_config = step.host_config;
    "none".clone_into(&mut host_config.log_config.kind);
    let mut networks = BTreeMap::new();
    let container_mode = host_config.network_mode.starts_with("container:");
    if !container_mode && host_config.network_mode != "host" && host_config.network_mode != "none" {
        networks.insert(host_config.network_mode.clone(), Default::default());
    }
    Ok(Container {
        name: format!("build-{}", step.id.short()),
        id: step.id,
        created: Timestamp::now(),
        path,
        args: words.collect(),
        image: String::new(),
        image_id: Digest::sha256(b""),
        image_config: None,
        manifest: None,
        platform: Platform::host(),
        config: Arc::new(step.config),
        host_config: Arc::new(host_config),
        state: State {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: None,
            finished_at: None,
            health: None,
        },
        restart_count: 0,
        networks,
        fixed_macs: BTreeMap::new(),
        ports: Arc::new(api_types::PortMap::empty()),
        mounts: Vec::new(),
        exec_ids: Vec::new(),
        silent_since: None,
        sandbox_id: String::new(),
        files: Files {
            dir,
            ..Files::default()
        },
        snapshot: step.snapshot,
        userns: None,
        // As in Docker, the steps of a build are not labelled.
        process_label: String::new(),
        mount_label: String::new(),
        apparmor_profile: String::new(),
        exits: 0,
        removed: false,
        plan: step.mounts,
        stopped_by_hand: false,
        start_phases: Vec::new(),
        removing_volumes: false,
        folded: None,
        unsettled: None,
    })
}
