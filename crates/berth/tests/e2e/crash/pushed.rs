//! A push whose daemon is killed before each operation: the next push sends what the registry lacks and nothing else, and
//! the registry has the image then.

use spec::Digest;

use super::under::{Victim, Watched};
use super::{AFTERWARDS, points};
use crate::inventory::Inventory;
use crate::servers::memory::MemoryRegistry;
use crate::servers::noise;
use crate::tarball::{Image, Tar};

#[test]
fn a_push_goes_on_from_what_a_killed_daemon_had_sent() {
    guard!();
    let mut watched = Watched::start(&[]);
    let layers = [1, 2, 3].map(|seed| Tar::default().file("noise", &noise(200_000, seed)).finish());
    let path = watched.daemon.dir.path().join("pushed.tar");
    std::fs::write(&path, Image::of(&layers).archive("pushed:1")).unwrap();
    watched
        .daemon
        .ok(&["load", "-q", "-i", &path.display().to_string()]);
    let image = Image::of(&layers);
    let sizes: Vec<(Digest, usize)> = image
        .blobs()
        .into_iter()
        .filter(|(digest, _)| *digest != image.digest())
        .map(|(digest, bytes)| (digest, bytes.len()))
        .collect();
    let before = Inventory::of(&watched.daemon);
    // A registry that has nothing, and the image's name there.
    let fresh = |watched: &Watched| {
        let registry = MemoryRegistry::start(|_, _| None);
        let name = format!("{}:1", registry.name("pushed"));
        watched.daemon.ok(&["tag", "pushed:1", &name]);
        (registry, name)
    };
    let push = |watched: &Watched, name: &str| {
        let output = watched.daemon.run(&["push", name]);
        std::thread::sleep(AFTERWARDS);
        output
    };
    let (registry, name) = fresh(&watched);
    let (operations, output) = watched.watcher.count(Victim::Daemon, || push(&watched, &name));
    assert!(output.status.success(), "{output:?}");
    let whole = registry.manifest("pushed", "1").unwrap();
    let all = registry.received();
    watched.daemon.ok(&["rmi", &name]);
    let (mut kills, mut spared) = (0, 0);
    for point in points(operations) {
        let (registry, name) = fresh(&watched);
        let (killed, _) = watched
            .watcher
            .kill_at(Victim::Daemon, point, || push(&watched, &name));
        let Some(call) = killed else {
            watched.daemon.ok(&["rmi", &name]);
            continue;
        };
        kills += 1;
        watched.start_again();
        let at = format!("killed before operation {point}, {call}");
        let received = registry.received();
        let missing: usize = sizes
            .iter()
            .filter(|(digest, _)| !registry.has_blob(digest))
            .map(|(_, size)| size)
            .sum();
        let again = push(&watched, &name);
        assert!(again.status.success(), "{at}: {again:?}");
        let sent = registry.received() - received;
        assert!(
            sent <= missing,
            "{at}: {sent} bytes sent, and {missing} were missing"
        );
        spared += all.saturating_sub(sent);
        assert_eq!(registry.manifest("pushed", "1").as_ref(), Some(&whole), "{at}");
        for (digest, _) in &sizes {
            assert!(registry.has_blob(digest), "{at}: {digest}");
        }
        watched.daemon.ok(&["rmi", &name]);
        before.assert_unchanged(&watched.daemon, &at);
    }
    println!("killed at {kills} of {operations} operations; {spared} bytes were not sent twice");
    assert!(kills > 0, "nobody was killed");
}
