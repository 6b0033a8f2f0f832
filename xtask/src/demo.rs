//! `cargo xtask demo`: an application from its Dockerfile to a registry and back, on this machine, in one go.
//!
//! Every step says what it does and how long it took. The daemon, its root, the registry and everything they
//! make are of this run alone and are gone at the end: the machine is looked at before and after ([`leftovers`]).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::engine::{self, Daemon, Scratch};
use crate::interrupt::Cleaning;
use crate::process::{capture, is_root, output, root, run as run_command};
use crate::system::System;
use crate::{http, leftovers, packages};

const APP_PORT: u16 = 18480;
const REGISTRY_PORT: u16 = 15480;

/// Does one step and says how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let start = Instant::now();
    let done = work().with_context(|| format!("the step failed: {what}"))?;
    println!("    {:.3} s", start.elapsed().as_secs_f64());
    Ok(done)
}

fn show(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

pub fn run() -> Result<()> {
    ensure!(
        is_root(),
        "the demonstration needs root: a container engine makes namespaces, mounts and control groups"
    );
    let begin = Instant::now();
    let system = System::of_this_machine()?;
    step("install what is missing", || {
        packages::install(&[packages::BUILD, packages::RUN, packages::DEMO])
    })?;
    let binary = step("build the release binary", engine::build)?;
    let leftovers = leftovers::Run::begin()?;
    let shown = demonstrate(&system, &binary, leftovers.directory());
    let left = step("look for what is left on the machine", || {
        let _cleaning = Cleaning::begin();
        leftovers.end()
    });
    shown?;
    let left = left?;
    ensure!(
        left.is_empty(),
        "this was left on the machine:\n  {}",
        left.join("\n  ")
    );
    println!("all of it took {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// From the first container to the last one; all of it in `directory`.
fn demonstrate(system: &System, binary: &Path, directory: &Path) -> Result<()> {
    let base = system.image();
    let scratch = Scratch::at(directory.join("demo"))?;
    let daemon = step("start a daemon on a root of its own", || {
        Daemon::start(binary, &scratch.0)
    })?;
    let client = |args: &[&str]| capture(&mut daemon.client(args));
    step("berth run hello-berth: the image that needs no registry", || {
        show(&client(&["run", "--rm", "hello-berth"])?);
        Ok(())
    })?;
    step(&format!("get the base image {base}"), || {
        base_image(&daemon, &scratch, system)
    })?;
    let example = root().join("examples/notes");
    step("build examples/notes from its Dockerfile", || {
        let context = example.display().to_string();
        run_command(&mut daemon.client(&[
            "build",
            "-t",
            "notes",
            "--build-arg",
            &format!("BASE={base}"),
            &context,
        ]))
    })?;
    step("build it again: every step comes from the cache", || {
        client(&[
            "build",
            "-q",
            "-t",
            "notes",
            "--build-arg",
            &format!("BASE={base}"),
            &example.display().to_string(),
        ])
    })?;
    step(
        "create a network, a volume, and run the application on both",
        || {
            client(&["network", "create", "notes-net"])?;
            client(&["volume", "create", "notes-data"])?;
            start_notes(&daemon, "notes")
        },
    )?;
    let address = format!("127.0.0.1:{APP_PORT}");
    step("write a note and read it over HTTP on the published port", || {
        http::wait_until_ready(&address, "/health")?;
        let (status, body) = http::request(&address, "POST", "/notes", r#"{"text":"kept on a volume"}"#)?;
        ensure!(status < 300, "writing the note answered {status}: {body}");
        let (_, body) = http::request(&address, "GET", "/notes", "")?;
        show(&body);
        ensure!(body.contains("kept on a volume"), "the note is not there");
        Ok(())
    })?;
    step("a second container talks to the first by its name", || {
        let script = "fetch('http://notes:8080/notes').then(r => r.text()).then(t => console.log(t))";
        let text = client(&[
            "run",
            "--rm",
            "--network",
            "notes-net",
            "notes",
            "node",
            "-e",
            script,
        ])?;
        show(&text);
        ensure!(
            text.contains("kept on a volume"),
            "the second container did not see the note"
        );
        Ok(())
    })?;
    step("ps, logs, stats", || {
        show(&client(&["ps"])?);
        show(&client(&["logs", "--tail", "5", "notes"])?);
        show(&client(&["stats", "--no-stream"])?);
        Ok(())
    })?;
    let registry = step("start a registry on loopback", || Registry::start(&scratch.0))?;
    let remote = format!("127.0.0.1:{REGISTRY_PORT}/demo/notes:1");
    step("push the image to it", || {
        client(&["tag", "notes", &remote])?;
        client(&["push", "-q", &remote])
    })?;
    step("remove container and image locally", || {
        client(&["rm", "-f", "notes"])?;
        client(&["rmi", &remote])?;
        client(&["rmi", "notes"])
    })?;
    step("pull it back", || client(&["pull", "-q", &remote]))?;
    step("run it again on the same volume: the note is still there", || {
        client(&["tag", &remote, "notes"])?;
        start_notes(&daemon, "notes-again")?;
        http::wait_until_ready(&address, "/health")?;
        let (_, body) = http::request(&address, "GET", "/notes", "")?;
        show(&body);
        ensure!(body.contains("kept on a volume"), "the note was lost");
        Ok(())
    })?;
    step("leave the machine clean", || {
        drop(registry);
        daemon.clean_up()
    })
}

fn start_notes(daemon: &Daemon, name: &str) -> Result<()> {
    let publish = format!("127.0.0.1:{APP_PORT}:8080");
    let args = [
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "notes-net",
        "-p",
        &publish,
        "-v",
        "notes-data:/data",
        "notes",
    ];
    capture(&mut daemon.client(&args)).map(|_| ())
}

/// Pulls the base from Docker Hub where that can be reached, and makes it from the machine's own package mirror
/// where not.
fn base_image(daemon: &Daemon, scratch: &Scratch, system: &System) -> Result<()> {
    let base = system.image();
    let pulled = output(
        Command::new("timeout")
            .arg("60")
            .args(client_words(daemon, &["pull", "-q", &base])),
    )?;
    if pulled.status.success() {
        println!("    pulled");
        return Ok(());
    }
    println!("    Docker Hub does not answer; making it with mmdebstrap");
    let tar = scratch.join("base.tar");
    // The machine's own trusted certificates go along, since a mirror may be reached through a proxy of its own.
    let certificates = "--customize-hook=mkdir -p \"$1/etc/ssl/certs\" && \
                        cp /etc/ssl/certs/ca-certificates.crt \"$1/etc/ssl/certs/\"";
    system.make(
        &["--variant=minbase", "--include=ca-certificates", certificates],
        &tar,
    )?;
    let changes = [
        "--change",
        "CMD [\"bash\"]",
        "--change",
        "ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
    ];
    let mut import = daemon.client(&["import"]);
    import.args(changes).arg(&tar).arg(&base);
    capture(&mut import).map(|_| ())
}

/// The client's command line with its daemon named by a flag, for programs that start it.
fn client_words(daemon: &Daemon, args: &[&str]) -> Vec<String> {
    let command = daemon.client(&[]);
    let program = command.get_program().to_string_lossy().into_owned();
    let words = [program.as_str(), "--host", &daemon.socket];
    words.iter().chain(args).map(|w| (*w).to_owned()).collect()
}

/// Debian's registry on a loopback port, with its storage in our scratch directory.
struct Registry {
    child: Child,
}

impl Registry {
    fn start(dir: &Path) -> Result<Registry> {
        let config = dir.join("registry.yml");
        let storage = dir.join("registry");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{REGISTRY_PORT}\n",
                storage.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker-registry")?;
        let mut registry = Registry { child };
        let address = format!("127.0.0.1:{REGISTRY_PORT}");
        http::wait_until_ready(&address, "/v2/")?;
        if registry.child.try_wait()?.is_some() {
            bail!("docker-registry ended at once: is port {REGISTRY_PORT} in use?");
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
