//! What lies beside an image: statements of a scanner about what the image holds, and how it was made.

use std::path::Path;

use serde_json::Value;

use super::ours::{Place, json};

/// Tells the names of the files that it is given, under BuildKit's protocol for scanners.
const SCANNER: &str = r#"FROM box:1
COPY --chmod=755 <<"EOF" /scan
#!/bin/sh
set -e
cd "$BUILDKIT_SCAN_SOURCE"
touch new 2>/dev/null && exit 9
files=$(echo *)
cat > "$BUILDKIT_SCAN_DESTINATION/extra.spdx.json" <<MORE
{"predicateType": "https://spdx.dev/Document", "predicate": {"name": "extra"}}
MORE
cat > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<MORE
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "${KIND:-https://spdx.dev/Document}",
 "predicate": {"name": "$BUILDKIT_SCAN_SOURCE", "files": "$files", "depth": "$BUILDKIT_SCAN_DEPTH", "own": "$OWN"}}
MORE
EOF
ENV OWN=kept
ARG KIND
ENV KIND=$KIND
ENTRYPOINT ["/scan"]
"#;

/// The statements about the image in a layout's index, each about that image.
fn statements(layout: &Path) -> Vec<Value> {
    let blob = |descriptor: &Value| {
        let (algorithm, hex) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
        json(&layout.join("blobs").join(algorithm).join(hex))
    };
    let index = blob(&json(&layout.join("index.json"))["manifests"][0]);
    let all = index["manifests"]
        .as_array()
        .unwrap_or_else(|| panic!("no index: {index}"));
    let image = all
        .iter()
        .find(|entry| entry["platform"]["os"] == "linux")
        .unwrap();
    let of = &image["digest"];
    let beside = all
        .iter()
        .filter(|entry| entry["annotations"]["vnd.docker.reference.digest"] == *of);
    let layers = beside.flat_map(|entry| blob(entry)["layers"].as_array().unwrap().clone());
    let told = layers.map(|layer| {
        let statement = blob(&layer);
        assert_eq!(
            layer["annotations"]["in-toto.io/predicate-type"],
            statement["predicateType"]
        );
        let hex = of.as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(statement["subject"][0]["digest"]["sha256"], hex, "{statement}");
        statement
    });
    told.collect()
}

#[test]
fn a_scanner_tells_what_an_image_holds() {
    guard!();
    let place = Place::start();
    place.write("Dockerfile", SCANNER);
    place.ok(&["-t", "scan:1", "."]);
    place.ok(&["-t", "scan:odd", "--build-arg", "KIND=odd", "."]);
    place.write("Dockerfile", "FROM scratch\nCOPY one two /\n");
    place.write("one", "1");
    place.write("two", "2");
    let layout = tempfile::tempdir().unwrap();
    let to = format!("type=oci,tar=false,dest={}", layout.path().display());
    let sbom = "--sbom=generator=scan:1,DEPTH=3";
    let (_, shown) = place.ok(&["-t", "app:1", sbom, "--provenance=true", "-o", &to, "."]);
    assert!(shown.contains("generating sbom using scan:1"), "{shown}");
    let told = statements(layout.path());
    let kinds: Vec<&str> = told
        .iter()
        .filter_map(|one| one["predicateType"].as_str())
        .collect();
    let spdx = "https://spdx.dev/Document";
    assert_eq!(kinds, [spdx, spdx, "https://slsa.dev/provenance/v1"]);
    let expected = serde_json::json!({
        "name": "/run/src/core/sbom", "files": "one two", "depth": "3", "own": "kept",
    });
    assert_eq!(told[0]["predicate"], expected);
    assert_eq!(told[1]["predicate"]["name"], "extra");
    let name = told[0]["subject"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("pkg:docker/app@1?"), "{name}");
    // What the cache knows is not scanned again; beside an image that stays here, it is told as well.
    let again = [
        "--attest",
        "type=sbom,generator=scan:1,DEPTH=3",
        "--provenance=false",
    ];
    let (_, shown) = place.ok(&[&["-t", "app:1"], &again[..], &["."]].concat());
    let scanning = shown
        .lines()
        .position(|line| line.contains("generating sbom"))
        .unwrap();
    assert!(
        shown.lines().nth(scanning + 1).unwrap().contains("CACHED"),
        "{shown}"
    );
    let kind = place
        .daemon
        .ok(&["inspect", "-f", "{{.Descriptor.MediaType}}", "app:1"]);
    assert!(kind.contains("index"), "{kind}");
}

#[test]
fn what_is_no_scanner_is_refused_and_who_is_not_asked_does_not_scan() {
    guard!();
    let place = Place::start();
    place.write("Dockerfile", SCANNER);
    place.ok(&["-t", "scan:odd", "--build-arg", "KIND=odd", "."]);
    place.write("Dockerfile", "FROM box:1\nRUN echo x > /x\n");
    for quiet in [
        &["--sbom=false", "."][..],
        &["--sbom=generator=scan:odd", "-o", "files", "."],
    ] {
        let (_, shown) = place.ok(quiet);
        assert!(!shown.contains("sbom"), "{shown}");
    }
    for (scanner, words) in [
        ("scan:odd", "sbom.spdx.json: a statement of the type \"odd\""),
        ("box:1", "scanner box:1"),
        ("h.invalid/none:1", "without the scanner h.invalid/none:1"),
    ] {
        let (_, said) = place.fails(&[&format!("--sbom=generator={scanner}"), "."]);
        assert!(said.contains(words), "{scanner}: {said}");
    }
}
