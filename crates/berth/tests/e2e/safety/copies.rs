//! `cp` against a container that fights back.

use std::collections::BTreeSet;
use std::fs;

use crate::support::Daemon;

/// CVE-2018-15664. The container keeps exchanging a directory for a link to a place of the host. Code that resolves
/// the path and opens the result later reads `secret` out of the host, and writes `gift` into it.
#[test]
fn a_path_that_is_exchanged_during_a_copy_stays_inside() {
    guard!();
    let daemon = Daemon::start();
    let victim = daemon.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "secret").unwrap();
    let gift = daemon.dir.path().join("gift");
    fs::write(&gift, "gift").unwrap();
    // The link's target is there inside, too, so that a copy that meets the link is told from one that meets nothing.
    let script = format!(
        "mkdir -p /real {0}; echo harmless > /real/file; echo inside > {0}/file; busybox ln -s {0} /link; \
         while :; do busybox mv /real /x; busybox mv /link /real; busybox usleep 3000; \
         busybox mv /real /link; busybox mv /x /real; busybox usleep 3000; done",
        victim.display()
    );
    daemon.ok(&["run", "-d", "--name", "racer", "box:1", "sh", "-c", &script]);
    let got = daemon.dir.path().join("got");
    let (mut direct, mut through_the_link) = (0, 0);
    // At least so often; more until copies have met both.
    for turn in 0..2000 {
        if turn >= 40 && direct > 0 && through_the_link > 0 {
            break;
        }
        daemon.run(&["cp", &gift.display().to_string(), "racer:/real/gift"]);
        daemon.run(&["cp", "racer:/real/file", &got.display().to_string()]);
        match fs::read_to_string(&got).as_deref() {
            Ok("harmless\n") => direct += 1,
            Ok("inside\n") => through_the_link += 1,
            Ok(other) => panic!("out of the root: {other}"),
            Err(_) => {}
        }
        let _ = fs::remove_file(&got);
    }
    assert!(
        direct > 0 && through_the_link > 0,
        "{direct} copies met the directory and {through_the_link} the link: nothing was tested"
    );
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "secret");
}

/// CVE-2019-14271. An engine that looks up names while it works inside the container's root loads the container's
/// own libraries; its memory map then shows more files than before.
#[test]
fn a_copy_loads_nothing_of_the_containers() {
    guard!();
    let daemon = Daemon::start();
    let files = |daemon: &Daemon| -> BTreeSet<String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.child.id())).unwrap();
        maps.lines()
            .filter_map(|line| line.split_once('/').map(|(_, path)| path.to_owned()))
            .filter(|path| path.contains(".so") || path.contains("nss"))
            .collect()
    };
    daemon.ok(&[
        "run", "-d", "-u", "web", "--name", "one", "box:1", "sleep", "1000",
    ]);
    let library = daemon.dir.path().join("libnss_files.so.2");
    fs::copy("/bin/busybox", &library).unwrap();
    let before = files(&daemon);
    for directory in ["/lib", "/lib64", "/lib/x86_64-linux-gnu", "/usr/lib"] {
        daemon.run(&["exec", "-u", "0", "one", "busybox", "mkdir", "-p", directory]);
        daemon.ok(&[
            "cp",
            "-a",
            &library.display().to_string(),
            &format!("one:{directory}/libnss_files.so.2"),
        ]);
    }
    daemon.ok(&[
        "cp",
        "one:/etc",
        &daemon.dir.path().join("etc").display().to_string(),
    ]);
    assert_eq!(files(&daemon), before);
}
