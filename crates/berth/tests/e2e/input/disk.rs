//! A disk that is full, while pulling, loading, importing, building and running. The data root is a small filesystem
//! in memory, mounted in the mount namespace of the daemon alone.

use std::process::Command;

use crate::inventory::Inventory;
use crate::support::{Daemon, text, wrapped};
use crate::tarball::{Image, Tar};
use crate::web::{Page, Web};

const SMALL: &str = "48m";
const LARGE: &str = "400m";

/// A daemon whose data root holds at most `size`.
fn start(size: &str) -> Daemon {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let script = r#"mount -t tmpfs -o "size=$1,mode=0711" tmpfs "$2" && shift 2 && exec "$@""#;
    let root = root.display().to_string();
    let wrapper = ["unshare", "-m", "sh", "-c", script, "sh", size, &root];
    let child = wrapped(&wrapper, dir.path()).spawn().unwrap();
    Daemon::of(dir, Vec::new(), child)
}

fn make_space(daemon: &Daemon) {
    let done = Command::new("nsenter")
        .args(["-m", "-t", &daemon.child.id().to_string(), "mount", "-o"])
        .arg(format!("remount,size={LARGE}"))
        .arg(daemon.dir.path().join("root"))
        .status()
        .unwrap();
    assert!(done.success());
}

/// 96 MiB that no compression makes smaller.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..12 << 20).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// The command fails for want of space, leaves nothing, the daemon works on; with space it succeeds.
fn fails_then_succeeds(daemon: &Daemon, args: &[&str]) {
    let before = Inventory::of(daemon);
    let (code, said) = daemon.fails(args);
    assert!(code == 1 || code == 125, "{args:?}: {code} {said}");
    assert!(
        said.to_lowercase().contains("no space left on device"),
        "{args:?}: {said}"
    );
    before.assert_unchanged(daemon, &format!("{args:?} on a full disk"));
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    make_space(daemon);
    daemon.ok(args);
}

#[test]
fn a_pull_that_does_not_fit_leaves_nothing() {
    guard!();
    let daemon = start(SMALL);
    let web = Web::start();
    let image = Image::of(&[Tar::default().file("big", &noise()).finish()]);
    let served = web.serve_image("big", &image);
    fails_then_succeeds(&daemon, &["pull", &served.name]);
}

#[test]
fn an_archive_that_does_not_fit_leaves_nothing() {
    guard!();
    let layer = Tar::default().file("big", &noise()).finish();
    let daemon = start(SMALL);
    let path = daemon.dir.path().join("image.tar").display().to_string();
    std::fs::write(&path, Image::of(std::slice::from_ref(&layer)).archive("big:1")).unwrap();
    fails_then_succeeds(&daemon, &["load", "-i", &path]);
    drop(daemon);
    let daemon = start(SMALL);
    let path = daemon.dir.path().join("rootfs.tar").display().to_string();
    std::fs::write(&path, &layer).unwrap();
    fails_then_succeeds(&daemon, &["import", &path, "big:1"]);
}

#[test]
fn a_build_that_does_not_fit_leaves_nothing() {
    guard!();
    let web = Web::start();
    web.put("/big", Page::of(noise()));
    for (what, dockerfile) in [
        ("COPY", "FROM box:1\nCOPY big /big\n".to_owned()),
        ("ADD", format!("FROM box:1\nADD {} /big\n", web.url("/big"))),
        (
            "RUN",
            "FROM box:1\nRUN /bin/busybox dd if=/dev/zero of=/big bs=1M count=96\n".to_owned(),
        ),
    ] {
        let daemon = start(SMALL);
        let context = daemon.dir.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        if what == "COPY" {
            std::fs::write(context.join("big"), noise()).unwrap();
        }
        let context = context.display().to_string();
        let before = Inventory::of(&daemon);
        let output = daemon.run(&["build", "-t", "big:1", &context]);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(
            said.to_lowercase().contains("no space left on device"),
            "{what}: {said}"
        );
        before.assert_unchanged(&daemon, &format!("{what} on a full disk"));
        daemon.ok(&["run", "--rm", "box:1", "true"]);
        make_space(&daemon);
        daemon.ok(&["build", "-t", "big:1", &context]);
    }
}

#[test]
fn a_container_that_fills_the_disk_can_be_looked_at_and_removed() {
    guard!();
    let daemon = start(SMALL);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "other",
        "box:1",
        "sh",
        "-c",
        "echo well; sleep 1000",
    ]);
    let fill = "/bin/busybox dd if=/dev/zero of=/big bs=64k 2>&1; /bin/busybox dd if=/dev/zero of=/rest bs=1 2>/dev/null; sleep 1000";
    daemon.ok(&["run", "-d", "--name", "greedy", "box:1", "sh", "-c", fill]);
    let full = crate::support::retry(|| {
        let output = daemon.run(&["exec", "greedy", "ls", "/rest"]);
        output.status.success().then_some(())
    });
    assert!(full.is_some(), "{}", daemon.log());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (code, said) = daemon.fails(&[
        "run",
        "--rm",
        "--name",
        "late",
        "box:1",
        "sh",
        "-c",
        "echo x > /file",
    ]);
    assert!(
        code != 0 && said.to_lowercase().contains("no space"),
        "{code} {said}"
    );
    assert!(daemon.ok(&["ps", "-a"]).contains("greedy"));
    assert_eq!(daemon.ok(&["logs", "other"]).trim(), "well");
    assert_eq!(daemon.ok(&["exec", "other", "echo", "alive"]).trim(), "alive");
    daemon.ok(&["rm", "-f", "greedy"]);
    daemon.ok(&["run", "--rm", "box:1", "sh", "-c", "echo x > /file"]);
}
