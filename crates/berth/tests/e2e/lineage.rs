//! Images that were committed from others: what they say of it, and in which order they go.

use crate::support::Daemon;

/// The first line of what a command prints.
fn line(daemon: &Daemon, args: &[&str]) -> String {
    daemon.ok(args).lines().next().unwrap_or_default().to_owned()
}

fn id(daemon: &Daemon, name: &str) -> String {
    line(daemon, &["inspect", "-f", "{{.Id}}", name])
}

/// As the API tells it up to version 1.51; later ones have it in the list only.
fn parent(daemon: &Daemon, name: &str) -> String {
    let path = format!("/v1.51/images/{name}/json");
    let answer = crate::http::request(daemon, "GET", &path, "", b"");
    let image: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    image["Parent"].as_str().unwrap().to_owned()
}

/// An image committed from a container of another one; with its ID.
fn commit(daemon: &Daemon, of: &str, name: &str) -> String {
    daemon.ok(&[
        "run",
        "--name",
        "made",
        of,
        "sh",
        "-c",
        "echo $(cat /made) x > /made",
    ]);
    let made = line(daemon, &["commit", "made", name]);
    daemon.ok(&["rm", "made"]);
    made
}

#[test]
fn a_committed_image_knows_its_parent() {
    guard!();
    let mut daemon = Daemon::start();
    let base = id(&daemon, "box:1");
    assert_eq!(parent(&daemon, "box:1"), "");
    let child = commit(&daemon, "box:1", "child:1");
    let grandchild = commit(&daemon, "child:1", "grandchild:1");
    daemon.crash_and_restart();
    assert_eq!(parent(&daemon, "child:1"), base);
    assert_eq!(parent(&daemon, "grandchild:1"), child);
    // In the list, as the API has it.
    let listed = crate::http::request(&daemon, "GET", "/v1.51/images/json", "", b"").body;
    assert!(
        listed.contains(&format!("\"Id\":\"{grandchild}\""))
            && listed.contains(&format!("\"ParentId\":\"{child}\"")),
        "{listed}"
    );
    // Each step is shown with the image that it made.
    let history = daemon.ok(&["history", "--no-trunc", "--format", "{{.ID}}", "grandchild:1"]);
    assert_eq!(
        history.lines().collect::<Vec<_>>(),
        [&*grandchild, &*child, &*base],
        "{history}"
    );
    // Builds have no parents, whatever they begin with.
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM child:1\nRUN touch /built\n").unwrap();
    daemon.ok(&["build", "-q", "-t", "built:1", &context.display().to_string()]);
    assert_eq!(parent(&daemon, "built:1"), "");
}

#[test]
fn a_parent_stays_as_long_as_it_has_children_and_goes_with_the_last() {
    guard!();
    let daemon = Daemon::start();
    let child = commit(&daemon, "box:1", "child:1");
    let left = commit(&daemon, "child:1", "left:1");
    let right = commit(&daemon, "child:1", "right:1");
    // It loses its name and is there.
    assert_eq!(daemon.ok(&["rmi", "child:1"]), "Untagged: child:1\n");
    assert_eq!(
        line(&daemon, &["inspect", "-f", "{{len .RepoTags}}", &child]),
        "0"
    );
    // Nor does a prune take it, or say that it would.
    let rehearsed = daemon.ok(&["image", "prune", "-f", "--dry-run"]);
    assert!(!rehearsed.contains(&child), "{rehearsed}");
    let pruned = daemon.ok(&["image", "prune", "-f"]);
    assert!(!pruned.contains(&child), "{pruned}");
    assert_eq!(parent(&daemon, "left:1"), child);
    assert_eq!(
        daemon.ok(&["rmi", "left:1"]),
        format!("Untagged: left:1\nDeleted: {left}\n")
    );
    assert_eq!(id(&daemon, &child), child);
    // The last one takes it along, but no image that has a name.
    assert_eq!(
        daemon.ok(&["rmi", "right:1"]),
        format!("Untagged: right:1\nDeleted: {right}\nDeleted: {child}\n")
    );
    let images = daemon.ok(&["images", "-a", "-q"]);
    assert_eq!(images.lines().count(), 1, "{images}");
    // Unless that is not wanted.
    let child = commit(&daemon, "box:1", "child:2");
    let last = commit(&daemon, "child:2", "last:1");
    daemon.ok(&["rmi", "child:2"]);
    assert_eq!(
        daemon.ok(&["rmi", "--no-prune", "last:1"]),
        format!("Untagged: last:1\nDeleted: {last}\n")
    );
    assert_eq!(id(&daemon, &child), child);
    assert!(daemon.ok(&["image", "prune", "-f"]).contains(&child));
}

#[test]
fn a_parent_can_be_forced_away_and_its_child_works_without() {
    guard!();
    let daemon = Daemon::start();
    let child = commit(&daemon, "box:1", "child:1");
    let grandchild = commit(&daemon, "child:1", "grandchild:1");
    let gone = daemon.ok(&["rmi", "-f", "child:1"]);
    assert!(gone.contains(&format!("Deleted: {child}\n")), "{gone}");
    assert_eq!(parent(&daemon, "grandchild:1"), child);
    let history = daemon.ok(&["history", "--no-trunc", "--format", "{{.ID}}", "grandchild:1"]);
    assert_eq!(
        history.lines().collect::<Vec<_>>(),
        [&*grandchild, "<missing>", "<missing>"]
    );
    assert_eq!(
        daemon.ok(&["run", "--rm", "grandchild:1", "cat", "/made"]),
        "x x\n"
    );
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
