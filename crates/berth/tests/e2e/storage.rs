//! Containers, builds and images where layers are copied instead of stacked (`--storage-driver vfs`), and stores whose driver
//! was changed.

use std::process::Command;

use crate::support::{BERTH, Daemon, retry, text};

fn diff(daemon: &Daemon, name: &str) -> Vec<String> {
    daemon.ok(&["diff", name]).lines().map(str::to_owned).collect()
}

/// The bytes that the client counts and those that du counts.
fn space(daemon: &Daemon) -> (u64, u64) {
    let answer = crate::http::request(daemon, "GET", "/v1.51/system/space", "", b"");
    let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let du = Command::new("du")
        .args(["-s", "-B1"])
        .arg(daemon.dir.path().join("root"))
        .output()
        .unwrap();
    let du = text(&du.stdout);
    (
        said["Total"].as_u64().unwrap(),
        du.split_whitespace().next().unwrap().parse().unwrap(),
    )
}

/// Within a hundredth, as soon as the daemon's own files rest.
pub fn assert_space_is_told(daemon: &Daemon) {
    let mut last = (0, 0);
    let told = retry(|| {
        last = space(daemon);
        (last.0.abs_diff(last.1) * 100 <= last.1).then_some(())
    });
    assert!(told.is_some(), "{} said, {} on disk", last.0, last.1);
}

#[test]
fn containers_live_in_copies() {
    guard!();
    let mut daemon = Daemon::start_with(&["--storage-driver", "vfs"]);
    assert_eq!(daemon.ok(&["info", "-f", "{{.Driver}}"]).trim(), "vfs");
    let changing = "rm /srv/seed; echo new > /srv/new; ln /bin/busybox /srv/linked; \
                    mv /tmp /moved; touch /etc; grep -c ' / ' /proc/self/mounts";
    let mounts = daemon.ok(&["run", "--name", "one", "box:1", "busybox", "sh", "-c", changing]);
    assert_eq!(mounts.trim(), "1");
    assert_eq!(
        diff(&daemon, "one"),
        [
            "A /moved",
            "C /srv",
            "A /srv/linked",
            "A /srv/new",
            "D /srv/seed",
            "D /tmp"
        ]
    );
    if let Some(docker) = daemon.docker(&["info", "-f", "{{.Driver}}"]) {
        assert_eq!(text(&docker.stdout).trim(), "vfs", "{}", text(&docker.stderr));
        let inspected = daemon.docker(&["inspect", "-f", "{{.Driver}}", "one"]).unwrap();
        assert_eq!(text(&inspected.stdout).trim(), "vfs");
    }
    // Files go in and out of one that does not run, and a killed daemon loses nothing.
    let file = daemon.dir.path().join("file");
    std::fs::write(&file, "from outside").unwrap();
    daemon.ok(&["cp", &file.display().to_string(), "one:/srv/copied"]);
    daemon.crash_and_restart();
    let out = daemon.dir.path().join("out");
    daemon.ok(&["cp", "one:/srv/copied", &out.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "from outside");
    daemon.ok(&["start", "one"]);
    daemon.ok(&["wait", "one"]);

    daemon.ok(&["commit", "one", "made:1"]);
    let listed = daemon.ok(&["run", "--rm", "made:1", "ls", "/", "/srv"]);
    assert!(
        listed.contains("moved") && listed.contains("copied") && !listed.contains("seed"),
        "{listed}"
    );
    let explored = daemon.ok(&["image", "explore", "--format", "json", "made:1"]);
    let explored: serde_json::Value = serde_json::from_str(&explored).unwrap();
    let layers = explored["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2, "{explored}");
    assert!(layers[1]["Removed"].as_u64().unwrap() >= 2, "{}", layers[1]);
    // Read-only roots and image mounts are the copies, too.
    let (_, refused) = daemon.fails(&["run", "--rm", "--read-only", "box:1", "touch", "/x"]);
    assert!(refused.contains("Read-only file system"), "{refused}");
    let mounted = [
        "run",
        "--rm",
        "--mount",
        "type=image,source=made:1,destination=/img",
        "box:1",
    ];
    assert_eq!(
        daemon.ok(&[&mounted[..], &["cat", "/img/srv/new"]].concat()),
        "new\n"
    );
    // What is said to take space does, copies and all, and it comes back.
    assert_space_is_told(&daemon);
    daemon.ok(&["rm", "one"]);
    daemon.ok(&["rmi", "made:1"]);
    assert_space_is_told(&daemon);
    let left = std::fs::read_dir(daemon.dir.path().join("root/trash"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn builds_copy_and_show_the_same() {
    guard!();
    let daemon = Daemon::start_with(&["--storage-driver", "vfs"]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "copied").unwrap();
    let dockerfile = "\
# syntax=docker/dockerfile:1
FROM box:1 AS one
RUN echo built > /built && mkdir -p /tree/sub && echo deep > /tree/sub/file
FROM box:1
COPY --from=one /tree /tree
COPY file /srv/file
RUN --mount=type=bind,from=one,source=/tree,target=/mnt cat /mnt/sub/file > /seen
RUN --mount=type=bind,from=one,source=/tree,target=/mnt,rw echo more > /mnt/sub/more && cat /mnt/sub/more >> /seen
RUN --mount=type=cache,target=/cache echo x > /cache/x
RUN busybox rm -r /srv/seed /tree/sub
COPY --link file /linked/file
CMD [\"sh\", \"-c\", \"cat /seen /srv/file /linked/file; ls /tree /srv /mnt\"]
";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let path = context.display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    let shown = daemon.ok(&[
        "run",
        "--rm",
        "app:1",
        "sh",
        "-c",
        "cat /seen /srv/file /linked/file; ls /tree /srv",
    ]);
    assert_eq!(shown, "deep\nmore\ncopiedcopied/srv:\nfile\n\n/tree:\n");
    let first = daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]);
    daemon.ok(&["build", "-t", "app:2", &path]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.Id}}", "app:2"]),
        first,
        "from the cache"
    );

    // The archive shows the same where layers are stacked, and what was built is one layer a step there.
    let saved = daemon.dir.path().join("app.tar").display().to_string();
    daemon.ok(&["save", "-o", &saved, "app:1"]);
    let other = Daemon::start_with(&["--storage-driver", "overlay2"]);
    assert_eq!(other.ok(&["info", "-f", "{{.Driver}}"]).trim(), "overlayfs");
    other.ok(&["load", "-i", &saved]);
    let again = other.ok(&[
        "run",
        "--rm",
        "app:1",
        "sh",
        "-c",
        "cat /seen /srv/file /linked/file; ls /tree /srv",
    ]);
    assert_eq!(again, shown);
    assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", "app:1"]), first);
}

/// What a build deletes again is in no squashed layer, however the layers lie and whoever made them.
#[test]
fn squashed_copies_hold_nothing_deleted() {
    guard!();
    let mut daemon = Daemon::start_with(&["--storage-driver", "vfs"]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("secret"), "hush").unwrap();
    let dockerfile = "\
FROM scratch
COPY --from=box:1 / /
COPY secret /srv/secret
RUN mkdir /tree && echo old > /tree/old
RUN rm -r /srv/secret /tree && mkdir /tree && echo new > /tree/new
";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let path = context.display().to_string();
    let build = |daemon: &Daemon, name: &str| daemon.ok(&["build", "--squash", "-t", name, &path]);
    let assert_clean = |daemon: &Daemon, name: &str| {
        let layers = daemon.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", name]);
        assert_eq!(layers.trim(), "1", "{name}");
        let container = daemon.ok(&["create", name, "true"]);
        let saved = daemon.dir.path().join(format!("{name}.tar"));
        daemon.ok(&["export", "-o", &saved.display().to_string(), container.trim()]);
        let listed = Command::new("tar").arg("-tf").arg(&saved).output().unwrap();
        let listed = text(&listed.stdout);
        assert!(
            listed.contains("tree/new") && !listed.contains("secret") && !listed.contains("tree/old"),
            "{name}: {listed}"
        );
    };
    build(&daemon, "copied");
    assert_clean(&daemon, "copied");
    // The steps come from the cache, as copies, and what is squashed is stacked.
    daemon.args = vec!["--storage-driver".to_owned(), "overlay".to_owned()];
    daemon.crash_and_restart();
    build(&daemon, "stacked");
    assert_clean(&daemon, "stacked");
}

#[test]
fn a_changed_driver_goes_on_with_what_is_there() {
    guard!();
    let mut daemon = Daemon::start_with(&["--storage-driver", "overlay"]);
    daemon.ok(&[
        "run",
        "--name",
        "stacked",
        "box:1",
        "sh",
        "-c",
        "echo 1 > /srv/one",
    ]);
    let stop = |daemon: &mut Daemon, driver: &str| {
        daemon.args = vec!["--storage-driver".to_owned(), driver.to_owned()];
        daemon.crash_and_restart();
    };
    stop(&mut daemon, "vfs");
    assert_eq!(diff(&daemon, "stacked"), ["C /srv", "A /srv/one"]);
    daemon.ok(&["commit", "stacked", "both:1"]);
    daemon.ok(&[
        "run",
        "--name",
        "copied",
        "both:1",
        "sh",
        "-c",
        "echo 2 > /srv/two",
    ]);
    stop(&mut daemon, "auto");
    assert_eq!(daemon.ok(&["info", "-f", "{{.Driver}}"]).trim(), "overlayfs");
    assert_eq!(diff(&daemon, "copied"), ["C /srv", "A /srv/two"]);
    daemon.ok(&["commit", "copied", "both:2"]);
    let shown = daemon.ok(&["run", "--rm", "both:2", "ls", "/srv"]);
    assert_eq!(shown, "one\nseed\ntwo\n");

    let refused = Command::new(BERTH)
        .args(["daemon", "--validate", "--storage-driver", "zfs"])
        .output()
        .unwrap();
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("overlay and vfs"),
        "{said}"
    );
}
