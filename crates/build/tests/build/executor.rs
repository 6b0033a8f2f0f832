//! Runs steps with unshare(1) and chroot(1).

use std::sync::atomic::{AtomicUsize, Ordering};

use build::{ExecError, Executor, MountSource, Output, RunStep, StepMount, Stream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::{Auth, Image, Progress};
use rustix::process::{Pid, Signal, kill_process_group};
use spec::{ErrorClass, Platform, Reference};
use store::Store;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

pub struct Chroot {
    pub store: Store,
    pub runs: AtomicUsize,
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn join(paths: &[std::path::PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(":")
}

impl Chroot {
    /// The shell script that mounts everything and becomes the step.
    fn script(&self, step: &RunStep) -> String {
        let overlay = self.store.snapshots().overlay(step.snapshot).unwrap();
        let root = "/mnt";
        let (upper, work) = (overlay.upper.unwrap(), overlay.work.unwrap());
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            join(&overlay.lower),
            upper.display(),
            work.display()
        );
        // The builder may have had it mounted without waiting for the disk.
        let mark = quote(&work.join("work/incompat").display().to_string());
        let mut script = format!(
            "set -e\nrm -rf {mark}\nmount -t overlay overlay -o {} {root}\n",
            quote(&options)
        );
        for mount in &step.mounts {
            let target = quote(&format!("{root}{}", mount.target()));
            let (source, file) = match mount {
                StepMount::Bind {
                    source: MountSource::Overlay(overlay),
                    ..
                } => {
                    let mut options = format!("lowerdir={}", join(&overlay.lower));
                    if let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) {
                        options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
                    }
                    let options = quote(&options);
                    script += &format!("mkdir -p {target}\nmount -t overlay overlay -o {options} {target}\n");
                    continue;
                }
                StepMount::Tmpfs { .. } => {
                    script += &format!("mkdir -p {target}\nmount -t tmpfs tmpfs {target}\n");
                    continue;
                }
                StepMount::Bind {
                    source: MountSource::Path(path),
                    ..
                }
                | StepMount::Cache { source: path, .. }
                | StepMount::Secret { source: path, .. } => {
                    (quote(&path.display().to_string()), path.is_file())
                }
            };
            match file {
                true => {
                    script += &format!("mkdir -p $(dirname {target})\n[ -e {target} ] || touch {target}\n")
                }
                false => script += &format!("mkdir -p {target}\n"),
            }
            script += &format!("mount --bind {source} {target}\n");
        }
        let env: Vec<String> = step.env.iter().map(|entry| quote(entry)).collect();
        let args: Vec<String> = step.args.iter().map(|arg| quote(arg)).collect();
        script += &format!("mkdir -p {}\n", quote(&format!("{root}{}", step.cwd)));
        let inner = "cd \"$0\" && exec \"$@\"";
        script += &format!(
            "exec chroot {root} /bin/busybox env -i {} /bin/busybox sh -c {} {} {}\n",
            env.join(" "),
            quote(inner),
            quote(&step.cwd),
            args.join(" ")
        );
        script
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, stream: Stream, to: mpsc::Sender<Output>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = bytes::Bytes::copy_from_slice(&buffer[..read]);
        let _ = to.send(Output { stream, bytes }).await;
    }
}

impl Executor for Chroot {
    fn run(&self, step: RunStep, output: mpsc::Sender<Output>) -> BoxFuture<'_, Result<i32, ExecError>> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut child = tokio::process::Command::new("unshare")
                .args([
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-c",
                    &self.script(&step),
                ])
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .kill_on_drop(true)
                .process_group(0)
                .spawn()
                .map_err(|error| ExecError::new(error.to_string(), ErrorClass::Internal))?;
            let out = pass(child.stdout.take().unwrap(), Stream::Stdout, output.clone());
            let err = pass(child.stderr.take().unwrap(), Stream::Stderr, output);
            let wait = async {
                tokio::select! {
                    status = child.wait() => status.unwrap().code().unwrap_or(137),
                    () = step.stop.cancelled() => {
                        // All of its group: unshare may not have tied its child to itself yet.
                        let group = Pid::from_raw(child.id().unwrap() as i32).unwrap();
                        kill_process_group(group, Signal::KILL).unwrap();
                        child.wait().await.unwrap();
                        137
                    }
                }
            };
            let (code, (), ()) = tokio::join!(wait, out, err);
            Ok(code)
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        _platform: Option<&'a Platform>,
        _auth: Option<&'a Auth>,
        _progress: Progress,
    ) -> BoxFuture<'a, Result<Image, ExecError>> {
        let message = format!(
            "pull access denied for {}, repository does not exist",
            reference.familiar()
        );
        async move { Err(ExecError::new(message, ErrorClass::NotFound)) }.boxed()
    }
}
