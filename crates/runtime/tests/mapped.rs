//! Containers in a user namespace that was made for them: what they see of files, devices and the network, and what
//! is on disk afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};

use spec::runtime::{Device, IdMapping, Mount, Namespace, NamespaceType};
use support::{Bundle, captured, finish, possible};
use sys::mount::Overlay;
use sys::namespace::{self, IdRange, Kind, Owned};
use sys::process::Exit;

const BASE: u32 = 320_000;

fn owned() -> Owned {
    let range = IdRange {
        inside: 0,
        outside: BASE,
        count: 65_536,
    };
    namespace::create_user(&[range], &[range], &[Kind::Network]).unwrap()
}

/// A bundle in a user namespace with that map, and an overlay on its root.
fn bundle() -> (Bundle, tempfile::TempDir, Overlay) {
    let mut bundle = Bundle::new();
    let map = IdMapping {
        container_id: 0,
        host_id: BASE,
        size: 65_536,
    };
    let linux = bundle.linux();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let layers = tempfile::tempdir().unwrap();
    for name in ["fs", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    let overlay = Overlay {
        lower: vec![bundle.root()],
        upper: Some(layers.path().join("fs")),
        work: Some(layers.path().join("work")),
        read_only: false,
        ..Overlay::default()
    };
    (bundle, layers, overlay)
}

fn run(bundle: &Bundle, overlay: &Overlay, owned: &Owned) -> (String, Exit) {
    let (stdio, output) = captured();
    let root = runtime::RootFs::Overlay(overlay);
    let mut launch = runtime::Launch::new("mapped", bundle.path(), &bundle.spec, root, stdio);
    launch.userns = Some(owned.user.as_fd());
    launch.netns = Some(owned.others[0].as_fd());
    let running = runtime::create(launch).unwrap().start().unwrap();
    finish(running.pidfd, output)
}

#[test]
fn the_image_belongs_to_the_containers_own_users() {
    if !possible() {
        return;
    }
    let (mut bundle, layers, overlay) = bundle();
    let web = bundle.root().join("web");
    fs::write(&web, "").unwrap();
    chown(&web, Some(33), Some(33)).unwrap();
    bundle.shell(
        "stat -c %u:%g / /bin/busybox /web; echo x > /new; echo x >> /web; mkdir /bin/own; \
         cat /proc/self/uid_map; id -u; ls /sys/class/net",
    );
    let owned = owned();
    let (text, exit) = run(&bundle, &overlay, &owned);
    assert_eq!(exit, Exit::Code(0), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    // The network is its own: only loopback is seen, not the host's interfaces.
    assert_eq!(words, ["0:0", "0:0", "33:33", "0", "320000", "65536", "0", "lo"]);
    // Image ids on disk, in the layer and above it.
    let owner = |path: std::path::PathBuf| fs::symlink_metadata(path).unwrap().uid();
    assert_eq!(owner(layers.path().join("fs/new")), 0);
    assert_eq!(owner(layers.path().join("fs/bin/own")), 0);
    assert_eq!(owner(layers.path().join("fs/web")), 33);
    assert_eq!(owner(web), 33);
}

#[test]
fn devices_are_real_and_belong_to_root() {
    if !possible() {
        return;
    }
    let (mut bundle, _layers, overlay) = bundle();
    let device = |path: &str, uid: u32| Device {
        path: path.into(),
        r#type: "c".to_owned(),
        major: 1,
        minor: 5,
        file_mode: Some(0o640),
        uid: Some(uid),
        gid: Some(0),
    };
    bundle.linux().devices = vec![device("/dev/deep/zero", 7), device("/opt/zero", 0)];
    bundle.shell(
        "stat -c '%n %u:%g %a %t:%T' /dev/null /dev/tty /dev/deep/zero /opt/zero; stat -c %u /dev /dev/deep /dev/pts; \
         echo x > /dev/null && head -c 2 /dev/zero | wc -c; head -c 1 /opt/zero | wc -c; ls -A /dev | grep device; \
         touch /dev/mine && echo mine; mknod /dev/sda b 8 0 || echo refused; readlink /dev/stdin; head -c 1 /dev/random | wc -c",
    );
    let (text, exit) = run(&bundle, &overlay, &owned());
    assert_eq!(exit, Exit::Code(0), "{text}");
    let text = text.replace("mknod: /dev/sda: Operation not permitted\n", "");
    assert_eq!(
        text,
        "/dev/null 0:0 666 1:3\n/dev/tty 0:0 666 5:0\n/dev/deep/zero 7:0 640 1:5\n/opt/zero 0:0 640 1:5\n0\n0\n0\n\
         2\n1\nmine\nrefused\n/proc/self/fd/0\n1\n"
    );
}

#[test]
fn mounts_are_translated_on_request_and_only_then() {
    if !possible() {
        return;
    }
    let (mut bundle, _layers, overlay) = bundle();
    let shared = tempfile::tempdir().unwrap();
    for (name, uid) in [("root", 0), ("seven", 7), ("mapped", BASE + 9)] {
        let path = shared.path().join(name);
        fs::write(&path, "").unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }
    let mount = |destination: &str, options: &[&str]| Mount {
        destination: destination.into(),
        r#type: Some("bind".to_owned()),
        source: Some(shared.path().to_string_lossy().into_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    let swapped = |container_id, host_id| IdMapping {
        container_id,
        host_id,
        size: 1,
    };
    let mut own = mount("/own", &["rbind"]);
    // What user 0 has on disk is user 7's in the container, and the reverse.
    own.uid_mappings = vec![swapped(0, BASE + 7), swapped(7, BASE)];
    own.gid_mappings = own.uid_mappings.clone();
    bundle.spec.mounts.extend([
        mount("/plain", &["rbind"]),
        mount("/translated", &["rbind", "idmap"]),
        own,
    ]);
    bundle.shell(
        "cd /plain; stat -c %u root seven mapped; cd /translated; stat -c %u root seven; touch new; cd /own; \
         stat -c %u root seven",
    );
    let (text, exit) = run(&bundle, &overlay, &owned());
    assert_eq!(exit, Exit::Code(0), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["65534", "65534", "9", "0", "7", "7", "0"]);
    assert_eq!(fs::metadata(shared.path().join("new")).unwrap().uid(), 0);

    let mut half = mount("/half", &["rbind"]);
    half.uid_mappings = vec![swapped(0, BASE)];
    bundle.spec.mounts.push(half);
    let error = bundle.run().unwrap_err().to_string();
    assert!(
        error.contains("/half") && error.contains("gidMappings"),
        "{error}"
    );
}

/// A process that joins has the host's ids until it takes others: the terminal and what it makes would be nobody's.
#[test]
fn further_processes_are_users_of_the_namespace() {
    if !possible() {
        return;
    }
    let (mut bundle, layers, overlay) = bundle();
    bundle.shell("sleep 100");
    let owned = owned();
    let (stdio, first_output) = captured();
    let root = runtime::RootFs::Overlay(&overlay);
    let mut launch = runtime::Launch::new("mapped", bundle.path(), &bundle.spec, root, stdio);
    launch.userns = Some(owned.user.as_fd());
    let first = runtime::create(launch).unwrap().start().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", first.pid)).unwrap();
    assert!(
        status.contains(&format!("\nUid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n")),
        "{status}"
    );
    let exec = |script: &str, uid: u32, stdio: runtime::Stdio| {
        let mut process = bundle.spec.process.clone().unwrap();
        process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
        process.user.uid = uid;
        process.user.gid = uid;
        runtime::exec(runtime::Exec::new(
            first.pid,
            first.pidfd.as_fd(),
            &process,
            stdio,
        ))
        .unwrap()
    };
    // Its own standard output can be opened again: the pipe was given to it.
    let (stdio, output) = captured();
    let running = exec("id -u; echo again > /dev/stdout; touch /tmp/mine", 33, stdio);
    let (text, exit) = finish(running.pidfd, output);
    assert_eq!(exit, Exit::Code(1), "touch is refused");
    assert!(text.starts_with("33\nagain\ntouch: "), "{text}");
    let (stdio, output) = captured();
    let running = exec("touch /tmp/roots", 0, stdio);
    assert_eq!(finish(running.pidfd, output).1, Exit::Code(0));
    assert_eq!(fs::metadata(layers.path().join("fs/tmp/roots")).unwrap().uid(), 0);
    let running = exec("stat -c %u /dev/pts/0; sleep 1000", 33, runtime::Stdio::Terminal);
    let master = running.terminal.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut buffer = [0; 64];
        let count = rustix::io::read(&master, &mut buffer).unwrap();
        line.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(line, b"33\r\n");
    sys::process::send_signal(running.pidfd.as_fd(), 9).unwrap();
    sys::process::wait(running.pidfd.as_fd()).unwrap();
    sys::process::send_signal(first.pidfd.as_fd(), 9).unwrap();
    finish(first.pidfd, first_output);
}

/// A pod's second container: the first one's user namespace by its path, and nothing said about the maps.
#[test]
fn a_user_namespace_is_joined_by_its_path() {
    if !possible() {
        return;
    }
    let (mut first, _layers, _) = bundle();
    first.shell("sleep 100");
    let (stdio, first_output) = captured();
    let running = first.create(stdio).unwrap().start().unwrap();
    let path = |kind: &str| Some(format!("/proc/{}/ns/{kind}", running.pid).into());
    let (mut second, layers, overlay) = bundle();
    let linux = second.linux();
    linux.uid_mappings.clear();
    linux.gid_mappings.clear();
    for namespace in &mut linux.namespaces {
        namespace.path = match namespace.r#type {
            NamespaceType::User => path("user"),
            NamespaceType::Network => path("net"),
            NamespaceType::Pid => path("pid"),
            _ => None,
        };
    }
    second.shell(
        "readlink /proc/self/ns/user; readlink /proc/self/ns/net; cat /proc/self/uid_map; stat -c %u / /dev/null /proc/1; \
         kill -0 1 && ls /sys/class/net; echo x > /made",
    );
    let (stdio, output) = captured();
    let root = runtime::RootFs::Overlay(&overlay);
    let launch = runtime::Launch::new("second", second.path(), &second.spec, root, stdio);
    let joined = runtime::create(launch).unwrap().start().unwrap();
    let (text, exit) = finish(joined.pidfd, output);
    assert_eq!(exit, Exit::Code(0), "{text}");
    let link = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", running.pid)).unwrap();
    let (user, net) = (link("user"), link("net"));
    let expected = [
        user.to_str().unwrap(),
        net.to_str().unwrap(),
        "0",
        "320000",
        "65536",
        "0",
        "0",
        "0",
        "lo",
    ];
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), expected);
    assert_eq!(fs::metadata(layers.path().join("fs/made")).unwrap().uid(), 0);
    sys::process::send_signal(running.pidfd.as_fd(), 9).unwrap();
    finish(running.pidfd, first_output);
}
