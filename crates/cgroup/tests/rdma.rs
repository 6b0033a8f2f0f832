//! Limits on remote memory access, on a device of this machine. `cargo xtask test --vm rdma` makes one of the kernel's
//! software (rxe) in a machine of version 2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cgroup::{Cgroup, CgroupError};
use spec::runtime::{Rdma, Resources};

/// Takes handles of the device one after the other, as the library of its users does (ib_user_verbs.h, GET_CONTEXT), and
/// keeps them.
const TAKE: &str = r#"$| = 1; <STDIN>;
for (1 .. 3) {
    open(my $device, "+<", $ARGV[0]) or die "$ARGV[0]: $!";
    push @kept, $device;
    my $answer = "\0" x 256;
    my $command = pack("LSSQ", 0, 4, 2, unpack("Q", pack("P", $answer)));
    print syswrite($device, $command) ? "taken\n" : "refused: $!\n";
}
<STDIN>;"#;

struct Group(Cgroup);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
        let _ = self.0.remove();
        for path in self.0.paths() {
            let _ = fs::remove_dir(path.directory.parent().unwrap());
        }
    }
}

/// The name of a device, and what opens it.
fn device() -> Option<(String, String)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return None;
    }
    for entry in fs::read_dir("/sys/class/infiniband_verbs")
        .ok()
        .into_iter()
        .flatten()
    {
        let entry = entry.unwrap();
        if let Ok(name) = fs::read_to_string(entry.path().join("ibdev")) {
            let node = Path::new("/dev/infiniband").join(entry.file_name());
            return Some((name.trim().to_owned(), node.to_str().unwrap().to_owned()));
        }
    }
    println!("skipped: this machine has no RDMA device");
    None
}

fn limit(device: &str, hca_handles: Option<u32>, hca_objects: Option<u32>) -> Resources {
    let limit = Rdma {
        hca_handles,
        hca_objects,
    };
    Resources {
        rdma: [(device.to_owned(), limit)].into(),
        ..Resources::default()
    }
}

#[test]
fn rdma_handles_are_limited() {
    let Some((device, node)) = device() else { return };
    let parent = format!("/berth-test-rdma-{}", std::process::id());
    let group = Group(Cgroup::create(&parent, "one").unwrap());
    let read = |file: &str| {
        let paths = group.0.paths();
        let path = paths
            .iter()
            .find(|path| path.controllers.is_empty() || path.controllers.iter().any(|name| name == "rdma"));
        let text = fs::read_to_string(path.unwrap().directory.join(file)).unwrap();
        text.trim().to_owned()
    };
    group.0.apply(&limit(&device, Some(2), None)).unwrap();
    assert_eq!(read("rdma.max"), format!("{device} hca_handle=2 hca_object=max"));
    let mut child = Command::new("perl")
        .args(["-e", TAKE, &node])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    group.0.add(i32::try_from(child.id()).unwrap()).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        line.trim().to_owned()
    };
    let lines = [line(), line(), line()];
    let used = read("rdma.current");
    drop(input);
    child.wait().unwrap();
    assert_eq!(
        lines,
        ["taken", "taken", "refused: Resource temporarily unavailable"]
    );
    assert!(used.starts_with(&format!("{device} hca_handle=2 ")), "{used}");
    // Raised while it is used, and both at once.
    group.0.apply(&limit(&device, Some(3), Some(1000))).unwrap();
    assert_eq!(read("rdma.max"), format!("{device} hca_handle=3 hca_object=1000"));
    let error = group.0.apply(&limit("nosuch0", Some(1), None)).unwrap_err();
    assert!(
        matches!(&error, CgroupError::Refused { path, value, .. }
            if path.ends_with("rdma.max") && value.starts_with("nosuch0 ")),
        "{error}"
    );
}
