//! Images to measure with: archives made of trees, and the registry they are pulled from.
//!
//! The peer lives in a network namespace of its own, so two registries serve one directory, one here and one there, at the
//! same address.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::docker::netns;
use crate::process::{capture, output};

pub const ADDRESS: &str = "127.0.0.1:5965";

/// A registry that ends when dropped.
pub struct Registry(Child);

impl Registry {
    pub fn start(dir: &Path, in_namespace: bool) -> Result<Registry> {
        let config = dir.join("registry.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{ADDRESS}\"}}\n",
                dir.join("registry").display()
            ),
        )?;
        let mut command = match in_namespace {
            true => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/run/netns/{}", netns()))
                    .arg("docker-registry");
                command
            }
            false => Command::new("docker-registry"),
        };
        let child = command
            .args(["serve".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker-registry")?;
        if !in_namespace {
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::net::TcpStream::connect(ADDRESS).is_err() {
                if Instant::now() > deadline {
                    bail!("docker-registry does not listen on {ADDRESS}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(Registry(child))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A layer of the tree, whose files all have this time, in seconds since 1970.
pub fn pack(tree: &Path, tar: &Path, mtime: u64) -> Result<()> {
    capture(
        Command::new("tar")
            .args(["--sort=name", &format!("--mtime=@{mtime}"), "-cf"])
            .arg(tar)
            .arg("-C")
            .arg(tree)
            .arg("."),
    )?;
    Ok(())
}

/// A docker archive of these layers, lowest first; `dir` is room for it.
pub fn write(path: &Path, dir: &Path, layers: &[PathBuf]) -> Result<()> {
    let (mut names, mut digests) = (Vec::new(), Vec::new());
    for (number, tar) in layers.iter().enumerate() {
        let sum = capture(Command::new("sha256sum").arg(tar))?;
        digests.push(format!(
            "\"sha256:{}\"",
            sum.split(' ').next().unwrap_or_default()
        ));
        names.push(format!("\"{number}.tar\""));
        let place = dir.join(format!("{number}.tar"));
        if place != *tar {
            std::fs::hard_link(tar, &place)?;
        }
    }
    let mut config = std::fs::File::create(dir.join("config.json"))?;
    write!(
        config,
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
        digests.join(",")
    )?;
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":null,"Layers":[{}]}}]"#,
        names.join(",")
    );
    std::fs::write(dir.join("manifest.json"), manifest)?;
    capture(
        Command::new("tar")
            .arg("-cf")
            .arg(path)
            .arg("-C")
            .arg(dir)
            .arg("."),
    )?;
    Ok(())
}

/// Brings an archive to the registry under a name, compressed as skopeo does.
pub fn seed(archive: &Path, at: &str) -> Result<()> {
    let mut copy = Command::new("skopeo");
    copy.args([
        "copy",
        "-q",
        "--dest-tls-verify=false",
        &format!("docker-archive:{}", archive.display()),
        &format!("docker://{at}"),
    ]);
    let done = output(&mut copy)?;
    if !done.status.success() {
        bail!("skopeo: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
