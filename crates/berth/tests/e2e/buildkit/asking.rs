//! What a client may say about a build, where it may ask, and what is refused before anything runs.

use super::lab;
use crate::private::Registry;
use crate::support::text;

#[test]
fn options_reach_the_steps() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nARG SOURCE_DATE_EPOCH\nRUN cat /etc/hosts > /hosts; ulimit -n > /files; hostname > /name\n\
         RUN --network=none ls /sys/class/net > /links\n",
    );
    let args = [
        "build",
        "-t",
        "options:1",
        "--add-host",
        "there:192.0.2.7",
        "--ulimit",
        "nofile=123:456",
        "--build-arg",
        "BUILDKIT_SANDBOX_HOSTNAME=mine",
        "--metadata-file",
        "../metadata",
        ".",
    ];
    lab.ok(&args);
    let hosts = lab.run_image("options:1", &["cat", "/hosts"]);
    assert!(
        hosts
            .lines()
            .any(|line| line.split_whitespace().eq(["192.0.2.7", "there"])),
        "{hosts}"
    );
    assert_eq!(
        lab.run_image("options:1", &["cat", "/files", "/name", "/links"]),
        "123\nmine\nlo\n"
    );
    let metadata = std::fs::read_to_string(lab.daemon.dir.path().join("metadata")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let id = lab.daemon.ok(&["inspect", "-f", "{{.Id}}", "options:1"]);
    assert_eq!(metadata["containerimage.digest"], id.trim());
    assert_eq!(metadata["image.name"], "docker.io/library/options:1");
}

#[test]
fn an_agent_is_lent_to_the_step_alone() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=ssh,required test -S \"$SSH_AUTH_SOCK\" && echo $SSH_AUTH_SOCK > /where\n",
    );
    let (_, shown) = lab.fails(&["build", "."]);
    assert!(shown.contains("ssh default: not found"), "{shown}");
    let socket = lab.daemon.dir.path().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let given = format!("default={}", socket.display());
    lab.ok(&["build", "-t", "lent:1", "--ssh", &given, "."]);
    let place = lab.run_image("lent:1", &["cat", "/where"]);
    assert_eq!(place, "/run/buildkit/ssh_agent.0\n");
    let left = lab.run_image("lent:1", &["sh", "-c", "ls /run; echo $SSH_AUTH_SOCK"]);
    assert_eq!(left.trim(), "");
}

#[test]
fn an_agent_is_where_and_whose_the_mount_says() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=ssh,id=mine,target=/tmp/keys.sock,mode=0666,uid=33,gid=34 \
         busybox stat -c '%a %u:%g' /tmp/keys.sock > /seen; echo $SSH_AUTH_SOCK >> /seen\n\
         RUN --mount=type=ssh,id=mine --mount=type=ssh,id=other,required=false \
         busybox stat -c '%a %u:%g' /run/buildkit/ssh_agent.0 >> /seen; ls /run/buildkit >> /seen\n",
    );
    let socket = lab.daemon.dir.path().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let given = format!("mine={}", socket.display());
    lab.ok(&["build", "-t", "lent:1", "--ssh", &given, "."]);
    assert_eq!(
        lab.run_image("lent:1", &["cat", "/seen"]),
        "666 33:34\n/tmp/keys.sock\n600 0:0\nssh_agent.0\n"
    );
}

#[test]
fn no_agents_socket_outlives_a_daemon_that_is_killed() {
    let mut lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=ssh,required sleep 60\n",
    );
    let socket = lab.daemon.dir.path().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let given = format!("default={}", socket.display());
    let mut build = lab.command(&["build", "--ssh", &given, "."]).spawn().unwrap();
    let room = lab.daemon.dir.path().join("root/tmp");
    let sockets = || {
        let entries = std::fs::read_dir(&room).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().join("agent.sock").exists())
            .count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while sockets() == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "no agent was lent:\n{}",
            lab.daemon.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    lab.daemon.crash_and_restart();
    build.wait().unwrap();
    assert_eq!(sockets(), 0, "a socket of the killed daemon is left");
}

#[test]
fn no_secret_outlives_a_daemon_that_is_killed() {
    let mut lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=secret,id=word sleep 60\n",
    );
    let word = format!("secret of {}", lab.daemon.dir.path().display());
    let secret = lab.daemon.dir.path().join("word");
    std::fs::write(&secret, &word).unwrap();
    let given = format!("id=word,src={}", secret.display());
    let mut build = lab.command(&["build", "--secret", &given, "."]).spawn().unwrap();
    let held = || super::files_with(std::path::Path::new("/dev/shm"), word.as_bytes());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while held().is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "the step got no secret:\n{}",
            lab.daemon.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    lab.daemon.crash_and_restart();
    build.wait().unwrap();
    assert_eq!(held(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn questions_are_answered_without_building() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "ARG BASE=box:1\n# one makes the first thing\nFROM $BASE AS one\n# WORD is what is said\nARG WORD=hi\n\
         RUN --mount=type=secret,id=token,required true\nFROM one AS two\n",
    );
    let (targets, _) = lab.ok(&["buildx", "build", "--call", "targets", "."]);
    assert!(
        targets.contains("one") && targets.contains("makes the first thing"),
        "{targets}"
    );
    assert!(targets.contains("two (default)"), "{targets}");
    let args = [
        "buildx",
        "build",
        "--call",
        "outline",
        "--build-arg",
        "WORD=yes",
        ".",
    ];
    let (outline, _) = lab.ok(&args);
    for part in ["two", "WORD", "yes", "is what is said", "token"] {
        assert!(outline.contains(part), "{part} is not in:\n{outline}");
    }
    let (images, _) = lab.ok(&["images", "-q"]);
    assert_eq!(images.lines().count(), 1, "something was built");
}

#[test]
fn a_dockerfile_is_checked() {
    let lab = lab!();
    for (dockerfile, clean, parts) in [
        (
            "FROM box:1 as first\nMAINTAINER me\n",
            false,
            &["FromAsCasing", "MaintainerDeprecated", "2 | >>> MAINTAINER me"][..],
        ),
        ("FROM box:1 AS first\n", true, &["no warnings found"]),
        ("FROM box:1\nRUNN true\n", false, &["RUNN"]),
    ] {
        lab.write("Dockerfile", dockerfile);
        let output = lab.run(&["buildx", "build", "--call", "check", "."]);
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.success(), clean, "{shown}");
        for part in parts {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
    }
}

#[test]
fn findings_are_told_beside_the_build() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1 as first\nMAINTAINER me\n");
    let (_, shown) = lab.ok(&["build", "."]);
    for part in [
        "2 warnings found",
        "FromAsCasing: ",
        "MaintainerDeprecated: ",
        "(line 2)",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    // They fail the build where the file says so, unless the client says otherwise.
    lab.write(
        "Dockerfile",
        "# check=error=true\nFROM box:1\nMAINTAINER me\nRUN echo $((6 * 7)) was run\n",
    );
    let (_, shown) = lab.fails(&["build", "."]);
    assert!(
        shown.contains("lint violation found for rules: MaintainerDeprecated"),
        "{shown}"
    );
    assert!(!shown.contains("42 was run"), "{shown}");
    lab.ok(&["build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", "."]);
}

#[test]
fn what_is_not_offered_is_refused_before_anything_runs() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nRUN echo ran\n");
    for (args, part) in [
        (
            vec!["--cache-to", "type=azblob,name=n,account_url=http://127.0.0.1:1/"],
            "a cache export of type",
        ),
        (
            vec!["--cache-to", "type=registry,ref=127.0.0.1:1/a,compression=zstd"],
            "\"zstd\" is not offered",
        ),
        (
            vec!["--build-arg", "BUILDKIT_SYNTAX=other/frontend"],
            "only Dockerfiles are read here",
        ),
    ] {
        let all: Vec<&str> = ["buildx", "build", "--no-cache"]
            .into_iter()
            .chain(args)
            .chain(["."])
            .collect();
        let (_, shown) = lab.fails(&all);
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

#[test]
fn a_builder_of_the_remote_driver_needs_no_upgrade() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    lab.write("file", "from afar");
    lab.ok(&[
        "buildx",
        "create",
        "--name",
        "afar",
        "--driver",
        "remote",
        &lab.daemon.socket(),
    ]);
    lab.ok(&["buildx", "build", "--builder", "afar", "-o", "../out", "."]);
    let file = lab.daemon.dir.path().join("out/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "from afar");
}

#[test]
fn a_build_is_pushed() {
    let lab = lab!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let name = format!("127.0.0.1:{}/pushed:1", registry.port);
    lab.write("Dockerfile", "FROM box:1\nRUN echo pushed > /file\n");
    lab.ok(&["buildx", "build", "-t", &name, "--push", "."]);
    lab.daemon.ok(&["rmi", &name]);
    lab.daemon.ok(&["pull", "-q", &name]);
    assert_eq!(lab.run_image(&name, &["cat", "/file"]), "pushed\n");
    // What it was built from lies beside it, and says more where more is asked for.
    lab.ok(&[
        "buildx",
        "build",
        "-t",
        &name,
        "--push",
        "--provenance",
        "mode=max",
        "--build-arg",
        "WORD=told",
        ".",
    ]);
    let format = "{{json .Provenance}}";
    let (shown, _) = lab.ok(&["buildx", "imagetools", "inspect", "--format", format, &name]);
    for part in [
        "slsa-definitions",
        "pkg:docker/box@1",
        "\"build-arg:WORD\"",
        "told",
        "invocationID",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    lab.daemon.ok(&["rmi", "-f", &name]);
    lab.daemon.ok(&["pull", "-q", &name]);
    assert_eq!(lab.run_image(&name, &["cat", "/file"]), "pushed\n");
    let (_, shown) = lab.fails(&["buildx", "build", "--sbom=generator=h.invalid/none:1", "."]);
    let words = "cannot be told without the scanner h.invalid/none:1";
    assert!(shown.contains(words), "{shown}");
    // The registry is asked by the client itself.
    let (shown, _) = lab.ok(&["buildx", "imagetools", "inspect", &name]);
    assert!(shown.contains(&name), "{shown}");
}
