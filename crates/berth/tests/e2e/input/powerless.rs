//! A daemon that may do less than root: what it cannot bring onto its disk is told, with what to do, and nothing of it stays.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Stdio};

use sys::namespace::{self, Kind};

use crate::http::request;
use crate::inventory::{Inventory, files};
use crate::support::{Daemon, retry, wrapped};
use crate::tarball::{Image, Tar};
use crate::web::Web;

/// A daemon that `wrapper` becomes, once `prepare` is through with it.
fn start(wrapper: &[&str], prepare: impl FnOnce(&mut Child)) -> Daemon {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let mut child = wrapped(wrapper, dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    prepare(&mut child);
    Daemon::of(dir, Vec::new(), child)
}

/// One that is root in a user namespace with the host's ids.
fn start_in_user_namespace() -> Daemon {
    let script = "read go && ip link set lo up && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--mount", "--net", "sh", "-c", script, "sh"];
    start(&wrapper, |child| {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user")).ok();
        let (ours, id) = (namespace("self"), child.id().to_string());
        let entered = retry(|| namespace(&id).filter(|theirs| ours.as_ref() != Some(theirs)));
        assert!(entered.is_some());
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{id}/{map}"), "0 0 65536\n").unwrap();
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    })
}

/// An image whose middle layer has a device, under layers that are good.
fn with_device() -> Image {
    Image::of(&[
        Tar::default().file("etc/first", b"one").finish(),
        Tar::default()
            .directory("dev")
            .device("dev/zero", (1, 5))
            .finish(),
        Tar::default().file("etc/last", b"three").finish(),
    ])
}

/// A registry that the daemon reaches, wherever it lives.
fn web_for(daemon: &Daemon) -> Web {
    let pid = i32::try_from(daemon.child.id()).unwrap();
    let network = namespace::open(Some(pid), Kind::Network).unwrap();
    namespace::in_namespace(network.as_fd(), Kind::Network, Web::start).unwrap()
}

/// Brings the image in by every way there is, of which none may succeed, or leave anything.
fn refuses(daemon: &Daemon, image: &Image) {
    let served = web_for(daemon).serve_image("devices", image);
    let layer = spec::Digest::sha256(&image.layers[1]).to_string();
    let archive = daemon.dir.path().join("image.tar");
    std::fs::write(&archive, image.archive("devices:1")).unwrap();
    let archive = archive.display().to_string();
    let tree = daemon.dir.path().join("tree.tar");
    std::fs::write(&tree, &image.layers[1]).unwrap();
    let tree = tree.display().to_string();
    let before = Inventory::of(daemon);
    let stored = files(daemon);
    let commands: [(&[&str], i32, bool); 4] = [
        (&["pull", &served.name], 1, true),
        (&["run", "--rm", &served.name], 125, true),
        (&["load", "-i", &archive], 1, true),
        // What is imported has no layer's digest yet.
        (&["import", &tree, "devices:1"], 1, false),
    ];
    for (command, expected, names_layer) in commands {
        let (code, said) = daemon.fails(command);
        assert_eq!(code, expected, "{command:?}: {said}");
        for words in ["\"dev/zero\"", "character 1:5", "CAP_MKNOD"] {
            assert!(said.contains(words), "{command:?}: {said}, without {words}");
        }
        assert!(!names_layer || said.contains(&layer), "{command:?}: {said}");
        assert_eq!(
            said.matches("dev/zero").count(),
            1,
            "{command:?} tells it once: {said}"
        );
        before.assert_unchanged(daemon, &format!("{command:?}"));
        assert_eq!(files(daemon), stored, "{command:?}");
    }
    let body = image.archive("devices:1");
    let answer = request(daemon, "POST", "/images/load?quiet=1", "application/x-tar", &body);
    assert_eq!(answer.status, 403, "{}", answer.body);
}

#[test]
fn devices_in_images_are_refused_where_none_can_be_made() {
    guard!();
    let image = with_device();
    let daemon = start(&["setpriv", "--bounding-set=-mknod"], |_| {});
    refuses(&daemon, &image);
    refuses(&start_in_user_namespace(), &image);
    // Whoever has the right takes the same image.
    let archive = daemon.dir.path().join("image.tar").display().to_string();
    let able = Daemon::start();
    let served = web_for(&able).serve_image("devices", &image);
    able.ok(&["pull", &served.name]);
    able.ok(&["load", "-i", &archive]);
}
