//! Dockerfiles to images.

use crate::support::Daemon;

#[test]
fn a_dockerfile_becomes_an_image_and_is_cached() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    let dockerfile = "FROM box:1 AS one\nRUN echo built > /built\nFROM box:1\nCOPY --from=one /built /built\nCOPY file /file\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /built /file; echo $A\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let path = context.display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    assert_eq!(daemon.ok(&["run", "--rm", "app:1"]), "built\ncopied\nb\n");
    let first = daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]);
    daemon.ok(&["build", "-t", "app:2", &path]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.Id}}", "app:2"]),
        first,
        "all of it came from the cache"
    );
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nRUN exit 9\n").unwrap();
    let (_, text) = daemon.fails(&["build", &path]);
    assert!(text.contains("returned a non-zero code: 9"), "{text}");
}

/// A context with these files.
fn context(daemon: &Daemon, name: &str, files: &[(&str, &str)]) -> String {
    let root = daemon.dir.path().join(name);
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    root.display().to_string()
}

/// Steps are cleared away beside the next one; the answer waits for the last.
#[test]
fn nothing_is_left_of_the_steps_when_a_build_is_answered() {
    guard!();
    let daemon = Daemon::start();
    let dockerfile = "FROM box:1\nRUN echo 1 > /a\nRUN echo 2 > /b\nRUN cat /a /b\nRUN exit 3\n";
    let path = context(&daemon, "steps", &[("Dockerfile", dockerfile)]);
    let left = || {
        let entries = std::fs::read_dir(daemon.dir.path().join("root/containers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    let (_, text) = daemon.fails(&["build", &path]);
    assert!(text.contains("returned a non-zero code: 3"), "{text}");
    assert!(left().is_empty(), "{:?}", left());
    std::fs::write(
        daemon.dir.path().join("steps/Dockerfile"),
        dockerfile.replace("RUN exit 3", "RUN test \"$(cat /a /b | wc -l)\" = 2"),
    )
    .unwrap();
    daemon.ok(&["build", &path]);
    assert!(left().is_empty(), "{:?}", left());
    daemon.ok(&["system", "check"]);
}

#[test]
fn a_build_explains_its_cache_and_two_builds_are_compared() {
    guard!();
    let mut daemon = Daemon::start();
    let files = [
        ("Dockerfile", "FROM box:1\nCOPY src /src\nRUN echo x > /x\n"),
        ("src/a", "one\n"),
    ];
    let path = context(&daemon, "explained", &files);
    let first = daemon.ok(&["build", "--explain", "-t", "app:1", &path]);
    assert!(
        first.contains("miss") && first.contains("it was not built before"),
        "{first}"
    );
    let again = daemon.ok(&["build", "--explain", "-t", "app:2", &path]);
    assert!(again.contains("2 of 2 steps from the cache"), "{again}");
    std::fs::write(daemon.dir.path().join("explained/src/a"), "two\n").unwrap();
    let changed = daemon.ok(&["build", "--explain", "-t", "app:3", &path]);
    assert!(changed.contains("file src/a changed: "), "{changed}");
    assert!(changed.contains("the step before it was made again"), "{changed}");
    let difference = daemon.ok(&["build", "diff", "app:1", "app:3"]);
    assert!(
        difference.contains("COPY src /src") && difference.contains("file src/a changed"),
        "{difference}"
    );
    assert_eq!(
        daemon.ok(&["build", "diff", "app:1", "app:2"]),
        "no step differs\n"
    );
    let (_, text) = daemon.fails(&["build", "diff", "app:1", "nosuch"]);
    assert!(text.contains("no build is known by \"nosuch\""), "{text}");
    // The next daemon knows the builds, newest first.
    daemon.crash_and_restart();
    let listed = daemon.ok(&["build", "history", "ls"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("BUILD") && lines.len() == 4, "{listed}");
    for (line, (tag, cached)) in lines[1..]
        .iter()
        .zip([("app:3", "0/2"), ("app:2", "2/2"), ("app:1", "0/2")])
    {
        assert!(
            line.contains("done") && line.ends_with(tag) && line.contains(cached),
            "{listed}"
        );
    }
}

#[test]
fn a_dockerfile_is_checked_and_asked_without_being_built() {
    guard!();
    let daemon = Daemon::start();
    let text = "# the whole thing\nFROM box:1 as Build\nARG VERSION=1\nRUN exit 9\nCMD echo x\n";
    let path = context(&daemon, "checked", &[("Dockerfile", text)]);
    let output = daemon.run(&["build", "--check", &path]);
    let said = crate::support::text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "FromAsCasing",
        "StageNameCasing",
        "JSONArgsRecommended",
        "   5 | >>> CMD echo x",
        "3 warnings",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let document = daemon.run(&["build", "--call", "check,format=json", &path]);
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["warnings"].as_array().unwrap().len(), 3);
    let targets = daemon.ok(&["build", "--call", "targets", &path]);
    assert!(targets.contains("build (default)"), "{targets}");
    let outline = daemon.ok(&["build", "--call", "outline", &path]);
    assert!(outline.contains("VERSION"), "{outline}");
    std::fs::write(
        daemon.dir.path().join("checked/Dockerfile"),
        "FROM box:1\nCMD [\"x\"]\n",
    )
    .unwrap();
    let clean = daemon.ok(&["build", "--check", &path]);
    assert_eq!(clean, "Check complete, no warnings found.\n");
}

#[test]
fn the_context_can_be_looked_at_before_it_is_sent() {
    guard!();
    let daemon = Daemon::start();
    let files = [
        ("Dockerfile", "FROM box:1\n"),
        (".dockerignore", "*.log\nout\n!out/keep\n"),
        ("a.log", "x"),
        ("src/b", "hello"),
        ("out/keep", "x"),
        ("out/drop", "x"),
    ];
    let path = context(&daemon, "printed", &files);
    let said = daemon.ok(&["build", "--print-context", &path]);
    let line = |name: &str| {
        said.lines()
            .find(|line| line.contains(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("a.log").starts_with("left out") && line("a.log").contains("line 1: *.log"),
        "{said}"
    );
    assert!(
        line("out/keep").starts_with("offered") && line("out/keep").contains("line 3: !out/keep"),
        "{said}"
    );
    assert!(line("out/drop").contains("line 2: out"), "{said}");
    assert!(
        line("src/b").starts_with("offered") && line("src/b").contains("5B"),
        "{said}"
    );
    assert!(
        said.ends_with("4 files, 37B may be asked for; 3 left out\n"),
        "{said}"
    );
}

#[test]
fn the_next_build_goes_on_from_what_was_done_when_the_daemon_was_killed() {
    guard!();
    let mut daemon = Daemon::start();
    let text = "FROM box:1\nRUN echo done > /one\nRUN echo done > /two\nRUN while [ ! -e /never ]; do sleep 0.1; done\n";
    let path = context(&daemon, "killed", &[("Dockerfile", text)]);
    let mut build = std::process::Command::new(crate::support::BERTH)
        .args(["build", &path])
        .env("DOCKER_HOST", daemon.socket())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(build.stderr.take().unwrap()));
    let last = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("[4/4] RUN")));
    assert!(last.is_some(), "the last step begins");
    daemon.crash_and_restart();
    build.wait().unwrap();
    let ended = text.replace("[ ! -e /never ]", "[ ! -e /one ]");
    std::fs::write(daemon.dir.path().join("killed/Dockerfile"), ended).unwrap();
    let said = daemon.built(&["-t", "went:on", &path]);
    assert_eq!(said.matches(" CACHED").count(), 2, "{said}");
    assert_eq!(
        daemon.ok(&["run", "--rm", "went:on", "cat", "/one", "/two"]),
        "done\ndone\n"
    );
}

/// Letting go of an overlay has the kernel write all that anybody left unwritten on its filesystem, unless it is volatile; and
/// so does a program that syncs.
#[test]
fn nobody_waits_for_the_disk_where_nothing_is_to_last() {
    guard!();
    let daemon = Daemon::start();
    let text = "FROM box:1 AS other\nRUN echo other > /srv/other\nFROM box:1\n\
                RUN --mount=type=bind,from=other,source=/srv,target=/mnt,rw cat /proc/self/mountinfo > /info\n";
    let path = context(&daemon, "mounts", &[("Dockerfile", text)]);
    daemon.ok(&["build", "-t", "mounts:1", &path]);
    let of = |info: &str, place: &str| {
        let found = info.lines().find(|line| line.split(' ').nth(4) == Some(place));
        found.unwrap_or_default().to_owned()
    };
    let step = daemon.ok(&["run", "--rm", "mounts:1", "cat", "/info"]);
    if !of(&step, "/").contains(" - overlay ") {
        println!("skipped: the data root cannot have overlays");
        return;
    }
    // As kernels before 6.18 or so show it, and those since.
    let is_volatile = |mount: &str| {
        let options = mount.rsplit(' ').next().unwrap_or_default();
        options
            .split(',')
            .any(|option| matches!(option, "volatile" | "fsync=volatile"))
    };
    assert!(
        is_volatile(&of(&step, "/")) && is_volatile(&of(&step, "/mnt")),
        "{step}"
    );
    let gone = daemon.ok(&["run", "--rm", "box:1", "cat", "/proc/self/mountinfo"]);
    assert!(is_volatile(&of(&gone, "/")), "{gone}");
    // What one container left for its next start, or for `cp` and `commit`, is worth the wait.
    let stays = daemon.ok(&["run", "--name", "stays", "box:1", "cat", "/proc/self/mountinfo"]);
    assert!(!is_volatile(&of(&stays, "/")), "{stays}");
    // One that is going to go can be started anew until then.
    daemon.ok(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "going",
        "box:1",
        "sh",
        "-c",
        "echo x >> /count; sleep 600",
    ]);
    let count = || daemon.ok(&["exec", "going", "cat", "/count"]);
    crate::support::retry(|| (count() == "x\n").then_some(())).unwrap();
    daemon.ok(&["restart", "-t", "0", "going"]);
    crate::support::retry(|| (count() == "x\nx\n").then_some(())).unwrap();
}

/// Of builds at the same time, whoever began them, one does what all of them want.
#[test]
fn builds_at_the_same_time_make_a_step_once_and_go_on_when_it_is_given_up() {
    guard!();
    let daemon = Daemon::start();
    let text = "FROM box:1\nRUN cat /proc/sys/kernel/random/uuid > /id; busybox touch /gate/begun; \
                while [ ! -e /gate/open ]; do busybox sleep 0.05; done\n";
    let text = text.replace("RUN cat", "RUN --mount=type=cache,target=/gate cat");
    let path = context(&daemon, "equal", &[("Dockerfile", text.as_str())]);
    // Who opens the gate is another build, and sees the same directory.
    let opens = "FROM box:1\nRUN --mount=type=cache,target=/gate \
                 while [ ! -e /gate/begun ]; do busybox sleep 0.05; done; busybox touch /gate/open\n";
    let begins = "FROM box:1\nRUN --mount=type=cache,target=/gate \
                  while [ ! -e /gate/begun ]; do busybox sleep 0.05; done; busybox rm /gate/begun\n";
    let opens = context(&daemon, "opens", &[("Dockerfile", opens)]);
    let begins = context(&daemon, "begins", &[("Dockerfile", begins)]);
    let build = |tag: &str| {
        let mut command = std::process::Command::new(crate::support::BERTH);
        command
            .args(["build", "--progress", "plain", "-t", tag, &path])
            .env("DOCKER_HOST", daemon.socket())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let waits = |build: &mut std::process::Child| {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(build.stderr.take().unwrap()));
        let mut told = lines.map_while(Result::ok);
        assert!(told.any(|line| line.contains("waiting for another build that does the same")));
        // Who writes must not be left alone with a full pipe.
        std::thread::spawn(move || told.count());
    };
    let mut first = build("equal:1");
    daemon.ok(&["build", "--no-cache", &begins]);
    let mut second = build("equal:2");
    waits(&mut second);
    let mut third = build("equal:3");
    waits(&mut third);
    crate::support::signal(&first.id().to_string(), "-INT");
    assert!(!first.wait().unwrap().success());
    // One of the others does it now.
    daemon.ok(&["build", "--no-cache", &opens]);
    assert!(
        second.wait().unwrap().success() && third.wait().unwrap().success(),
        "{}",
        daemon.log()
    );
    let id = |tag: &str| daemon.ok(&["run", "--rm", tag, "cat", "/id"]);
    assert_eq!(id("equal:2"), id("equal:3"));
}

#[test]
fn an_image_that_was_built_is_pushed_and_told() {
    guard!();
    let daemon = Daemon::start();
    let Some(registry) = crate::private::Registry::start("") else {
        return;
    };
    let dir = daemon.dir.path().join("context");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM box:1\nLABEL built=1\n").unwrap();
    let (context, told) = (dir.display().to_string(), daemon.dir.path().join("told"));
    let names = ["a/b:1", "a/c"].map(|name| format!("127.0.0.1:{}/{name}", registry.port));
    let metadata = told.display().to_string();
    daemon.ok(&[
        "build",
        "-t",
        &names[0],
        "-t",
        &names[1],
        "--push",
        "--metadata-file",
        &metadata,
        &context,
    ]);
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    let digest = told["containerimage.digest"].as_str().unwrap();
    assert_eq!(told["containerimage.descriptor"]["digest"], digest);
    assert_eq!(told["image.name"], format!("{},{}:latest", names[0], names[1]));
    // What the registry has is what was told.
    for name in &names {
        daemon.ok(&["rmi", "-f", name]);
        assert!(daemon.ok(&["pull", name]).contains(digest), "{name}");
    }
    let (_, said) = daemon.fails(&["build", "--push", &context]);
    assert!(said.contains("tag is needed when pushing to registry"), "{said}");
    let (_, said) = daemon.fails(&["build", "--metadata-file", "/no/such/place", &context]);
    assert!(said.contains("cannot write /no/such/place"), "{said}");
}
