//! Volumes whose options mount something: a directory of the host, a disk, memory. What a container gets of them, what the
//! image's content does there, and what is said when they cannot be had.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mounts::Shared;
use crate::inventory::Inventory;
use crate::support::{Daemon, inspect, text};

fn create(daemon: &Daemon, name: &str, options: &[(&str, &str)]) {
    let pairs: Vec<String> = options
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut words = vec!["volume", "create"];
    words.extend(pairs.iter().flat_map(|pair| ["-o", pair.as_str()]));
    words.push(name);
    daemon.ok(&words);
}

fn run(daemon: &Daemon, mount: &str, script: &str) -> String {
    daemon.ok(&["run", "--rm", "-v", mount, "box:1", "sh", "-c", script])
}

/// A directory of the host as a volume.
fn bound(daemon: &Daemon, name: &str, options: &str) -> PathBuf {
    let path = daemon.dir.path().join(format!("host-{name}"));
    std::fs::create_dir_all(&path).unwrap();
    let device = path.display().to_string();
    create(
        daemon,
        name,
        &[("type", "none"), ("device", &device), ("o", options)],
    );
    path
}

#[test]
fn a_directory_of_the_host_is_a_volume() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let path = bound(&daemon, "data", "bind");
    let before = Inventory::of(&daemon);
    // Empty, it gets what the image has, with its owner; once.
    assert_eq!(
        run(&daemon, "data:/srv", "cat /srv/seed; echo more > /srv/own"),
        "from the image\n"
    );
    assert_eq!(std::fs::read_to_string(path.join("own")).unwrap(), "more\n");
    std::fs::remove_file(path.join("seed")).unwrap();
    std::fs::write(path.join("host"), "of the host\n").unwrap();
    assert_eq!(
        run(&daemon, "data:/srv", "ls /srv; cat /srv/host"),
        "host\nown\nof the host\n"
    );
    // Not where that is not wanted, and not into what is mounted read-only.
    for (name, options, mount) in [
        ("left", "bind", "left:/srv:nocopy"),
        ("shut", "bind,ro", "shut:/srv"),
    ] {
        let path = bound(&daemon, name, options);
        assert_eq!(run(&daemon, mount, "ls /srv"), "", "{name}");
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "{name}");
        daemon.ok(&["volume", "rm", name]);
    }
    let (_, said) = daemon.fails(&["run", "--rm", "-v", "data:/d:ro", "box:1", "touch", "/d/x"]);
    assert!(said.contains("Read-only file system"), "{said}");
    // It is mounted in the container alone; who has it is known, and what is done to it is done to what describes it.
    daemon.keep("user", &["-v", "data:/d"], &["sleep", "1000"]);
    assert_eq!(
        inspect(
            &daemon,
            "user",
            "{{(index .Mounts 0).Name}} {{(index .Mounts 0).RW}}"
        ),
        "data true"
    );
    assert!(
        daemon
            .fails(&["volume", "rm", "data"])
            .1
            .contains("volume is in use")
    );
    daemon.ok(&["rm", "-f", "user"]);
    for words in [
        &["clone", "data", "copy"][..],
        &["snapshot", "create", "data"],
        &["export", "-o", "/dev/null", "data"],
    ] {
        let (_, said) = daemon.fails(&[&["volume"], words].concat());
        assert!(said.contains("what its options mount"), "{words:?}: {said}");
    }
    before.assert_unchanged(&daemon, "a volume that is bound");
    let listed = [
        "volume",
        "ls",
        "-q",
        "--filter",
        "driver=local",
        "--filter",
        "name=data",
    ];
    assert_eq!(daemon.ok(&listed), "data\n");
    assert_eq!(daemon.ok(&["volume", "ls", "-q", "--filter", "driver=other"]), "");
    daemon.ok(&["volume", "rm", "data"]);
    assert_eq!(std::fs::read_to_string(path.join("own")).unwrap(), "more\n");
}

/// Read-only for a container is all of it, whatever the volume's own options say of its top.
#[test]
fn a_tree_of_the_host_is_read_only_as_a_whole() {
    guard!();
    let daemon = Daemon::start();
    let tree = Shared::make(&daemon.dir.path().join("tree"));
    tree.mount_below("sub");
    let device = tree.0.display().to_string();
    for (name, options) in [("said", "rbind,rw"), ("unsaid", "rbind")] {
        create(
            &daemon,
            name,
            &[("type", "none"), ("device", &device), ("o", options)],
        );
        let script = "cat /d/sub/file; for i in /d /d/sub; do touch $i/x 2>/dev/null || echo no; done";
        assert_eq!(
            run(&daemon, &format!("{name}:/d:ro"), script),
            "below\nno\nno\n",
            "{name}"
        );
        assert_eq!(run(&daemon, &format!("{name}:/d"), script), "below\n", "{name}");
        std::fs::remove_file(tree.0.join("x")).unwrap();
        std::fs::remove_file(tree.0.join("sub/x")).unwrap();
    }
}

/// What a container's user writes belongs to the host's users with its ids, and what would not be the container's is not
/// copied.
#[test]
fn nothing_of_strangers_is_copied_into_a_directory_of_the_host() {
    guard!();
    let mut daemon = Daemon::start();
    for name in ["subuid", "subgid"] {
        std::fs::write(daemon.dir.path().join(name), "containers:300000:65536\n").unwrap();
    }
    let flags = ["--subid-dir".to_owned(), daemon.dir.path().display().to_string()];
    daemon.args.extend(flags);
    daemon.crash_and_restart();
    let path = bound(&daemon, "data", "bind");
    let words = [
        "run",
        "--rm",
        "--userns",
        "auto",
        "-v",
        "data:/srv",
        "box:1",
        "ls",
        "/srv",
    ];
    assert_eq!(daemon.ok(&words), "");
    assert_eq!(std::fs::metadata(path).unwrap().uid(), 0);
}

/// A disk in a file.
struct Disk(String);

impl Disk {
    /// Nothing, with the reason printed, where there can be none.
    fn new(image: &Path) -> Option<Disk> {
        std::fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        let script = "mke2fs -q -t ext4 \"$1\" && debugfs -w -R 'rmdir lost+found' \"$1\" && losetup --find --show \"$1\"";
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(image)
            .output()
            .unwrap();
        if !output.status.success() {
            println!("skipped: no loop device with an ext4: {}", text(&output.stderr));
            return None;
        }
        Some(Disk(text(&output.stdout).trim().to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_disk_is_a_volume() {
    guard!();
    let daemon = Daemon::start();
    let Some(disk) = Disk::new(&daemon.dir.path().join("disk.img")) else {
        return;
    };
    create(
        &daemon,
        "disk",
        &[("type", "ext4"), ("device", &disk.0), ("o", "noatime,nodev")],
    );
    let path = bound(&daemon, "bound", "bind");
    let script = "cat /srv/seed; echo kept > /srv/own; busybox grep ' /srv ' /proc/mounts";
    let seen = run(&daemon, "disk:/srv", script);
    assert!(seen.starts_with("from the image\n"), "{seen}");
    let table = seen.lines().last().unwrap();
    for word in [disk.0.as_str(), " ext4 ", "noatime", "nodev"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    // Files are copied to and from it while no container has it mounted.
    daemon.ok(&[
        "create", "--name", "waits", "-v", "disk:/d", "-v", "bound:/e", "box:1", "true",
    ]);
    let file = daemon.dir.path().join("brought");
    std::fs::write(&file, "brought\n").unwrap();
    for place in ["waits:/d/", "waits:/e/"] {
        daemon.ok(&["cp", file.to_str().unwrap(), place]);
    }
    assert_eq!(
        std::fs::read_to_string(path.join("brought")).unwrap(),
        "brought\n"
    );
    let back = daemon.dir.path().join("back");
    daemon.ok(&["cp", "waits:/d/own", back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "kept\n");
    daemon.ok(&["rm", "waits"]);
    assert_eq!(
        run(
            &daemon,
            "disk:/d:ro",
            "cat /d/brought; touch /d/x 2>/dev/null || echo no"
        ),
        "brought\nno\n"
    );
    // It is the disk that has it.
    assert_eq!(
        run(&daemon, "disk:/d:ro", "cat /d/own /d/seed"),
        "kept\nfrom the image\n"
    );
    let home = daemon.dir.path().join("root/volumes/disk/_data");
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 0);
    daemon.ok(&["volume", "rm", "disk"]);
}

#[test]
fn memory_is_a_volume_as_large_as_it_is_said() {
    guard!();
    let daemon = Daemon::start();
    let options = [
        ("type", "tmpfs"),
        ("device", "tmpfs"),
        ("o", "size=1m,uid=33,mode=1750,nosuid"),
    ];
    create(&daemon, "memory", &options);
    let script = "busybox stat -c '%u %a' /srv; busybox df -k /srv | busybox awk 'NR==2 {print $2}'; ls /srv; \
                  head -c 2000000 /dev/zero > /srv/much 2>/dev/null || echo full; \
                  busybox grep -c ' /srv tmpfs .*nosuid' /proc/mounts";
    let seen = run(&daemon, "memory:/srv", script);
    assert_eq!(seen, "33 1750\n1024\nfull\n1\n");
    // It is the container's own.
    assert_eq!(run(&daemon, "memory:/srv", "ls /srv"), "");
}

#[test]
fn what_cannot_be_mounted_is_told_with_its_volume() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let file = daemon.dir.path().join("file").display().to_string();
    std::fs::write(&file, "no directory\n").unwrap();
    for (name, options) in [
        (
            "nowhere",
            &[("type", "none"), ("device", "/no/such/place"), ("o", "bind")][..],
        ),
        ("notype", &[("type", "nosuchfs"), ("device", "/dev/null")]),
        ("nodisk", &[("type", "ext4"), ("device", "/dev/no-such-disk")]),
        ("nofs", &[("type", "ext4"), ("device", "/dev/null")]),
        (
            "nooption",
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "colour=red")],
        ),
        (
            "nodirectory",
            &[("type", "none"), ("device", &file), ("o", "bind")],
        ),
    ] {
        create(&daemon, name, options);
    }
    let before = Inventory::of(&daemon);
    for (name, why) in [
        ("nowhere", "no such file or directory"),
        ("notype", "the kernel has no filesystem of type \"nosuchfs\""),
        ("nodisk", "no such file or directory"),
        ("nofs", ""),
        ("nooption", "colour"),
    ] {
        // Where the image has nothing, and where it has something that would be copied.
        for target in ["/d", "/srv"] {
            let mount = format!("{name}:{target}");
            let (code, said) = daemon.fails(&["run", "--rm", "-v", &mount, "box:1", "true"]);
            let told = said.contains(&format!("volume {name}")) || said.contains(&format!("volume {name:?}"));
            assert!(
                matches!(code, 125..=127)
                    && told
                    && said.to_lowercase().contains(why)
                    && !said.contains("x-berth"),
                "{name} at {target}: {code} {said}"
            );
        }
    }
    // A file can be mounted, over a file.
    assert_eq!(
        run(&daemon, "nodirectory:/etc/file", "cat /etc/file"),
        "no directory\n"
    );
    before.assert_unchanged(&daemon, "volumes that cannot be mounted");
    // Half of what is needed is refused at once.
    for (options, missing) in [
        (&["-o", "o=bind"][..], "device"),
        (&["-o", "type=none"], "device"),
    ] {
        let (_, said) = daemon.fails(&[&["volume", "create"], options].concat());
        assert!(
            said.contains(&format!("missing required option: {missing:?}")),
            "{said}"
        );
    }
}
