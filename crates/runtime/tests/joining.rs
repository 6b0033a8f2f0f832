//! Hooks at their moments, and further processes where the container has a user namespace or a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::fd::AsFd;
use std::path::PathBuf;

use runtime::{Exec, Stdio};
use spec::runtime::{Hook, Hooks, IdMapping, Namespace, NamespaceType};
use support::{Bundle, captured, finish, possible};
use sys::process::Exit;

#[test]
fn into_a_user_namespace_and_onto_a_terminal() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let map = IdMapping {
        container_id: 0,
        host_id: 300_000,
        size: 65_536,
    };
    let linux = bundle.linux();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let (stdio, first_output) = captured();
    let first = bundle.shell("sleep 100").create(stdio).unwrap().start().unwrap();
    let exec = |script: &str, stdio: Stdio| {
        let mut process = bundle.spec.process.clone().unwrap();
        process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
        runtime::exec(Exec::new(first.pid, first.pidfd.as_fd(), &process, stdio))
    };
    let (stdio, output) = captured();
    let running = exec("id -u; cat /proc/self/uid_map", stdio).unwrap();
    let (text, exit) = finish(running.pidfd, output);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        (words.as_slice(), exit),
        (["0", "0", "300000", "65536"].as_slice(), Exit::Code(0))
    );

    let running = exec("tty; exit 4", Stdio::Terminal).unwrap();
    let master = running.terminal.unwrap();
    // A terminal hands over what is there, which may be a part of the line.
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut buffer = [0; 64];
        let count = rustix::io::read(&master, &mut buffer).unwrap();
        line.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(line, b"/dev/pts/0\r\n");
    assert_eq!(sys::process::wait(running.pidfd.as_fd()).unwrap(), Exit::Code(4));
    sys::process::send_signal(first.pidfd.as_fd(), 9).unwrap();
    finish(first.pidfd, first_output);
}

#[test]
fn hooks_run_at_their_moments_and_can_stop_the_creation() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let record = bundle.path().join("record");
    let hook = |program: &str, script: String| Hook {
        path: PathBuf::from(program),
        args: vec!["sh".to_owned(), "-c".to_owned(), script],
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        // Longer than any clock counts.
        timeout: Some(i64::MAX),
    };
    let root = bundle.root();
    let outside = format!("grep -q creating && echo outside >> {}", record.display());
    let note = |word: &str| format!("cat > /dev/null; echo {word} >> {}", record.display());
    bundle.spec.hooks = Some(Hooks {
        prestart: vec![hook("/bin/sh", note("prestart"))],
        create_runtime: vec![hook("/bin/sh", outside)],
        create_container: vec![hook("/bin/sh", note("createContainer"))],
        start_container: vec![hook("/bin/sh", "cat > /tmp/state".to_owned())],
        poststart: vec![hook("/bin/sh", note("poststart"))],
        ..Hooks::default()
    });
    let text = bundle.shell_output("cat /tmp/state");
    assert!(
        text.contains("\"status\":\"created\"") && text.contains("\"id\":\"test\""),
        "{text}"
    );
    let record = std::fs::read_to_string(record).unwrap();
    assert_eq!(record, "prestart\noutside\ncreateContainer\npoststart\n");

    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![hook("/bin/sh", "echo no way >&2; exit 3".to_owned())],
        ..Hooks::default()
    });
    let error = bundle.run().unwrap_err().to_string();
    assert!(
        error.contains("createRuntime") && error.contains("no way"),
        "{error}"
    );
    assert!(root.exists());
}
