//! Dockerfiles to images.

use crate::support::Daemon;

#[test]
fn a_dockerfile_becomes_an_image_and_is_cached() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    let dockerfile = "FROM box:1 AS one\nRUN echo built > /built\nFROM box:1\nCOPY --from=one /built /built\nCOPY file /file\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /built /file; echo $A\"]\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let path = context.display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    assert_eq!(daemon.ok(&["run", "--rm", "app:1"]), "built\ncopied\nb\n");
    let first = daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]);
    daemon.ok(&["build", "-t", "app:2", &path]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.Id}}", "app:2"]),
        first,
        "all of it came from the cache"
    );
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nRUN exit 9\n").unwrap();
    let (_, text) = daemon.fails(&["build", &path]);
    assert!(text.contains("returned a non-zero code: 9"), "{text}");
}
