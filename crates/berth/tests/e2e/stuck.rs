//! Containers that were killed and cannot end, since the kernel waits for something on their behalf: whoever waits for the end
//! is told what holds it up, and it comes as soon as it can.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Daemon, becomes, host, inspect, retry};

/// A disk that can be made to hold every writer up, uninterruptibly.
struct Disk(PathBuf);

impl Disk {
    /// Nothing, with the reason printed, where there can be none.
    fn new(dir: &Path) -> Option<Disk> {
        if !Path::new("/dev/loop-control").exists() {
            println!("skipped: needs loop devices");
            return None;
        }
        let (image, place) = (dir.join("disk.img"), dir.join("disk"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(&place).unwrap();
        host(&["mke2fs", "-q", "-t", "ext4", image.to_str().unwrap()]);
        host(&[
            "mount",
            "-o",
            "loop",
            image.to_str().unwrap(),
            place.to_str().unwrap(),
        ]);
        Some(Disk(place))
    }

    fn freeze(&self) {
        host(&["fsfreeze", "-f", self.0.to_str().unwrap()]);
    }

    fn thaw(&self) {
        host(&["fsfreeze", "-u", self.0.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever goes on from here on, nobody waits for it for ever.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Waits until a container's first process does.
fn waits_in_the_kernel(daemon: &Daemon, name: &str) {
    let stat = format!("/proc/{}/stat", inspect(daemon, name, "{{.State.Pid}}"));
    let waits = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") D "));
    assert!(
        retry(|| waits().then_some(())).is_some(),
        "{name} goes on writing"
    );
}

#[test]
fn what_cannot_be_paused_is_told_and_goes_on() {
    guard!();
    let daemon = Daemon::start();
    let Some(disk) = Disk::new(daemon.dir.path()) else {
        return;
    };
    let bind = format!("{}:/d", disk.0.display());
    let write = "while :; do echo . >> /d/file; done";
    daemon.keep("held", &["-v", &bind], &["sh", "-c", write]);
    disk.freeze();
    waits_in_the_kernel(&daemon, "held");
    let paused = daemon.run(&["pause", "held"]);
    if paused.status.success() {
        // A freezer of version 1 counts one that waits so as standing still.
        crate::support::left_out("this kernel's freezer does not wait for those who wait in the kernel");
        daemon.ok(&["unpause", "held"]);
    } else {
        let said = crate::support::text(&paused.stderr);
        assert!(said.contains("frozen") && said.contains("10000 ms"), "{said}");
    }
    // It was not left half frozen, and others can be in it.
    assert_eq!(inspect(&daemon, "held", "{{.State.Status}}"), "running");
    assert_eq!(daemon.ok(&["exec", "held", "echo", "well"]), "well\n");
    assert_eq!(
        daemon.told(&["event=pause"], "{{.Action}}").lines().count(),
        usize::from(paused.status.success())
    );
    disk.thaw();
    daemon.ok(&["pause", "held"]);
    assert_eq!(inspect(&daemon, "held", "{{.State.Status}}"), "paused");
    daemon.ok(&["unpause", "held"]);
    daemon.ok(&["rm", "-f", "held"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn what_cannot_be_killed_is_told_and_ends_when_it_can() {
    guard!();
    let daemon = Daemon::start();
    let Some(disk) = Disk::new(daemon.dir.path()) else {
        return;
    };
    let bind = format!("{}:/d", disk.0.display());
    for name in ["removed", "stopped", "again"] {
        let write = format!("while :; do echo . >> /d/{name}; done");
        daemon.keep(name, &["-v", &bind], &["sh", "-c", &write]);
    }
    disk.freeze();
    for name in ["removed", "stopped", "again"] {
        waits_in_the_kernel(&daemon, name);
    }
    let daemon = &daemon;
    let said = std::thread::scope(|scope| {
        let commands: [&[&str]; 3] = [
            &["rm", "-f", "removed"],
            &["stop", "-t", "0", "stopped"],
            &["restart", "-t", "0", "again"],
        ];
        let asked = commands.map(|words| scope.spawn(move || daemon.fails(words).1));
        // Nobody else has to wait.
        assert_eq!(daemon.ok(&["run", "--rm", "box:1", "echo", "well"]), "well\n");
        asked.map(|asked| asked.join().unwrap())
    });
    for (said, name) in said.iter().zip(["removed", "stopped", "again"]) {
        assert!(
            said.contains(&format!("container {name} was killed and has not ended yet"))
                && said.contains("(sh) waits in the kernel"),
            "{said}"
        );
        assert_eq!(inspect(daemon, name, "{{.State.Status}}"), "running");
    }
    disk.thaw();
    for name in ["removed", "stopped", "again"] {
        becomes(
            daemon,
            name,
            "{{.State.Status}} {{.State.ExitCode}}",
            "exited 137",
        );
    }
    daemon.ok(&["rm", "removed", "stopped", "again"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
