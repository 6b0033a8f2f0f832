//! Images in older versions.

use api_types::{ImageInspect, ImageSummary};
use serde_json::{Map, Value, json};

use super::{Change, View, fill, object, view};
use crate::version::ApiVersion;

const INSPECT: &[Change] = &[
    Change {
        since: 52,
        undo: written_when_empty,
    },
    Change {
        since: 52,
        undo: graph_driver,
    },
    Change {
        since: 50,
        undo: container_fields_in_config,
    },
    Change {
        since: 48,
        undo: without_descriptor,
    },
    Change {
        since: 45,
        undo: container_of_the_build,
    },
    Change {
        since: 44,
        undo: virtual_size,
    },
    Change {
        since: 44,
        undo: zero_time,
    },
];

const SUMMARY: &[Change] = &[
    Change {
        since: 51,
        undo: containers_not_counted,
    },
    Change {
        since: 48,
        undo: without_descriptor,
    },
    Change {
        since: 44,
        undo: virtual_size,
    },
    Change {
        since: 43,
        undo: none_names,
    },
];

/// `GET /images/{name}/json`; `parent` and the storage's name are not part of the newest form but of the older ones.
pub fn inspect(newest: ImageInspect, driver: &str, version: ApiVersion) -> View<ImageInspect> {
    let parent = newest.parent.clone();
    let mut answer = view(newest, version, INSPECT);
    if let View::Older(Value::Object(document)) = &mut answer {
        // The undo functions are plain data transformations; what lies outside the document is put in here.
        document.insert("Parent".to_owned(), Value::String(parent));
        if let Some(graph_driver) = object(document, "GraphDriver") {
            graph_driver.insert("Name".to_owned(), Value::from(driver));
        }
    }
    answer
}

/// A row of `GET /images/json`.
pub fn summary(newest: ImageSummary, version: ApiVersion) -> View<ImageSummary> {
    view(newest, version, SUMMARY)
}

/// A row of the old disk usage lists, which differ less from the newest form.
pub fn disk_usage_row(newest: ImageSummary, version: ApiVersion) -> View<ImageSummary> {
    view(
        newest,
        version,
        &[Change {
            since: 44,
            undo: virtual_size,
        }],
    )
}

fn written_when_empty(document: &mut Map<String, Value>) {
    fill(
        document,
        json!({"Parent": "", "Comment": "", "DockerVersion": "", "Author": ""}),
    );
    if let Some(config) = object(document, "Config") {
        fill(
            config,
            json!({
                "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "",
                "Volumes": null, "WorkingDir": "",
            }),
        );
    }
}

fn graph_driver(document: &mut Map<String, Value>) {
    fill(document, json!({"GraphDriver": {"Data": null, "Name": ""}}));
}

/// The image's configuration was written as a whole container configuration.
fn container_fields_in_config(document: &mut Map<String, Value>) {
    if let Some(config) = object(document, "Config") {
        fill(
            config,
            json!({
                "AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "", "Hostname": "",
                "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false,
            }),
        );
    }
}

fn without_descriptor(document: &mut Map<String, Value>) {
    document.remove("Descriptor");
    document.remove("Manifests");
}

fn container_of_the_build(document: &mut Map<String, Value>) {
    fill(document, json!({"Container": "", "ContainerConfig": null}));
}

fn virtual_size(document: &mut Map<String, Value>) {
    let size = document.get("Size").cloned().unwrap_or_default();
    document.insert("VirtualSize".to_owned(), size);
}

fn zero_time(document: &mut Map<String, Value>) {
    fill(document, json!({"Created": api_types::ZERO_TIME}));
}

fn containers_not_counted(document: &mut Map<String, Value>) {
    document.insert("Containers".to_owned(), Value::from(-1));
}

/// Images without any name had a name that says so.
fn none_names(document: &mut Map<String, Value>) {
    let unnamed = ["RepoTags", "RepoDigests"].iter().all(|key| {
        document
            .get(*key)
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    });
    if unnamed {
        document.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        document.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::List;

    #[test]
    fn nameless_images_of_old() {
        let newest = ImageSummary {
            repo_tags: List::empty(),
            repo_digests: List::empty(),
            ..ImageSummary::default()
        };
        let View::Older(old) = summary(newest.clone(), ApiVersion::new(1, 42)) else {
            panic!("a view was expected");
        };
        assert_eq!(old["RepoTags"], json!(["<none>:<none>"]));
        let View::Older(newer) = summary(newest, ApiVersion::new(1, 43)) else {
            panic!("a view was expected");
        };
        assert_eq!(newer["RepoTags"], json!([]));
    }
}
