//! The real docker client against our daemon.

use std::path::PathBuf;

use crate::docker;
use crate::support::{ANY_DOCKER, Daemon, text};

#[test]
fn the_real_docker_client_works() {
    guard!();
    if let Err(why) = docker::client(ANY_DOCKER) {
        println!("skipped: {why}");
        return;
    }
    let daemon = Daemon::start();
    let docker = |args: &[&str]| {
        let output = daemon.docker(args).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "docker {args:?}: {}\n{out}{err}\n{}",
            output.status,
            daemon.log()
        );
        out
    };
    assert_eq!(docker(&["run", "--rm", "box:1", "echo", "hi"]), "hi\n");
    docker(&[
        "run", "-d", "--name", "web", "-e", "A=b", "box:1", "sleep", "1000",
    ]);
    assert_eq!(docker(&["exec", "web", "sh", "-c", "echo $A"]), "b\n");
    assert!(docker(&["ps"]).contains("web"));
    assert!(docker(&["top", "web"]).contains("sleep 1000"));
    assert!(docker(&["stats", "--no-stream", "web"]).contains("web"));
    docker(&["exec", "web", "touch", "/new"]);
    assert!(docker(&["diff", "web"]).contains("A /new"));
    docker(&["commit", "web", "saved:1"]);
    docker(&["pause", "web"]);
    docker(&["unpause", "web"]);
    docker(&["rename", "web", "other"]);
    docker(&["stop", "-t", "1", "other"]);
    assert!(docker(&["run", "--rm", "saved:1", "ls", "/new"]).contains("/new"));
    docker(&["rm", "other"]);
    docker(&["images"]);
    docker(&["info"]);
    docker(&["version"]);
    docker(&["volume", "ls"]);
    docker(&["network", "ls"]);
    docker(&["system", "df"]);
    let file: PathBuf = daemon.dir.path().join("saved.tar");
    docker(&["save", "-o", file.to_str().unwrap(), "saved:1"]);
    docker(&["rmi", "saved:1"]);
    docker(&["load", "-i", file.to_str().unwrap()]);
}
