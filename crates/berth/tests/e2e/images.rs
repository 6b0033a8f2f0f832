//! Images by name, built in and mounted.

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
