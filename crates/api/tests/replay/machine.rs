//! The engine that is asked: on directories of its own, with one image.

use std::path::Path;
use std::process::Command;

use engine::EngineConfig;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use spec::Instance;

use crate::asker::Asker;

/// Imports busybox as the recording's image.
pub async fn import(asker: &Asker) {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "mkdir -p bin etc root sbin tmp proc sys dev && cp /bin/busybox bin/ && \
                  for name in sh sleep echo true rm cat; do ln -s busybox bin/$name; done && \
                  echo root:x:0:0:root:/root:/bin/sh > etc/passwd && echo root:x:0: > etc/group && tar -cf - .";
    let tar = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(directory.path())
        .output()
        .expect("a tar");
    assert!(tar.status.success());
    let target = "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D&\
                  changes=ENV%20PATH%3D%2Fusr%2Flocal%2Fsbin%3A%2Fusr%2Flocal%2Fbin%3A%2Fusr%2Fsbin%3A%2Fusr%2Fbin%3A%2Fsbin%3A%2Fbin";
    let (status, answer) = asker
        .ask("POST", target, Some(tar.stdout), "application/x-tar")
        .await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.to_string().contains("errorDetail"), "{answer}");
}

pub fn config(directory: &Path, instance: &Instance) -> EngineConfig {
    let run_dir = directory.join("run");
    EngineConfig {
        root: directory.join("root"),
        storage_driver: engine::store::StorageDriver::Auto,
        store_dedup: false,
        image_ids: engine::image::ImageIds::default(),
        run_dir: run_dir.clone(),
        instance: instance.clone(),
        cgroup_driver: engine::cgroup::Driver::Cgroupfs,
        cgroup_parent: String::new(),
        log_budget: None,
        cdi_spec_dirs: Vec::new(),
        selinux: false,
        volume_plugins: engine::volume::PluginSettings::none(),
        network: engine::network::NetworkConfig::new(instance.clone(), run_dir),
        userns: engine::userns::Settings::default(),
        live: engine::LiveConfig::default(),
    }
}

/// Removes the control groups that are named after this instance.
pub fn remove_groups(tag: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = std::fs::remove_dir(hierarchy.path().join(tag));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(tag));
}

/// No build here comes as far as a step that runs.
pub struct NoSteps;

impl build::Executor for NoSteps {
    fn run(
        &self,
        _step: build::RunStep,
        _output: tokio::sync::mpsc::Sender<build::Output>,
    ) -> BoxFuture<'_, Result<i32, build::ExecError>> {
        async {
            Err(build::ExecError::new(
                "no steps here",
                spec::ErrorClass::NotImplemented,
            ))
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        _reference: &'a spec::Reference,
        _platform: Option<&'a spec::Platform>,
        _auth: Option<&'a engine::image::Auth>,
        _progress: engine::image::Progress,
    ) -> BoxFuture<'a, Result<engine::image::Image, build::ExecError>> {
        async {
            Err(build::ExecError::new(
                "no pulls here",
                spec::ErrorClass::NotImplemented,
            ))
        }
        .boxed()
    }
}

/// The context of a build that only copies, from a stage whose layer is in no image.
pub fn context() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("Dockerfile"),
        "FROM busybox AS one\nCOPY data /data\nFROM busybox\nCOPY --from=one /data /copy\n",
    )
    .expect("a file");
    std::fs::write(directory.path().join("data"), "data").expect("a file");
    let tar = Command::new("tar")
        .args(["-cf", "-", "."])
        .current_dir(directory.path())
        .output()
        .expect("a tar");
    assert!(tar.status.success());
    tar.stdout
}
