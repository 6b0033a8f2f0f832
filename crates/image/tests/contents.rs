//! What layers do to an image, and what they waste.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use image::{Contents, Image, LoadOptions};
use spec::Digest;
use support::{World, blocking, is_root, log, tar_of};

/// An image of these layers, loaded as `name`.
async fn image_of(world: &World, name: &str, layers: Vec<Vec<u8>>, command: &str) -> Image {
    let config = serde_json::json!({
        "architecture": spec::Platform::host().architecture, "os": "linux",
        "config": {"Cmd": [command]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| Digest::sha256(l)).collect::<Vec<_>>()},
        "history": [{"created_by": "ADD base"}, {"created_by": "ENV x", "empty_layer": true}, {"created_by": "RUN change"}],
    });
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let (config, manifest) = (
        serde_json::to_vec(&config).unwrap(),
        serde_json::to_vec(&manifest).unwrap(),
    );
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", &config), ("manifest.json", &manifest)];
    files.extend(
        names
            .iter()
            .map(String::as_str)
            .zip(layers.iter().map(Vec::as_slice)),
    );
    let archive = tar_of(&files);
    let (images, name) = (world.images.clone(), name.to_owned());
    blocking(move || {
        images
            .load(archive.as_slice(), LoadOptions::default(), log().0)
            .unwrap();
        images.resolve(&name).unwrap()
    })
    .await
}

/// What each layer does, one line each.
fn told(contents: &Contents) -> Vec<String> {
    let lines = contents.layers.iter().enumerate().flat_map(|(index, layer)| {
        let entries = layer.entries.iter();
        entries.map(move |entry| format!("{index} {} {} {}", entry.change, entry.path, entry.bytes))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_tell_what_they_do_and_waste() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let base = tar_of(&[
        ("dir/a", &[1; 1000]),
        ("dir/b", &[2; 2000]),
        ("kept", &[3; 100]),
        ("tree/x/y", &[4; 500]),
    ]);
    let change = tar_of(&[
        ("dir/.wh.a", b""),
        ("dir/b", &[5; 10]),
        ("new", &[6; 50]),
        (".wh.tree", b""),
    ]);
    let image = image_of(&world, "app:1", vec![base.clone(), change], "/one").await;
    let images = world.images.clone();
    let contents = blocking(move || images.contents(&image).unwrap()).await;
    assert_eq!(
        told(&contents),
        [
            "0 added /dir 0",
            "0 added /dir/a 1000",
            "0 added /dir/b 2000",
            "0 added /kept 100",
            "0 added /tree 0",
            "0 added /tree/x 0",
            "0 added /tree/x/y 500",
            "1 removed /dir/a 0",
            "1 changed /dir/b 10",
            "1 added /new 50",
            "1 removed /tree 0",
        ]
    );
    assert_eq!(contents.layers[1].created_by, "RUN change");
    let wasted: Vec<String> = contents
        .wasted
        .iter()
        .map(|w| format!("{} {} {}<{} {}", w.path, w.bytes, w.layer, w.hidden_by, w.why))
        .collect();
    assert_eq!(
        wasted,
        [
            "/dir/b 2000 0<1 replaced",
            "/dir/a 1000 0<1 removed",
            "/tree/x/y 500 0<1 removed"
        ]
    );
    assert_eq!(
        (contents.total_bytes, contents.shown_bytes, contents.wasted_bytes),
        (3660, 160, 3500)
    );
    assert_eq!(contents.total_bytes, contents.shown_bytes + contents.wasted_bytes);

    // Against an image that has the same file from another layer, one of the same size with other bytes, and less.
    let other = tar_of(&[
        ("dir/a", &[1; 1000]),
        ("dir/b", &[9; 2000]),
        ("tree/x/y", &[4; 500]),
    ]);
    let old = image_of(&world, "base:1", vec![base], "/one").await;
    let new = image_of(&world, "other:1", vec![other], "/two").await;
    let images = world.images.clone();
    let comparison = blocking(move || images.compare(&old, &new).unwrap()).await;
    let entries: Vec<String> = comparison
        .entries
        .iter()
        .map(|e| format!("{} {}", e.change, e.path))
        .collect();
    assert_eq!(entries, ["changed /dir/b", "removed /kept"]);
    assert_eq!(comparison.shared_layers, 0);
    let settings: Vec<String> = comparison
        .settings
        .iter()
        .map(|setting| format!("{} {} {}", setting.name, setting.old, setting.new))
        .collect();
    assert_eq!(settings, [r#"Cmd ["/one"] ["/two"]"#]);
}
