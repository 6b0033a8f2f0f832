//! RUN: one command in one container, on a writable snapshot that becomes the next layer in place.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::Digest;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::mounts::Prepared;
use super::scratch::Scratch;
use super::select::literal;
use super::{Build, StepOperation, Tree, copy, diagnose, now};
use crate::error::BuildError;
use crate::executor::{NetworkMode, Output, RunStep};
use crate::history::Part;
use crate::instruction::{Mount, MountKind, RunNetwork};
use crate::patience::Patience;
use crate::request::BuildRequest;

/// How many pieces of output may wait between the container and the client.
const OUTPUT_QUEUE: usize = 64;

/// A mount with everything expanded.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMount {
    pub mount: Mount,
    /// Absolute.
    pub target: String,
    /// Which input its files come from; `None`: the context, or nothing.
    pub input: Option<usize>,
    /// As which result of the command its files are kept.
    pub output: Option<usize>,
}

impl PlannedMount {
    /// What is mounted of where its files come from.
    fn source(&self) -> String {
        self.mount.source.clone().unwrap_or_else(|| "/".to_owned())
    }
}

/// What commands with several results have beyond others.
#[derive(Debug, Clone, Default)]
pub struct Several {
    /// Which result is the root's; `None`: what is written there goes.
    pub root: Option<usize>,
    /// Which result the step gives.
    pub wanted: usize,
    /// All results of the command by number, once it was run: steps that give one each run it together.
    pub results: Arc<Mutex<BTreeMap<usize, Tree>>>,
    /// What the command has asked of its client.
    pub patience: Arc<Patience>,
}

/// A RUN with everything expanded.
#[derive(Debug, Clone)]
pub struct RunPlan {
    pub args: Vec<String>,
    /// What error messages call the command.
    pub shown: String,
    /// The image's environment and the build arguments that were declared.
    pub env: Vec<String>,
    /// Arguments that everyone gets without asking, such as proxies: they reach the command, not the cache.
    pub silent_env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub network: Option<RunNetwork>,
    pub insecure: bool,
    /// What `BUILDKIT_CACHE_MOUNT_NS` says: cache directories of one namespace are not those of another.
    pub cache_namespace: Option<String>,
    pub mounts: Vec<PlannedMount>,
    /// Content of a script that is run as a file.
    pub script: Option<(String, String)>,
    /// Empty: the build's, or one made up.
    pub hostname: String,
    /// `name:address`, beside those of the build.
    pub hosts: Vec<String>,
    /// Exit codes that are no failure; empty: 0.
    pub good_codes: Vec<i32>,
    pub several: Option<Several>,
}

impl RunPlan {
    /// A digest over all that the result depends on. Secrets and cache directories do not count.
    pub async fn definition(&self, build: &Arc<Build>) -> Result<Digest, BuildError> {
        let context = copy::context_digest(build, self.context_paths()).await?;
        Ok(self.defined(build, context))
    }

    /// The same where nothing of the context counts.
    pub fn definition_at_once(&self, build: &Build) -> Option<Digest> {
        self.context_paths().is_empty().then(|| self.defined(build, None))
    }

    fn defined(&self, build: &Build, context: Option<Digest>) -> Digest {
        let mounts: Vec<String> = self
            .mounts
            .iter()
            .map(|planned| {
                let mount = &planned.mount;
                // Another directory has other content; what is in a secret does not count, only where it is seen.
                let id = mount.id.as_deref().filter(|_| mount.kind == MountKind::Cache);
                format!(
                    "{:?} {:?} {:?} {} {:?} {:?} {id:?}",
                    mount.kind, planned.input, mount.source, planned.target, mount.read_only, mount.env
                )
            })
            .collect();
        let mut parts = serde_json::json!({
            "run": 1,
            "args": self.args,
            "env": self.env,
            "cwd": self.cwd,
            "user": self.user,
            "network": format!("{:?}", self.network),
            "insecure": self.insecure,
            "hosts": build.request.extra_hosts,
            "mounts": mounts,
            "script": self.script,
            "context": context,
        });
        if let (Some(several), Some(map)) = (&self.several, parts.as_object_mut()) {
            let outputs: Vec<Option<usize>> = self.mounts.iter().map(|planned| planned.output).collect();
            let more = serde_json::json!([
                several.wanted,
                several.root,
                outputs,
                self.hostname,
                self.hosts,
                self.good_codes
            ]);
            map.insert("several".to_owned(), more);
        }
        Digest::sha256(parts.to_string().as_bytes())
    }

    /// What is mounted from the context.
    pub fn context_paths(&self) -> Vec<String> {
        let of_context =
            |planned: &&PlannedMount| planned.mount.kind == MountKind::Bind && planned.input.is_none();
        let paths = self.mounts.iter().filter(of_context).map(PlannedMount::source);
        paths.map(|path| literal(&path)).collect()
    }

    /// The digests of what is mounted from other trees, where the command sees nothing else of them and nothing of them is
    /// kept.
    pub async fn contents(
        &self,
        build: &Arc<Build>,
        inputs: &[Tree],
    ) -> Result<Option<Vec<Option<Digest>>>, BuildError> {
        let mut contents = vec![None; inputs.len()];
        for (number, (tree, content)) in inputs.iter().zip(&mut contents).enumerate().skip(1) {
            let mounts = || self.mounts.iter().filter(|planned| planned.input == Some(number));
            let is_seen =
                |planned: &PlannedMount| planned.mount.kind == MountKind::Bind && planned.output.is_none();
            if mounts().all(is_seen) && mounts().next().is_some() {
                let paths = mounts().map(PlannedMount::source).collect();
                *content = copy::tree_digest(build, tree, paths).await?;
            }
        }
        Ok(contents.iter().any(Option::is_some).then_some(contents))
    }

    /// What the result depends on, by name. Values that look like secrets are told by their digests.
    pub async fn parts(&self, build: &Arc<Build>) -> Result<Vec<Part>, BuildError> {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut parts = vec![
            named("command", &self.args.join(" ")),
            named("user", &self.user),
            named("directory", &self.cwd),
            named("--network", &format!("{:?}", self.network)),
            named("--security", if self.insecure { "insecure" } else { "sandbox" }),
        ];
        for entry in &self.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            let value = match crate::lint::looks_secret(name) {
                true => Digest::sha256(value.as_bytes()).to_string(),
                false => value.to_owned(),
            };
            parts.push((format!("variable {name}"), value));
        }
        for host in &build.request.extra_hosts {
            let (name, address) = host.split_once(':').unwrap_or((host, ""));
            parts.push((format!("host {name}"), address.to_owned()));
        }
        for planned in &self.mounts {
            let mount = &planned.mount;
            let value = format!("{:?} {:?} {:?}", mount.kind, mount.source, mount.id);
            parts.push((format!("mount {}", planned.target), value));
        }
        if let Some((_, content)) = &self.script {
            parts.push(named(
                "file of the script",
                Digest::sha256(content.as_bytes()).as_str(),
            ));
        }
        parts.extend(copy::context_parts(build, self.context_paths()).await?);
        Ok(parts)
    }

    fn network(&self, request: &BuildRequest) -> NetworkMode {
        match self.network {
            Some(RunNetwork::None) => NetworkMode::None,
            Some(RunNetwork::Host) => NetworkMode::Host,
            Some(RunNetwork::Default) | None => NetworkMode::parse(&request.network_mode),
        }
    }

    pub async fn run(
        &self,
        step: &StepOperation,
        inputs: &[Tree],
        stop: &CancellationToken,
    ) -> Result<Tree, BuildError> {
        let Some(several) = &self.several else {
            return self.run_once(step, inputs, stop).await.map(|(tree, _)| tree);
        };
        let mut results = several.results.lock().await;
        if !results.contains_key(&several.wanted) {
            let (root, others) = self.run_once(step, inputs, stop).await?;
            results.extend(several.root.map(|number| (number, root)));
            results.extend(others);
        }
        results.get(&several.wanted).cloned().ok_or_else(|| {
            BuildError::invalid(format!(
                "the command {} has no result {}",
                self.shown, several.wanted
            ))
        })
    }

    /// Runs it; what became of the root, and of the mounts whose files are kept.
    async fn run_once(
        &self,
        step: &StepOperation,
        inputs: &[Tree],
        stop: &CancellationToken,
    ) -> Result<(Tree, Vec<(usize, Tree)>), BuildError> {
        let build = &step.build;
        let Some(parent) = inputs.first().and_then(|tree| tree.snapshot) else {
            return Err(BuildError::invalid(
                "RUN needs a base image with a shell or program: this stage starts FROM scratch and holds no files",
            ));
        };
        let left = build.runs_left.fetch_sub(1, Ordering::Relaxed);
        let scratch = Scratch::create(&build.store, Some(parent), &build.id)?;
        let prepared = Prepared::new(step, self, inputs, &scratch).await?;
        let id = build.executor.step_id();
        build
            .reporter
            .text(step.name.number, format!(" ---> Running in {}\n", id.short()))
            .await;
        let mut env = self.env.clone();
        env.extend(self.silent_env.iter().cloned());
        env.extend(prepared.env.iter().cloned());
        let run = RunStep {
            id: id.to_string(),
            snapshot: scratch.id()?,
            args: self.args.clone(),
            env,
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            hostname: match build.request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME") {
                _ if !self.hostname.is_empty() => self.hostname.clone(),
                _ if !build.request.hostname.is_empty() => build.request.hostname.clone(),
                Some(Some(given)) if !given.is_empty() => given.clone(),
                _ => id.short().to_owned(),
            },
            network: self.network(&build.request),
            privileged: self.insecure,
            extra_hosts: [build.request.extra_hosts.as_slice(), &self.hosts].concat(),
            mounts: prepared.mounts.clone(),
            shm_size: build.request.shm_size,
            limits: build.request.limits.clone(),
            labels: BTreeMap::new(),
            platform: build
                .request
                .platform
                .clone()
                .unwrap_or_else(spec::Platform::host),
            more: left > 1,
            stop: stop.clone(),
        };
        let code = execute(step, run).await?;
        if stop.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let good = match self.good_codes.as_slice() {
            [] => code == 0,
            codes => codes.contains(&code),
        };
        if !good {
            let hints = match scratch.mount() {
                Ok(tree) => diagnose::hints(tree.as_fd(), &self.args, &self.cwd, code),
                Err(_) => Vec::new(),
            };
            return Err(BuildError::Command {
                hints,
                command: self.shown.clone(),
                code,
                at: step.snippet.clone(),
            });
        }
        prepared.tidy(&build.store.snapshots().fs(scratch.id()?));
        let tree = |scratch: Scratch| {
            Ok::<_, BuildError>(Tree {
                snapshot: Some(scratch.commit(|id| build.cache.hold(id))?),
                layer: true,
                created: now(),
            })
        };
        let mut others = Vec::new();
        for (number, kept) in prepared.into_kept() {
            others.push((number, tree(kept)?));
        }
        let made = tree(scratch)?;
        let text = format!(" ---> Removed intermediate container {}\n", id.short());
        build.reporter.text(step.name.number, text).await;
        Ok((made, others))
    }
}

/// Runs the step and passes its output on; both have ended when this returns.
async fn execute(step: &StepOperation, run: RunStep) -> Result<i32, BuildError> {
    let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
    let pass = pass_on(step, receiver);
    let (code, ()) = tokio::join!(step.build.executor.run(run, sender), pass);
    Ok(code?)
}

async fn pass_on(step: &StepOperation, mut receiver: mpsc::Receiver<Output>) {
    while let Some(output) = receiver.recv().await {
        step.build.reporter.output(&step.name, output).await;
    }
}

/// Removes a directory or file that only was a place to mount on, and the empty directories above it that
/// are in the layer alone. Failures leave an empty directory, which harms nobody.
pub fn remove_mount_point(layer: &std::path::Path, target: &std::path::Path, made: &[PathBuf]) {
    for path in made.iter().rev() {
        let place = layer.join(path);
        let removed = match fs::symlink_metadata(&place) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(&place),
            Ok(meta) if meta.len() == 0 && path.as_path() == target => fs::remove_file(&place),
            _ => return,
        };
        if removed.is_err() {
            return;
        }
    }
}
