//! Images by name, built in and mounted.

use crate::inventory::Inventory;
use crate::support::Daemon;

#[test]
fn the_built_in_image_needs_no_registry() {
    guard!();
    let daemon = Daemon::start();
    assert!(
        daemon
            .ok(&["run", "--rm", "hello-berth"])
            .contains("Hello from Berth!")
    );
}

#[test]
fn a_mounted_image_stays_usable_when_its_name_is_gone() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nRUN echo kept > /data\n").unwrap();
    daemon.ok(&["build", "-t", "mounted:1", &context.display().to_string()]);
    let mount = "type=image,source=mounted:1,target=/image";
    daemon.ok(&[
        "create",
        "--name",
        "user",
        "--mount",
        mount,
        "box:1",
        "cat",
        "/image/data",
    ]);
    daemon.ok(&["rmi", "-f", "mounted:1"]);
    daemon.ok(&["builder", "prune", "-a", "-f"]);
    daemon.ok(&["image", "prune", "-f"]);
    assert_eq!(daemon.ok(&["start", "-a", "user"]).trim(), "kept");
}

/// Of an image with several layers: what is there when one lies on the other, and nothing else.
#[test]
fn a_part_of_an_image_is_what_its_layers_make_together() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    let dockerfile = "FROM box:1\n\
        RUN mkdir -p /tree/deep /gone && echo first > /tree/both && echo below > /tree/below && touch /gone/x /tree/old\n\
        RUN echo second > /tree/both && rm /tree/old && rm -r /gone && ln -s tree /inside && ln -s /etc /outside\n\
        RUN echo third > /tree/deep/file && chmod 751 /tree/deep/file && chown 7:8 /tree/deep/file\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    daemon.ok(&["build", "-t", "layers:1", &context.display().to_string()]);
    let mount = |part: &str| format!("type=image,src=layers:1,dst=/mnt,image-subpath={part}");
    let seen = |part: &str, script: &str| {
        daemon.ok(&[
            "run",
            "--rm",
            "--mount",
            &mount(part),
            "box:1",
            "sh",
            "-c",
            script,
        ])
    };
    let listed = "busybox ls /mnt; cat /mnt/both /mnt/below /mnt/deep/file";
    for part in ["tree", "inside", "tree/deep/.."] {
        assert_eq!(
            seen(part, listed),
            "below\nboth\ndeep\nsecond\nbelow\nthird\n",
            "{part}"
        );
    }
    assert_eq!(seen("tree/both", "cat /mnt"), "second\n");
    let file = seen("inside/deep/file", "cat /mnt; busybox stat -c '%u %g %a' /mnt");
    assert_eq!(file, "third\n7 8 751\n");
    let refused = seen("tree", "echo x > /mnt/both || echo no; touch /mnt/new || echo no");
    assert_eq!(refused, "no\nno\n");
    let before = Inventory::of(&daemon);
    for part in ["gone", "tree/old", "outside", "../..", "/etc", "tree/both/x"] {
        let (code, said) = daemon.fails(&["run", "--rm", "--mount", &mount(part), "box:1", "ls", "/mnt"]);
        assert!(
            matches!(code, 125..=127) && said.contains("cannot access path") && said.contains(part),
            "{part}: {code} {said}"
        );
    }
    before.assert_unchanged(&daemon, "parts that are not there");
}
