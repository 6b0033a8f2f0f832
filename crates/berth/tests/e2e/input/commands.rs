//! Commands that cannot be executed, and why.

use std::process::Command;

use crate::docker;
use crate::inventory::Inventory;
use crate::support::{BERTH, Daemon, text};

/// The head of an ELF program for `machine` (ELF's `e_machine`) that no loader gets further with.
fn elf_for(machine: u16) -> Vec<u8> {
    let mut head = vec![0; 120];
    head[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    head[16..18].copy_from_slice(&2u16.to_le_bytes());
    head[18..20].copy_from_slice(&machine.to_le_bytes());
    head[20..24].copy_from_slice(&1u32.to_le_bytes());
    head[32..40].copy_from_slice(&64u64.to_le_bytes());
    head[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
    head
}

/// An image with a program for another architecture and further things that look like programs.
fn with_programs(daemon: &Daemon) {
    use std::os::unix::fs::PermissionsExt;
    let context = daemon.dir.path().join("programs");
    std::fs::create_dir_all(&context).unwrap();
    for (name, bytes, mode) in [
        ("foreign", elf_for(183), 0o755),
        ("plain", b"just words\n".to_vec(), 0o644),
        ("lost", b"#!/no/such/interpreter\n".to_vec(), 0o755),
    ] {
        let path = context.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nCOPY foreign plain lost /opt/\n",
    )
    .unwrap();
    daemon.ok(&["build", "-t", "programs:1", &context.display().to_string()]);
}

#[test]
fn what_cannot_be_executed_says_why() {
    guard!();
    let daemon = Daemon::start();
    with_programs(&daemon);
    daemon.ok(&["run", "-d", "--name", "alive", "programs:1", "sleep", "1000"]);
    let before = Inventory::of(&daemon);
    let mut wrong = Vec::new();
    for (program, code, words) in [
        (
            "nosuch",
            127,
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        ("/bin/nosuch", 127, "stat /bin/nosuch: no such file or directory"),
        ("/opt/plain", 126, "exec: \"/opt/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("/opt/lost", 127, "/no/such/interpreter"),
        ("/opt/foreign", 126, "exec format error"),
    ] {
        for command in [["run", "--rm", "programs:1"].as_slice(), &["exec", "alive"]] {
            let line: Vec<&str> = command.iter().copied().chain([program]).collect();
            let output = daemon.run(&line);
            // An exec that fails tells it on its own output, as Docker's does.
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            if output.status.code() != Some(code) || !said.contains(words) {
                wrong.push(format!(
                    "{line:?}: {}, instead of {code} and {words:?}: {said}",
                    output.status
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (_, text) = daemon.fails(&["run", "--rm", "programs:1", "/opt/foreign"]);
    assert!(text.contains("aarch64") && text.contains("x86_64"), "{text}");
    before.assert_unchanged(&daemon, "commands that cannot be executed");
}

#[test]
fn the_docker_client_ends_with_the_same_codes() {
    guard!();
    let docker = match docker::client(docker::RECENT) {
        Ok(docker) => docker,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let daemon = Daemon::start();
    with_programs(&daemon);
    for (program, code) in [
        ("nosuch", 127),
        ("/opt/plain", 126),
        ("/etc", 126),
        ("/opt/lost", 127),
    ] {
        let output = Command::new(&docker)
            .args(["run", "--rm", "programs:1", program])
            .env("DOCKER_HOST", daemon.socket())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{program}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_second_daemon_on_the_root_is_told_who_has_it() {
    guard!();
    let daemon = Daemon::start();
    let before = Inventory::of(&daemon);
    let run = daemon.dir.path().join("run2");
    let second = Command::new(BERTH)
        .args(["daemon", "--data-root"])
        .arg(daemon.dir.path().join("root"))
        .arg("--exec-root")
        .arg(&run)
        .output()
        .unwrap();
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let words = format!("is in use by another daemon (process {})", daemon.child.id());
    assert!(said.contains(&words) && said.contains("--data-root"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&run).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "the refused daemon left {left:?}");
    before.assert_unchanged(&daemon, "a second daemon");
}

/// As a user without rights: the daemon says that it needs root, the client that it may not speak to the socket.
#[test]
fn without_root_both_say_what_is_missing() {
    guard!();
    let daemon = Daemon::start();
    let dir = daemon.dir.path();
    // Somewhere nobody can read the binary.
    let binary = dir.join("berth");
    std::fs::copy(BERTH, &binary).unwrap();
    let open = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir, 0o755);
    open(&binary, 0o755);
    let nobody = |args: &[&str]| {
        use std::os::unix::process::CommandExt;
        Command::new(&binary)
            .args(args)
            .uid(65534)
            .gid(65534)
            .env("DOCKER_HOST", daemon.socket())
            .env("HOME", "/nonexistent")
            .output()
            .unwrap()
    };
    let output = nobody(&["ps"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("permission denied while trying to connect to the"),
        "{said}"
    );
    let run = nobody(&["run", "--rm", "box:1", "true"]);
    assert_eq!(run.status.code(), Some(125), "{}", text(&run.stderr));
    let root = dir.join("others");
    let output = nobody(&["daemon", "--data-root", &root.display().to_string()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("needs root") && said.contains("hint:"), "{said}");
    assert!(!root.exists());
}
