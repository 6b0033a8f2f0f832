//! What is the same whichever client builds: what a failing step leaves to be seen of the others, limits of steps, and digests on
//! two machines.

use std::process::{Command, Output, Stdio};

use super::{command, plug_in};
use crate::support::{BERTH, Daemon, build_clients, left_out, text};

/// A build of a directory by our client, by Docker's over `POST /build`, and by Docker's over BuildKit's protocol.
fn by_each_client(daemon: &Daemon, path: &str, args: &[&str]) -> Vec<(&'static str, Output)> {
    let words = [&["build"], args, &[path]].concat();
    let own = Command::new(BERTH)
        .args(&words)
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut all = vec![("berth", own)];
    all.extend(daemon.docker(&words).map(|output| ("docker", output)));
    match build_clients() {
        Ok(clients) => {
            if !daemon.dir.path().join("docker/cli-plugins").exists() {
                plug_in(daemon, &clients);
            }
            all.push((
                "buildkit",
                command(daemon, &clients).args(&words).output().unwrap(),
            ));
        }
        Err(why) => left_out(&why),
    }
    all
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn context(daemon: &Daemon, dockerfile: &str) -> String {
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.display().to_string()
}

/// Two steps run at the same time; one fails when the other has said something and is still running.
#[test]
fn a_failing_step_hides_nothing_of_what_the_others_said() {
    guard!();
    let daemon = Daemon::start();
    let text = "FROM box:1 AS talks\n\
                RUN --mount=type=cache,target=/meet echo $((6 * 7)) was said; touch /meet/told; sleep 600\n\
                FROM box:1 AS fails\n\
                RUN --mount=type=cache,target=/meet while [ ! -e /meet/told ]; do sleep 0.05; done; \
                busybox rm /meet/told; sleep 0.5; echo $((6 * 9)) is why; exit 3\n\
                FROM box:1\nCOPY --from=talks /etc/passwd /a\nCOPY --from=fails /etc/passwd /b\n";
    let path = context(&daemon, text);
    for (client, output) in by_each_client(&daemon, &path, &["--no-cache"]) {
        let shown = said(&output);
        assert!(!output.status.success(), "{client}: {shown}");
        for words in ["42 was said", "54 is why"] {
            assert!(
                shown.contains(words),
                "{client} does not show {words:?}:\n{shown}"
            );
        }
    }
}

/// Not by BuildKit's clients, which have no such flags.
#[test]
fn steps_run_under_the_limits_of_their_build() {
    guard!();
    let daemon = Daemon::start();
    let text = "FROM box:1\nRUN cd /sys/fs/cgroup; exec > /limits; \
                cat memory.max 2> /dev/null || cat memory/memory.limit_in_bytes; \
                if [ -f cpu.max ]; then cat cpu.max; else echo $(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us); fi; \
                busybox nproc; ulimit -n; ulimit -Hn; busybox df -k /dev/shm | busybox awk 'NR==2 {print $2}'\n\
                RUN cd /sys/fs/cgroup; cat memory.max 2> /dev/null || cat memory/memory.limit_in_bytes\n";
    let path = context(&daemon, text);
    let flags = [
        "--no-cache",
        "-m",
        "64m",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
        "--cpuset-cpus",
        "0",
        "--ulimit",
        "nofile=123:456",
        "--shm-size",
        "8m",
        path.as_str(),
    ];
    let words = |tag: &'static str| [&["build", "-t", tag], &flags[..]].concat();
    let mut all = vec![("berth:1", daemon.run(&words("berth:1")))];
    all.extend(
        daemon
            .docker(&words("docker:1"))
            .map(|output| ("docker:1", output)),
    );
    for (tag, output) in all {
        let shown = said(&output);
        assert!(output.status.success(), "{tag}: {shown}");
        // Of every step, not of the first alone.
        assert!(shown.contains("67108864"), "{tag}: {shown}");
        assert_eq!(
            daemon.ok(&["run", "--rm", tag, "cat", "/limits"]),
            "67108864\n50000 100000\n1\n123\n456\n8192\n",
            "{tag}"
        );
    }
    // What takes more than it may is ended, and nothing else.
    let path = context(
        &daemon,
        "FROM box:1\nRUN x=1234567890; while true; do x=$x$x; done\n",
    );
    let (code, shown) = daemon.fails(&["build", "-m", "16m", "--memory-swap", "16m", &path]);
    assert_eq!(code, 137, "{shown}");
    daemon.ok(&["run", "--rm", "box:1", "true"]);
}

#[test]
fn two_machines_give_one_digest() {
    guard!();
    let text = "FROM box:1 AS made\nRUN busybox mkdir /o; echo x > /o/f; ln /o/f /o/g; ln -s f /o/l\n\
                FROM box:1\nCOPY --from=made /o /o\nCOPY file /file\nRUN echo two > /two\nWORKDIR /w\n";
    let first = Daemon::start();
    let base = first.dir.path().join("box.tar").display().to_string();
    first.ok(&["save", "-o", &base, "box:1"]);
    let second = Daemon::start();
    second.ok(&["load", "-i", &base]);
    let args = [
        "--build-arg",
        "SOURCE_DATE_EPOCH=1000000000",
        "--no-cache",
        "-t",
        "same:1",
    ];
    let mut digests = Vec::new();
    for (daemon, time) in [(&first, 1_500_000_000), (&second, 1_600_000_000)] {
        let path = context(daemon, text);
        let file = std::fs::File::create(daemon.dir.path().join("context/file")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time))
            .unwrap();
        daemon.ok(&[&["build", "--rewrite-timestamp"], &args[..], &[path.as_str()]].concat());
        let mut of = vec![daemon.ok(&["inspect", "-f", "{{.Id}}", "same:1"])];
        if let Ok(clients) = build_clients() {
            plug_in(daemon, &clients);
            let output = ["-o", "type=image,name=same:2,rewrite-timestamp=true"];
            let words = [&["buildx", "build"], &args[..3], &output[..], &[path.as_str()]].concat();
            let built = command(daemon, &clients).args(&words).output().unwrap();
            assert!(built.status.success(), "{}", said(&built));
            of.push(daemon.ok(&["inspect", "-f", "{{.Id}}", "same:2"]));
        }
        digests.push(of);
    }
    assert_eq!(digests[0], digests[1]);
    assert!(digests[0].windows(2).all(|two| two[0] == two[1]), "{digests:?}");
}
