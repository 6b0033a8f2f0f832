//! A docker client of before version 23, which builds over `POST /build?version=2` and a session.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::Lab;
use crate::support::{Daemon, text};

/// The old client on a daemon of its own, or why there is none.
fn start() -> Result<(Lab, PathBuf), String> {
    let clients = crate::docker::fetched().join("old");
    if !clients.join("usr/bin/docker").is_file() {
        return Err("needs a docker client of before version 23, which cargo xtask test fetches".to_owned());
    }
    let daemon = Daemon::start();
    std::fs::create_dir_all(daemon.dir.path().join("context")).unwrap();
    let program = clients.join("usr/bin/docker");
    Ok((Lab { daemon, clients }, program))
}

macro_rules! old_client {
    () => {{
        guard!();
        match start() {
            Ok(found) => found,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    }};
}

fn command(lab: &Lab, program: &PathBuf, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .arg("build")
        .args(args)
        .current_dir(lab.context())
        .env("DOCKER_HOST", lab.daemon.socket())
        .env("DOCKER_CONFIG", lab.daemon.dir.path().join("docker"))
        .env("DOCKER_BUILDKIT", "1")
        .env("BUILDKIT_PROGRESS", "plain")
        .stdin(Stdio::null());
    command
}

fn build(lab: &Lab, program: &PathBuf, args: &[&str]) -> Output {
    command(lab, program, args).output().unwrap()
}

#[test]
fn an_old_client_builds_with_its_session() {
    let (lab, program) = old_client!();
    lab.write(
        "sub/D",
        "FROM box:1\nARG A\nRUN --mount=type=secret,id=key echo \"$A $(cat /run/secrets/key)\" > /out\nCOPY file /\nLABEL own=1\n",
    );
    lab.write("file", "from the client");
    lab.write("key", "s3cret");
    let iid = lab.daemon.dir.path().join("iid");
    let done = build(
        &lab,
        &program,
        &[
            "-t",
            "old:1",
            "-t",
            "old:2",
            "-f",
            "sub/D",
            "--build-arg",
            "A=b",
            "--label",
            "l=v",
            "--secret",
            "id=key,src=key",
            "--iidfile",
            &iid.display().to_string(),
            ".",
        ],
    );
    let shown = text(&done.stderr);
    assert!(done.status.success(), "{shown}{}", lab.daemon.log());
    assert!(
        shown.contains("RUN --mount=type=secret") && shown.contains("DONE"),
        "{shown}"
    );
    assert_eq!(
        lab.run_image("old:2", &["sh", "-c", "cat /out /file"]),
        "b s3cret\nfrom the client"
    );
    let id = std::fs::read_to_string(&iid).unwrap();
    let labels = lab
        .daemon
        .ok(&["inspect", "--format", "{{json .Config.Labels}}", id.trim()]);
    assert_eq!(labels.trim(), r#"{"l":"v","own":"1"}"#);
    // Again, from the cache; and a file that changed.
    lab.write("file", "changed");
    let again = build(
        &lab,
        &program,
        &[
            "-t",
            "old:1",
            "-f",
            "sub/D",
            "--build-arg",
            "A=b",
            "--secret",
            "id=key,src=key",
            ".",
        ],
    );
    let shown = text(&again.stderr);
    assert!(again.status.success() && shown.contains("CACHED"), "{shown}");
    assert!(lab.run_image("old:1", &["cat", "/file"]).starts_with("changed"));
}

#[test]
fn an_old_client_sends_its_context_from_standard_input() {
    let (lab, program) = old_client!();
    lab.write("sub/D", "FROM box:1\nCOPY file /\n");
    lab.write("file", "of the archive\n");
    let archive = Command::new("tar")
        .args(["-c", "-C"])
        .arg(lab.context())
        .arg(".")
        .output()
        .unwrap();
    let input = lab.daemon.dir.path().join("input");
    let fed = |args: &[&str], bytes: &[u8]| {
        std::fs::write(&input, bytes).unwrap();
        let mut command = command(&lab, &program, args);
        command.stdin(std::fs::File::open(&input).unwrap());
        command.output().unwrap()
    };
    let done = fed(&["-t", "archive:1", "-f", "sub/D", "-"], &archive.stdout);
    assert!(
        done.status.success(),
        "{}{}",
        text(&done.stderr),
        lab.daemon.log()
    );
    assert_eq!(lab.run_image("archive:1", &["cat", "/file"]), "of the archive\n");
    let done = fed(&["-t", "text:1", "-"], b"FROM box:1\nRUN echo said > /said\n");
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(lab.run_image("text:1", &["cat", "/said"]), "said\n");
    // What is no context ends the build, and the client with it.
    let done = fed(&["-t", "none:1", "-"], archive.stdout.get(..700).unwrap());
    assert!(!done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn an_old_client_hears_why_its_build_failed() {
    let (lab, program) = old_client!();
    lab.write("Dockerfile", "FROM box:1\nRUN echo said; exit 3\n");
    let done = build(&lab, &program, &["-t", "never:1", "."]);
    let shown = text(&done.stderr);
    assert!(!done.status.success());
    assert!(
        shown.contains("said") && shown.contains("exit code: 3"),
        "{shown}"
    );
    lab.daemon.fails(&["image", "inspect", "never:1"]);
    let out = lab.daemon.dir.path().join("out");
    lab.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /x/\n");
    let to = format!("type=local,dest={}", out.display());
    let done = build(&lab, &program, &["-o", &to, "."]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(out.join("x/Dockerfile").is_file());
}
