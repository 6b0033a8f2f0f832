//! Which digest an image's ID is (`--image-id`), and that it is the same wherever it is told.

use serde_json::Value;

use crate::private::Registry;
use crate::support::{Daemon, text};

fn get(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&crate::http::request(daemon, "GET", path, "", b"").body).unwrap()
}

/// The digest of an image's configuration, as its archive tells it.
fn config_of(daemon: &Daemon, name: &str) -> String {
    let archive = daemon.dir.path().join("config-of.tar");
    daemon.ok(&["save", "-o", &archive.display().to_string(), name]);
    let manifest = std::process::Command::new("tar")
        .args(["-xOf", &archive.display().to_string(), "manifest.json"])
        .output()
        .unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    format!("sha256:{}", config.rsplit('/').next().unwrap())
}

/// Everything that tells an ID, told of the image `name`; `id` is what all of it must be.
fn assert_told(daemon: &Daemon, name: &str, id: &str) {
    let line = |args: &[&str]| daemon.ok(args).trim().to_owned();
    assert_eq!(line(&["inspect", "-f", "{{.Id}}", name]), id);
    assert_eq!(line(&["images", "-q", "--no-trunc", name]), id);
    assert_eq!(
        line(&["history", "-q", "--no-trunc", name])
            .lines()
            .next()
            .unwrap(),
        id
    );
    let explored: Value =
        serde_json::from_str(&line(&["image", "explore", "--format", "json", name])).unwrap();
    assert_eq!(explored["Id"].as_str().unwrap(), id);
    let listed = get(daemon, "/v1.51/images/json?manifests=1");
    let tagged = |row: &&Value| row["RepoTags"].as_array().unwrap().iter().any(|tag| tag == name);
    assert_eq!(listed.as_array().unwrap().iter().find(tagged).unwrap()["Id"], id);
    let used = get(daemon, "/v1.51/system/df");
    let rows = used["Images"].as_array().unwrap();
    assert_eq!(rows.iter().find(tagged).unwrap()["Id"], id);

    // Understood in full, without the algorithm, and by its beginning.
    let hex = id.strip_prefix("sha256:").unwrap();
    for known in [id, hex, &hex[..12], &id[..20]] {
        assert_eq!(line(&["inspect", "-f", "{{.Id}}", known]), id, "{known}");
    }
    let container = line(&["create", &hex[..12], "true"]);
    assert_eq!(line(&["inspect", "-f", "{{.Image}}", &container]), id);
    let containers = get(daemon, "/v1.51/containers/json?all=1");
    assert_eq!(containers[0]["ImageID"], id);
    let ancestors = line(&["ps", "-aq", "--no-trunc", "--filter", &format!("ancestor={hex}")]);
    assert_eq!(ancestors, container);
    let refused = daemon.fails(&["rmi", &hex[..12]]).1;
    assert!(refused.contains(&hex[..12]), "{refused}");
    daemon.ok(&["rm", &container]);

    if let Some(docker) = daemon.docker(&["image", "inspect", "-f", "{{.Id}}", &hex[..12]]) {
        assert_eq!(text(&docker.stdout).trim(), id);
        let docker = daemon.docker(&["images", "-q", "--no-trunc", name]).unwrap();
        assert_eq!(text(&docker.stdout).trim(), id);
    }
}

/// What is said while images are made, named and removed.
fn assert_said(daemon: &Daemon, ids: &dyn Fn(&str) -> String) {
    let line = |args: &[&str]| daemon.ok(args).trim().to_owned();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nLABEL said=yes\nRUN echo kept > /data\n",
    )
    .unwrap();
    let (context, iid) = (context.display().to_string(), daemon.dir.path().join("iid"));
    let built = line(&[
        "build",
        "-q",
        "--iidfile",
        &iid.display().to_string(),
        "-t",
        "built:1",
        &context,
    ]);
    let id = ids("built:1");
    assert_eq!(built, id);
    assert_eq!(std::fs::read_to_string(&iid).unwrap().trim(), id);
    assert_told(daemon, "built:1", &id);
    if let Some(docker) = daemon.docker(&["build", "-t", "old:1", &context]) {
        let said = text(&docker.stdout);
        let id = ids("old:1");
        assert!(
            said.contains(&format!("Successfully built {}", &id[7..19])),
            "{said}"
        );
        daemon.ok(&["rmi", "old:1"]);
    }

    let container = line(&["create", "box:1", "true"]);
    let committed = line(&["commit", &container, "committed:1"]);
    assert_eq!(committed, ids("committed:1"));
    daemon.ok(&["rm", &container]);
    let tar = daemon.dir.path().join("base.tar").display().to_string();
    let imported = line(&["import", &tar, "imported:1"]);
    assert_eq!(imported, ids("imported:1"));

    // Loaded without a name, the ID is all that is told.
    let archive = daemon.dir.path().join("nameless.tar").display().to_string();
    daemon.ok(&["save", "-o", &archive, &id]);
    let gone = line(&["rmi", "built:1"]);
    assert!(gone.contains(&format!("Deleted: {id}")), "{gone}");
    let loaded = line(&["load", "-i", &archive]);
    assert!(loaded.contains(&format!("Loaded image ID: {id}")), "{loaded}");
    let pruned = line(&["image", "prune", "-f"]);
    assert!(
        pruned.contains(&format!("deleted: {id}")) || pruned.contains(&format!("Deleted: {id}")),
        "{pruned}"
    );

    // The end of this second, so that nothing of it is missed.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let until = (now.as_secs() + 1).to_string();
    let events = line(&[
        "events",
        "--since",
        "1",
        "--until",
        &until,
        "--filter",
        "type=image",
        "--format",
        "json",
    ]);
    let of = |action: &str| {
        let events = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut of_it = events.filter(|event| event["Action"] == action);
        of_it.any(|event| event["Actor"]["ID"] == id)
    };
    for action in ["save", "untag", "delete", "load"] {
        assert!(of(action), "{action} of {id}:\n{events}");
    }
}

#[test]
fn an_image_is_known_by_its_manifest() {
    guard!();
    let daemon = Daemon::start();
    let id = daemon
        .ok(&["inspect", "-f", "{{.Id}}", "box:1"])
        .trim()
        .to_owned();
    assert_ne!(id, config_of(&daemon, "box:1"));
    assert_told(&daemon, "box:1", &id);
    let ids = |name: &str| daemon.ok(&["inspect", "-f", "{{.Id}}", name]).trim().to_owned();
    assert_said(&daemon, &ids);
}

#[test]
fn an_image_is_known_by_its_configuration_where_that_is_wanted() {
    guard!();
    let daemon = Daemon::start_with(&["--image-id", "config"]);
    let id = config_of(&daemon, "box:1");
    assert_told(&daemon, "box:1", &id);
    assert_said(&daemon, &|name| config_of(&daemon, name));

    // What a registry calls it stays what the registry calls it.
    let Some(registry) = Registry::start("") else {
        return;
    };
    let name = format!("127.0.0.1:{}/team/box:1", registry.port);
    daemon.ok(&["tag", "box:1", &name]);
    daemon.ok(&["push", &name]);
    let digests = daemon.ok(&["inspect", "-f", "{{index .RepoDigests 0}}", &name]);
    let by_digest = digests.trim();
    assert!(!by_digest.contains(&id), "{by_digest}");
    daemon.ok(&["pull", &name]);
    for known in [name.as_str(), by_digest] {
        assert_eq!(
            daemon.ok(&["inspect", "-f", "{{.Id}}", known]).trim(),
            id,
            "{known}"
        );
    }
}

#[test]
fn the_kind_of_id_may_be_changed_at_any_start() {
    guard!();
    let mut daemon = Daemon::start();
    let before = daemon
        .ok(&["inspect", "-f", "{{.Id}}", "box:1"])
        .trim()
        .to_owned();
    let container = daemon.ok(&["create", "box:1", "true"]).trim().to_owned();
    daemon.args.extend(["--image-id".to_owned(), "config".to_owned()]);
    daemon.crash_and_restart();
    let id = config_of(&daemon, "box:1");
    let shown = |what: &str, name: &str| daemon.ok(&["inspect", "-f", what, name]).trim().to_owned();
    assert_eq!(shown("{{.Id}}", "box:1"), id);
    assert_eq!(shown("{{.Image}}", &container), id);
    // What was noted before is still understood.
    assert_eq!(shown("{{.Id}}", &before), id);
    // Gone or not, a container's image is told by the same kind.
    daemon.ok(&["rmi", "-f", "box:1"]);
    assert_eq!(shown("{{.Image}}", &container), id);
}
