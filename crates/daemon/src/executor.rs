//! The builder's executor: its steps run as containers of the engine.

use api_types::{ContainerConfig, HostConfig, Ulimit};
use build::{ExecError, Executor, MountSource, NetworkMode, Output, RunStep, StepMount, Stream};
use engine::{Engine, MountKind, PlannedMount, Step, StepOutput};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use image::{Auth, Image, Progress, PullOptions};
use spec::{ErrorClass, Id, Platform, Reference};
use tokio::sync::mpsc;

/// Runs build steps on an engine.
pub(crate) struct EngineExecutor {
    engine: Engine,
}

impl EngineExecutor {
    pub(crate) fn new(engine: Engine) -> EngineExecutor {
        EngineExecutor { engine }
    }
}

fn failed(error: engine::Error) -> ExecError {
    ExecError::new(error.message, error.class)
}

fn planned(mount: &StepMount) -> Result<PlannedMount, ExecError> {
    let (kind, read_only) = match mount {
        StepMount::Bind {
            source: MountSource::Path(source),
            read_only,
            ..
        } => (bind(source)?, *read_only),
        StepMount::Bind {
            source: MountSource::Overlay(overlay),
            read_only,
            ..
        } => (
            MountKind::Overlay {
                overlay: overlay.clone(),
            },
            *read_only,
        ),
        StepMount::Cache {
            source, read_only, ..
        } => (bind(source)?, *read_only),
        StepMount::Tmpfs { size, .. } => {
            let options = size.map(|bytes| format!("size={bytes}")).into_iter().collect();
            (MountKind::Tmpfs { options }, false)
        }
        StepMount::Secret { source, .. } => (bind(source)?, true),
    };
    Ok(PlannedMount {
        destination: mount.target().to_owned(),
        read_only,
        kind,
        mode: String::new(),
        ownership: engine::Ownership::default(),
    })
}

fn bind(source: &std::path::Path) -> Result<MountKind, ExecError> {
    // A similar path would do for another file, or for a link that an image has there.
    let path = source.to_str().ok_or_else(|| {
        let why = format!("the mount's source {} is not valid UTF-8", source.display());
        ExecError::new(why, ErrorClass::Invalid)
    })?;
    Ok(MountKind::Bind {
        source: path.to_owned(),
        propagation: String::new(),
        recursive: true,
        create: false,
        read_only_top: false,
        own: true,
    })
}

fn step(step: &RunStep) -> Result<Step, ExecError> {
    let id: Id = step
        .id
        .parse()
        .map_err(|error: spec::IdError| ExecError::new(error.to_string(), ErrorClass::Internal))?;
    let network_mode = match &step.network {
        NetworkMode::Default => "bridge",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Named(name) => name,
    };
    let limits = &step.limits;
    let config = ContainerConfig {
        hostname: step.hostname.clone(),
        user: step.user.clone(),
        env: step.env.clone().into(),
        working_dir: step.cwd.clone(),
        labels: step.labels.clone().into(),
        ..ContainerConfig::default()
    };
    let ulimit = |u: &build::Ulimit| Ulimit {
        name: u.name.clone(),
        soft: u.soft,
        hard: u.hard,
    };
    let host_config = HostConfig {
        network_mode: network_mode.to_owned(),
        privileged: step.privileged,
        extra_hosts: step.extra_hosts.clone().into(),
        shm_size: step.shm_size,
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        cgroup_parent: limits.cgroup_parent.clone(),
        ulimits: limits.ulimits.iter().map(ulimit).collect(),
        ..HostConfig::default()
    };
    let mut mounts = step.mounts.iter().map(planned).collect::<Result<Vec<_>, _>>()?;
    mounts.sort_by_key(|m| m.destination.matches('/').count());
    Ok(Step {
        id,
        snapshot: step.snapshot,
        args: step.args.clone(),
        config,
        host_config,
        mounts,
        more: step.more,
        stop: step.stop.clone(),
    })
}

impl Executor for EngineExecutor {
    fn run(&self, run: RunStep, output: mpsc::Sender<Output>) -> BoxFuture<'_, Result<i32, ExecError>> {
        async move {
            let step = step(&run)?;
            let (send, mut receive) = mpsc::channel::<StepOutput>(32);
            let forward = async {
                while let Some(piece) = receive.recv().await {
                    let stream = if piece.stderr {
                        Stream::Stderr
                    } else {
                        Stream::Stdout
                    };
                    // A build nobody listens to any more is cancelled by its token.
                    let _ = output
                        .send(Output {
                            stream,
                            bytes: piece.bytes,
                        })
                        .await;
                }
            };
            let (code, ()) = tokio::join!(self.engine.run_step(step, send), forward);
            match code {
                Ok(code) => Ok(code),
                // The program itself could not be started: the shell's codes say why.
                Err(engine::Error {
                    exit_code: Some(code),
                    message,
                    ..
                }) => {
                    let bytes = format!("{message}\n").into();
                    let _ = output
                        .send(Output {
                            stream: Stream::Stderr,
                            bytes,
                        })
                        .await;
                    Ok(code)
                }
                Err(error) => Err(failed(error)),
            }
        }
        .boxed()
    }

    fn step_id(&self) -> Id {
        self.engine.step_id()
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        self.engine.steps_left().boxed()
    }

    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        auth: Option<&'a Auth>,
        progress: Progress,
    ) -> BoxFuture<'a, Result<Image, ExecError>> {
        let options = PullOptions {
            platform: platform.cloned(),
            auth: auth.cloned(),
            ..PullOptions::default()
        };
        async move {
            self.engine
                .image_pull(reference, options, progress)
                .await
                .map_err(failed)
        }
        .boxed()
    }
}
