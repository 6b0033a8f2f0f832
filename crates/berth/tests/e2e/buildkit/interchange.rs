//! Caches between this engine and BuildKit itself, the one in Debian's dockerd: either reads what the other wrote.
//!
//! A hit across is not expected (`docs/building.md`, "Caches that travel"); an error would be told.

use crate::peer::Peer;
use crate::private::Registry;
use crate::support::Daemon;

/// The lines of the step that read a cache: its end is in them.
fn import(shown: &str, name: &str) -> String {
    let title = format!("importing cache manifest from {name}");
    let head = shown.lines().find(|line| line.ends_with(&title));
    let number = head
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("no step");
    let lines = shown
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(number));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn caches_are_read_by_buildkit_and_by_us() {
    guard!();
    let Some(peer) = Peer::start() else { return };
    let daemon = Daemon::start();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let name = |rest: &str| format!("127.0.0.1:{}/{rest}", registry.port);
    daemon.ok(&["tag", "box:1", &name("base:1")]);
    daemon.ok(&["push", &name("base:1")]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "content").unwrap();
    let dockerfile = format!(
        "FROM {base} AS tools\nRUN echo tool > /tool\nFROM {base}\nCOPY --from=tools /tool /\nCOPY file /\nRUN echo run > /run-of-it\n",
        base = name("base:1")
    );
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let context = context.display().to_string();

    // Ours, in the form that this BuildKit knows, and inside an image.
    let (cache, image) = (name("cache:ours"), name("app:ours"));
    let to = format!("type=registry,ref={cache},mode=max,image-manifest=false");
    let both = ["--cache-to", &to, "--cache-to", "type=inline"];
    daemon.built(&[&both[..], &["-t", &image, "--push", &context]].concat());
    for from in [&cache, &image] {
        let args = [
            "build",
            "--network",
            "none",
            "--no-cache=false",
            "--cache-from",
            from,
            "-t",
            "app:1",
            &context,
        ];
        let shown = peer.ok(&args);
        let told = import(&shown, from);
        assert!(
            told.contains("DONE") && !told.contains("ERROR"),
            "{from}: {told}\n{shown}"
        );
    }

    // Theirs, inside an image.
    let theirs = name("app:theirs");
    let inline = [
        "build",
        "--network",
        "none",
        "--build-arg",
        "BUILDKIT_INLINE_CACHE=1",
        "-t",
        &theirs,
        &context,
    ];
    peer.ok(&inline);
    peer.ok(&["push", &theirs]);
    let from = format!("type=registry,ref={theirs}");
    let shown = daemon.built(&[
        "--no-cache-filter",
        "tools",
        "--cache-from",
        &from,
        "-t",
        "app:2",
        &context,
    ]);
    let told = import(&shown, &theirs);
    assert!(
        told.contains("DONE") && !told.contains("ERROR"),
        "{told}\n{shown}"
    );
    assert_eq!(
        daemon.ok(&["run", "--rm", "app:2", "cat", "/tool", "/run-of-it"]),
        "tool\nrun\n"
    );
}
