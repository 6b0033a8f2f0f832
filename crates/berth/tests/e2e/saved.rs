//! Archives of images between this engine and Docker's: `docker load` reads what `save` writes, and the reverse, in the form
//! of Debian's dockerd (20.10), which knows nothing of OCI layouts.

use serde_json::Value;

use crate::peer::Peer;
use crate::support::Daemon;

/// What is compared of an image: its configuration, and its layers by what they hold.
fn essence(inspected: &str) -> Value {
    let image: Value = serde_json::from_str::<Value>(inspected).unwrap()[0].take();
    let config = &image["Config"];
    // Engines differ in whether they tell what is not set.
    let parts = [
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Labels",
        "User",
        "Volumes",
        "WorkingDir",
    ]
    .map(|part| {
        let value = &config[part];
        let unset = ["null", "{}", "[]", "\"\""].contains(&value.to_string().as_str());
        (part.to_owned(), if unset { Value::Null } else { value.clone() })
    });
    serde_json::json!({
        "config": parts.into_iter().collect::<serde_json::Map<_, _>>(),
        "layers": image["RootFS"]["Layers"],
        "platform": [image["Os"], image["Architecture"]],
    })
}

#[test]
fn docker_loads_what_is_saved_here_and_the_reverse() {
    guard!();
    let Some(peer) = Peer::start() else { return };
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "of the context\n").unwrap();
    let dockerfile = "FROM box:1\nRUN echo first > /first && ln -s first /link && mkdir /gone\nCOPY file /\nRUN rm -r /gone\n\
                      ENV A=b C=\"d e\"\nLABEL of=ours\nEXPOSE 80/tcp\nVOLUME /data\nUSER web\nWORKDIR /srv\n\
                      ENTRYPOINT [\"cat\"]\nCMD [\"/link\", \"/file\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    daemon.ok(&["build", "-t", "made:1", &context.display().to_string()]);
    daemon.ok(&["tag", "made:1", "made:2"]);
    let file = |name: &str| daemon.dir.path().join(name).display().to_string();

    let ours = file("ours.tar");
    daemon.ok(&["save", "-o", &ours, "made:1", "made:2", "box:1"]);
    let loaded = peer.ok(&["load", "-i", &ours]);
    for name in ["made:1", "made:2", "box:1"] {
        assert!(loaded.contains(&format!("Loaded image: {name}\n")), "{loaded}");
        assert_eq!(
            essence(&peer.ok(&["image", "inspect", name])),
            essence(&daemon.ok(&["image", "inspect", name])),
            "{name}"
        );
    }
    let run = ["run", "--rm", "--network", "none"];
    let shown = peer.ok(&[&run[..], &["made:2"]].concat());
    assert_eq!(shown, "first\nof the context\n");
    let what_is_gone = ["--entrypoint", "ls", "made:1", "/"];
    let listed = peer.ok(&[&run[..], &what_is_gone].concat());
    assert!(listed.contains("link") && !listed.contains("gone"), "{listed}");

    // A layer and settings of theirs on top, and their form of an archive.
    std::fs::write(context.join("more"), "of docker\n").unwrap();
    peer.ok(&["create", "--name", "changed", "made:1"]);
    peer.ok(&["cp", &context.join("more").display().to_string(), "changed:/more"]);
    let changes = ["--change", "ENV MORE=x", "--change", "CMD [\"/more\"]"];
    peer.ok(&[&["commit"], &changes[..], &["changed", "theirs:1"]].concat());
    peer.ok(&["tag", "theirs:1", "theirs:2"]);
    let theirs = file("theirs.tar");
    peer.ok(&["save", "-o", &theirs, "theirs:1", "theirs:2", "made:1"]);
    daemon.ok(&["rmi", "-f", "made:1", "made:2"]);
    let loaded = daemon.ok(&["load", "-i", &theirs]);
    for name in ["theirs:1", "theirs:2", "made:1"] {
        assert!(loaded.contains(&format!("Loaded image: {name}\n")), "{loaded}");
        assert_eq!(
            essence(&daemon.ok(&["image", "inspect", name])),
            essence(&peer.ok(&["image", "inspect", name])),
            "{name}"
        );
    }
    assert_eq!(daemon.ok(&[&run[..], &["theirs:2"]].concat()), "of docker\n");
    assert_eq!(
        daemon.ok(&[&run[..], &["made:1"]].concat()),
        "first\nof the context\n"
    );
    let listed = daemon.ok(&[&run[..], &what_is_gone].concat());
    assert!(listed.contains("link") && !listed.contains("gone"), "{listed}");

    // And once more through both: what came from there is read there.
    let again = file("again.tar");
    daemon.ok(&["save", "-o", &again, "theirs:1"]);
    peer.ok(&["rm", "changed"]);
    peer.ok(&["rmi", "-f", "theirs:1", "theirs:2"]);
    peer.ok(&["load", "-i", &again]);
    assert_eq!(peer.ok(&[&run[..], &["theirs:1"]].concat()), "of docker\n");
}
